# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A cluster in memory: versions, owners of fields, taken ports, and what was called."""

from __future__ import annotations

import builtins
import copy
import typing as t

from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes.client import Done, subject

Json = dict[str, t.Any]
Key = tuple[str, t.Optional[str], str]


class FakeCluster:
    """The methods of Cluster. Of server-side apply only this: what is applied replaces what was there before."""

    def __init__(self) -> None:
        self.objects: dict[Key, Json] = {}
        self.calls: list[tuple[t.Any, ...]] = []
        self.owners: dict[Key, str] = {}
        self.forbidden: set[tuple[str, str, str | None]] = set()
        self.refuse: t.Callable[[Json], None] | None = None
        self.connection: t.Any = None
        self.counter = 0

    @property
    def verbs(self) -> list[str]:
        """What was called, in its order."""
        return [call[0] for call in self.calls]

    def writes(self) -> list[tuple[t.Any, ...]]:
        return [call for call in self.calls if call[0] in ("create", "apply", "patch", "delete")]

    def _key(self, obj: t.Mapping[str, t.Any]) -> Key:
        return obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"]

    def _keep(self, obj: Json) -> Json:
        self.counter += 1
        found = self.objects.get(self._key(obj))
        known = {name: (found or {"metadata": {}})["metadata"].get(name) for name in ("uid", "generation")}
        obj["metadata"] |= {"resourceVersion": str(self.counter), "uid": known["uid"] or str(self.counter),
                            "generation": (known["generation"] or 0) + 1}
        self.objects[self._key(obj)] = obj
        return obj

    def put(self, obj: Json) -> Json:
        """Somebody else's object."""
        return self._keep(copy.deepcopy(obj))

    def list(self, kind: str, namespace: str | None = None, selector: str | None = None) -> builtins.list[Json]:
        self.calls.append(("list", kind, namespace))
        if ("list", kind, namespace) in self.forbidden:
            raise FleetError("forbidden", f"Listing {kind} of {namespace}")
        wanted = dict([selector.split("=")]) if selector else {}
        return [copy.deepcopy(obj) for (found, place, _name), obj in list(self.objects.items())
                if found == kind and namespace in (None, place)
                and wanted.items() <= (obj["metadata"].get("labels") or {}).items()]

    def get(self, kind: str, name: str, namespace: str | None = None) -> Json | None:
        self.calls.append(("get", kind, name))
        return copy.deepcopy(self.objects.get((kind, namespace, name)))

    def _check_ports(self, obj: Json) -> None:
        wanted = {port["nodePort"] for port in obj.get("spec", {}).get("ports", []) if obj["kind"] == "Service"}
        others = [other for key, other in list(self.objects.items()) if key[0] == "Service" and key != self._key(obj)]
        if any(wanted & {port.get("nodePort") for port in other["spec"].get("ports", [])} for other in others):
            raise FleetError("port_taken", f"{subject(obj)}: provided port is already allocated")

    def create(self, obj: Json, dry_run: bool = False) -> Json:
        self.calls.append(("create", obj["kind"], obj["metadata"]["name"]))
        if self.refuse:
            self.refuse(obj)
        if self._key(obj) in self.objects:
            raise FleetError("already_exists", f"{subject(obj)} already exists.")
        self._check_ports(obj)
        return copy.deepcopy(self.put(obj))

    def apply(self, obj: Json, dry_run: bool = False, force: bool = False) -> Json:
        self.calls.append(("dry" if dry_run else "apply", obj["kind"], obj["metadata"]["name"]))
        owner = self.owners.get(self._key(obj))
        if owner and not force:
            raise FleetError("conflict", f"{subject(obj)}: {owner}", conflicts=[{"manager": owner, "field": ".spec"}])
        self._check_ports(obj)
        if dry_run:
            return copy.deepcopy(obj)
        self.owners.pop(self._key(obj), None)
        return copy.deepcopy(self.put(obj))

    def patch(self, kind: str, name: str, body: Json, namespace: str | None = None) -> Json:
        self.calls.append(("patch", kind, name))
        found = self.objects[kind, namespace, name]
        version = body.get("metadata", {}).get("resourceVersion")
        if version and version != found["metadata"]["resourceVersion"]:
            raise FleetError("changed_meanwhile", f"{name} was changed meanwhile.")
        return copy.deepcopy(self._keep(t.cast(Json, _merged(found, body))))

    def exec(self, namespace: str, pod: str, argv: t.Sequence[str], stdin: bytes | None = None) -> Done:
        """What the node has brought into the pod."""
        self.calls.append(("exec", pod, tuple(argv)))
        bot = self.objects["Pod", namespace, pod]["metadata"]["labels"]["app"]
        return Done(0, self.objects["ConfigMap", namespace, f"{bot}-config"]["data"]["openclaw.json"], "")

    def delete(self, obj: t.Mapping[str, t.Any]) -> None:
        self.calls.append(("delete", obj["kind"], obj["metadata"]["name"]))
        self.objects.pop(self._key(obj), None)


def _merged(found: t.Any, patch: t.Any) -> t.Any:
    if not isinstance(patch, dict):
        return patch
    kept = dict(found) if isinstance(found, dict) else {}
    for key, value in patch.items():
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = _merged(kept.get(key), value)
    return kept
