# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""As much of a cluster as unit tests need: objects with versions, label selectors and refusals."""

from __future__ import annotations

import copy
import itertools
import typing as t

from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError

Json = dict[str, t.Any]


class FakeCluster:
    """The methods of Cluster on objects in memory. verbs is what was called."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Json] = {}
        self.verbs: list[str] = []
        self.connection: t.Any = None
        self._versions = itertools.count(1)

    def _key(self, obj: Json) -> tuple[str, str, str]:
        return obj["kind"], obj["metadata"].get("namespace") or "", obj["metadata"]["name"]

    def _keep(self, obj: Json) -> Json:
        obj["metadata"]["resourceVersion"] = str(next(self._versions))
        obj["metadata"].setdefault("uid", f"uid-{obj['metadata']['name']}")
        self.objects[self._key(obj)] = obj
        return copy.deepcopy(obj)

    def get(self, kind: str, name: str, namespace: str | None = None) -> Json | None:
        self.verbs.append("get")
        return copy.deepcopy(self.objects.get((kind, namespace or "", name)))

    def list(self, kind: str, namespace: str | None = None, selector: str | None = None) -> list[Json]:
        self.verbs.append("list")
        wanted = dict([selector.split("=")]) if selector else {}
        return [copy.deepcopy(obj) for (its_kind, place, _name), obj in self.objects.items()
                if its_kind == kind and namespace in (None, place)
                and wanted.items() <= (obj["metadata"].get("labels") or {}).items()]

    def create(self, obj: Json) -> Json:
        self.verbs.append("create")
        if self._key(obj) in self.objects:
            raise FleetError("already_exists", f"{obj['metadata']['name']} already exists.")
        return self._keep(copy.deepcopy(obj))

    def apply(self, obj: Json, dry_run: bool = False, force: bool = False) -> Json:
        self.verbs.append("rehearse" if dry_run else "apply")
        return obj if dry_run else self._keep(copy.deepcopy(obj))

    def patch(self, kind: str, name: str, body: Json, namespace: str | None = None) -> Json:
        self.verbs.append("patch")
        found = self.objects[kind, namespace or "", name]
        version = body.get("metadata", {}).get("resourceVersion")
        if version and version != found["metadata"]["resourceVersion"]:
            raise FleetError("changed_meanwhile", f"{name} was changed meanwhile.")
        return self._keep(t.cast(Json, _merged(found, body)))

    def delete(self, obj: Json) -> None:
        self.verbs.append("delete")
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
