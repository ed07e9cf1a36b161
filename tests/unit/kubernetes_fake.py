# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A cluster in memory: who wrote which field, which ports are taken, and what was called."""

from __future__ import annotations

import copy

from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes.client import Done, subject


class FakeCluster:
    """Server-side apply as far as the tests need it: an applied object replaces what was applied before."""

    def __init__(self):
        self.objects, self.calls, self.owners, self.forbidden = {}, [], {}, set()
        self.refuse, self.counter = None, 0

    def _key(self, obj):
        return obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"]

    def put(self, obj):
        """Somebody else's object."""
        self.counter += 1
        made = copy.deepcopy(obj)
        made["metadata"] |= {"uid": str(self.counter), "generation": 1}
        self.objects[self._key(made)] = made
        return made

    def list(self, kind, namespace=None, selector=None):
        self.calls.append(("list", kind, namespace))
        if ("list", kind, namespace) in self.forbidden:
            raise FleetError("forbidden", f"Listing {kind} of {namespace}")
        return [copy.deepcopy(obj) for (found, place, _name), obj in self.objects.items()
                if found == kind and namespace in (None, place)]

    def get(self, kind, name, namespace=None):
        self.calls.append(("get", kind, name))
        return copy.deepcopy(self.objects.get((kind, namespace, name)))

    def _check_ports(self, obj):
        wanted = {port["nodePort"] for port in obj.get("spec", {}).get("ports", []) if obj["kind"] == "Service"}
        others = [other for key, other in self.objects.items() if key[0] == "Service" and key != self._key(obj)]
        if any(wanted & {port.get("nodePort") for port in other["spec"].get("ports", [])} for other in others):
            raise FleetError("port_taken", f"{subject(obj)}: provided port is already allocated")

    def create(self, obj, dry_run=False):
        self.calls.append(("create", obj["kind"], obj["metadata"]["name"]))
        if self.refuse:
            self.refuse(obj)
        if self._key(obj) in self.objects:
            raise FleetError("already_exists", subject(obj))
        self._check_ports(obj)
        return copy.deepcopy(self.put(obj))

    def apply(self, obj, dry_run=False, force=False):
        self.calls.append(("dry" if dry_run else "apply", obj["kind"], obj["metadata"]["name"]))
        owner = self.owners.get(self._key(obj))
        if owner and not force:
            raise FleetError("conflict", f"{subject(obj)}: {owner}", conflicts=[{"manager": owner, "field": ".spec"}])
        self._check_ports(obj)
        if dry_run:
            return copy.deepcopy(obj)
        found = self.objects.get(self._key(obj))
        made = self.put(obj)
        if found:
            made["metadata"]["generation"] = found["metadata"]["generation"] + 1
        self.owners.pop(self._key(obj), None)
        return copy.deepcopy(made)

    def patch(self, kind, name, body, namespace=None):
        self.calls.append(("patch", kind, name))
        return copy.deepcopy(self.objects[kind, namespace, name])

    def exec(self, namespace, pod, argv, stdin=None):
        """What the node has brought into the pod."""
        self.calls.append(("exec", pod, tuple(argv)))
        bot = self.objects["Pod", namespace, pod]["metadata"]["labels"]["app"]
        return Done(0, self.objects["ConfigMap", namespace, f"{bot}-config"]["data"]["openclaw.json"], "")

    def delete(self, obj):
        self.calls.append(("delete", obj["kind"], obj["metadata"]["name"]))
        self.objects.pop(self._key(obj), None)

    def writes(self):
        return [call for call in self.calls if call[0] in ("create", "apply", "patch", "delete")]
