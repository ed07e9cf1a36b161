# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The SSH connection to the Docker host of a space, whose program clawops-space carries everything into the space."""

from __future__ import annotations

DOCUMENTATION = r"""
name: space
short_description: Run tasks in a sandboxed space of a Docker host
version_added: 0.1.0
description:
  - Connects over SSH to the Docker host and runs tasks in one of its spaces, so that any playbook runs there. A space
    that sleeps is woken.
  - O(host) and all other options of P(ansible.builtin.ssh#connection) are those of the Docker host. The host needs the
    program C(clawops-space), which the role C(clawops.fleet.sandbox_host) installs. A login that isn't root's needs
    C(sudo) without a password.
  - Each command is in the audit log of the Docker host.
notes:
  - Nobody becomes another user in a space, because its processes can't gain privileges. C(become) is refused; tasks run
    as the space's user.
  - Modules need C(python3) in the space, and a directory that can be written. C(~) is C(/workspace) there.
  - As with SSH, a command that ends with 255 looks like a connection that failed.
options:
  space:
    description: Name of the space.
    type: str
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: space_name
  actor:
    description: Who acts, for the audit log. By default the login user.
    type: str
    vars:
      - name: fleet_actor
  job:
    description: The controller's job, for the audit log.
    type: str
    vars:
      - name: tower_job_id
      - name: awx_job_id
extends_documentation_fragment:
  - connection_pipelining
  - clawops.fleet.ssh
author: clawops.fleet maintainers (@clawops)
"""

import re
import secrets
import shlex
import typing as t

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.common.text.converters import to_text
from ansible.plugins.connection.ssh import Connection as Host

from ..module_utils._errors import FleetError
from ..module_utils._ownership import check_name

PROGRAM = "/usr/local/sbin/clawops-space"
#: How the program ends when it could not do what it should, as the engine's own client does.
FAILED = 125
Answer = tuple[int, bytes, bytes]


class Connection(Host):  # type: ignore[misc]
    transport = "clawops.fleet.space"

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> Answer:
        if self.become:
            raise AnsibleError(f"In the space {self.get_option('space')} nobody can become another user. Set become: "
                               "false; tasks run as the space's user.")
        return self._inside(self._at_home(cmd), in_data)

    def _at_home(self, cmd: str) -> str:
        """Ansible asks for the home of the login user, whom only the host knows; at home is here the space's user."""
        login = self.get_option("remote_user")
        return re.sub(rf"echo ~{re.escape(login)}(?![\w.-])", "echo ~", cmd, count=1) if login else cmd

    def put_file(self, in_path: str, out_path: str) -> None:  # type: ignore[override]
        """By way of the host, in a directory that only its login can read: that takes files of any size."""
        with _Passage(self) as passage:
            super().put_file(in_path, passage.file)
            passage.check(self._inside(f"cat > {shlex.quote(out_path)}", before=f"exec < {passage.file}; "),
                          f"{in_path} can't be put to {out_path}")

    def fetch_file(self, in_path: str, out_path: str) -> None:  # type: ignore[override]
        with _Passage(self) as passage:
            passage.check(self._inside(f"exec cat < {shlex.quote(in_path)}", before=f"exec > {passage.file}; "),
                          f"{in_path} can't be fetched")
            super().fetch_file(passage.file, out_path)

    def _inside(self, cmd: str, in_data: bytes | None = None, before: str = "") -> Answer:
        """A command line for the shell of the space."""
        answer = self.on_host(before + self._entry("/bin/sh", "-c", cmd), in_data)
        if answer[0] == FAILED:
            raise AnsibleConnectionFailure(f"Space {self.get_option('space')}: {to_text(answer[2]).strip()}")
        return answer

    def on_host(self, cmd: str, in_data: bytes | None = None) -> Answer:
        # Without a terminal of the host, which would change what the space writes.
        return t.cast(Answer, super().exec_command(cmd, in_data, sudoable=False))

    def _entry(self, *argv: str) -> str:
        try:
            name = check_name("space_name", self.get_option("space"))
        except FleetError as error:
            raise AnsibleError(error.result()["msg"]) from error
        said = [f"--{key}={self.get_option(key)}" for key in ("actor", "job") if self.get_option(key)]
        words = shlex.join([PROGRAM, *said, "exec", name, "--", *argv])
        return f'set -- {words}; [ "$(id -u)" = 0 ] || set -- sudo -n -- "$@"; exec "$@"'


class _Passage:
    """A directory on the host for one file."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        # Nobody can guess it, and mkdir refuses what is there already.
        self.folder = f"/tmp/.clawops-{secrets.token_hex(16)}"  # noqa: S108
        self.file = f"{self.folder}/content"

    def __enter__(self) -> _Passage:
        self.check(self.connection.on_host(f"umask 077; mkdir {self.folder}"), "The host takes no file")
        return self

    def __exit__(self, *_unused: object) -> None:
        self.connection.on_host(f"rm -rf {self.folder}")

    def check(self, answer: Answer, what: str) -> None:
        if answer[0]:
            raise AnsibleError(f"{what}: {to_text(answer[2]).strip()}")
