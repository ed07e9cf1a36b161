# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""SSH identities: made, rotated and revoked, at a server that is really asked."""

from __future__ import annotations

import contextlib
import io
import pathlib
import socket
import subprocess
import threading
import typing as t

import paramiko
import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._ssh import identity, keys
from ansible_collections.clawops.fleet.plugins.module_utils._ssh.files import Files
from ansible_collections.clawops.fleet.plugins.module_utils._ssh.secrets import Secrets
from ansible_collections.clawops.fleet.plugins.module_utils._ssh.server import Server
from fake_cluster import FakeCluster

ALPHA = identity.Owner("alpha", "claworc")


class Sshd(paramiko.ServerInterface):
    """A real SSH server over a pair of sockets, with a host key and authorized keys that the test gives."""

    def __init__(self, host_key: str, authorized: str) -> None:
        self.host_key, self.authorized, self.logins = host_key, authorized, 0

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self.logins += 1
        known = f"{key.get_name()} {key.get_base64()}" in self.authorized and username == "openclaw"
        return paramiko.common.AUTH_SUCCESSFUL if known else paramiko.common.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def connect(self) -> socket.socket:
        near, far = socket.socketpair()

        def serve() -> None:
            transport = paramiko.Transport(far)
            transport.add_server_key(paramiko.Ed25519Key.from_private_key(io.StringIO(self.host_key)))
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                transport.start_server(server=self)

        threading.Thread(target=serve, daemon=True).start()
        return near

    def server(self) -> Server:
        return Server("alpha", "openclaw", self.connect)


class Memory:
    """A store in memory whose bot, if it runs, reads its authorized keys when it is hastened."""

    def __init__(self, running: bool = True, deaf: bool = False) -> None:
        self.kept: dict[str, keys.Identity] = {}
        self.history: list[keys.Identity] = []
        self.running, self.deaf = running, deaf
        self.sshd: Sshd | None = None

    def read(self, owners: t.Sequence[identity.Owner]) -> dict[str, keys.Identity]:
        return {bot: dict(found) for bot, found in self.kept.items()}

    def write(self, owner: identity.Owner, wanted: keys.Identity) -> None:
        self.kept[owner.bot] = dict(wanted)
        self.history.append(dict(wanted))

    def server(self, owner: identity.Owner) -> Server | None:
        if not self.running:
            return None
        found = self.kept[owner.bot]
        self.sshd = self.sshd or Sshd(found[keys.HOST], found[keys.AUTHORIZED])
        return self.sshd.server()

    def hasten(self, owner: identity.Owner, wanted: keys.Identity) -> None:
        if self.sshd and not self.deaf:
            self.sshd.authorized = wanted[keys.AUTHORIZED]

    def present(self, owner: identity.Owner, wanted: keys.Identity) -> None:
        if self.sshd and not self.deaf:
            self.sshd.host_key = wanted[keys.HOST]


def go(store: t.Any, state: str = "present", verify: bool = True, timeout: float = 3, key: str = "user"
       ) -> tuple[list[str], dict[str, t.Any]]:
    """One call: the actions, and what is returned of alpha."""
    call = identity.Identities(store, [ALPHA], identity.Settings(state, key, verify, timeout))
    plan = call.plan()
    if plan.changed:
        call.apply(plan)
    call.verify()
    return [change.action for change in plan.changes], next(iter(call.facts()["identities"]), {})


# -- keys ---------------------------------------------------------------------------------------------------------

def test_openssh_reads_the_keys_and_agrees_about_them(tmp_path: pathlib.Path) -> None:
    made, path = keys.new_identity("alpha"), tmp_path / "key"
    path.write_text(made[keys.USER])
    path.chmod(0o600)
    public = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True).stdout
    listed = subprocess.run(["ssh-keygen", "-l", "-f", path], capture_output=True, text=True, check=True).stdout
    assert public.split()[:2] == made[keys.USER_PUBLIC].split()[:2]
    assert keys.fingerprint(made[keys.USER_PUBLIC]) in listed


def test_an_identity_has_the_five_files_of_its_secret() -> None:
    made = keys.new_identity("alpha")
    assert sorted(made) == ["authorized_keys", "id_ed25519", "id_ed25519.pub", "ssh_host_ed25519_key",
                            "ssh_host_ed25519_key.pub"]
    assert made["authorized_keys"] == made["id_ed25519.pub"]
    assert made["id_ed25519.pub"].endswith(" bot-alpha\n")


def test_no_two_are_alike() -> None:
    one, two = keys.new_identity("alpha"), keys.new_identity("alpha")
    assert one[keys.USER] != two[keys.USER] and one[keys.HOST] != two[keys.HOST] and one[keys.USER] != one[keys.HOST]


def test_what_is_no_key_is_said_to_be_none() -> None:
    with pytest.raises(FleetError, match="no ED25519 key"):
        keys.public_of("nonsense")


# -- present ------------------------------------------------------------------------------------------------------

def test_present_makes_one_and_then_keeps_it() -> None:
    store = Memory()
    actions, made = go(store)
    assert actions == ["create"] and made["verified"]
    assert go(store) == ([], made) and len(store.history) == 1
    assert made["known_hosts"] == "bot-alpha " + " ".join(made["host_public_key"].split()[:2])


def test_nothing_that_is_returned_or_planned_is_private() -> None:
    store = Memory()
    go(store)
    call = identity.Identities(store, [ALPHA], identity.Settings("rotated"))
    said = str(call.plan().result()) + str(call.facts())
    assert "PRIVATE" not in said and store.kept["alpha"][keys.USER].splitlines()[1] not in said


def test_present_completes_what_was_lost_and_keeps_the_rest() -> None:
    store = Memory(running=False)
    go(store)
    host, public = store.kept["alpha"][keys.HOST], store.kept["alpha"].pop(keys.USER_PUBLIC)
    assert go(store)[0] == ["complete"]
    assert store.kept["alpha"][keys.HOST] == host and store.kept["alpha"][keys.USER_PUBLIC] == public


def test_a_server_with_another_host_key_is_told_by_both_fingerprints() -> None:
    store, other = Memory(), keys.new_private()
    _actions, made = go(store)
    store.sshd = Sshd(other, "")
    with pytest.raises(FleetError) as error:
        go(store)
    assert error.value.code == "host_key_mismatch"
    assert error.value.details == {"pinned": made["host_fingerprint"],
                                   "presented": keys.fingerprint(keys.public_of(other))}


def test_a_stopped_bot_is_not_asked() -> None:
    assert go(Memory(running=False))[1]["verified"] is False


# -- rotated ------------------------------------------------------------------------------------------------------

def test_rotation_adds_tests_and_removes() -> None:
    store = Memory()
    _actions, before = go(store)
    actions, after = go(store, "rotated")
    assert actions == ["rotate"] and after["user_fingerprint"] != before["user_fingerprint"]
    assert after["host_fingerprint"] == before["host_fingerprint"]
    first, both, last = (len(step[keys.AUTHORIZED].splitlines()) for step in store.history)
    assert (first, both, last) == (1, 2, 1)
    assert keys.NEXT not in store.kept["alpha"]
    assert store.sshd and store.sshd.logins >= 2


def test_a_new_key_that_is_not_accepted_leaves_the_old_one_in_use() -> None:
    store = Memory()
    go(store)
    old = store.kept["alpha"][keys.USER]
    store.deaf = True
    with pytest.raises(FleetError) as error:
        go(store, "rotated", timeout=0)
    assert error.value.code == "key_not_in_force"
    assert store.kept["alpha"][keys.USER] == old and keys.public_of(old).strip() in store.kept["alpha"][keys.AUTHORIZED]


def test_a_rotation_that_was_cut_off_goes_on_with_the_same_new_key() -> None:
    store = Memory()
    go(store)
    store.kept["alpha"] = keys.with_next(store.kept["alpha"], "alpha")
    new = store.kept["alpha"][keys.NEXT]
    assert go(store)[0] == []  # present leaves the trial alone
    assert go(store, "rotated")[0] == ["rotate"]
    assert store.kept["alpha"][keys.USER] == new


def test_without_a_server_the_new_key_can_not_be_tried() -> None:
    store = Memory(running=False)
    go(store)
    before = dict(store.kept)
    with pytest.raises(FleetError, match="the bot does not run"):
        go(store, "rotated")
    assert store.kept == before
    assert go(store, "rotated", verify=False)[0] == ["rotate"]


def test_a_foreign_server_is_not_offered_the_key() -> None:
    store = Memory()
    go(store)
    store.sshd = Sshd(keys.new_private(), store.kept["alpha"][keys.AUTHORIZED])
    with pytest.raises(FleetError, match="presents the host key"):
        go(store, "rotated")
    assert store.sshd.logins == 0


def test_a_host_key_is_replaced_when_the_server_presents_the_new_one() -> None:
    store = Memory()
    _actions, before = go(store)
    actions, after = go(store, "rotated", key="host")
    assert actions == ["rotate"] and after["verified"]
    assert after["host_fingerprint"] != before["host_fingerprint"]
    assert after["user_fingerprint"] == before["user_fingerprint"]
    first, both, last = (len(keys.pinned(step)) for step in store.history)
    assert (first, both, last) == (1, 2, 1)
    assert go(store) == ([], after)


def test_a_host_key_that_is_not_presented_leaves_both_pinned_until_it_is() -> None:
    store = Memory()
    _actions, before = go(store)
    store.deaf = True
    with pytest.raises(FleetError) as error:
        go(store, "rotated", timeout=0, key="host")
    assert error.value.code == "key_not_in_force"
    pinned = keys.pinned(store.kept["alpha"])
    assert len(pinned) == 2 and " ".join(before["host_public_key"].split()[:2]) == pinned[1]
    assert keys.known_hosts("alpha", store.kept["alpha"]).count("\n") == 1
    assert go(store, verify=False)[0] == []
    store.deaf = False
    assert go(store)[0] == ["settle"]
    assert keys.pinned(store.kept["alpha"]) == pinned[:1] and go(store)[0] == []


def test_a_bot_that_does_not_run_has_its_host_key_rotated_at_once() -> None:
    store = Memory(running=False)
    _actions, before = go(store)
    assert go(store, "rotated", key="host")[1]["host_fingerprint"] != before["host_fingerprint"]
    assert len(keys.pinned(store.kept["alpha"])) == 1


def test_a_revoked_host_key_is_pinned_no_more_and_made_anew_by_present() -> None:
    store = Memory(running=False)
    _actions, before = go(store)
    actions, after = go(store, "absent", key="host")
    assert actions == ["revoke"] and after["known_hosts"] is None
    assert after["user_fingerprint"] == before["user_fingerprint"]
    assert go(store, "absent", key="host")[0] == []
    assert go(store)[0] == ["complete"]
    assert len(keys.pinned(store.kept["alpha"])) == 1


# -- absent -------------------------------------------------------------------------------------------------------

def test_absent_revokes_the_user_key_and_keeps_the_host_key() -> None:
    store = Memory()
    _actions, before = go(store)
    actions, after = go(store, "absent")
    assert actions == ["revoke"] and after["user_public_key"] is None
    assert after["host_fingerprint"] == before["host_fingerprint"]
    assert store.kept["alpha"][keys.AUTHORIZED] == "" and keys.USER not in store.kept["alpha"]
    assert go(store, "absent")[0] == []
    assert go(store)[0] == ["complete"]


def test_absent_fails_while_the_bot_still_lets_the_key_in() -> None:
    store = Memory()
    go(store)
    store.deaf = True
    with pytest.raises(FleetError, match="still accepts the old key"):
        go(store, "absent", timeout=0)


# -- stores -------------------------------------------------------------------------------------------------------

def test_files_are_for_root_alone_and_the_same_after_reading(tmp_path: pathlib.Path) -> None:
    store, made = Files(str(tmp_path), "openclaw"), keys.new_identity("alpha")
    store.write(ALPHA, keys.with_next(made, "alpha"))
    store.write(ALPHA, made)
    assert store.read([ALPHA]) == {"alpha": made}
    folder = tmp_path / "bot-alpha-ssh"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_secret_is_read_by_one_list_and_changed_by_one_patch() -> None:
    cluster = FakeCluster()
    store = Secrets(t.cast(t.Any, cluster), "home", "openclaw")
    assert go(store, verify=False)[0] == ["create"]
    assert cluster.verbs == ["list", "get", "create"]
    cluster.calls.clear()
    fresh = Secrets(t.cast(t.Any, cluster), "home", "openclaw")
    assert go(fresh, verify=False)[0] == []
    assert cluster.verbs == ["list"]
    go(fresh, "rotated", verify=False)
    assert sorted(cluster.objects["Secret", "claworc", "bot-alpha-ssh"]["data"]) == sorted(keys.new_identity("alpha"))


def test_of_two_runs_at_once_both_end_with_the_same_keys() -> None:
    cluster = FakeCluster()
    one, two = (identity.Identities(Secrets(t.cast(t.Any, cluster), "home", "openclaw"), [ALPHA],
                                    identity.Settings(verify=False)) for _run in range(2))
    plans = [one.plan(), two.plan()]
    one.apply(plans[0])
    two.apply(plans[1])
    assert one.facts() == two.facts()


def test_somebody_elses_secret_is_refused() -> None:
    cluster = FakeCluster()
    cluster.create({"kind": "Secret", "metadata": {"name": "bot-alpha-ssh", "namespace": "claworc"}, "data": {}})
    with pytest.raises(FleetError, match="not managed by this collection"):
        go(Secrets(t.cast(t.Any, cluster), "home", "openclaw"))
