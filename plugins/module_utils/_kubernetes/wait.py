# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Waiting for pods by watching them; it ends at once when a pod can't succeed any more."""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
import typing as t

from .._errors import FleetError
from .._ownership import MANAGED, PREFIX
from .client import Cluster, Json

SELECTOR = f"{MANAGED}=true"
_BOT = f"{PREFIX}/bot"
#: A container that waits for one of these waits in vain.
HOPELESS = {"ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError",
            "CreateContainerError", "RunContainerError", "CrashLoopBackOff"}
#: Seconds that a sign of failure must last. An old pod may show one on its way out, and a node may become free; a disk
#: that is made for a claim takes its time.
SURE, UNSURE, UNBOUND = 2.0, 10.0, 90.0
_ROUND = 30


@dataclasses.dataclass(frozen=True)
class Target:
    """What a bot is to become. secrets are what its log must not repeat."""

    namespace: str
    running: bool
    generation: int = 0
    secrets: frozenset[str] = dataclasses.field(default=frozenset(), repr=False)


@dataclasses.dataclass(frozen=True)
class Trouble:
    """Why a pod does not get on; patience is how many seconds it may look like that."""

    reason: str
    message: str
    patience: float
    container: str | None = None


def ready(deployment: t.Mapping[str, t.Any] | None, generation: int = 0) -> bool:
    """Whether the newest description of a Deployment runs, and nothing else."""
    if deployment is None:
        return False
    status, spec = deployment.get("status") or {}, deployment["spec"]
    wanted = max(generation, deployment["metadata"].get("generation", 0))
    counts = {status.get(key, 0) for key in ("replicas", "updatedReplicas", "readyReplicas")}
    return status.get("observedGeneration", 0) >= wanted and counts == {spec.get("replicas", 1)}


def trouble_of(pod: t.Mapping[str, t.Any]) -> Trouble | None:
    """What the status of a pod says against it."""
    status = pod.get("status") or {}
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in HOPELESS:
            return Trouble(waiting["reason"], waiting.get("message", ""), SURE, container["name"])
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            message = condition.get("message", "")
            patience = UNBOUND if "unbound" in message else UNSURE
            return Trouble(condition.get("reason", "Unschedulable"), message, patience)
    return None


def _refusal(deployment: t.Mapping[str, t.Any]) -> Trouble | None:
    """Why no pod was made: a quota, or the Pod Security of the namespace."""
    for condition in (deployment.get("status") or {}).get("conditions", []):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return Trouble(condition.get("reason", "FailedCreate"), condition.get("message", ""), UNSURE)
    return None


class Wait:
    """One wait for any number of bots."""

    def __init__(self, cluster: Cluster, targets: t.Mapping[str, Target], timeout: float,
                 clock: t.Callable[[], float] = time.monotonic):
        self.cluster, self.targets, self.timeout, self.clock = cluster, targets, timeout, clock
        self.seen: dict[tuple[str, str, str], dict[str, Json]] = {}
        self.since: dict[tuple[str, str, float], float] = {}
        self.mounts: dict[str, int] = {}
        self.news: queue.Queue[t.Callable[[], None] | FleetError] = queue.Queue()
        self.over = threading.Event()

    def run(self) -> dict[str, FleetError]:
        """The bots that did not become what they are to be, with the reason."""
        pending, failed, end = dict(self.targets), {}, self.clock() + self.timeout
        for namespace in {target.namespace for target in pending.values()}:
            for kind in ("Deployment", "Pod", "Event"):
                threading.Thread(target=self._feed, args=(kind, namespace), daemon=True).start()
        try:
            while pending:
                self._hear(min(1.0, max(0.0, end - self.clock())))
                for name, target in list(pending.items()):
                    if self._reached(name, target):
                        del pending[name]
                        continue
                    trouble = self._trouble(name, target)
                    if trouble or self.clock() >= end:
                        failed[name] = self._explain(name, target, trouble)
                        del pending[name]
        finally:
            self.over.set()
        return failed

    # -- what the server tells -----------------------------------------------------------------------------------

    def _feed(self, kind: str, namespace: str) -> None:
        """Keeps the picture of one kind up to date, in a thread of its own."""
        selector = None if kind == "Event" else SELECTOR
        while not self.over.is_set():
            try:
                items, version = self.cluster.list_at(kind, namespace, selector)
            except FleetError as error:
                if kind != "Event":  # which an account may be forbidden to see
                    self.news.put(error)
                return
            if kind != "Event":
                self.news.put(lambda items=items: self._replace(kind, namespace, items))  # type: ignore[misc]
            for verb, obj in self.cluster.watch(kind, namespace, version, _ROUND, selector):
                self.news.put(lambda verb=verb, obj=obj: self._take(kind, namespace, verb, obj))  # type: ignore[misc]
                if self.over.is_set():
                    return
            self.over.wait(1)  # a server that tells nothing is asked once a second

    def _hear(self, seconds: float) -> None:
        """Takes in everything that has arrived; waits for the first."""
        wait = seconds
        while True:
            try:
                news = self.news.get(timeout=wait)
            except queue.Empty:
                return
            if isinstance(news, FleetError):
                raise news
            news()
            wait = 0.0

    def _replace(self, kind: str, namespace: str, items: list[Json]) -> None:
        self.seen = {key: value for key, value in self.seen.items() if key[:2] != (kind, namespace)}
        self.seen[kind, namespace, ""] = {}
        for item in items:
            self._take(kind, namespace, "ADDED", item)

    def _take(self, kind: str, namespace: str, verb: str, obj: Json) -> None:
        metadata = obj["metadata"]
        if kind == "Event":
            if obj.get("reason") == "FailedMount":
                uid = obj["involvedObject"].get("uid", "")
                self.mounts[uid] = max(self.mounts.get(uid, 0) + 1, obj.get("count") or 0)
            return
        found = self.seen.setdefault((kind, namespace, (metadata.get("labels") or {}).get(_BOT, "")), {})
        if verb == "DELETED":
            found.pop(metadata["uid"], None)
        else:
            found[metadata["uid"]] = obj

    # -- what it means -------------------------------------------------------------------------------------------

    def _known(self, kind: str, namespace: str) -> bool:
        return (kind, namespace, "") in self.seen

    def _deployment(self, name: str, target: Target) -> Json | None:
        found = self.seen.get(("Deployment", target.namespace, name), {})
        return next(iter(found.values()), None)

    def _pods(self, name: str, target: Target) -> list[Json]:
        return list(self.seen.get(("Pod", target.namespace, name), {}).values())

    def _reached(self, name: str, target: Target) -> bool:
        if not (self._known("Deployment", target.namespace) and self._known("Pod", target.namespace)):
            return False
        if target.running:
            return ready(self._deployment(name, target), target.generation)
        return not self._pods(name, target)

    def _trouble(self, name: str, target: Target) -> Trouble | None:
        deployment = self._deployment(name, target)
        if not target.running or deployment is None:
            return None
        if (deployment.get("status") or {}).get("observedGeneration", 0) < target.generation:
            return None
        found, whose = _refusal(deployment), name
        for pod in self._pods(name, target):
            if pod["metadata"].get("deletionTimestamp"):
                return None  # the old one: the new one comes after it
            whose = pod["metadata"]["uid"]
            found = trouble_of(pod) or found
            if self.mounts.get(whose, 0) >= 3:
                found = Trouble("FailedMount", "a volume can't be mounted", SURE)
        if found is None:
            return None
        first = self.since.setdefault((whose, found.reason, found.patience), self.clock())
        return found if self.clock() - first >= found.patience else None

    def _explain(self, name: str, target: Target, trouble: Trouble | None) -> FleetError:
        pods = self._pods(name, target)
        pod = pods[0] if pods else None
        said = f"{trouble.reason}: {trouble.message}" if trouble else f"not so within {self.timeout:g} s"
        wanted = "running" if target.running else "stopped"
        message = f"Bot {name} in {target.namespace} is not {wanted} ({said})."
        details: dict[str, t.Any] = {"bot": name, "reason": trouble.reason if trouble else "timeout"}
        if pod:
            events = self._events(target.namespace, pod["metadata"]["name"])
            log = self._log(target, pod, trouble)
            details |= {"pod": pod["metadata"]["name"], "events": events, "log": log}
            message += (f" Events of {details['pod']}: {'; '.join(events[-5:]) or 'none'}."
                        + (f" It said last: {log[-1500:]}" if log else ""))
        return FleetError("not_ready" if target.running else "not_stopped", message,
                          "Mend what is named and run again; with state restarted it starts anew at once.", **details)

    def _events(self, namespace: str, pod: str) -> list[str]:
        return [f"{event.get('reason')}: {event.get('message')}" for event in self.cluster.events(namespace, pod)
                if event.get("type") == "Warning"]

    def _log(self, target: Target, pod: Json, trouble: Trouble | None) -> str:
        name = trouble.container if trouble and trouble.container else "openclaw"
        place = (target.namespace, pod["metadata"]["name"], name)
        log = self.cluster.logs(*place) or self.cluster.logs(*place, previous=True)
        if "is waiting to start" in log:
            return ""
        for secret in target.secrets:
            log = log.replace(secret, "(hidden)")
        return log
