# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What can be said about a bot in a cluster, without a secret."""

from __future__ import annotations

import typing as t

from .._bot import VOLUMES
from .._handover import Mark, mark_of, shown
from .._ownership import FLEET, PREFIX, is_ours
from .client import Cluster, Json
from .manifests import MOVE, PROFILE, VERSION
from .pairs import pair_of
from .wait import ready

Objects = t.Mapping[tuple[str, str, str], Json]
KINDS = ("Deployment", "Service", "PersistentVolumeClaim", "Pod")


def mark_at(claim: t.Mapping[str, t.Any] | None) -> Mark | None:
    """The mark of a move, at the claim of a bot's state."""
    return mark_of(((claim or {}).get("metadata", {}).get("annotations") or {}).get(MOVE))


def describe(objects: Objects, bots: t.Iterable[tuple[str, str]]) -> list[dict[str, t.Any]]:
    """Bots by name and namespace, from the objects that were found, each with its newest pod that shall stay."""
    pods: dict[tuple[str, str], Json] = {}
    for (kind, namespace, _name), obj in objects.items():
        app = (obj["metadata"].get("labels") or {}).get("app", "")
        if kind == "Pod" and not obj["metadata"].get("deletionTimestamp"):
            pods[app, namespace] = max(obj, pods.get((app, namespace), obj), key=_born)
    return [_bot(objects, name, namespace, pods.get((f"bot-{name}", namespace))) for name, namespace in bots]


def _born(pod: Json) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))


def _bot(objects: Objects, name: str, namespace: str, pod: Json | None) -> dict[str, t.Any]:
    deployment = objects.get(("Deployment", namespace, f"bot-{name}"))
    pair = pair_of(objects.get(("Service", namespace, f"bot-{name}-vnc")))
    status = (pod or {}).get("status") or {}
    notes = (deployment or {}).get("metadata", {}).get("annotations") or {}
    ports = {} if pair is None else {"chrome": pair, "terminal": pair + 1}
    containers = (deployment or {}).get("spec", {}).get("template", {}).get("spec", {}).get("containers") or [{}]
    claims = {volume: ("PersistentVolumeClaim", namespace, f"bot-{name}-{volume}") for volume in VOLUMES["desktop"]}
    replicas = (deployment or {}).get("spec", {}).get("replicas", 0)
    return {
        "name": name,
        "namespace": namespace,
        "profile": notes.get(PROFILE),
        "version": notes.get(VERSION),
        "state": "absent" if deployment is None else "started" if replicas else "stopped",
        "ready": bool(replicas) and ready(deployment),
        "image": containers[0].get("image"),
        "ports": ports,
        "urls": {page: f"http://{_bracketed(status['hostIP'])}:{port}" for page, port in ports.items()
                 if status.get("hostIP")},
        "pod": pod["metadata"]["name"] if pod else None,
        "pod_ip": status.get("podIP"),
        "node": (pod or {}).get("spec", {}).get("nodeName"),
        "node_ip": status.get("hostIP"),
        "volumes": [_volume(volume, objects[claim]) for volume, claim in claims.items() if claim in objects],
        "move": shown(mark_at(objects.get(claims["clawdbot"]))),
    }


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _volume(volume: str, claim: Json) -> dict[str, t.Any]:
    status = claim.get("status") or {}
    return {"name": volume, "claim": claim["metadata"]["name"], "phase": status.get("phase"),
            "size": claim["spec"]["resources"]["requests"]["storage"],
            "capacity": (status.get("capacity") or {}).get("storage")}


def read(cluster: Cluster, namespaces: t.Iterable[str], fleet: str | None, names: t.Collection[str] | None
         ) -> list[dict[str, t.Any]]:
    """Every bot of a fleet, or of those names, that is in the namespaces, whatever of it is there."""
    objects: dict[tuple[str, str, str], Json] = {}
    for namespace in sorted(set(namespaces)):
        for kind in KINDS:
            objects |= {(kind, namespace, obj["metadata"]["name"]): obj for obj in cluster.list(kind, namespace)}
    found = set()
    for (_kind, namespace, _name), obj in objects.items():
        marks = obj["metadata"].get("labels") or {}
        bot = marks.get(f"{PREFIX}/bot")
        if is_ours(marks) and bot and fleet in (None, marks.get(FLEET)) and (names is None or bot in names):
            found.add((bot, namespace))
    return describe(objects, sorted(found))
