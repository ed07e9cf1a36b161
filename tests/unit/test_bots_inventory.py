# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The inventory plugin, and what playbooks make of bots of a cluster."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible_collections.clawops.fleet.plugins.filter import bots as filters
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes import facts
from ansible_collections.clawops.fleet.plugins.module_utils._ssh import tunnel

HOSTS = """---
all:
  vars: {fleet_name: home, where: /home/me}
  children:
    docker_hosts: {hosts: {alder: {}}}
    clusters:
      hosts:
        harbor: {cluster_kubeconfig: "{{ where }}/kubeconfig", cluster_namespace: bots}
    bots:
      hosts:
        alpha: {bot_on: harbor, bot_profile: desktop}
        bravo: {bot_on: harbor}
        charlie: {bot_on: alder, bot_profile: desktop}
"""
SOURCE = """---
plugin: clawops.fleet.bots
groups: {running: fleet_observed.ready | default(false)}
keyed_groups: [{key: fleet_observed.profile, prefix: profile}]
"""


def found(name: str, profile: str = "desktop", **more: t.Any) -> dict[str, t.Any]:
    return {"name": name, "profile": profile, "state": "started", "ready": True, **more}


class Bed:
    """An inventory directory and a cluster that answers what a test wants."""

    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.bots, self.asked = folder, [found("alpha")], list[t.Any]()
        self.errors: list[FleetError] = []
        (folder / "hosts.yml").write_text(HOSTS)
        (folder / "observed_bots.yml").write_text(SOURCE)
        monkeypatch.setattr(tunnel, "cluster_of", lambda kubeconfig, context: (kubeconfig, context))
        monkeypatch.setattr(facts, "read", self.read)

    def read(self, *arguments: t.Any) -> list[dict[str, t.Any]]:
        self.asked.append(arguments)
        for error in self.errors:
            raise error
        return self.bots

    def inventory(self) -> InventoryManager:
        return InventoryManager(loader=DataLoader(), sources=[str(self.folder)])

    def variables(self, name: str) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", self.inventory().hosts[name].get_vars())


@pytest.fixture
def bed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    return Bed(tmp_path, monkeypatch)


def test_each_cluster_is_asked_once_with_its_own_settings(bed: Bed) -> None:
    bed.inventory()
    assert bed.asked == [(("/home/me/kubeconfig", None), ("bots", "claworc-gateway"), "home", None)]


def test_a_desktop_is_reached_by_ssh_and_no_key_is_in_the_inventory(bed: Bed) -> None:
    values = bed.variables("alpha")
    assert values["fleet_observed"] == found("alpha")
    assert (values["ansible_connection"], values["ansible_host"], values["ansible_user"]) == (
        "ssh", "alpha.harbor", "openclaw")
    assert values["ansible_ssh_private_key_file"] == "{{ lookup('clawops.fleet.bot_ssh', 'alpha').private_key_file }}"
    assert values["ansible_ssh_common_args"] == "{{ lookup('clawops.fleet.bot_ssh', 'alpha').common_args }}"


def test_a_gateway_has_no_ssh_and_one_that_is_not_there_is_absent(bed: Bed) -> None:
    values = bed.variables("bravo")
    assert values["fleet_observed"] == {"name": "bravo", "state": "absent"}
    assert "ansible_connection" not in values


def test_bots_of_other_machines_are_left_alone(bed: Bed) -> None:
    assert {"fleet_observed", "ansible_connection"}.isdisjoint(bed.variables("charlie"))


def test_bots_that_nobody_declared_are_a_group_of_their_own(bed: Bed) -> None:
    bed.bots.append(found("delta"))
    inventory = bed.inventory()
    assert [host.name for host in inventory.groups["undeclared"].get_hosts()] == ["delta"]
    assert "delta" not in [host.name for host in inventory.groups["bots"].get_hosts()]
    assert inventory.hosts["delta"].get_vars()["bot_on"] == "harbor"


def test_a_bot_that_is_declared_elsewhere_is_not_touched(bed: Bed) -> None:
    bed.bots.append(found("charlie"))
    assert "fleet_observed" not in bed.variables("charlie")
    assert "undeclared" not in bed.inventory().groups


def test_groups_are_constructed(bed: Bed) -> None:
    bed.bots.append(found("bravo", "gateway", ready=False))
    groups = bed.inventory().groups
    assert [host.name for host in groups["running"].get_hosts()] == ["alpha"]
    assert [host.name for host in groups["profile_gateway"].get_hosts()] == ["bravo"]


def test_a_cluster_that_does_not_answer_leaves_its_bots_reachable(bed: Bed) -> None:
    bed.errors.append(FleetError("unreachable", "The API server does not answer."))
    values = bed.variables("alpha")
    assert "fleet_observed" not in values and values["ansible_host"] == "alpha.harbor"


@pytest.mark.parametrize("fails", [False, True])
def test_answers_are_cached_and_failures_are_not(bed: Bed, fails: bool) -> None:
    settings = f"cache: true\ncache_plugin: ansible.builtin.jsonfile\ncache_connection: {bed.folder}/cache\n"
    (bed.folder / "observed_bots.yml").write_text(SOURCE + settings)
    if fails:
        bed.errors.append(FleetError("unreachable", "The API server does not answer."))
    assert ("fleet_observed" in bed.variables("alpha")) is not fails
    bed.errors.clear()
    assert bed.variables("alpha")["fleet_observed"] == found("alpha")
    assert len(bed.asked) == (2 if fails else 1)


# -- filters ------------------------------------------------------------------------------------------------------

def described(**more: t.Any) -> list[dict[str, t.Any]]:
    hostvars = [{"inventory_hostname": "alpha", "bot_on": "harbor", **more}]
    return filters.bots_on(hostvars, "harbor", {}, "cluster", {"alpha": {"A": "b"}})


def test_a_bot_of_a_cluster_has_its_keys_and_no_places_of_a_host() -> None:
    (bot,) = described(bot_profile="desktop", bot_node_selector={"disk": "fast"})
    assert bot["api_keys"] == {"A": "b"} and "unit" not in bot
    assert filters.bot_arguments([bot], "cluster") == [{
        "name": "alpha", "state": "started", "version": bot["version"], "api_keys": {"A": "b"}, "env": {},
        "profile": "desktop", "node_selector": {"disk": "fast"}}]
    assert "node_selector" not in filters.bot_arguments([bot])[0]


def test_what_is_impossible_in_a_cluster_is_refused_before_a_play_writes() -> None:
    with pytest.raises(AnsibleFilterError, match=r"alpha: .*not possible on a cluster"):
        described(bot_runtime="container")
    with pytest.raises(AnsibleFilterError, match="bot_node_selecter is not a variable of a bot"):
        described(bot_node_selecter={})


def test_images_are_given_to_those_that_name_none() -> None:
    images = {"1": {"gateway": "gateway:1", "desktop": "desktop:1"}}
    bots = [{"version": "1"}, {"version": "1", "profile": "desktop"}, {"version": "1", "image": "own"},
            {"version": "2"}]
    assert [bot.get("image") for bot in filters.bot_images(bots, images)] == ["gateway:1", "desktop:1", "own", None]


def test_the_table_has_a_line_for_each_bot() -> None:
    stopped = {"name": "bravo", "state": "absent", "ready": False, "profile": None, "version": None, "node": None,
               "urls": {}}
    running = {"name": "a", "state": "started", "ready": True, "profile": "gateway", "version": "2026.9.6", "node": "n",
               "urls": {"chrome": "http://192.0.2.7:30100"}}
    assert filters.bot_table([running, stopped]) == [
        "BOT    STATE    READY  PROFILE  VERSION   NODE  PAGES",
        "a      started  yes    gateway  2026.9.6  n     http://192.0.2.7:30100",
        "bravo  absent   no     -        -         -     -"]
