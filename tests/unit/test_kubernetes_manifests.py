# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The objects of a bot: names, mounts, privileges, quantities; and when two of them are the same."""

from __future__ import annotations

import json

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils import _bot
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes import compare, manifests

SITE = manifests.Site("home", gateway_image="gateway:1", desktop_image="desktop:1",
                      allowed_destinations=("10.1.0.0/16",))
KEYS = {"OPENCLAW_GATEWAY_TOKEN": "t" * 43, "VNC_PASSWORD": "v" * 8, "ANTHROPIC_API_KEY": "k" * 20}


def objects(pair=None, **values):
    bot = _bot.parse({"name": "alpha", "version": "2026.9.6", **values}, "cluster")
    made = manifests.objects(bot, SITE, KEYS, pair, 1)
    return {(obj["kind"], obj["metadata"]["name"]): obj for obj in made}


def pod(made):
    return made["Deployment", "bot-alpha"]["spec"]["template"]["spec"]


def test_a_desktop_has_the_seeds_names_mounts_and_ports():
    made = objects(30100, profile="desktop")
    assert set(made) == {
        ("ServiceAccount", "bot-alpha"), ("NetworkPolicy", "bot-alpha"), ("Secret", "bot-alpha-keys"),
        ("ConfigMap", "bot-alpha-config"), ("Service", "bot-alpha-vnc"), ("Deployment", "bot-alpha"),
        *(("PersistentVolumeClaim", f"bot-alpha-{name}") for name in ("clawdbot", "clawd", "chrome", "homebrew"))}
    (container,) = pod(made)["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["homebrew"] == "/home/linuxbrew/.linuxbrew" and mounts["chrome"] == "/home/openclaw/.config/chromium"
    assert "hostPath" not in json.dumps(made["Deployment", "bot-alpha"])
    assert container["securityContext"] == {"privileged": True}
    ports = made["Service", "bot-alpha-vnc"]["spec"]["ports"]
    assert [(port["name"], port["port"], port["nodePort"]) for port in ports] == [
        ("chrome", 6081, 30100), ("terminal", 6082, 30101)]
    assert made["Deployment", "bot-alpha"]["spec"]["strategy"] == {"type": "Recreate"}


def test_a_gateway_has_no_privileges_and_no_port():
    made = objects()
    assert ("Service", "bot-alpha-vnc") not in made
    (container,) = pod(made)["containers"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                            "capabilities": {"drop": ["ALL"]}}
    assert pod(made)["securityContext"]["runAsNonRoot"] and not pod(made)["automountServiceAccountToken"]
    assert {kind for kind, _name in made if kind == "PersistentVolumeClaim"} == {"PersistentVolumeClaim"}
    assert {obj["metadata"]["namespace"] for obj in made.values()} == {"claworc-gateway"}


def test_secrets_stand_in_the_secret_alone():
    made = objects(api_keys={"ANTHROPIC_API_KEY": "k" * 20})
    text = json.dumps([obj for (kind, _name), obj in made.items() if kind != "Secret"])
    assert not any(value in text for value in KEYS.values())
    marks = made["Secret", "bot-alpha-keys"]["metadata"]
    assert not any(value in json.dumps(marks) for value in KEYS.values())


def test_who_may_come_in_and_where_a_bot_may_go():
    policy = objects(30100, profile="desktop", allowed_sources=["192.0.2.0/24"])["NetworkPolicy", "bot-alpha"]["spec"]
    assert policy["ingress"][0]["from"] == [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    blocks = [peer["ipBlock"] for peer in policy["egress"][1]["to"]]
    assert "169.254.0.0/16" in blocks[0]["except"] and blocks[-1] == {"cidr": "10.1.0.0/16"}
    assert "ingress" not in objects()["NetworkPolicy", "bot-alpha"]["spec"]
    closed = objects(30100, profile="desktop", allowed_sources=["192.0.2.0/24"])["Service", "bot-alpha-vnc"]
    assert closed["spec"]["externalTrafficPolicy"] == "Local"


def test_the_config_reaches_the_pod_by_its_digest():
    first, second = (objects(config={"logging": {"level": level}}) for level in ("info", "debug"))
    notes = [made["Deployment", "bot-alpha"]["spec"]["template"]["metadata"]["annotations"] for made in (first, second)]
    assert notes[0][manifests.CONFIG_DIGEST] != notes[1][manifests.CONFIG_DIGEST]
    config = json.loads(first["ConfigMap", "bot-alpha-config"]["data"]["openclaw.json"])
    assert (config["gateway"]["bind"], config["gateway"]["port"]) == ("lan", 18789)
    assert config["logging"] == {"level": "info"}


def test_extra_volumes_sizes_and_placement():
    made = objects(
        volume_sizes={"clawd": "3Gi"}, storage_class="fast", node_selector={"disk": "ssd"},
        tolerations=[{"key": "bots", "operator": "Exists"}],
        extra_volumes=[{"name": "notes", "mount_path": "/notes", "claim": "notes", "read_only": True},
                       {"name": "cache", "mount_path": "/cache", "empty_dir": "1024Mi"}])
    claim = made["PersistentVolumeClaim", "bot-alpha-clawd"]["spec"]
    assert claim["resources"]["requests"]["storage"] == "3Gi" and claim["storageClassName"] == "fast"
    volumes = {volume["name"]: volume for volume in pod(made)["volumes"]}
    assert volumes["notes"]["persistentVolumeClaim"] == {"claimName": "notes"}
    assert volumes["cache"]["emptyDir"] == {"sizeLimit": "1Gi"}
    assert pod(made)["nodeSelector"] == {"disk": "ssd"} and pod(made)["tolerations"][0]["key"] == "bots"


def test_passwordless_only_when_allowed():
    def names(**more):
        return {one["name"] for one in pod(objects(30100, profile="desktop", **more))["containers"][0]["env"]}
    assert "VNC_PASSWORDLESS" not in names() and "VNC_PASSWORDLESS" in names(allow_passwordless=True)


@pytest.mark.parametrize("bad, word", [
    ({"resources": {"memory": "500Mb"}}, "500Mb"),
    ({"volume_sizes": {"chrome": "1Gi"}}, "chrome"),
    ({"volume_sizes": {"clawd": "1 GB"}}, "1 GB"),
    ({"allowed_sources": ["192.0.2.1/24"]}, "192.0.2.1/24"),
    ({"tolerations": [{"kee": "a"}]}, "kee"),
    ({"extra_volumes": [{"name": "run", "mount_path": "/x", "claim": "c"}]}, "run"),
    ({"extra_volumes": [{"name": "x", "mount_path": "../x", "claim": "c"}]}, "../x"),
    ({"extra_volumes": [{"name": "x", "mount_path": "/x", "host_path": "/"}]}, "host_path"),
    ({"extra_volumes": [{"name": "x", "mount_path": "/x", "claim": "c", "secret": "s"}]}, "claim"),
    ({"state": "asleep"}, "asleep"),
    ({"runtime": "container"}, "container"),
])
def test_bad_input_names_itself(bad, word):
    with pytest.raises(FleetError, match=word):
        objects(**bad)


@pytest.mark.parametrize("amount, text", [(2 * 1024**3, "2Gi"), (512 * 1024**2, "512Mi"), (500 * 1000**2, "500M"),
                                          (1024, "1Ki"), (1001, "1001"), (25000, "25k")])
def test_quantities_are_written_as_the_server_does(amount, text):
    assert manifests.size(amount) == text


@pytest.mark.parametrize("amount, text", [(2.0, "2"), (0.5, "500m"), (1.5, "1500m"), (0.0004, "1m")])
def test_processors_too(amount, text):
    assert manifests.cpus(amount) == text


@pytest.mark.parametrize("desired, observed, same", [
    ({"a": 1}, {"a": 1, "added": 2}, True),
    ({"a": {"b": 1}}, {"a": {"b": 2}}, False),
    ({"a": {}}, {}, True),
    ({"a": []}, {}, True),
    ({"a": 1}, None, False),
    ([{"name": "x", "v": 1}], [{"name": "side"}, {"name": "x", "v": 1, "w": 2}], True),
    ([{"name": "x", "v": 1}], [{"name": "y", "v": 1}], False),
    ([{"cidr": "a"}], [{"cidr": "a"}, {"cidr": "b"}], False),
    ([1, 2], [1, 2], True),
    ([1, 2], [2, 1], False),
])
def test_only_what_is_desired_counts(desired, observed, same):
    assert compare.covers(desired, observed) is same


def test_a_diff_shows_the_observed_side_of_what_is_desired():
    desired = {"a": 1, "list": [{"name": "x", "v": 1}]}
    assert compare.part(desired, {"a": 2, "b": 3, "list": [{"name": "y"}, {"name": "x", "v": 2, "w": 3}]}) == {
        "a": 2, "list": [{"name": "x", "v": 2}]}
