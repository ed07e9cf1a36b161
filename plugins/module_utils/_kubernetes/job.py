# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""A Job beside the volumes of a bot, in whose pod programs are run, and which ends when nobody needs it any more.

Its name is a lock: one at a time for each bot. What it knows in secret is in a Secret that goes with it, and it reaches
the addresses that it was made for and nothing else.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import ipaddress
import threading
import time
import typing as t
import uuid

from .._errors import FleetError
from .._ownership import FLEET, MANAGED, PREFIX
from .client import KINDS, Cluster, Done, Json
from .wait import trouble_of

RUN, BACKUP = f"{PREFIX}/run", f"{PREFIX}/backup"
#: For the Job's own files, and to write to besides.
PLACE, SCRATCH = "/run/clawops", "/tmp"  # noqa: S108 a mount of its own
BEAT, PATIENCE = 15.0, 120
# It ends with whoever started it: that one says again and again that it is there.
MAIN = f"""touch {PLACE}/alive
while [ $(($(date +%s) - $(stat -c %Y {PLACE}/alive))) -lt {PATIENCE} ]; do sleep 1; done
"""
#: What root needs to read and write files of others, and to become them.
CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]
_POLL = 0.5


@dataclasses.dataclass(frozen=True)
class Reach:
    """Addresses and port that the Job may talk to, and the name that these stand for."""

    addresses: tuple[str, ...]
    port: int
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Bench:
    """What the Job is to be. mounts say the claim for each path; without one it is an empty directory."""

    bot: str
    fleet: str
    namespace: str
    image: str
    mounts: t.Mapping[str, str | None]
    read_only: bool
    user: int
    reach: Reach
    environment: t.Mapping[str, str] = dataclasses.field(repr=False)
    node: str | None = None
    selector: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    tolerations: t.Sequence[Json] = ()
    pull_secrets: t.Sequence[Json] = ()
    timeout: float = 14400.0

    @property
    def name(self) -> str:
        return f"bot-{self.bot}-backup"


class Session:
    """A running pod."""

    def __init__(self, cluster: Cluster, namespace: str, pod: str, container: str = "backup"):
        self.cluster, self.namespace, self.pod, self.container = cluster, namespace, pod, container

    def run(self, argv: t.Sequence[str], stdin: bytes | None = None, timeout: float = 60.0) -> Done:
        return self.cluster.exec(self.namespace, self.pod, argv, stdin, self.container, timeout)

    def write(self, path: str, content: bytes) -> None:
        done = self.run(["sh", "-c", 'umask 077 && cat >"$1"', "sh", path], content)
        if done.rc:
            raise FleetError("pod_failed", f"{path} can't be written in pod {self.namespace}/{self.pod}: {done.err}")


@contextlib.contextmanager
def opened(cluster: Cluster, bench: Bench, start_timeout: float = 300.0) -> t.Iterator[Session]:
    """The pod, for as long as the body takes. Whatever happens, nothing of it stays."""
    run = uuid.uuid4().hex[:12]
    job = _begin(cluster, bench, run)
    try:
        for obj in (_secret(bench, run), _policy(bench, run)):
            metadata = {**obj["metadata"], "ownerReferences": [
                {"apiVersion": KINDS["Job"][0], "kind": "Job", "name": bench.name, "uid": job["metadata"]["uid"]}]}
            cluster.create({**obj, "metadata": metadata})
        cluster.patch("Job", bench.name, {"spec": {"suspend": False}}, bench.namespace)
        session = Session(cluster, bench.namespace, _started(cluster, bench, run, start_timeout))
        with _alive(session):
            yield session
    finally:
        cluster.delete({"kind": "Job", **job})


@contextlib.contextmanager
def _alive(session: Session) -> t.Iterator[None]:
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT):
            with contextlib.suppress(FleetError):
                session.run(["touch", f"{PLACE}/alive"], timeout=BEAT)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(BEAT)


def _begin(cluster: Cluster, bench: Bench, run: str, clock: t.Callable[[], float] = time.time) -> Json:
    """The Job, suspended: it starts when everything is there that it needs, and nobody else can make one."""
    end = time.monotonic() + 30
    while True:
        try:
            return cluster.create(_job(bench, run))
        except FleetError as error:
            if error.code != "already_exists":
                raise
        found = cluster.get("Job", bench.name, bench.namespace)
        if found and _is_left(found, clock()):
            cluster.delete({"kind": "Job", **found})
        elif time.monotonic() >= end or (found and not _has_ended(found)):
            raise FleetError("busy", f"Another backup or restore of {bench.bot} is running in {bench.namespace}.",
                             f"Wait for it to end. One that was killed ends {PATIENCE} seconds later.", bot=bench.bot)
        time.sleep(_POLL)


def _has_ended(job: Json) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return bool(job["metadata"].get("deletionTimestamp")) or any(
        one["type"] in ("Complete", "Failed") and one["status"] == "True" for one in conditions)


def _is_left(job: Json, now: float) -> bool:
    """Whether who made it died before it was started."""
    made = datetime.datetime.fromisoformat(job["metadata"]["creationTimestamp"].replace("Z", "+00:00"))
    return bool(job["spec"].get("suspend")) and now - made.timestamp() > PATIENCE


def _started(cluster: Cluster, bench: Bench, run: str, timeout: float) -> str:
    end, trouble_since = time.monotonic() + timeout, 0.0
    while True:
        pods = cluster.list("Pod", bench.namespace, f"{RUN}={run}")
        pod = pods[0] if pods else None
        status = (pod or {}).get("status") or {}
        states = [one.get("state") or {} for one in status.get("containerStatuses") or []]
        if pod and states and "running" in states[0]:
            return str(pod["metadata"]["name"])
        trouble = trouble_of(pod) if pod else None
        trouble_since = (trouble_since or time.monotonic()) if trouble else 0.0
        over = bool(states and "terminated" in states[0]) or status.get("phase") == "Failed"
        if trouble and time.monotonic() - trouble_since >= trouble.patience:
            over = True
        if over or time.monotonic() >= end:
            about = pod["metadata"]["name"] if pod else bench.name
            words = [f"{event.get('reason')}: {event.get('message')}" for event in
                     cluster.events(bench.namespace, about) if event.get("type") == "Warning"]
            said = f"{trouble.reason}: {trouble.message}" if trouble else "; ".join(words[-3:]) or "no reason is known"
            raise FleetError("job_failed", f"The Job {bench.namespace}/{bench.name} does not run ({said}).",
                             "Mend what is named and run again.", bot=bench.bot)
        time.sleep(_POLL)


# -- objects ---------------------------------------------------------------------------------------------------------

def _metadata(bench: Bench, name: str, run: str) -> Json:
    # Without the label that objects of a bot have: it is none of those, and must not be taken for its pod.
    marks = {MANAGED: "true", FLEET: bench.fleet, BACKUP: bench.bot, RUN: run}
    return {"name": name, "namespace": bench.namespace, "labels": marks}


def _secret(bench: Bench, run: str) -> Json:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in bench.environment.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": _metadata(bench, f"{bench.name}-{run}", run),
            "type": "Opaque", "data": data}


def _policy(bench: Bench, run: str) -> Json:
    blocks = [{"ipBlock": {"cidr": str(ipaddress.ip_network(address))}} for address in bench.reach.addresses]
    egress = [{"to": blocks, "ports": [{"protocol": "TCP", "port": bench.reach.port}]}]
    return {"apiVersion": KINDS["NetworkPolicy"][0], "kind": "NetworkPolicy",
            "metadata": _metadata(bench, f"{bench.name}-{run}", run),
            "spec": {"podSelector": {"matchLabels": {RUN: run}}, "policyTypes": ["Ingress", "Egress"],
                     "egress": egress}}


def _job(bench: Bench, run: str) -> Json:
    metadata = _metadata(bench, bench.name, run)
    template = {"metadata": {"labels": metadata["labels"]}, "spec": _pod(bench, run)}
    return {"apiVersion": KINDS["Job"][0], "kind": "Job", "metadata": metadata,
            "spec": {"suspend": True, "backoffLimit": 0, "ttlSecondsAfterFinished": 0,
                     "activeDeadlineSeconds": int(4 * bench.timeout), "template": template}}


def _pod(bench: Bench, run: str) -> Json:
    volumes: Json = {"place": {"emptyDir": {"sizeLimit": "16Mi"}}, "scratch": {"emptyDir": {}}}
    mounts: list[Json] = [{"name": "place", "mountPath": PLACE}, {"name": "scratch", "mountPath": SCRATCH}]
    for number, (path, claim) in enumerate(bench.mounts.items()):
        name = claim or f"empty-{number}"
        volumes[name] = {"persistentVolumeClaim": {"claimName": claim, "readOnly": bench.read_only}} if claim else {
            "emptyDir": {}}
        mounts.append({"name": name, "mountPath": path, **({"readOnly": True} if claim and bench.read_only else {})})
    root = bench.user == 0
    container = {
        "name": "backup", "image": bench.image, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", MAIN],
        "envFrom": [{"secretRef": {"name": f"{bench.name}-{run}"}}],
        "env": [{"name": "HOME", "value": SCRATCH}], "volumeMounts": mounts,
        "resources": {"requests": {"memory": "64Mi", "cpu": "50m"}, "limits": {"memory": "1Gi", "cpu": "2"}},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"], **({"add": CAPABILITIES} if root else {})}},
    }
    security: Json = {"runAsUser": bench.user, "runAsGroup": bench.user, "runAsNonRoot": not root,
                      "seccompProfile": {"type": "RuntimeDefault"}}
    if not root:
        security |= {"fsGroup": bench.user, "fsGroupChangePolicy": "OnRootMismatch"}
    pod: Json = {
        "restartPolicy": "Never", "automountServiceAccountToken": False, "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1, "securityContext": security, "containers": [container],
        "volumes": [{"name": name, **source} for name, source in volumes.items()],
    }
    if bench.reach.name:
        # So it needs no name service, to which it has no way.
        pod["hostAliases"] = [{"ip": address, "hostnames": [bench.reach.name]} for address in bench.reach.addresses]
    if bench.node:
        term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [bench.node]}]}
        pod["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [term]}}}
    for key, value in (("nodeSelector", bench.selector), ("tolerations", bench.tolerations),
                       ("imagePullSecrets", bench.pull_secrets)):
        if value:
            pod[key] = value
    return pod
