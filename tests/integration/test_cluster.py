# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook bots on the bed's cluster, from nothing, with the rights of claworc-manager."""

from __future__ import annotations

import pytest
from kubernetes_bed import PLANTED

pytestmark = pytest.mark.full


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


def test_a_bot_whose_bot_on_was_changed_gets_no_twin_in_another_cluster(site):
    site.call("ansible-playbook", "clawops.fleet.bots", "--extra-vars", '{"fleet_keystore": ""}')
    spaces = [f"{name}-2" for name in site.namespaces]
    site.namespaces += spaces
    site.clusters["haven"] = {**site.clusters["harbor"], "cluster_namespace": spaces[0],
                              "cluster_gateway_namespace": spaces[1], "cluster_kubeconfig": f"{site.manager}.haven"}
    site.bot_hosts["golf"]["bot_on"] = "haven"
    site.describe()
    with pytest.raises(AssertionError, match="the data are on harbor"):
        site.call("ansible-playbook", "clawops.fleet.bots", "--extra-vars", '{"fleet_keystore": ""}')
    assert site.bed.cluster.list("Deployment", spaces[1]) == []
    assert site.bed.cluster.list("PersistentVolumeClaim", spaces[1]) == []
