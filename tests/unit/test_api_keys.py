# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lookups: which keys a bot gets, and what ssh needs to get into it."""

from __future__ import annotations

import base64
import pathlib
import shlex
import typing as t

import pytest
from ansible import constants
from ansible.errors import AnsibleLookupError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar
from ansible_collections.clawops.fleet.plugins.module_utils import _keystore as keystore
from ansible_collections.clawops.fleet.plugins.module_utils._ssh import keys, tunnel
from fake_cluster import FakeCluster

PLANTED = "sk-planted-0123456789"
HOSTVARS: dict[str, dict[str, t.Any]] = {"alpha": {"bot_on": "harbor", "bot_api_keys": {"OWN": "own"}},
                                         "bravo": {"bot_on": "harbor"}}


def ask(name: str, *bots: str, **variables: t.Any) -> list[t.Any]:
    loader = DataLoader()
    plugin = lookup_loader.get(f"clawops.fleet.{name}", loader=loader, templar=Templar(loader, variables))
    return t.cast("list[t.Any]", plugin.run(list(bots), variables={"hostvars": HOSTVARS, **variables}))


@pytest.fixture
def store(tmp_path: pathlib.Path) -> dict[str, str]:
    key, path = keystore.new_key(), tmp_path / "keys.store"
    content = keystore.Keystore({"FLEET": PLANTED}, {"alpha": {"OWN": PLANTED, "MORE": PLANTED}})
    path.write_text(keystore.Cipher(key).encrypt(content))
    return {"fleet_keystore": str(path), "fleet_keystore_key": key}


def test_without_a_keystore_variables_count() -> None:
    assert ask("api_keys", "alpha", "bravo", fleet_api_keys={"OWN": "fleet", "ALL": "fleet"}) == [
        {"OWN": "own", "ALL": "fleet"}, {"OWN": "fleet", "ALL": "fleet"}]


def test_the_keystore_fills_in_what_variables_do_not_say(store: dict[str, str]) -> None:
    assert ask("api_keys", "alpha", "bravo", **store) == [
        {"FLEET": PLANTED, "OWN": "own", "MORE": PLANTED}, {"FLEET": PLANTED}]


def test_the_key_may_be_in_a_file(store: dict[str, str], tmp_path: pathlib.Path) -> None:
    (tmp_path / "key").write_text(store.pop("fleet_keystore_key") + "\n")
    assert ask("api_keys", "bravo", fleet_keystore_key_file=str(tmp_path / "key"), **store) == [{"FLEET": PLANTED}]


def test_a_keystore_in_the_cluster_is_read_once(store: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, text = FakeCluster(), pathlib.Path(store["fleet_keystore"]).read_text()
    keystore.SecretPlace(cluster, "claworc", "keys").write(text)
    cluster.calls.clear()
    monkeypatch.setattr(tunnel, "cluster_of", lambda kubeconfig, context: cluster)
    variables = {**store, "fleet_keystore": "secret:claworc/keys", "cluster_kubeconfig": "/somewhere"}
    assert ask("api_keys", "alpha", "bravo", **variables)[1] == {"FLEET": PLANTED}
    assert cluster.verbs == ["get"]


@pytest.mark.parametrize(("change", "said"), [
    ({"fleet_keystore": "/not/there"}, "There is no keystore"),
    ({"fleet_keystore_key": ""}, "no Fernet key"),
    ({"fleet_keystore_key": keystore.new_key()}, "can't be decrypted"),
    ({"fleet_keystore_key": None, "fleet_keystore_key_file": "/not/there"}, "can't be read"),
])
def test_what_is_wrong_with_a_keystore_is_said_without_secrets(store: dict[str, str], change: dict[str, t.Any],
                                                               said: str) -> None:
    with pytest.raises(AnsibleLookupError, match=said) as error:
        ask("api_keys", "alpha", **{**store, **change})
    assert PLANTED not in str(error.value) and store["fleet_keystore_key"] not in str(error.value)


@pytest.mark.parametrize("name", ["api_keys", "bot_ssh"])
def test_a_bot_that_is_nowhere_is_named(name: str) -> None:
    with pytest.raises(AnsibleLookupError, match="no bot zulu"):
        ask(name, "zulu")


# -- bot_ssh ------------------------------------------------------------------------------------------------------

@pytest.fixture
def harbor(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    cluster = FakeCluster()
    monkeypatch.setattr(tunnel, "cluster_of", lambda kubeconfig, context: cluster)
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "run"))
    monkeypatch.setitem(HOSTVARS, "harbor", {"cluster_kubeconfig": "/home/me/my config", "cluster_namespace": "bots"})
    return cluster


def give(cluster: FakeCluster, identity: dict[str, str]) -> None:
    data = {name: base64.b64encode(text.encode()).decode() for name, text in identity.items()}
    cluster.create({"kind": "Secret", "metadata": {"name": "bot-alpha-ssh", "namespace": "bots"}, "data": data})


def test_the_key_lands_in_a_directory_of_the_run(harbor: FakeCluster, tmp_path: pathlib.Path) -> None:
    made = keys.new_identity("alpha")
    give(harbor, made)
    (ways,) = ask("bot_ssh", "alpha")
    private = pathlib.Path(ways["private_key_file"])
    assert private.is_relative_to(tmp_path / "run")
    assert (private.read_text(), private.stat().st_mode & 0o777) == (made[keys.USER], 0o600)
    pinned = keys.known_hosts("alpha", made) + "\n"
    assert pathlib.Path(ways["known_hosts_file"]).read_text() == pinned
    assert ask("bot_ssh", "alpha") == [ways] and harbor.verbs.count("get") == 1


def test_ssh_takes_only_the_pinned_key_and_goes_through_the_cluster(harbor: FakeCluster) -> None:
    give(harbor, keys.new_identity("alpha"))
    words = shlex.split(ask("bot_ssh", "alpha")[0]["common_args"])
    settings = dict(word.split("=", 1) for word in words[1::2])
    assert set(words[::2]) == {"-o"}
    assert (settings["StrictHostKeyChecking"], settings["HostKeyAlias"]) == ("yes", "bot-alpha")
    program, *argv = shlex.split(settings["ProxyCommand"])[1:]
    assert (pathlib.Path(program) / "__main__.py").is_file()
    assert argv == ["--namespace", "bots", "--bot", "alpha", "--kubeconfig", "/home/me/my config"]


def test_a_bot_whose_key_was_revoked_has_no_way_in(harbor: FakeCluster) -> None:
    give(harbor, keys.revoked(keys.new_identity("alpha"), "alpha"))
    with pytest.raises(AnsibleLookupError, match="has no SSH key"):
        ask("bot_ssh", "alpha")
