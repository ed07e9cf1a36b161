# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host that is measured: a managed host of the test bed, and the ways to run something there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time
import types
import typing as t
import zipfile

import yaml

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = pathlib.Path(os.environ["CLAWOPS_CACHE"])
WORK = "/srv/clawops-bench"  # on the host; gone at the end
BOT = "bench"
Task = dict[str, t.Any]


class Broken(Exception):
    """What can't be measured, and why."""


class Played(t.NamedTuple):
    """A whole ansible-playbook: its seconds and what it said."""

    seconds: float
    output: str


class Box:
    """One host; a context manager that leaves the test bed as it was."""

    def __init__(self, host: str, work: pathlib.Path) -> None:
        self.host, self._work = host, work
        self._started: list[str] = []
        self._later = contextlib.ExitStack()
        self.bed = self._bed_environment()
        if f"CLAWOPS_BED_{host.upper()}" not in self.bed:
            raise Broken(f"The test bed has no host {host}.")
        self._inventory = work / "inventory.yml"
        self._inventory.write_text(yaml.safe_dump(self._describe()))
        collections = work / "ansible_collections/clawops"
        collections.mkdir(parents=True)
        (collections / "fleet").symlink_to(ROOT)
        (work / "ansible.cfg").touch()  # instead of the user's
        self._env = {**os.environ, "ANSIBLE_CONFIG": str(work / "ansible.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(work),
                     "ANSIBLE_INVENTORY": str(self._inventory), "ANSIBLE_NOCOLOR": "1",
                     "ANSIBLE_HOST_PATTERN_MISMATCH": "error"}

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._started:
            self._testbed("down", *self._started)

    # -- the test bed ---------------------------------------------------------------------------------------------

    def up(self, *parts: str) -> None:
        """This host and these parts; what was down goes down again at the end."""
        wanted = [f"dockerhost:{self.host}", *parts]
        down = [part for part in wanted if self._testbed("status", part, check=False).returncode]
        if down:
            self._started += down
            self._testbed("up", *down)
        self.ssh(f"rm -rf {WORK} && mkdir -m 755 {WORK}")
        self.later(self.ssh, f"rm -rf {WORK}")

    def later(self, undo: t.Callable[..., object], *arguments: t.Any, **options: t.Any) -> None:
        """What takes back, at the benchmark's end, what the caller is about to do."""
        self._later.callback(undo, *arguments, **options)

    def undo(self) -> None:
        """The end of a benchmark."""
        self._later.close()

    def _testbed(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([ROOT / "scripts/testbed", *words], capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise Broken(f"testbed {' '.join(words)}:\n{done.stderr[-2000:]}")
        return done

    def _bed_environment(self) -> dict[str, str]:
        words = shlex.split(self._testbed("env").stdout)
        return dict(word.split("=", 1) for word in words if "=" in word)

    def _describe(self) -> Task:
        """The inventory of the box, with this host and one bot of our own."""
        inventory: Task = yaml.safe_load((ROOT / "inventory/local/hosts.yml").read_text())
        address = self.bed[f"CLAWOPS_BED_{self.host.upper()}"]
        inventory["all"]["children"]["docker_hosts"] = {"hosts": {self.host: {"ansible_host": address}}}
        inventory["all"]["children"]["bots"] = {"hosts": {BOT: {"bot_on": self.host}}}
        return inventory

    # -- on the controller ----------------------------------------------------------------------------------------

    def verb(self, name: str, *arguments: str, **variables: t.Any) -> Played:
        """A playbook of the collection."""
        return self._play([f"clawops.fleet.{name}", *arguments, "--extra-vars", json.dumps(variables)])

    def tasks(self, *tasks: Task, env: t.Mapping[str, str] | None = None, **settings: t.Any) -> Played:
        """A playbook of these tasks, without facts. It may hold secrets, so it goes into a file of our own."""
        play = [{"name": "Benchmark", "hosts": self.host, "gather_facts": False, "tasks": list(tasks), **settings}]
        with tempfile.NamedTemporaryFile("w", dir=self._work, suffix=".yml") as file:
            json.dump(play, file)
            file.flush()
            return self._play([file.name], env)

    def _play(self, arguments: list[str], env: t.Mapping[str, str] | None = None) -> Played:
        began = time.perf_counter()
        done = subprocess.run(["ansible-playbook", *arguments], env={**self._env, **(env or {})}, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, check=False)
        took = time.perf_counter() - began
        if done.returncode:
            raise Broken(f"ansible-playbook {arguments[0]}:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
        return Played(took, done.stdout)

    def community(self) -> dict[str, str]:
        """The environment in which community.general is found beside our collection."""
        requirements = HERE / "requirements.txt"
        place = CACHE / f"peers-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]}"
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
                if subprocess.run([*pip, "--requirement", requirements], check=False).returncode:
                    raise Broken("pip could not download the peers.")
                (wheel,) = pathlib.Path(folder).glob("*.whl")
                with zipfile.ZipFile(wheel) as archive:
                    wanted = [name for name in archive.namelist()
                              if name.startswith("ansible_collections/community/general/")]
                    archive.extractall(f"{folder}/peers", wanted)
                os.rename(f"{folder}/peers", place)
        return {"ANSIBLE_COLLECTIONS_PATH": f"{self._work}:{place}"}

    # -- on the host ----------------------------------------------------------------------------------------------

    def ssh(self, command: str, stdin: str = "") -> str:
        """A shell command on the host."""
        options = ["-Fnone", "-oBatchMode=yes", f"-oUserKnownHostsFile={self.bed['CLAWOPS_BED_KNOWN_HOSTS']}"]
        address = f"root@{self.bed[f'CLAWOPS_BED_{self.host.upper()}']}"
        done = subprocess.run(["ssh", *options, "-i", self.bed["CLAWOPS_BED_SSH_KEY"], address, command], input=stdin,
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise Broken(f"{self.host}: {command[:200]}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def send(self, name: str, text: str | None = None) -> str:
        """A file of our own on the host, by default one from far/; returns its path."""
        path = f"{WORK}/{name}"
        content = (HERE / "far" / name).read_text() if text is None else text
        self.ssh(f"umask 077 && cat > {path}", content)
        return path

    def module(self, name: str, arguments: Task) -> types.SimpleNamespace:
        """A module as Ansible runs it on the host, kept there to be run again: command lines `run` and `check`.

        So its time counts all that it does on the host, imports included, and nothing else.
        """
        folder, program = f"{WORK}/{name}", f"{WORK}/{name.rpartition('.')[2]}"
        self.tasks({"name": name, name: arguments, "check_mode": True}, env={"ANSIBLE_KEEP_REMOTE_FILES": "1"},
                   vars={"ansible_remote_tmp": folder})
        self.ssh(f"""set -eu
            mv {folder}/*/AnsiballZ_*.py {program}.check.py
            sed 's/"_ansible_check_mode": true/"_ansible_check_mode": false/' {program}.check.py > {program}.py
            chmod 600 {program}.py""")
        return types.SimpleNamespace(run=f"python3 {program}.py", check=f"python3 {program}.check.py")

    def clock(self, rounds: int, sides: t.Mapping[str, t.Any], before: str = "") -> types.SimpleNamespace:
        """Times shell commands of the host against each other, by far/clock.py: `times` and `last` output by side."""
        full = {name: side if isinstance(side, dict) else {"run": side} for name, side in sides.items()}
        plan = self.send("plan.json", json.dumps({"rounds": rounds, "before": before, "sides": full}))
        return types.SimpleNamespace(**json.loads(self.ssh(f"python3 {self.send('clock.py')} {plan}")))
