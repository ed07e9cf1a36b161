# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Single objects of a cluster as they were written down: what a cluster needs before the first bot."""

from __future__ import annotations

import typing as t

from .. import _ownership as ownership
from .._errors import FleetError, bad_value
from .._plan import Plan
from . import compare
from .client import GLOBAL, KINDS, Cluster, Json, subject


class Objects:
    """Brings objects to what they are to be, in their order, and takes others away."""

    def __init__(self, cluster: Cluster, fleet: str, adopt: bool = False, force: bool = False) -> None:
        self.cluster, self.fleet, self.adopt, self.force = cluster, fleet, adopt, force
        self.wanted: list[Json] = []
        self.removed: list[Json] = []

    def plan(self, objects: t.Sequence[Json], absent: t.Sequence[Json] = ()) -> Plan:
        plan = Plan()
        wanted = [self._marked(obj) for obj in objects]
        for obj in wanted:
            observed = self._observe(obj, self.adopt)
            if compare.covers(obj, observed):
                continue
            shown = compare.part(obj, observed)
            plan.add(subject(obj), "create" if observed is None else "update", shown, obj)
            self.wanted.append(obj)
        unborn = {obj["metadata"]["name"] for obj in self.wanted if obj["kind"] == "Namespace"}
        for obj in self.wanted:
            # The server judges before anything is written; what stands in a namespace to be made can't be judged yet.
            if obj["metadata"].get("namespace") not in unborn:
                self.cluster.apply(obj, dry_run=True, force=self.force)
        for obj in absent:
            observed = self._observe(_checked(obj))
            if observed is not None:
                plan.add(subject(observed), "delete", "present", None)
                self.removed.append(observed)
        return plan

    def _observe(self, obj: Json, adopt: bool = False) -> Json | None:
        metadata = obj["metadata"]
        observed = self.cluster.get(obj["kind"], metadata["name"], metadata.get("namespace"))
        if observed is None:
            return None
        marks = observed["metadata"].get("labels") or {}
        ours = ownership.is_ours(marks) and marks.get(ownership.FLEET) == self.fleet
        if not (ours or adopt):
            owner = marks.get(ownership.FLEET)
            whose = f"belongs to fleet {owner}" if owner else "is not managed by this collection"
            raise FleetError("foreign_object", f"{subject(obj)} exists and {whose}.",
                             "Use another name, or take it over with adopt: true.")
        return {"apiVersion": KINDS[obj["kind"]][0], "kind": obj["kind"], **observed}

    def _marked(self, obj: Json) -> Json:
        marks = {ownership.MANAGED: "true", ownership.FLEET: self.fleet,
                 ownership.SPEC: ownership.digest(_checked(obj))[:16]}
        metadata = {**obj["metadata"], "labels": {**(obj["metadata"].get("labels") or {}), **marks}}
        return {"apiVersion": KINDS[obj["kind"]][0], **obj, "metadata": metadata}

    def apply(self) -> None:
        for obj in self.wanted:
            self.cluster.apply(obj, force=self.force)
        for obj in self.removed:
            self.cluster.delete(obj)


def _checked(obj: t.Any) -> Json:
    kind = obj.get("kind") if isinstance(obj, dict) else None
    if kind not in KINDS:
        raise bad_value("objects.kind", kind, f"Use one of {', '.join(sorted(KINDS))}.")
    metadata = obj.get("metadata") or {}
    if not metadata.get("name") or bool(metadata.get("namespace")) == (kind in GLOBAL):
        raise bad_value("objects.metadata", metadata, "Give a name, and a namespace where the kind has one.")
    return t.cast("Json", obj)
