# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook bots on the bed's cluster, from nothing, with the rights of claworc-manager."""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid

import pytest
from kubernetes_bed import COLLECTIONS, IMAGE, ROOT, Bed

PLANTED = "planted-c1uster-9f3a"
pytestmark = pytest.mark.full


class Site:
    """An inventory with one cluster and one gateway bot, and a keystore."""

    def __init__(self, folder):
        self.folder, self.bed, word = folder, Bed(), uuid.uuid4().hex[:6]
        self.namespaces = [f"clawops-site-{word}", f"clawops-site-{word}-gateway"]
        self.manager = folder / "manager.kubeconfig"
        cluster = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}",
                   "cluster_admin_kubeconfig": self.bed.kubeconfig, "cluster_kubeconfig": str(self.manager),
                   "cluster_namespace": self.namespaces[0], "cluster_gateway_namespace": self.namespaces[1],
                   "cluster_gateway_image": IMAGE}
        bot = {"bot_on": "harbor", "bot_resources": {"memory": "128Mi", "cpus": "0.1", "storage": "1Gi"}}
        hosts = {"all": {"vars": {"fleet_name": f"site-{word}", "fleet_keystore": str(folder / "keys.store"),
                                  "fleet_keystore_key_file": str(folder / "keys.key")},
                         "children": {"clusters": {"hosts": {"harbor": cluster}}, "bots": {"hosts": {"golf": bot}}}}}
        inventory = folder / "inventory"
        inventory.mkdir()
        (inventory / "hosts.yml").write_text(json.dumps(hosts))
        (inventory / "observed_bots.yml").write_text("plugin: clawops.fleet.bots\n")
        self.env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_INVENTORY": str(inventory),
                    "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS)}

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

    def observed(self):
        return json.loads(self.call("ansible-inventory", "--host", "golf"))["fleet_observed"]

    def discard(self):
        for kind, names in (("Namespace", self.namespaces),
                            ("ClusterRoleBinding", [f"claworc-manager-{self.namespaces[0]}"]),
                            ("ClusterRole", [f"claworc-manager-{self.namespaces[0]}"])):
            for name in names:
                found = self.bed.cluster.get(kind, name)
                if found:
                    self.bed.cluster.delete({"kind": kind, **found})


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.discard()


def test_a_cluster_from_nothing_with_the_rights_of_the_manager(site):
    site.keystore("create")
    site.keystore("set", "ANTHROPIC_API_KEY", value=PLANTED)
    assert site.bots() == 3  # the namespaces, the kubeconfig, the bot
    assert site.bots() == 0
    observed = site.observed()
    assert observed["ready"] and observed["namespace"] == site.namespaces[1]
    site.call("ansible-playbook", "clawops.fleet.bot_status")

    site.keystore("set", "ANTHROPIC_API_KEY", "--bot", "golf", value=f"{PLANTED}-of-its-own")
    assert site.bots() == 1
    assert site.bots(fleet_only=["golf"], fleet_state="restarted") == 1
    assert site.bots(fleet_only=["golf"], fleet_state="absent") == 1
    assert site.observed()["state"] == "absent"
    claims = site.bed.cluster.list("PersistentVolumeClaim", site.namespaces[1])
    assert [claim["metadata"]["name"] for claim in claims] == ["bot-golf-clawdbot"]


def test_the_manager_has_no_rights_beyond_its_bots(site):
    site.call("ansible-playbook", "clawops.fleet.bots", "--tags", "cluster", "--extra-vars", '{"fleet_api_keys": {}, '
              '"fleet_keystore": ""}')
    manager = type(site.bed.cluster).of({"kubeconfig": str(site.manager)})

    def may(verb, resource, namespace, group=""):
        asked = {"namespace": namespace, "verb": verb, "resource": resource, "group": group}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": asked}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return manager.call("POST", path, body=body)["status"]["allowed"]

    for namespace in site.namespaces:
        assert may("create", "deployments", namespace, "apps") and may("get", "secrets", namespace)
        assert not may("create", "pods", namespace)
        assert not may("create", "rolebindings", namespace, "rbac.authorization.k8s.io")
    assert not may("get", "secrets", "kube-system") and not may("patch", "namespaces", "")
    assert may("list", "services", "") and not may("get", "nodes", "")
