# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pairs of ports in both stores: lowest free, sticky, never shared."""

from __future__ import annotations

import concurrent.futures
import socket

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils import _bot, _ports
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes import port_pair
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes.manifests import Site
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes.reconcile import Fleet, Settings
from fake_cluster import FakeCluster

BAND = _ports.Band(24000, 24099)


class Ended(Exception):
    pass


class FakeModule:
    def __init__(self, check_mode=False, **params):
        self.check_mode = check_mode
        self.params = {"names": [], "state": "present", "store": "sqlite", "band_first": 24000, "band_last": 24099,
                       "fleet": "home", "namespace": "claworc", **params}

    def warn(self, warning):
        pass

    def exit_json(self, **values):
        self.result = values

    def fail_json(self, **values):
        self.result = {"failed": True, **values}


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "ports.sqlite")


def module(**params):
    made = FakeModule(**params)
    port_pair.manage(made)
    return made.result


@pytest.mark.parametrize("first, last", [(30101, 30199), (30100, 30198), (30200, 30199), (80, 99), (65534, 65537)])
def test_a_band_is_of_whole_pairs(first, last):
    with pytest.raises(FleetError, match=f"{first}-{last}"):
        _ports.pair_band(first, last)


def test_lowest_free_sticky_and_released(path):
    assert module(names=["b", "a"], path=path)["pairs"] == {
        "b": {"chrome": 24000, "terminal": 24001}, "a": {"chrome": 24002, "terminal": 24003}}
    again = module(names=["a"], path=path)
    assert not again["changed"] and again["pairs"]["a"]["chrome"] == 24002
    assert set(module(path=path)["pairs"]) == {"a", "b"}
    assert module(names=["b", "nobody"], state="absent", path=path)["actions"] == [
        {"subject": "pair of b", "action": "delete"}]
    assert not module(names=["b"], state="absent", path=path)["changed"]
    assert module(names=["c"], path=path)["pairs"]["c"]["chrome"] == 24000


def test_check_mode_says_the_same_and_keeps_nothing(path, tmp_path):
    planned = module(names=["a"], path=path, check_mode=True)
    assert planned["changed"] and not list(tmp_path.iterdir())
    assert module(names=["a"], path=path)["pairs"] == planned["pairs"]


def test_single_ports_and_programs_of_the_host_are_passed_over(path):
    _ports.reserve({"host": 24000}, BAND, path)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 24003))
        busy.listen()
        assert module(names=["a"], path=path)["pairs"]["a"]["chrome"] == 24004


def test_a_full_band_is_named_with_its_holders(path):
    small = {"band_first": 24000, "band_last": 24003, "path": path}
    module(names=["a", "b"], **small)
    failed = module(names=["c"], **small)
    assert failed["failure"]["code"] == "band_full"
    assert "24000-24003" in failed["msg"] and "a, b" in failed["msg"]
    assert set(module(**small)["pairs"]) == {"a", "b"}


def test_fifty_at_once_get_fifty_pairs(path):
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        asked = [pool.submit(_ports.reserve_pairs, [f"bot{number}"], BAND, path) for number in range(50)]
    pairs = [port for one in asked for port in one.result().values()]
    assert sorted(pairs) == list(range(24000, 24100, 2))


def services(cluster, **more):
    return port_pair.Services(cluster, Site("home"), BAND, **more)


def test_in_a_cluster_the_service_is_the_reservation():
    cluster = FakeCluster()
    cluster.put({"kind": "Service", "metadata": {"name": "x", "namespace": "other"},
                 "spec": {"ports": [{"port": 1, "nodePort": 24001}]}})
    store = services(cluster)
    store.held()
    assert store.choose(["a", "b"]) == {"a": 24002, "b": 24004}
    cluster.calls.clear()
    assert store.reserve(["a", "b"]) == {"a": 24002, "b": 24004}
    assert cluster.calls == [("create", "Service", "bot-a-vnc"), ("create", "Service", "bot-b-vnc")]
    later = services(cluster)
    assert later.held() == {"a": 24002, "b": 24004}
    later.release(["a", "nobody"])
    assert services(cluster).held() == {"b": 24004}


def test_the_server_has_the_last_word():
    cluster = FakeCluster()
    store = services(cluster)
    store.held()
    other = services(cluster)
    other.held()
    other.reserve(["first"])
    assert store.reserve(["second"]) == {"second": 24002}
    late = services(cluster)
    late.cluster.refuse = None
    assert late.reserve(["first"]) == {"first": 24000}  # made by somebody else since nobody looked


def test_a_foreign_service_of_that_name_is_refused():
    cluster = FakeCluster()
    cluster.put({"kind": "Service", "metadata": {"name": "bot-a-vnc", "namespace": "claworc"}, "spec": {"ports": []}})
    store = services(cluster)
    store.held()
    for verb in (store.choose, store.release):
        with pytest.raises(FleetError, match="claworc/bot-a-vnc"):
            verb(["a"])


def test_a_bot_takes_over_the_pair_that_was_reserved_for_it():
    cluster = FakeCluster()
    store = services(cluster)
    store.held()
    store.reserve(["first", "alpha"])
    bot = {"name": "alpha", "version": "2026.9.6", "profile": "desktop", "state": "stopped"}
    site = Site("home", desktop_image="desktop:1")
    fleet = Fleet(cluster, site, _bot.parse_all([bot], "cluster"), Settings(wait=False))
    plan = fleet.plan()
    assert not [change for change in plan.changes if change.subject.startswith("Service ")]
    assert fleet.apply(plan)["bots"][0]["ports"] == {"chrome": 24002, "terminal": 24003}
