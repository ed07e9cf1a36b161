# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The keystore, and the program that changes it."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils import _keystore as keystore
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from fake_cluster import FakeCluster

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "scripts/keystore.py"
PLANTED = "sk-planted-0123456789"


class Box:
    """A keystore in a directory, worked on by the program."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.store, self.key = folder / "keys.store", folder / "keys.key"

    def run(self, *argv: str, value: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(PROGRAM), argv[0], str(self.store), *argv[1:]], input=value,
                              text=True, capture_output=True, check=False,
                              env={"CLAWOPS_KEYSTORE_KEY_FILE": str(self.key), "PATH": "/usr/bin:/bin", **env})

    def ok(self, *argv: str, value: str = "") -> str:
        done = self.run(*argv, value=value)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def content(self) -> keystore.Keystore:
        return keystore.load(keystore.FilePlace(str(self.store)), "", self.key.read_text())


@pytest.fixture
def box(tmp_path: pathlib.Path) -> Box:
    made = Box(tmp_path)
    made.ok("create")
    made.ok("set", "ANTHROPIC_API_KEY", value=f"{PLANTED}\n")
    made.ok("set", "ANTHROPIC_API_KEY", "--bot", "alpha", value="sk-alpha")
    return made


def test_the_bots_own_key_goes_before_the_fleets_and_variables_before_the_keystore() -> None:
    store = keystore.Keystore({"A": "store", "B": "store", "C": "store", "D": "store"}, {"alpha": {"C": "s", "D": "s"}})
    fleet = {"B": "fleet", "C": "fleet", "D": "fleet"}
    assert store.effective("alpha", {"D": "own"}, fleet) == {"A": "store", "B": "fleet", "C": "s", "D": "own"}
    assert store.effective("bravo", {}, fleet) == {"A": "store", "B": "fleet", "C": "fleet", "D": "fleet"}


def test_what_was_set_is_there_and_encrypted(box: Box) -> None:
    assert box.content().effective("alpha", {}, {}) == {"ANTHROPIC_API_KEY": "sk-alpha"}
    assert box.content().effective("bravo", {}, {}) == {"ANTHROPIC_API_KEY": PLANTED}
    assert "ANTHROPIC" not in box.store.read_text()
    assert (box.store.stat().st_mode & 0o777, box.key.stat().st_mode & 0o777) == (0o600, 0o600)


def test_show_tells_names_and_never_values(box: Box) -> None:
    assert box.ok("show") == "the fleet: ANTHROPIC_API_KEY\nalpha: ANTHROPIC_API_KEY\n"


def test_unset_takes_away_and_knows_what_is_not_there(box: Box) -> None:
    box.ok("unset", "ANTHROPIC_API_KEY", "--bot", "alpha")
    assert box.ok("show") == "the fleet: ANTHROPIC_API_KEY\n"
    assert "no such key of alpha" in box.run("unset", "ANTHROPIC_API_KEY", "--bot", "alpha").stderr


def test_rotation_changes_the_key_and_keeps_the_content(box: Box) -> None:
    old, before = box.key.read_text(), box.content()
    box.ok("rotate")
    assert box.content() == before and box.key.read_text() != old
    with pytest.raises(FleetError, match="can't be decrypted"):
        keystore.Cipher(old).decrypt(box.store.read_text())


def test_a_rotation_that_was_cut_off_locks_nobody_out(box: Box) -> None:
    before, old = box.content(), box.key.read_text()
    box.key.write_text(f"{keystore.new_key()} {old}")  # as it stands between the two writes
    assert box.content() == before
    box.ok("rotate")
    assert box.content() == before and len(box.key.read_text().split()) == 1


def test_rotation_with_keys_of_the_environment_uses_the_first(box: Box) -> None:
    new, old = keystore.new_key(), box.key.read_text().strip()
    done = box.run("rotate", CLAWOPS_KEYSTORE_KEY_FILE="", CLAWOPS_KEYSTORE_KEY=f"{new} {old}")
    assert done.returncode == 0, done.stderr
    assert keystore.Cipher(new).decrypt(box.store.read_text()).fleet == {"ANTHROPIC_API_KEY": PLANTED}


@pytest.mark.parametrize(("argv", "value", "said"), [
    (["create"], "", "exists. Use set"),
    (["set", "no-variable"], "x", "Use the name of an environment variable"),
    (["set", "A", "--bot", "Alpha"], "x", "Use 1 to 28"),
    (["set", "A"], "", "one line of text"),
    (["set", "A"], "two\nlines", "one line of text"),
])
def test_mistakes_are_refused_in_one_line(box: Box, argv: list[str], value: str, said: str) -> None:
    before, done = box.store.read_text(), box.run(*argv, value=value)
    assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1
    assert box.store.read_text() == before


@pytest.mark.parametrize("key", ["", "short", "x" * 44])
def test_a_bad_key_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(FleetError, match="no Fernet key") as error:
        keystore.Cipher(key)
    assert not key or key not in str(error.value.result())


def test_no_message_or_repr_has_a_secret() -> None:
    assert PLANTED not in repr(keystore.Keystore({"A": PLANTED}, {"alpha": {"A": PLANTED}}))
    with pytest.raises(FleetError) as error:
        keystore.Keystore().set("A", f"{PLANTED}\n{PLANTED}")
    assert PLANTED not in str(error.value.result())


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def in_cluster(cluster: FakeCluster) -> keystore.Place:
    return keystore.place("secret:claworc/keys", lambda: cluster)


def test_it_can_live_in_a_secret_of_the_cluster(cluster: FakeCluster) -> None:
    cipher, where = keystore.Cipher(keystore.new_key()), in_cluster(cluster)
    assert where.read() is None
    where.write(cipher.encrypt(keystore.Keystore({"A": "1"})))
    where.write(cipher.encrypt(keystore.Keystore({"A": "2"})))
    assert cipher.decrypt(t.cast(str, in_cluster(cluster).read())).fleet == {"A": "2"}
    assert cluster.verbs == ["get", "create", "patch", "get"]


def test_of_two_changes_at_once_the_second_is_refused(cluster: FakeCluster) -> None:
    in_cluster(cluster).write("first")
    one, two = in_cluster(cluster), in_cluster(cluster)
    assert one.read() == two.read() == "first"
    one.write("one")
    with pytest.raises(FleetError, match="changed"):
        two.write("two")
    assert in_cluster(cluster).read() == "one"


def test_somebody_elses_secret_is_refused(cluster: FakeCluster) -> None:
    cluster.create({"kind": "Secret", "metadata": {"name": "keys", "namespace": "claworc"}, "data": {}})
    with pytest.raises(FleetError, match="not managed"):
        in_cluster(cluster).read()


def test_a_location_is_a_path_or_a_secret() -> None:
    assert isinstance(keystore.place("keys.store", lambda: None), keystore.FilePlace)
    with pytest.raises(FleetError, match="is not accepted"):
        keystore.place("secret:keys", lambda: None)
