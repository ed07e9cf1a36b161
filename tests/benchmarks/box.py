# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The test bed as benchmarks use it: a managed host that is measured, and this machine, the controller."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import resource
import shlex
import subprocess
import tempfile
import time
import typing as t

import peers
import yaml
from place import Broken, Place, Played, Task

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = "/srv/clawops-bench"  # on the host; gone at the end
BOT = "bench"


class Box(Place):
    """One host; a context manager that leaves the test bed as it was."""

    folder = WORK
    part = "dockerhost"

    def __init__(self, host: str, work: pathlib.Path, quick: bool = False) -> None:
        self.host, self.work, self.quick = host, work, quick
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

    def some(self, many: int, few: int) -> int:
        """How many of something: a quick look takes few."""
        return few if self.quick else many

    # -- the test bed ---------------------------------------------------------------------------------------------

    def need(self, *parts: str) -> None:
        """These parts of the bed; what was down goes down again at the end."""
        down = [part for part in parts if self._testbed("status", part, check=False).returncode]
        if down:
            self._started += down
            self._testbed("up", *down)

    def up(self, *parts: str) -> None:
        """This host, with a folder of our own, and these parts."""
        self.need(f"{self.part}:{self.host}", *parts)
        self.shell(f"rm -rf {WORK} && mkdir -m 755 {WORK}")
        self.later(self.shell, f"rm -rf {WORK}")

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
        return self.play([f"clawops.fleet.{name}", *arguments, "--extra-vars", json.dumps(variables)])

    def tasks(self, *tasks: Task, env: t.Mapping[str, str] | None = None, **settings: t.Any) -> Played:
        """A playbook of these tasks, without facts. It may hold secrets, so it goes into a file of our own."""
        play = [{"name": "Benchmark", "hosts": self.host, "gather_facts": False, "tasks": list(tasks), **settings}]
        with tempfile.NamedTemporaryFile("w", dir=self.work, suffix=".yml") as file:
            json.dump(play, file)
            file.flush()
            return self.play([file.name], env)

    def play(self, arguments: list[str], env: t.Mapping[str, str] | None = None) -> Played:
        """One ansible-playbook from its start to its end."""
        used, began = processor(), time.perf_counter()
        done = subprocess.run(["ansible-playbook", *arguments], env={**self._env, **(env or {})}, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, check=False)
        took, used = time.perf_counter() - began, processor() - used
        if done.returncode:
            raise Broken(f"ansible-playbook {arguments[0]}:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
        return Played(took, used, done.stdout)

    def community(self) -> dict[str, str]:
        """The environment in which the peers' collections are found beside ours."""
        return {"ANSIBLE_COLLECTIONS_PATH": f"{self.work}:{peers.place()}"}

    # -- on the host ----------------------------------------------------------------------------------------------

    def shell(self, command: str, stdin: str = "") -> str:
        options = ["-Fnone", "-oBatchMode=yes", f"-oUserKnownHostsFile={self.bed['CLAWOPS_BED_KNOWN_HOSTS']}"]
        address = f"root@{self.bed[f'CLAWOPS_BED_{self.host.upper()}']}"
        ssh = ["ssh", *options, "-i", self.bed["CLAWOPS_BED_SSH_KEY"], address, command]
        return finished(self.host, command, ssh, stdin)


class Here(Place):
    """This machine, with the interpreter of the peers for either side."""

    def __init__(self, box: Box) -> None:
        self._box, self.python, self.folder = box, peers.python(), tempfile.mkdtemp(dir=box.work)

    def shell(self, command: str, stdin: str = "") -> str:
        return finished("here", command, ["/bin/bash", "-c", command], stdin)

    def tasks(self, *tasks: Task, env: t.Mapping[str, str] | None = None, **settings: t.Any) -> Played:
        variables = {"ansible_python_interpreter": self.python, **settings.pop("vars", {})}
        return self._box.tasks(*tasks, env=env, hosts="localhost", connection="local", vars=variables, **settings)


def processor() -> float:
    """Seconds of the processor for all children that have ended, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def finished(where: str, command: str, argv: list[str], stdin: str) -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Broken(f"{where}: {command[:200]}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout
