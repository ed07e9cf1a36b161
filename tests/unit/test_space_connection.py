# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The connection into a space: what it asks of the Docker host."""

from __future__ import annotations

import pathlib
import shlex
import typing as t

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.playbook.play_context import PlayContext
from ansible.plugins.connection import ssh
from ansible.plugins.loader import connection_loader

Call = tuple[str, str, t.Optional[bytes]]


class Host:
    """Stands for the SSH connection to the host."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Call] = []
        self.answers: list[tuple[int, bytes, bytes]] = []
        monkeypatch.setattr(ssh.Connection, "exec_command", self.exec_command)
        monkeypatch.setattr(ssh.Connection, "put_file", lambda _self, one, other: self.note("put", f"{one} {other}"))
        monkeypatch.setattr(ssh.Connection, "fetch_file", lambda _self, one, other: self.note("get", f"{one} {other}"))

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        assert not sudoable
        return self.note("exec", cmd, in_data)

    def note(self, what: str, cmd: str, in_data: bytes | None = None) -> tuple[int, bytes, bytes]:
        self.calls.append((what, cmd, in_data))
        return self.answers.pop(0) if self.answers else (0, b"", b"")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(monkeypatch)
    # A method of a class gets the connection first.
    monkeypatch.setattr(ssh.Connection, "exec_command", lambda _self, *args, **named: made.exec_command(*args, **named))
    return made


def connection(**variables: t.Any) -> t.Any:
    found = connection_loader.get("clawops.fleet.space", PlayContext())
    found.set_options(var_options={"inventory_hostname": "scratch", "ansible_host": "192.0.2.7", "ansible_user": "me",
                                   **variables})
    return found


def words(call: Call) -> list[str]:
    """What runs on the host, as its shell sees it."""
    what, cmd, _data = call
    assert what == "exec"
    before, _gap, rest = cmd.partition("set -- ")
    line, _gap, after = rest.partition("; [ ")
    assert after == '"$(id -u)" = 0 ] || set -- sudo -n -- "$@"; exec "$@"'
    return [before.strip(), *shlex.split(line)]


def test_all_options_of_ssh_are_there() -> None:
    found = connection(ansible_port=2222, ansible_ssh_private_key_file="/key")
    assert (found.get_option("host"), found.get_option("port")) == ("192.0.2.7", 2222)
    assert found.get_option("private_key_file") == "/key" and found.get_option("space") == "scratch"


def test_a_command_goes_into_the_space(host: Host) -> None:
    host.answers = [(3, b"out", b"err")]
    assert connection().exec_command("/bin/sh -c 'echo \"$HOME\"'", b"data") == (3, b"out", b"err")
    assert words(host.calls[0]) == ["", "/usr/local/sbin/clawops-space", "exec", "scratch", "--", "/bin/sh", "-c",
                                    "/bin/sh -c 'echo \"$HOME\"'"]
    assert host.calls[0][2] == b"data"


def test_name_actor_and_job(host: Host) -> None:
    connection(space_name="other", fleet_actor="me; id", tower_job_id=7).exec_command("true")
    assert words(host.calls[0])[1:6] == ["/usr/local/sbin/clawops-space", "--actor=me; id", "--job=7", "exec", "other"]


@pytest.mark.parametrize("name", ["../x", "-x", "a;id", "A"])
def test_a_name_is_checked(name: str, host: Host) -> None:
    with pytest.raises(AnsibleError):
        connection(space_name=name).exec_command("true")
    assert host.calls == []


def test_home_is_that_of_the_spaces_user(host: Host) -> None:
    connection().exec_command("/bin/sh -c 'echo ~me && sleep 0'")
    connection().exec_command("/bin/sh -c 'echo ~meto && sleep 0'")
    assert [words(call)[-1] for call in host.calls] == [
        "/bin/sh -c 'echo ~ && sleep 0'", "/bin/sh -c 'echo ~meto && sleep 0'"]


def test_files_pass_through_a_directory_of_the_login(host: Host, tmp_path: pathlib.Path) -> None:
    source = tmp_path / "x"
    source.touch()
    connection().put_file(str(source), "/workspace/a b")
    connection().fetch_file("/workspace/c", str(tmp_path / "y"))
    made, put, cat, gone, made2, back, fetched, gone2 = host.calls
    folder = made[1].split()[-1]
    assert made[1] == f"umask 077; mkdir {folder}" and put == ("put", f"{source} {folder}/content", None)
    assert words(cat)[0] == f"exec < {folder}/content;" and words(cat)[-1] == "cat > '/workspace/a b'"
    assert gone[1] == f"rm -rf {folder}" and folder not in made2[1]
    assert words(back)[-1] == "exec cat < /workspace/c" and fetched[0] == "get"
    assert gone2[1].startswith("rm -rf /tmp/.clawops-")


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_nothing(host: Host, tmp_path: pathlib.Path) -> None:
    source = tmp_path / "x"
    source.touch()
    host.answers = [(0, b"", b""), (0, b"", b""), (1, b"", b"Read-only file system")]
    with pytest.raises(AnsibleError, match="Read-only"):
        connection().put_file(str(source), "/etc/x")
    assert host.calls[-1][1].startswith("rm -rf ")


def test_what_the_host_says_of_the_space_is_a_failed_connection(host: Host) -> None:
    host.answers = [(125, b"", b"clawops-space: There is no space scratch on this host.")]
    with pytest.raises(AnsibleConnectionFailure, match="no space"):
        connection().exec_command("true")


def test_nobody_becomes_another_user(host: Host) -> None:
    found = connection()
    found.set_become_plugin(object())
    with pytest.raises(AnsibleError, match="become: false"):
        found.exec_command("true")
    assert host.calls == []
