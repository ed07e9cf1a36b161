# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where something is measured, on the host or here, and the ways to run something there."""

from __future__ import annotations

import json
import pathlib
import re
import types
import typing as t

FAR = pathlib.Path(__file__).resolve().parent / "far"
Task = dict[str, t.Any]


class Broken(Exception):
    """What can't be measured, and why."""


class Played(t.NamedTuple):
    """A whole ansible-playbook: its seconds, those of the processor for it and its children here, what it said."""

    seconds: float
    cpu: float
    output: str


class Body(t.NamedTuple):
    """One run of a program, its start and imports apart."""

    seconds: float
    changed: bool


def has_changed(played: Played) -> bool:
    return bool(re.search(r"changed=[1-9]", played.output))


def walls(played: t.Iterable[Played]) -> list[float]:
    return [one.seconds for one in played]


def expect(body: Body, changed: bool) -> Body:
    """Figures of a run that did something else mean nothing."""
    if body.changed != changed:
        raise Broken(f"Changes were {'' if changed else 'not '}to be made.")
    return body


class Place:
    """A folder of our own, a Python, a shell, and playbooks that work there."""

    folder: str
    python = "python3"

    def shell(self, command: str, stdin: str = "") -> str:
        """The output of a shell command; Broken when it fails."""
        raise NotImplementedError

    def tasks(self, *tasks: Task, env: t.Mapping[str, str] | None = None, **settings: t.Any) -> Played:
        """A playbook of these tasks, without facts."""
        raise NotImplementedError

    def send(self, name: str, text: str | None = None) -> str:
        """A file of our own there, by default one from far/; returns its path."""
        path = f"{self.folder}/{name}"
        self.shell(f"umask 077 && mkdir -p {path.rpartition('/')[0]} && cat > {path}",
                   (FAR / name).read_text() if text is None else text)
        return path

    def module(self, name: str, arguments: Task) -> types.SimpleNamespace:
        """A module as Ansible runs it there, kept to be run again: command lines `run` and `check`.

        So its time counts all that it does there, imports included, and nothing else.
        """
        folder, program = f"{self.folder}/{name}", f"{self.folder}/{name.rpartition('.')[2]}"
        # With an environment of its own it is a process of its own, even where Ansible could do the work itself.
        self.tasks({"name": name, name: arguments, "check_mode": True, "environment": {"LC_MEASURED": "1"}},
                   env={"ANSIBLE_KEEP_REMOTE_FILES": "1"}, vars={"ansible_remote_tmp": folder})
        self.shell(f"""set -eu
            mv {folder}/*/AnsiballZ_*.py {program}.check.py
            rm -r {folder}
            sed 's/"_ansible_check_mode": true/"_ansible_check_mode": false/' {program}.check.py > {program}.py
            chmod 600 {program}.py""")
        return types.SimpleNamespace(run=f"{self.python} {program}.py", check=f"{self.python} {program}.check.py")

    def clock(self, rounds: int, sides: t.Mapping[str, t.Any], before: str = "") -> types.SimpleNamespace:
        """Times shell commands against each other there, by far/clock.py: `times` and `last` output by side.

        A side is a command, or has `run`, `before`, and `reads`: what it says itself of its time, in JSON.
        """
        full = {name: side if isinstance(side, dict) else {"run": side} for name, side in sides.items()}
        plan = self.send("plan.json", json.dumps({"rounds": rounds, "before": before, "sides": full}))
        return types.SimpleNamespace(**json.loads(self.shell(f"{self.python} {self.send('clock.py')} {plan}")))

    def body(self, name: str, arguments: Task) -> t.Callable[[], Body]:
        """A module's own work with these arguments, its start and imports apart. The first run counts for nothing."""
        return self._timed(self.body_command(name, arguments))

    def body_command(self, name: str, arguments: Task) -> str:
        """The same as a command line that writes JSON."""
        folder = self._fresh()
        self.shell(f"{self.module(name, arguments).run} explode && mv {self.folder}/debug_dir/* {folder}")
        collection, _dot, short = name.rpartition(".")
        return self._command(folder, f"ansible_collections.{collection}.plugins.modules.{short}")

    def bare(self, name: str, arguments: Task) -> t.Callable[[], Body]:
        """The same of a program from far/ that has a main() which reads `args` beside it."""
        return self._timed(self.bare_command(name, arguments))

    def bare_task(self, name: str, arguments: Task) -> Task:
        """Such a program as the one task of a playbook."""
        return {"name": name, "ansible.builtin.command": self.bare_command(name, arguments), "register": "said",
                "changed_when": "(said.stdout | from_json).changed"}

    def bare_command(self, name: str, arguments: Task) -> str:
        folder = self._fresh()
        inside = folder.removeprefix(f"{self.folder}/")
        self.send(f"{inside}/{name}.py", (FAR / f"{name}.py").read_text())
        self.send(f"{inside}/args", json.dumps(arguments))
        return self._command(folder, name)

    def _fresh(self) -> str:
        return self.shell(f"mktemp -d {self.folder}/body.XXXXXX").strip()

    def _command(self, folder: str, program: str) -> str:
        return f"{self.python} -B {self.send('body.py')} {folder} {program}"

    def _timed(self, command: str) -> t.Callable[[], Body]:
        def run() -> Body:
            return Body(**json.loads(self.shell(command)))

        return run
