# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bots of a cluster: what is read, what is planned, what is written, and what is refused."""

from __future__ import annotations

import json

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils import _bot
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes import facts, manifests
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes.manifests import Site
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes.reconcile import KINDS, Fleet, Settings
from ansible_collections.clawops.fleet.plugins.module_utils._ports import Band
from fake_cluster import FakeCluster

SITE = Site("home", gateway_image="gateway:1", desktop_image="desktop:1")
SECRET = "planted-5ecret"


def described(name, **more):
    return {"name": name, "version": "2026.9.6", "state": "stopped", **more}


def make(cluster, *bots, site=SITE, **settings):
    return Fleet(cluster, site, _bot.parse_all(bots, "cluster"), Settings(wait=False, **settings))


def bring(cluster, *bots, **settings):
    fleet = make(cluster, *bots, **settings)
    plan = fleet.plan()
    values = fleet.apply(plan) if plan.changed else fleet.facts()
    return plan, values


@pytest.fixture
def cluster():
    return FakeCluster()


def refused(code, cluster, *bots, **settings):
    cluster.calls.clear()
    with pytest.raises(FleetError) as caught:
        bring(cluster, *bots, **settings)
    assert caught.value.code == code
    assert cluster.writes() == []
    return caught.value


def test_the_second_run_lists_each_kind_once_and_writes_nothing(cluster):
    bots = [described("alpha", profile="desktop"), described("bravo", profile="desktop", api_keys={"KEY": SECRET})]
    plan, values = bring(cluster, *bots)
    assert len(plan.changes) == 20
    assert [bot["ports"]["chrome"] for bot in values["bots"]] == [30100, 30102]
    cluster.calls.clear()
    plan, values = bring(cluster, *bots)
    assert not plan.changed
    assert cluster.calls == [("list", kind, "claworc") for kind in (*KINDS, "Pod")]
    assert [bot["changed"] for bot in values["bots"]] == [False, False]


def test_what_was_wanted_once_is_taken_back(cluster):
    bring(cluster, described("alpha", node_selector={"disk": "fast"}))
    plan, _values = bring(cluster, described("alpha"))
    assert [(change.subject, change.action) for change in plan.changes] == [
        ("Deployment claworc-gateway/bot-alpha", "update")]
    deployment = cluster.get("Deployment", "bot-alpha", "claworc-gateway")
    assert "nodeSelector" not in deployment["spec"]["template"]["spec"]


def test_only_the_bot_whose_key_changed_is_rolled(cluster):
    bring(cluster, described("alpha", state="started"), described("bravo", state="started"))
    fleet = make(cluster, described("alpha", state="started", api_keys={"KEY": SECRET}),
                 described("bravo", state="started"), diff=True)
    plan = fleet.plan()
    assert {change.subject for change in plan.changes} == {
        "Secret claworc-gateway/bot-alpha-keys", "Deployment claworc-gateway/bot-alpha"}
    assert [want.bot.name for want in fleet.wanted if want.disturbs] == ["alpha"]
    assert SECRET not in json.dumps(plan.result()) and "KEY" not in json.dumps(cluster.calls)


def test_check_mode_asks_only_about_what_differs_and_writes_nothing(cluster):
    bring(cluster, described("alpha"), described("bravo"))
    cluster.calls.clear()
    make(cluster, described("alpha", env={"A": "1"}), described("bravo"), check=True).plan()
    assert [call for call in cluster.calls if call[0] != "list"] == [("dry", "Deployment", "bot-alpha")]


def test_keys_are_made_once_and_another_run_may_have_made_them(cluster):
    bring(cluster, described("alpha"))
    token = cluster.get("Secret", "bot-alpha-keys", "claworc-gateway")["data"]["OPENCLAW_GATEWAY_TOKEN"]
    bring(cluster, described("alpha", env={"A": "1"}))
    assert cluster.get("Secret", "bot-alpha-keys", "claworc-gateway")["data"]["OPENCLAW_GATEWAY_TOKEN"] == token
    late = FakeCluster()
    fleet = make(late, described("alpha"))
    plan = fleet.plan()
    bring(late, described("alpha"))  # the other run is faster
    first = late.get("Secret", "bot-alpha-keys", "claworc-gateway")["data"]
    fleet.apply(plan)
    assert late.get("Secret", "bot-alpha-keys", "claworc-gateway")["data"] == first
    assert not bring(late, described("alpha"))[0].changed


def test_a_pair_that_was_taken_meanwhile_is_passed_over(cluster):
    fleet = make(cluster, described("alpha", profile="desktop"), band=Band(30100, 30105))
    plan = fleet.plan()
    cluster.put({"kind": "Service", "metadata": {"name": "x", "namespace": "other"},
                 "spec": {"ports": [{"port": 1, "nodePort": 30101}]}})
    values = fleet.apply(plan)
    assert values["bots"][0]["ports"] == {"chrome": 30102, "terminal": 30103}


def test_who_may_not_see_the_cluster_learns_from_refusals(cluster):
    cluster.forbidden.add(("list", "Service", None))
    cluster.put({"kind": "Service", "metadata": {"name": "x", "namespace": "other"},
                 "spec": {"ports": [{"port": 1, "nodePort": 30100}]}})
    _plan, values = bring(cluster, described("alpha", profile="desktop"))
    assert values["bots"][0]["ports"]["chrome"] == 30102
    fixed = make(cluster, described("bravo", profile="desktop", port=30100))
    with pytest.raises(FleetError) as caught:
        fixed.apply(fixed.plan())
    assert caught.value.code == "port_taken"


def test_foreign_objects_are_all_named_before_the_first_write(cluster):
    for kind, name in (("ConfigMap", "bot-alpha-config"), ("Secret", "bot-bravo-ssh")):
        cluster.put({"kind": kind, "metadata": {"name": name, "namespace": "claworc-gateway"}})
    error = refused("foreign_object", cluster, described("alpha"), described("bravo"))
    assert error.details["objects"] == ["ConfigMap claworc-gateway/bot-alpha-config",
                                        "Secret claworc-gateway/bot-bravo-ssh"]
    refused("foreign_object", cluster, described("alpha", state="absent"))
    bring(cluster, described("alpha"), adopt=True)
    assert not bring(cluster, described("alpha"))[0].changed
    refused("foreign_object", cluster, described("alpha"), site=Site("other", gateway_image="gateway:1"))


def test_names_that_look_alike_are_not_mixed_up(cluster):
    bring(cluster, described("alpha-config"), described("alpha"))
    assert not bring(cluster, described("alpha"), described("alpha-config"))[0].changed


def test_conflicts_are_found_before_the_first_write(cluster):
    bring(cluster, described("alpha"))
    cluster.owners["Deployment", "claworc-gateway", "bot-alpha"] = "kubectl"
    error = refused("conflict", cluster, described("alpha", env={"A": "1"}))
    assert error.details["conflicts"][0]["manager"] == "kubectl"
    bring(cluster, described("alpha", env={"A": "1"}), force_conflicts=True)


def test_volumes_grow_and_never_shrink(cluster):
    bring(cluster, described("alpha", resources={"storage": "2Gi"}))
    refused("cannot_shrink", cluster, described("alpha", resources={"storage": "1Gi"}))
    refused("immutable_field", cluster, described("alpha", resources={"storage": "2Gi"}, storage_class="fast"))
    plan, _values = bring(cluster, described("alpha", resources={"storage": "3Gi"}))
    assert [change.subject for change in plan.changes] == [
        "PersistentVolumeClaim claworc-gateway/bot-alpha-clawdbot"]


def test_a_changed_profile_makes_no_empty_twin(cluster):
    bring(cluster, described("alpha"))
    refused("bad_profile", cluster, described("alpha", profile="desktop"))


def test_a_release_changes_only_by_upgrade(cluster):
    bring(cluster, described("alpha"))
    refused("upgrade_needed", cluster, described("alpha", version="2026.9.7"))
    assert bring(cluster, described("alpha", version="2026.9.7"), upgrade=True)[0].changed


def test_a_gateway_bot_has_no_port_and_a_bot_needs_an_image(cluster):
    refused("bad_value", cluster, described("alpha", port=30100))
    refused("no_image", cluster, described("alpha"), site=Site("home"))
    refused("port_taken", cluster, described("alpha", profile="desktop", port=30101))


def test_present_leaves_it_running_or_not(cluster):
    bring(cluster, described("alpha"))
    assert not bring(cluster, described("alpha", state="present"))[0].changed
    assert bring(cluster, described("alpha", state="started"))[0].changed
    assert not bring(cluster, described("alpha", state="present"))[0].changed


def test_restarted_patches_what_runs_unless_it_rolls_anyway(cluster):
    bring(cluster, described("alpha", state="started"))
    cluster.calls.clear()
    plan, _values = bring(cluster, described("alpha", state="restarted"))
    assert [change.action for change in plan.changes] == ["restart"]
    assert cluster.writes() == [("patch", "Deployment", "bot-alpha")]
    cluster.calls.clear()
    bring(cluster, described("alpha", state="restarted", env={"A": "1"}))
    assert cluster.writes() == [("apply", "Deployment", "bot-alpha")]


def test_a_live_config_reaches_the_pod_and_leaves_it_running(cluster):
    bot = described("alpha", state="started", live_config=True)
    bring(cluster, bot)
    cluster.put({"kind": "Pod", "status": {"phase": "Running"}, "metadata": {
        "name": "bot-alpha-1", "namespace": "claworc-gateway", "labels": {"app": "bot-alpha"}}})
    cluster.calls.clear()
    plan, _values = bring(cluster, {**bot, "config": {"ui": {}}})
    assert [change.subject for change in plan.changes] == ["ConfigMap claworc-gateway/bot-alpha-config"]
    assert cluster.writes() == [("apply", "ConfigMap", "bot-alpha-config"), ("patch", "Pod", "bot-alpha-1")]
    assert ("exec", "bot-alpha-1", ("cat", "/etc/openclaw/openclaw.json")) in cluster.calls
    assert not bring(cluster, {**bot, "config": {"ui": {}}})[0].changed
    plan, _values = bring(cluster, {**bot, "config": {"ui": {}}, "live_config": False})
    assert [change.subject for change in plan.changes] == ["Deployment claworc-gateway/bot-alpha"]


def test_batches_keep_within_max_unavailable(cluster):
    bots = [described(f"b{number}", state="started") for number in range(5)]
    bring(cluster, *bots)
    changed = [{**bot, "env": {"A": "1"}} for bot in bots]
    fleet = make(cluster, *changed, described("new"), max_unavailable=2)
    fleet.plan()
    assert [len(batch) for batch in fleet._batches()] == [1, 2, 2, 1]


def test_prune_removes_only_bots_of_this_fleet_and_keeps_data(cluster):
    bring(cluster, described("alpha"), described("bravo"))
    bring(cluster, described("other"), site=Site("other", gateway_image="gateway:1"))
    for kept in (4, 4):
        fleet = make(cluster, described("alpha"), prune=True)
        fleet.wait = lambda batch=None: None
        plan = fleet.plan()
        deployments = [change for change in plan.changes if change.subject.startswith("Deployment")]
        assert len(plan.changes) == 5 and len(deployments) == 1 and kept
    assert all("bravo" in change.subject for change in plan.changes)
    assert not [change for change in plan.changes if "PersistentVolumeClaim" in change.subject]
    purge = make(cluster, described("alpha"), prune=True, purge_data=True).plan()
    assert len(purge.changes) == 6


def test_facts_hold_no_secret_and_know_bots_of_which_only_data_are_left(cluster):
    bring(cluster, described("alpha", api_keys={"KEY": SECRET}))
    for kind in ("Deployment", "Secret"):
        for name in ("bot-alpha", "bot-alpha-keys"):
            cluster.objects.pop((kind, "claworc-gateway", name), None)
    (bot,) = facts.read(cluster, ["claworc", "claworc-gateway"], "home", None)
    assert (bot["name"], bot["state"], bot["volumes"][0]["size"]) == ("alpha", "absent", "10Gi")
    assert facts.read(cluster, ["claworc-gateway"], "other", None) == []


def test_no_label_or_annotation_tells_the_keys_apart_without_the_token():
    keys = {"OPENCLAW_GATEWAY_TOKEN": "t" * 32, "KEY": "guess"}
    assert manifests.keys_digest(keys) != manifests.keys_digest({**keys, "OPENCLAW_GATEWAY_TOKEN": "u" * 32})
    assert manifests.keys_digest(keys) == manifests.keys_digest(dict(reversed(keys.items())))


def test_new_bots_are_held_back_when_asked_for(cluster):
    bring(cluster, described("alpha"))
    cluster.put({"kind": "Secret", "metadata": {"name": "bot-bravo-keys", "namespace": "claworc-gateway", "labels": {
        "clawops.fleet/managed": "true", "clawops.fleet/fleet": "home", "clawops.fleet/bot": "bravo"}}})
    cluster.calls.clear()
    plan, values = bring(cluster, described("alpha"), described("bravo"), hold_new=True)
    assert values["held"] == ["bravo"] and [bot["name"] for bot in values["bots"]] == ["alpha"]
    assert not plan.changed and cluster.writes() == []
