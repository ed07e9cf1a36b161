# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host of the test bed as its root sees it: commands, and modules that run there without a controller."""

from __future__ import annotations

import io
import json
import pathlib
import subprocess
import tarfile
import typing as t

import ansible

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
from bed import dockerhost, net

HOSTS = dockerhost.DEFAULT
PLACE = "/opt/clawops-lab"


class Managed:
    """One host. Nothing here goes through its firewall."""

    #: How long a module may take.
    seconds = 180

    def __init__(self, host: str) -> None:
        self.host, self.container = host, net.container(host)

    @staticmethod
    def bed(*words: str) -> None:
        done = subprocess.run([ROOT / "scripts/testbed", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def inside(self, script: str, data: bytes | None = None, check: bool = True) -> str:
        """A shell on the host."""
        argv = ["docker", "exec", "-i", self.container, "sh", "-ec" if check else "-c", script]
        done = subprocess.run(argv, input=data, capture_output=True, check=False, timeout=120,
                              **({} if data is not None else {"stdin": subprocess.DEVNULL}))
        assert done.returncode == 0 or not check, f"{script}\n{(done.stdout + done.stderr).decode()[-3000:]}"
        return done.stdout.decode()

    def install(self) -> None:
        """What runs on the host for the test."""
        self.inside(f"mkdir -p {PLACE}/journal && tar -x -C {PLACE}", _bundle())

    def module(self, name: str, check: bool = False, **arguments: t.Any) -> dict[str, t.Any]:
        """One module on the host, to its end."""
        result = self.start(name, {**arguments, "_ansible_check_mode": check})
        assert not result.get("failed"), result
        return result

    def start(self, name: str, arguments: dict[str, t.Any], **death: t.Any) -> dict[str, t.Any]:
        """One module on the host; what it said, its steps, and whether it was killed."""
        argv = ["docker", "exec", "-i", "-w", PLACE, self.container, "python3", f"{PLACE}/on_host.py", name]
        done = subprocess.run(argv, input=json.dumps({"arguments": arguments, **death}).encode(), capture_output=True,
                              check=False, timeout=self.seconds)
        if done.returncode == 137:
            return {"killed": True}
        assert done.stdout.strip(), done.stderr.decode()[-3000:]
        lines = [line for line in done.stderr.decode().splitlines() if line.startswith("[")]
        return {**json.loads(done.stdout), "steps": json.loads(lines[-1]) if lines else []}


def _bundle() -> bytes:
    """The witness, the attacker, the modules and the part of Ansible that they import."""
    core = pathlib.Path(ansible.__file__).parent
    parts = {ROOT / "scripts/bed/witness.py": "witness.py", HERE / "firewall/attacker.py": "attacker.py",
             HERE / "on_host.py": "on_host.py", core / "module_utils": "ansible/module_utils",
             ROOT / "plugins": "ansible_collections/clawops/fleet/plugins"}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for source, name in parts.items():
            tar.add(source, name, filter=lambda entry: None if "__pycache__" in entry.name else entry)
        tar.addfile(tarfile.TarInfo("ansible/__init__.py"))
    return out.getvalue()
