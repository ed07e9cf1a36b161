# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Two desktops and a gateway in a cluster, from the inventory to their end: real images, real browsers, real turns."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import urllib.request

import pytest
from conftest import ROOT
from kubernetes_bed import PLANTED, REGISTRY, Site, decoded, on_node

pytestmark = pytest.mark.full
DESKTOPS, EVERYBODY = ["alpha", "bravo"], ["alpha", "bravo", "golf"]
MODEL = "10.213.0.6"
CACHE = pathlib.Path(os.environ.get("CLAWOPS_CACHE") or pathlib.Path.home() / ".cache/clawops-fleet")
PROVIDER = {"baseUrl": f"http://{MODEL}:8080/v1", "api": "openai-completions", "apiKey": "${BOX_API_KEY}",
            "models": [{"id": "stub", "name": "stub", "contextWindow": 128000, "maxTokens": 4096}]}
CONFIG = {"models": {"providers": {"box": PROVIDER}}, "agents": {"defaults": {"model": {"primary": "box/stub"}}}}
OPENCLAW = ["node", "/opt/openclaw/lib/node_modules/openclaw/openclaw.mjs"]


@pytest.fixture
def site(tmp_path):
    subprocess.run([ROOT / "scripts/testbed", "up", "model"], check=True, capture_output=True)
    resources = {"memory": "1536Mi", "cpus": "1", "storage": "1Gi"}
    gateway = {"bot_on": "harbor", "bot_resources": resources, "bot_config": CONFIG}
    desktop = {**gateway, "bot_profile": "desktop", "bot_resources": {**resources, "memory": "3Gi"}}
    made = Site(tmp_path, {"alpha": desktop, "bravo": desktop, "golf": gateway}, cluster_registry=REGISTRY,
                cluster_gateway_image="", cluster_allowed_destinations=[MODEL])
    made.keystore("create")
    made.keystore("set", "BOX_API_KEY", value=PLANTED)
    yield made
    made.discard()


def inside(site, bot, *argv):
    """What a command in a desktop says, by SSH."""
    words = ["--module-name", "ansible.builtin.command", "--args", json.dumps({"argv": argv})]
    return site.call("ansible", bot, *words).partition(">>\n")[2].strip()


def in_pod(site, bot, *argv):
    seen = site.observed(bot)
    done = site.bed.cluster.exec(seen["namespace"], seen["pod"], argv)
    assert done.rc == 0, done
    return done.out


def turn(site, bot, message):
    """A turn of the bot's agent, in a desktop as the one who has logged in."""
    told = ["agent", "--agent", "main", "--message", message, "--json"]
    if bot in DESKTOPS:
        said = inside(site, bot, "/bin/bash", "--login", "-c", 'exec openclaw "$@"', "openclaw", *told)
    else:
        said = in_pod(site, bot, *OPENCLAW, *told)
    assert "payloads" in said, said
    return said


def shows_its_screen(site, bot, page, url):
    """A browser of another kind than the one inside: headless, beside the cluster, with the bot's password."""
    keys = decoded(site.bed.cluster.get("Secret", f"bot-{bot}-keys", site.namespaces[0]))
    pictures = CACHE / "artefacts" / "novnc"
    pictures.mkdir(parents=True, exist_ok=True)
    picture = pictures / f"{bot}-{page}.png"
    picture.unlink(missing_ok=True)
    image = site.observed(bot)["image"]
    mounts = ["--volume", f"{pathlib.Path(__file__).with_name('novnc.js')}:/novnc.js:ro", "--volume",
              f"{pictures}:/pictures"]
    argv = ["docker", "run", "--rm", "--network=host", "--user=0", "--shm-size=1g", "--env=VNC_PASSWORD", *mounts,
            "--entrypoint=/opt/openclaw/bin/node", image, "/novnc.js", url, f"/pictures/{picture.name}"]
    done = subprocess.run(argv, env={**os.environ, "VNC_PASSWORD": keys["VNC_PASSWORD"]}, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["connected"] and told["colours"] > 1 and picture.stat().st_size > 5000


def names(site):
    """What kubectl shows, as kind/name."""
    words = ["get", "all,pvc,secret,cm", "--namespace", site.namespaces[0], "--output", "name"]
    return set(on_node("kubectl", *words).split())


def pods(site):
    return {bot: site.observed(bot)["pod"] for bot in EVERYBODY}


def test_two_desktops_and_a_gateway_from_the_inventory_to_their_end(site):
    assert site.bots() > 0
    for bot in DESKTOPS:
        ends = {"persistentvolumeclaim": ("-clawdbot", "-homebrew", "-clawd", "-chrome"), "secret": ("-keys", "-ssh"),
                "configmap": ("-config",), "service": ("-vnc",), "deployment.apps": ("",)}
        assert {f"{kind}/bot-{bot}{end}" for kind, given in ends.items() for end in given} <= names(site)
        for page, url in site.observed(bot)["urls"].items():
            with urllib.request.urlopen(f"{url}/vnc.html", timeout=10) as reply:  # noqa: S310 an address of the bed
                assert b"noVNC" in reply.read()
            shows_its_screen(site, bot, page, url)
        assert inside(site, bot, "id", "-un") == "openclaw"
    for bot in EVERYBODY:
        assert json.loads(in_pod(site, bot, "curl", "-fsS", "http://127.0.0.1:18789/readyz"))["ready"] is True
        assert f"the heron of {bot}" in turn(site, bot, f"remember: the heron of {bot}")
    assert site.bots() == 0

    before = pods(site)
    site.bot_hosts["bravo"] = {**site.bot_hosts["bravo"], "bot_config": {**CONFIG, "logging": {"level": "debug"}}}
    site.describe()
    assert site.bots() == 1
    after = pods(site)
    assert {bot for bot in EVERYBODY if before[bot] != after[bot]} == {"bravo"}
    assert json.loads(in_pod(site, "bravo", "cat", "/etc/openclaw/openclaw.json"))["logging"] == {"level": "debug"}

    words = {"fleet": site.vars["fleet_name"], "namespace": site.namespaces[0], "kubeconfig": str(site.manager)}
    for key in ("host", "user"):
        rotated = json.dumps({**words, "bots": ["bravo"], "state": "rotated", "key": key})
        site.call("ansible", "harbor", "--module-name", "clawops.fleet.bot_identity", "--args", rotated)
        assert inside(site, "bravo", "id", "-un") == "openclaw"

    inside(site, "alpha", "/bin/sh", "-c", "echo kept >clawd/note && echo kept >.config/chromium/note")
    profile = inside(site, "alpha", "/bin/sh", "-c", "ls .config/chromium")
    assert "Default" in profile
    assert site.bots(fleet_only=["alpha"], fleet_state="stopped") == 1
    assert (site.observed("alpha")["state"], site.observed("alpha")["pod"]) == ("stopped", None)
    assert site.bots() == 1
    for note in ("clawd/note", ".config/chromium/note"):
        assert inside(site, "alpha", "cat", note) == "kept"
    assert "the heron of alpha" in turn(site, "alpha", "recall")

    assert site.bots(fleet_only=EVERYBODY, fleet_state="absent") == 1
    left = {name for name in names(site) if "/bot-" in name}
    assert left == {f"persistentvolumeclaim/bot-{bot}-{volume}" for bot in DESKTOPS
                    for volume in ("clawdbot", "homebrew", "clawd", "chrome")}
    claims = site.bed.cluster.list("PersistentVolumeClaim", site.namespaces[1])
    assert [claim["metadata"]["name"] for claim in claims] == ["bot-golf-clawdbot"]
