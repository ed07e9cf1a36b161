# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Commands on hosts of the inventory without a play: by the plugins, variables and settings that a play would use."""

from __future__ import annotations

import getpass
import threading
import time
import typing as t

from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.module_utils.common.text.converters import to_text
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import become_loader, connection_loader

Vars = dict[str, t.Any]
Answer = t.TypeVar("Answer")


class Said(t.NamedTuple):
    """What a command left behind."""

    rc: int
    out: str
    err: str


class Remote:
    """A host by its variables; evaluate makes values of templates. Commands run as root and for timeout seconds."""

    def __init__(self, values: t.Mapping[str, t.Any], evaluate: t.Callable[[t.Any], t.Any], timeout: int) -> None:
        self._values, self._evaluate, self._timeout = values, evaluate, timeout
        kind = evaluate(values.get("ansible_connection", C.DEFAULT_TRANSPORT))
        self._connection = connection_loader.get("ssh" if kind == "smart" else kind, PlayContext())
        if self._connection is None:
            raise AnsibleError(f"there is no connection plugin {kind}")
        limits = {"ansible_timeout": timeout, "ansible_ssh_timeout": timeout}
        self._connection.set_options(var_options={**self._options("connection", self._connection), **limits})
        user = None if kind == "local" else self._connection.get_option("remote_user")
        if (user or getpass.getuser()) != "root":
            self._become(evaluate(values.get("ansible_become_method", "sudo")))

    def _options(self, kind: str, plugin: t.Any) -> Vars:
        names = C.config.get_plugin_vars(kind, plugin._load_name)
        return {name: self._evaluate(self._values[name]) for name in names if name in self._values}

    def _become(self, method: str) -> None:
        become = become_loader.get(method)
        if become is None:
            raise AnsibleError(f"there is no become plugin {method}")
        become.set_options(var_options=self._options("become", become))
        self._connection.set_become_plugin(become)

    def __call__(self, command: str, data: bytes = b"\n") -> Said:
        """data is for its standard input: something keeps ssh from a terminal, which would mix output and errors."""
        become = self._connection.become
        command = f"timeout {self._timeout} {command}"
        if become is not None:
            command = become.build_become_command(command, self._connection._shell)
        rc, out, err = self._connection.exec_command(command, in_data=data, sudoable=become is not None)
        return Said(rc, to_text(out), to_text(err))


def at_once(questions: t.Mapping[str, t.Callable[[], Answer]], seconds: float) -> dict[str, Answer | Exception]:
    """The answers to all questions, each asked in a thread of its own; an error for those that take too long."""
    answers: dict[str, Answer | Exception] = {}

    def ask(name: str) -> None:
        try:
            answers[name] = questions[name]()
        except Exception as error:  # pylint: disable=broad-except
            answers[name] = error

    # Daemons: one that hangs must not keep the program from its end.
    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in questions]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    late = AnsibleError("there was no answer in time")
    return {name: answers.get(name, late) for name in questions}
