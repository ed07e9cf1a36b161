# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""When a wait ends, well or badly, and what is said then."""

from __future__ import annotations

import itertools
import threading

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes import wait
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes.wait import Target, Wait, ready, trouble_of

MARKS = {"clawops.fleet/managed": "true", "clawops.fleet/bot": "golf"}


def deployment(wanted=1, generation=1, observed=1, **status):
    return {"kind": "Deployment", "metadata": {"name": "bot-golf", "uid": "d", "generation": generation,
                                               "labels": MARKS},
            "spec": {"replicas": wanted}, "status": {"observedGeneration": observed, **status}}


def pod(uid="p", deleting=False, **status):
    metadata = {"name": f"bot-golf-{uid}", "uid": uid, "labels": MARKS}
    if deleting:
        metadata["deletionTimestamp"] = "x"
    return {"kind": "Pod", "metadata": metadata, "status": status}


def waiting(reason):
    return {"containerStatuses": [{"name": "openclaw", "state": {"waiting": {"reason": reason, "message": "why"}}}]}


UP = {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}


class Told:
    """A cluster that tells one thing after the other."""

    def __init__(self, deployments, pods, changes=(), events=()):
        self.lists = {"Deployment": deployments, "Pod": pods, "Event": []}
        self.changes, self.told_events, self.over = list(changes), list(events), threading.Event()

    def list_at(self, kind, namespace, selector=None, fields=None):
        return self.lists[kind], "1"

    def watch(self, kind, namespace, version, seconds, selector=None):
        if kind == "Event":
            yield from (("ADDED", event) for event in self.told_events)
        yield from ((verb, obj) for verb, obj in self.changes if obj["kind"] == kind)
        self.over.wait(60)

    def events(self, namespace, name):
        return [{"type": "Warning", "reason": "Failed", "message": "no such image"}]

    def logs(self, namespace, pod, container, lines=20, previous=False):
        return "the key is s3cret"


def wait_for(told, running=True, generation=1, timeout=30.0, step=0.5):
    clock = itertools.count(0, step)
    try:
        target = Target("claworc", running, generation, frozenset({"s3cret"}))
        return Wait(told, {"golf": target}, timeout, lambda: next(clock)).run()
    finally:
        told.over.set()


@pytest.mark.parametrize("found, is_ready", [
    (deployment(**UP), True),
    (deployment(generation=2, **UP), False),
    (deployment(), False),
    (deployment(wanted=2, **UP), False),
    (deployment(**{**UP, "readyReplicas": 0}), False),
    (None, False),
])
def test_ready_means_the_newest_description_and_nothing_else(found, is_ready):
    assert ready(found) is is_ready


def test_the_wait_ends_when_the_deployment_is_ready():
    assert wait_for(Told([deployment()], [], [("MODIFIED", deployment(**UP))])) == {}
    assert wait_for(Told([deployment(wanted=0)], [pod()], [("DELETED", pod())]), running=False) == {}


def test_a_hopeless_pod_ends_it_with_events_and_log_without_secrets():
    failed = wait_for(Told([deployment()], [pod(**waiting("ImagePullBackOff"))]))
    error = failed["golf"]
    assert (error.code, error.details["reason"]) == ("not_ready", "ImagePullBackOff")
    assert "no such image" in error.message and "the key is (hidden)" in error.message


def test_the_old_pod_on_its_way_out_says_nothing_about_the_new_one():
    old = pod("old", deleting=True, **waiting("CrashLoopBackOff"))
    changes = [("DELETED", old), ("ADDED", pod("new")), ("MODIFIED", deployment(**UP))]
    assert wait_for(Told([deployment()], [old], changes), step=5) == {}


def test_what_is_not_yet_seen_by_the_controllers_does_not_count():
    stale = deployment(generation=2, observed=1)
    seen = deployment(generation=2, observed=2, **UP)
    told = Told([stale], [pod(**waiting("CrashLoopBackOff"))], [("MODIFIED", seen)])
    assert wait_for(told, generation=2) == {}


def test_a_volume_that_cannot_be_mounted_ends_it():
    event = {"metadata": {"name": "e"}, "reason": "FailedMount", "involvedObject": {"uid": "p"}}
    assert wait_for(Told([deployment()], [pod()], events=[event] * 3))["golf"].details["reason"] == "FailedMount"
    told = Told([deployment()], [pod()], events=[event] * 2)
    assert wait_for(told, step=5)["golf"].details["reason"] == "timeout"


def test_a_refusal_to_make_pods_ends_it():
    quota = [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}]
    assert "exceeded quota" in wait_for(Told([deployment(conditions=quota)], []))["golf"].message


def unscheduled(message):
    return {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}


@pytest.mark.parametrize("status, reason, patience", [
    ({}, None, None),
    (waiting("ContainerCreating"), None, None),
    (waiting("CrashLoopBackOff"), "CrashLoopBackOff", wait.SURE),
    ({"initContainerStatuses": waiting("ErrImageNeverPull")["containerStatuses"]}, "ErrImageNeverPull", wait.SURE),
    (unscheduled("full"), "Unschedulable", wait.UNSURE),
    (unscheduled("pod has unbound immediate PersistentVolumeClaims"), "Unschedulable", wait.UNBOUND),
])
def test_what_the_status_of_a_pod_says(status, reason, patience):
    found = trouble_of(pod(**status))
    assert (found and found.reason, found and found.patience) == (reason, patience)


def test_a_server_that_refuses_to_tell_is_an_error():
    def refuse(*_args, **_more):
        raise FleetError("forbidden", "no")

    told = Told([], [])
    told.list_at = refuse
    with pytest.raises(FleetError, match="no"):
        wait_for(told)


def test_unsure_signs_must_last():
    assert wait.UNBOUND > wait.UNSURE > wait.SURE > 0


def test_a_volume_may_take_a_minute_to_be_made():
    told = Told([deployment()], [pod(**unscheduled("pod has unbound immediate PersistentVolumeClaims"))])
    assert wait_for(told, step=5)["golf"].details["reason"] == "timeout"
    told = Told([deployment()], [pod(**unscheduled("0/1 nodes are available"))])
    assert wait_for(told, step=5)["golf"].details["reason"] == "Unschedulable"
