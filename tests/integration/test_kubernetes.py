# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bots in the bed's cluster, as the API server, the node and the audit log see them."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import time
import urllib.request

import pytest
from kubernetes_bed import Bed, Fleet, decoded, desktop, gateway, on_node

SECRET = "planted-5ecret-2b7e"
full = pytest.mark.full


@pytest.fixture(scope="module")
def bed():
    return Bed()


@pytest.fixture
def fleet(bed, tmp_path):
    made = Fleet(bed, tmp_path)
    yield made
    made.discard()


def test_a_fleet_from_nothing_and_again_without_a_write(fleet, bed):
    bots = [desktop("alpha", api_keys={"ANTHROPIC_API_KEY": SECRET}), gateway("golf")]
    before = fleet.run(bots=bots, check=True)
    assert before["changed"] and fleet.names("Deployment") == []
    made = fleet.run(bots=bots)
    assert {tuple(a.values()) for a in before["actions"]} == {tuple(a.values()) for a in made["actions"]}
    assert [bot["ready"] for bot in made["bots"]] == [True, True]
    assert fleet.names("PersistentVolumeClaim") == [
        "bot-alpha-chrome", "bot-alpha-clawd", "bot-alpha-clawdbot", "bot-alpha-homebrew"]
    assert fleet.names("Service") == ["bot-alpha-vnc"]
    for url in made["bots"][0]["urls"].values():
        with urllib.request.urlopen(url, timeout=5) as page:  # noqa: S310 an address of the bed
            assert page.read() == b"hello\n"
    since = bed.now()
    again = fleet.run(bots=bots)
    assert not again["changed"]
    calls = bed.calls(since, fleet)
    assert [call for call in calls if call[0] not in ("list", "get")] == []
    listed = sorted(kind for verb, kind, namespace in calls if verb == "list" and namespace == fleet.namespace)
    assert listed == ["configmaps", "deployments", "networkpolicies", "persistentvolumeclaims", "pods", "secrets",
                      "serviceaccounts", "services"]
    assert SECRET not in json.dumps([made, again])
    assert SECRET not in json.dumps([obj for kind in ("Deployment", "ConfigMap", "Service", "Pod", "Event")
                                     for obj in bed.cluster.list(kind, fleet.namespace)])


def test_a_change_of_config_rolls_that_bot_alone(fleet):
    bots = [gateway("golf"), gateway("hotel", config={"logging": {"level": "info"}})]
    first = {bot["name"]: bot["pod"] for bot in fleet.run(bots=bots)["bots"]}
    bots[1]["config"] = {"logging": {"level": "debug"}}
    done = fleet.run(bots=bots)
    assert {action["subject"].rpartition("/")[2] for action in done["actions"]} == {"bot-hotel", "bot-hotel-config"}
    second = {bot["name"]: bot["pod"] for bot in done["bots"]}
    assert second["golf"] == first["golf"] and second["hotel"] != first["hotel"]
    told = fleet.bed.cluster.exec(fleet.gateways, second["hotel"], ["cat", "/etc/openclaw/openclaw.json"])
    assert json.loads(told.out)["logging"] == {"level": "debug"}
    live = [bots[0], {**bots[1], "live_config": True, "config": {"logging": {"level": "trace"}}}]
    done = fleet.run(bots=live)
    assert [action["subject"].partition(" ")[0] for action in done["actions"]] == ["ConfigMap"]
    told = fleet.bed.cluster.exec(fleet.gateways, second["hotel"], ["cat", "/etc/openclaw/openclaw.json"])
    assert json.loads(told.out)["logging"] == {"level": "trace"}
    fed = fleet.bed.cluster.exec(fleet.gateways, second["hotel"], ["cat"], stdin=b"through stdin")
    assert (fed.rc, fed.out) == (0, "through stdin")
    assert fleet.bed.cluster.exec(fleet.gateways, second["hotel"], ["sh", "-c", "exit 3"]).rc == 3


def test_stop_and_start_keep_ports_keys_and_data(fleet):
    cluster = fleet.bed.cluster
    bot = desktop("alpha")
    made = fleet.run(bots=[bot])["bots"][0]
    keys = decoded(cluster.get("Secret", "bot-alpha-keys", fleet.namespace))
    brew = "/home/linuxbrew/.linuxbrew/bin/brew"
    assert cluster.exec(fleet.namespace, made["pod"], ["cat", brew]).out == "brewed\n"  # from the image, to its volume
    cluster.exec(fleet.namespace, made["pod"], ["sh", "-c", f"echo kept >/home/openclaw/clawd/note; rm {brew}"])
    stopped = fleet.run(bots=[{**bot, "state": "stopped"}])["bots"][0]
    assert (stopped["state"], stopped["pod"], stopped["ports"]) == ("stopped", None, made["ports"])
    assert not fleet.run(bots=[{**bot, "state": "present"}])["changed"]
    started = fleet.run(bots=[bot])["bots"][0]
    assert cluster.exec(fleet.namespace, started["pod"], ["cat", "/home/openclaw/clawd/note"]).out == "kept\n"
    assert cluster.exec(fleet.namespace, started["pod"], ["ls", brew]).rc != 0
    assert started["ports"] == made["ports"]
    assert decoded(cluster.get("Secret", "bot-alpha-keys", fleet.namespace)) == keys
    restarted = fleet.run(bots=[{**bot, "state": "restarted"}])
    assert restarted["changed"] and restarted["bots"][0]["pod"] != started["pod"]
    assert not fleet.run(bots=[bot])["changed"]


def test_absent_leaves_the_volumes_and_purge_data_takes_them(fleet):
    bot = desktop("alpha", state="stopped")
    fleet.run(bots=[bot])
    gone = fleet.run(bots=[{**bot, "state": "absent"}])
    assert gone["removed"] == ["alpha"]
    kinds = ("Deployment", "Service", "Secret", "ConfigMap", "NetworkPolicy")
    assert [name for kind in kinds for name in fleet.names(kind)] == ["kube-root-ca.crt"]
    assert len(fleet.names("PersistentVolumeClaim")) == 4
    assert not fleet.run(bots=[{**bot, "state": "absent"}])["changed"]
    fleet.run(bots=[{**bot, "state": "absent"}], purge_data=True)
    fleet.until(lambda: fleet.names("PersistentVolumeClaim") == [])


def test_foreign_objects_are_refused_named_and_untouched(fleet):
    foreign = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"mine": "yes"},
               "metadata": {"name": "bot-golf-config", "namespace": fleet.gateways}}
    fleet.bed.cluster.create(foreign)
    for state in ("started", "absent"):
        failed = fleet.run(bots=[gateway("golf", state=state)], fails=True)
        assert failed["failure"]["code"] == "foreign_object"
        assert failed["failure"]["details"]["objects"] == [f"ConfigMap {fleet.gateways}/bot-golf-config"]
    assert fleet.bed.cluster.get("ConfigMap", "bot-golf-config", fleet.gateways)["data"] == {"mine": "yes"}
    assert fleet.names("Deployment", fleet.gateways) == []
    fleet.run(bots=[gateway("golf", state="stopped")], adopt=True)
    adopted = fleet.bed.cluster.get("ConfigMap", "bot-golf-config", fleet.gateways)
    assert adopted["metadata"]["labels"]["clawops.fleet/bot"] == "golf"
    failed = fleet.run(bots=[gateway("golf", state="stopped")], fleet="other", fails=True)
    assert f"belongs to fleet {fleet.fleet}" in failed["msg"]


@full
def test_fields_of_others_are_named_and_taken_only_by_force(fleet):
    bot = gateway("golf", state="stopped")
    fleet.run(bots=[bot])
    on_node("kubectl", "scale", "deployment/bot-golf", "-n", fleet.gateways, "--replicas=1")
    for check in (True, False):
        failed = fleet.run(bots=[bot], fails=True, check=check)
        assert failed["failure"]["details"]["conflicts"] == [{"manager": "kubectl", "field": ".spec.replicas"}]
    fleet.run(bots=[bot], force_conflicts=True)
    assert fleet.bed.cluster.get("Deployment", "bot-golf", fleet.gateways)["spec"]["replicas"] == 0


@full
def test_volumes_grow_and_never_shrink(fleet):
    bot = gateway("golf", state="stopped")
    fleet.run(bots=[bot])
    fleet.until(lambda: fleet.claim("bot-golf-clawdbot")["status"].get("phase") == "Bound")
    grown = {**bot, "resources": {**bot["resources"], "storage": "2Gi"}}
    fleet.run(bots=[grown])
    fleet.until(lambda: fleet.claim("bot-golf-clawdbot")["status"]["capacity"] == {"storage": "2Gi"})
    volumes = fleet.run(bots=[grown])["bots"][0]["volumes"]
    assert [(volume["size"], volume["capacity"]) for volume in volumes] == [("2Gi", "2Gi")]
    assert "can't shrink" in fleet.run(bots=[bot], fails=True)["msg"]
    failed = fleet.run(bots=[{**grown, "storage_class": "other"}], fails=True)
    assert failed["failure"]["code"] == "immutable_field"


@full
def test_an_image_that_is_not_there_ends_the_wait_at_once(fleet):
    start = time.monotonic()
    failed = fleet.run(bots=[gateway("golf", image="127.0.0.1:5000/clawops-test/none:1"), gateway("hotel")],
                       fails=True, timeout=300)
    assert time.monotonic() - start < 90
    details = {bot["name"]: bot for bot in failed["failure"]["details"]["bots"]}
    assert (details["golf"]["failed"], details["hotel"]["failed"]) == (True, False)
    assert details["golf"]["details"]["reason"] == "ImagePullBackOff"
    assert any("clawops-test/none:1" in event for event in details["golf"]["details"]["events"])
    repaired = fleet.run(bots=[gateway("golf"), gateway("hotel")])
    assert all(bot["ready"] for bot in repaired["bots"])


@full
def test_fifty_at_once_get_fifty_pairs(fleet):
    names = [f"bot{number}" for number in range(50)]
    band = {"band_first": 31000, "band_last": 31099}
    foreign = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "foreign", "namespace": fleet.namespace},
               "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 31005}]}}
    fleet.bed.cluster.create(foreign)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda name: fleet.pairs(names=[name], **band), names[:20]))
    rest = fleet.pairs(names=names[20:49], **band)
    pairs = [pair for one in [*done, rest] for pair in one["pairs"].values()]
    assert sorted(pair["chrome"] for pair in pairs) == [port for port in range(31000, 31100, 2) if port != 31004]
    assert all(pair["terminal"] == pair["chrome"] + 1 for pair in pairs)
    failed = fleet.pairs(names=["late"], fails=True, **band)
    assert "31000-31099" in failed["msg"] and "bot7" in failed["msg"] and f"{fleet.namespace}/foreign" in failed["msg"]
    assert not fleet.pairs(names=names[:49], **band)["changed"]
    assert len(fleet.pairs(names=[], **band)["pairs"]) == 49
    fleet.pairs(names=["bot3"], state="absent", **band)
    assert fleet.pairs(names=["late"], **band)["pairs"]["late"] == done[3]["pairs"]["bot3"]


@full
def test_the_facts_name_every_bot_of_the_fleet(fleet):
    fleet.run(bots=[gateway("golf", state="stopped"), desktop("alpha", state="stopped")])
    found = fleet.module("bot_instance_info", fleet=fleet.fleet, namespaces=[fleet.namespace, fleet.gateways])["bots"]
    assert [(bot["name"], bot["profile"], bot["state"]) for bot in found] == [
        ("alpha", "desktop", "stopped"), ("golf", "gateway", "stopped")]
    one = fleet.module("bot_instance", **fleet.common(), **gateway("golf", state="stopped"))
    assert not one["changed"] and one["bot"]["name"] == "golf"


@full
def test_in_check_mode_a_namespace_may_be_missing(fleet):
    planned = fleet.run(bots=[gateway("golf")], gateway_namespace="clawops-test-none", check=True)
    assert planned["changed"] and not planned["plan_complete"]
    failed = fleet.run(bots=[gateway("golf")], gateway_namespace="clawops-test-none", fails=True)
    assert "clawops-test-none" in failed["msg"]


@pytest.mark.parametrize("bot, reason, word", [
    (gateway("golf", env={"CRASH": "1"}, api_keys={"ANTHROPIC_API_KEY": SECRET}), "CrashLoopBackOff", "(hidden)"),
    (gateway("golf", node_selector={"disk": "golden"}), "Unschedulable", "node affinity"),
    (gateway("golf", extra_volumes=[{"name": "more", "mount_path": "/more", "secret": "nowhere"}]), "FailedMount",
     "nowhere"),
], ids=["crash", "schedule", "mount"])
@full
def test_a_hopeless_pod_ends_the_wait_with_its_own_words(fleet, bot, reason, word):
    start = time.monotonic()
    failed = fleet.run(bots=[bot], fails=True, timeout=300)
    assert time.monotonic() - start < 60
    (told,) = failed["failure"]["details"]["bots"]
    assert told["details"]["reason"] == reason
    assert word in failed["msg"] and SECRET not in json.dumps(failed)


@full
def test_a_pod_that_is_forbidden_ends_the_wait(fleet):
    fleet.bed.cluster.create({"apiVersion": "v1", "kind": "ResourceQuota", "spec": {"hard": {"pods": "0"}},
                              "metadata": {"name": "none", "namespace": fleet.gateways}})
    failed = fleet.run(bots=[gateway("golf")], fails=True, timeout=300)
    assert "exceeded quota" in failed["msg"]


@full
def test_no_more_bots_are_down_than_allowed(fleet):
    names = ["golf", "hotel", "india"]
    fleet.run(bots=[gateway(name) for name in names])
    changed = [gateway(name, env={"COLOUR": "blue"}) for name in names]
    process = subprocess.Popen(fleet.argv("bot_fleet", **{**fleet.common(), "bots": changed, "max_unavailable": 1}),
                               env=fleet.env(), stdout=subprocess.PIPE, text=True)
    least = len(names)
    while process.poll() is None:
        found = fleet.bed.cluster.list("Deployment", fleet.gateways)
        least = min(least, sum((one.get("status") or {}).get("readyReplicas", 0) for one in found))
        time.sleep(0.05)
    assert process.returncode == 0 and least == len(names) - 1


@full
def test_prune_and_only_touch_what_they_say(fleet):
    bots = [gateway(name, state="stopped") for name in ("golf", "hotel", "india")]
    fleet.run(bots=bots)
    changed = [{**bot, "env": {"A": "1"}} for bot in bots]
    done = fleet.run(bots=changed, only=["hotel"], prune=True)
    assert [(bot["name"], bot["changed"]) for bot in done["bots"]] == [("hotel", True)]
    fleet.run(bots=[gateway("other", state="stopped")], fleet="other")
    assert fleet.run(bots=bots[:1], prune=True)["removed"] == ["hotel", "india"]
    assert fleet.names("Deployment", fleet.gateways) == ["bot-golf", "bot-other"]


def test_two_runs_at_once_end_in_one_state(fleet):
    bots = [desktop(f"bot{number}", state="stopped") for number in range(6)] + [gateway("golf")]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        done = [run.result() for run in [pool.submit(fleet.run, bots=bots) for _number in range(3)]]
    ports = [{bot["name"]: bot["ports"] for bot in one["bots"]} for one in done]
    assert ports[0] == ports[1] == ports[2]
    assert not fleet.run(bots=bots)["changed"]


@full
def test_fifty_modules_at_once_get_fifty_pairs(fleet):
    names = [f"bot{number}" for number in range(50)]
    band = {"band_first": 31200, "band_last": 31299, "store": "kubernetes", "fleet": fleet.fleet,
            "namespace": fleet.namespace}
    running = [subprocess.Popen(fleet.argv("port_pair", names=[name], **band), env=fleet.env(), text=True,
                                stdout=subprocess.PIPE) for name in names]
    results = [json.loads(process.communicate()[0]) for process in running]
    pairs = [result["pairs"][name]["chrome"] for name, result in zip(names, results)]
    assert sorted(pairs) == list(range(31200, 31300, 2))


@pytest.mark.parametrize("after", [0.8, *(pytest.param(after, marks=full) for after in (0.4, 0.6, 1.0, 1.3))])
def test_a_killed_run_is_taken_up_again(fleet, after):
    bots = [desktop(f"bot{number}", state="stopped") for number in range(12)]
    process = subprocess.Popen(fleet.argv("bot_fleet", **{**fleet.common(), "bots": bots}), env=fleet.env(),
                               stdout=subprocess.DEVNULL, start_new_session=True)
    time.sleep(after)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = fleet.run(bots=bots)
    assert len({bot["ports"]["chrome"] for bot in done["bots"]}) == 12
    assert not fleet.run(bots=bots)["changed"]
    assert len(fleet.names("Service")) == 12


@full
def test_the_api_server_may_restart_in_the_middle(fleet):
    bots = [gateway(f"bot{number}", state="stopped") for number in range(40)]
    process = subprocess.Popen(fleet.argv("bot_fleet", **{**fleet.common(), "bots": bots}), env=fleet.env(),
                               stdout=subprocess.PIPE, text=True)
    fleet.until(lambda: len(fleet.names("ConfigMap", fleet.gateways)) > 5)
    on_node("systemctl", "kill", "--signal=KILL", "kube-apiserver")
    result = json.loads(process.communicate()[0])
    assert not result.get("failed"), result.get("msg")
    assert not fleet.run(bots=bots)["changed"]


def test_fifty_bots_cost_one_list_for_each_kind(fleet, bed):
    bots = [gateway(f"bot{number}", state="stopped") for number in range(50)]
    fleet.run(bots=bots)
    since = bed.now()
    assert not fleet.run(bots=bots)["changed"]
    calls = bed.calls(since, fleet)
    assert len(calls) == 8 and {call[0] for call in calls} == {"list"}
    since = bed.now()
    changed = [*bots[:49], gateway("bot49", state="stopped", env={"A": "1"})]
    assert fleet.run(bots=changed, check=True)["changed"]
    assert [call[1] for call in bed.calls(since, fleet) if call[0] != "list"] == ["deployments"]


def test_a_playbook_does_all_that_in_its_own_process(fleet, bed):
    bots = [gateway(f"bot{number}", state="stopped", api_keys={"ANTHROPIC_API_KEY": SECRET}) for number in range(3)]
    assert "changed=1" in fleet.play("--check", bots=bots) and fleet.names("Secret", fleet.gateways) == []
    out = fleet.play("-vvv", "--diff", bots=bots)
    assert "changed=1" in out and SECRET not in out
    since = bed.now()
    assert "changed=0" in fleet.play(bots=bots)
    calls = bed.calls(since, fleet)
    assert len(calls) == 8 and {call[0] for call in calls} == {"list"}
    assert not (fleet.tmp_path / "sent").exists()
    assert not fleet.run(bots=bots)["changed"]
