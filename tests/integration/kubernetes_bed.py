# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The bed's cluster for tests: modules run by themselves, an image that stands in for a bot, the audit log."""

from __future__ import annotations

import base64
import datetime
import hashlib
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import time
import uuid

from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes.client import Cluster
from conftest import COLLECTIONS, ROOT

PLANTED = "planted-c1uster-9f3a"
NODE = "clawops-bed-kubernetes"
REGISTRY = "127.0.0.1:5000"
# Answers on the ports of a bot, is ready when its gateway's port answers, and ends when it is told to.
RECIPE = f"""FROM {REGISTRY}/clawops-bed/busybox:1
ENV PATH=/bin
RUN mkdir -p /srv /opt/openclaw/bin && echo hello >/srv/index.html \\
    && printf '#!/bin/sh\\nexec wget -q -O /dev/null http://127.0.0.1:18789/\\n' >/opt/openclaw/bin/openclaw-ready \\
    && chmod 755 /opt/openclaw/bin/openclaw-ready \\
    && mkdir -p /opt/homebrew/bin && echo brewed >/opt/homebrew/bin/brew
ENTRYPOINT ["sh", "-c", "trap 'exit 0' TERM; for port in 6081 6082 18789; do httpd -p $port -h /srv; done; \\
echo the key is $ANTHROPIC_API_KEY; [ -z \\"$CRASH\\" ] || exit 1; while :; do sleep 1 & wait $!; done"]
"""
# Nodes keep what they have pulled, so that a tag may never change its meaning.
IMAGE = f"{REGISTRY}/clawops-test/stand-in:{hashlib.sha256(RECIPE.encode()).hexdigest()[:12]}"


def on_node(*argv: str) -> str:
    return subprocess.run(["docker", "exec", NODE, *argv], capture_output=True, text=True, check=True).stdout


def decoded(secret):
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def gateway(name, **more):
    """A bot that asks for little."""
    resources = {"memory": "128Mi", "cpus": "0.1", "storage": "1Gi"}
    return {"name": name, "version": "2026.9.6", "resources": resources, **more}


def desktop(name, **more):
    return gateway(name, profile="desktop", **more)


class Bed:
    """The cluster, and who called it."""

    def __init__(self):
        told = subprocess.run([ROOT / "scripts/testbed", "env"], capture_output=True, text=True, check=True).stdout
        words = dict(shlex.split(line)[1].split("=", 1) for line in told.splitlines() if line.startswith("export "))
        self.kubeconfig = words["CLAWOPS_BED_KUBECONFIG"]
        self.cluster = Cluster.of({"kubeconfig": self.kubeconfig})
        subprocess.run(["docker", "build", "--tag", IMAGE, "-"], input=RECIPE.encode(), check=True, capture_output=True)
        subprocess.run(["docker", "push", IMAGE], check=True, capture_output=True)

    def now(self):
        return datetime.datetime.now(datetime.timezone.utc)

    def calls(self, since, fleet):
        """Verb, kind and namespace of what the modules have asked since, as the API server wrote it down."""
        time.sleep(0.5)
        found = []
        for line in on_node("cat", "/var/log/kubernetes-audit.log").splitlines():
            event = json.loads(line)
            when = datetime.datetime.fromisoformat(event["requestReceivedTimestamp"].replace("Z", "+00:00"))
            place = event.get("objectRef", {})
            mine = place.get("namespace") in (None, fleet.namespace, fleet.gateways)
            if event.get("userAgent") == "clawops.fleet" and when >= since and mine:
                found.append((event["verb"], place.get("resource"), place.get("namespace")))
        return found


class Fleet:
    """Two namespaces and a band of its own, and the modules that work on them."""

    bands = itertools.cycle(range(31500, 32700, 40))

    def __init__(self, bed, tmp_path):
        word = uuid.uuid4().hex[:6]
        self.bed, self.tmp_path, self.fleet = bed, tmp_path, f"test-{word}"
        self.band = next(self.bands)
        self.namespace, self.gateways = f"clawops-test-{word}", f"clawops-test-{word}-gateway"
        for name, level in ((self.namespace, "privileged"), (self.gateways, "restricted")):
            bed.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {
                "name": name, "labels": {"pod-security.kubernetes.io/enforce": level}}})

    def discard(self):
        for name in (self.namespace, self.gateways):
            found = self.bed.cluster.get("Namespace", name)
            if found:
                self.bed.cluster.delete({"kind": "Namespace", **found})

    def common(self):
        return {"fleet": self.fleet, "namespace": self.namespace, "gateway_namespace": self.gateways,
                "gateway_image": IMAGE, "desktop_image": IMAGE, "timeout": 120,
                "band_first": self.band, "band_last": self.band + 39}

    def argv(self, module, check=False, **arguments):
        values = {"kubeconfig": self.bed.kubeconfig, **arguments, "_ansible_check_mode": check, "_ansible_diff": True}
        path = self.tmp_path / f"{uuid.uuid4().hex}.json"
        path.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": values}))
        return [sys.executable, "-m", f"ansible_collections.clawops.fleet.plugins.modules.{module}", str(path)]

    def module(self, module, /, fails=False, check=False, **arguments):
        done = subprocess.run(self.argv(module, check, **arguments), env=self.env(), capture_output=True, text=True,
                              check=False)
        assert done.stdout.strip().startswith("{"), done.stdout + done.stderr
        result = json.loads(done.stdout)
        assert bool(result.get("failed")) == fails, result
        return result

    def env(self):
        return {**os.environ, "PYTHONPATH": str(COLLECTIONS)}

    def run(self, **arguments):
        return self.module("bot_fleet", **{**self.common(), **arguments})

    def play(self, *words, **arguments):
        """What ansible-playbook says to the same task. A module that it sends goes through tmp_path/sent."""
        task = {"clawops.fleet.bot_fleet": {"kubeconfig": self.bed.kubeconfig, **self.common(), **arguments}}
        play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task],
                "vars": {"ansible_remote_tmp": str(self.tmp_path / "sent")}}
        path = self.tmp_path / "play.json"
        path.write_text(json.dumps([play]))
        env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_INVENTORY": "localhost,"}
        done = subprocess.run(["ansible-playbook", str(path), *words], env=env, capture_output=True, text=True,
                              check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pairs(self, **arguments):
        return self.module("port_pair", store="kubernetes", fleet=self.fleet, namespace=self.namespace, **arguments)

    def names(self, kind, namespace=None):
        return sorted(obj["metadata"]["name"] for obj in self.bed.cluster.list(kind, namespace or self.namespace))

    def claim(self, name):
        return self.bed.cluster.get("PersistentVolumeClaim", name, self.gateways)

    def until(self, holds, seconds=30):
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end
            time.sleep(0.2)


class Site:
    """An inventory with one cluster and some bots, by default one gateway, and a keystore."""

    def __init__(self, folder, bots=None, **more):
        self.folder, self.bed, word = folder, Bed(), uuid.uuid4().hex[:6]
        self.namespaces = [f"clawops-site-{word}", f"clawops-site-{word}-gateway"]
        self.manager = folder / "manager.kubeconfig"
        cluster = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}",
                   "cluster_admin_kubeconfig": self.bed.kubeconfig, "cluster_kubeconfig": str(self.manager),
                   "cluster_namespace": self.namespaces[0], "cluster_gateway_namespace": self.namespaces[1],
                   "cluster_gateway_image": IMAGE, **more}
        self.clusters = {"harbor": cluster}
        self.bot_hosts = bots or {"golf": {"bot_on": "harbor", "bot_resources": {
            "memory": "128Mi", "cpus": "0.1", "storage": "1Gi"}}}
        self.vars = {"fleet_name": f"site-{word}", "fleet_keystore": str(folder / "keys.store"),
                     "fleet_keystore_key_file": str(folder / "keys.key")}
        inventory = folder / "inventory"
        inventory.mkdir()
        self.describe()
        (inventory / "observed_bots.yml").write_text("plugin: clawops.fleet.bots\n")
        self.env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_INVENTORY": str(inventory),
                    "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)}

    def describe(self):
        """Writes the inventory as it is described now."""
        groups = {"clusters": {"hosts": self.clusters}, "bots": {"hosts": self.bot_hosts}}
        text = json.dumps({"all": {"vars": self.vars, "children": groups}})
        (self.folder / "inventory/hosts.yml").write_text(text)

    def call(self, *argv, **options):
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, check=False, **options)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert PLANTED not in done.stdout + done.stderr
        return done.stdout

    def keystore(self, verb, *argv, value=""):
        self.call(str(ROOT / "scripts/keystore"), verb, str(self.folder / "keys.store"), *argv,
                  "--key-file", str(self.folder / "keys.key"), input=value)

    def bots(self, **variables):
        argv = ["ansible-playbook", "clawops.fleet.bots", "-vv", "--diff", "--extra-vars", json.dumps(variables)]
        out = self.call(*argv)
        return int(re.findall(r"changed=(\d+)", out)[0])

    def observed(self, bot="golf"):
        return json.loads(self.call("ansible-inventory", "--host", bot))["fleet_observed"]

    def discard(self):
        readers = [f"claworc-manager-{name}" for name in self.namespaces]
        for kind, names in (("Namespace", self.namespaces), ("ClusterRoleBinding", readers), ("ClusterRole", readers)):
            for name in names:
                found = self.bed.cluster.get(kind, name)
                if found:
                    self.bed.cluster.delete({"kind": kind, **found})
