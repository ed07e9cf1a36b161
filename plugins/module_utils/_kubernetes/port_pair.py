# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Pairs of ports by themselves, in either store."""

from __future__ import annotations

import typing as t

from .. import _plan
from .. import _ports as ports
from .._errors import FleetError
from .._ownership import FLEET, PREFIX, check_name, guard, is_ours
from .client import Cluster, Json, subject
from .manifests import Site, service
from .pairs import Pairs, pair_of


class Module(_plan.Warner, t.Protocol):
    """The part of AnsibleModule that manage() needs."""

    params: Json


class Store(t.Protocol):
    """Where pairs are kept."""

    def held(self) -> dict[str, int]: ...
    def choose(self, names: list[str]) -> dict[str, int]: ...
    def reserve(self, names: list[str]) -> dict[str, int]: ...
    def release(self, names: list[str]) -> None: ...


class Sqlite:
    """A file of a host."""

    def __init__(self, path: str, band: ports.Band):
        self.path, self.band = path, band

    def held(self) -> dict[str, int]:
        return ports.held_pairs(self.path)

    def choose(self, names: list[str]) -> dict[str, int]:
        return ports.plan_pairs(names, self.band, self.path)

    def reserve(self, names: list[str]) -> dict[str, int]:
        return ports.reserve_pairs(names, self.band, self.path)

    def release(self, names: list[str]) -> None:
        ports.release_pairs(names, self.path)


class Services:
    """The Services of a cluster."""

    def __init__(self, cluster: Cluster, site: Site, band: ports.Band):
        self.cluster, self.site = cluster, site
        self.pairs = Pairs(cluster, band, site.namespace)
        self.found: dict[str, Json] = {}

    def held(self) -> dict[str, int]:
        services = [obj for obj in self.pairs.look() if obj["metadata"]["namespace"] == self.site.namespace]
        self.found = {obj["metadata"]["name"]: obj for obj in services}
        held = {}
        for obj in services:
            marks, pair = obj["metadata"].get("labels") or {}, pair_of(obj)
            if is_ours(marks) and marks.get(FLEET) == self.site.fleet and pair:
                held[marks[f"{PREFIX}/bot"]] = pair
        return held

    def choose(self, names: list[str]) -> dict[str, int]:
        for name in names:
            self._check(name, self.found.get(f"bot-{name}-vnc"))
        wanted = {name: pair_of(self.found.get(f"bot-{name}-vnc")) for name in names}
        return ports.choose_pairs(wanted, self.pairs.used, self.pairs.band)

    def _check(self, name: str, obj: Json | None) -> None:
        if obj is not None:
            marks = obj["metadata"].get("labels") or {}
            guard(subject(obj), marks if marks.get(FLEET) == self.site.fleet else None, "bot", name)

    def reserve(self, names: list[str]) -> dict[str, int]:
        chosen = self.choose(names)
        self.pairs.used |= {number: name for name, port in chosen.items() for number in (port, port + 1)}
        return {name: pair_of(self.found.get(f"bot-{name}-vnc")) or self._create(name, chosen[name]) for name in names}

    def _create(self, name: str, pair: int) -> int:
        def make(ports: int) -> Json:
            return service(name, self.site, self.site.namespace, ports)
        try:
            made = self.pairs.create(name, pair, make)
        except FleetError as error:
            if error.code != "already_exists":
                raise
            made = self.cluster.get("Service", f"bot-{name}-vnc", self.site.namespace) or {}
            self._check(name, {"kind": "Service", **made} if made else None)
        found = pair_of(made)
        if found is None:
            raise FleetError("changed_meanwhile", f"The Service of {name} came and went while this ran.", "Run again.")
        return found

    def release(self, names: list[str]) -> None:
        for name in names:
            obj = self.found.get(f"bot-{name}-vnc")
            self._check(name, obj)
            if obj:
                self.cluster.delete(obj)


def _store(p: Json) -> Store:
    band = ports.pair_band(p["band_first"], p["band_last"])
    if p["store"] == "sqlite":
        return Sqlite(p["path"], band)
    return Services(Cluster.of(p), Site(p["fleet"], p["namespace"]), band)


def _shown(pairs: t.Mapping[str, int]) -> Json:
    return {"pairs": {name: {"chrome": port, "terminal": port + 1} for name, port in sorted(pairs.items())}}


def manage(module: Module) -> None:
    """Runs the module to its end."""
    p = module.params
    names, absent = list(dict.fromkeys(p["names"])), p["state"] == "absent"
    stores: list[Store] = []
    decided: dict[str, int] = {}

    def plan() -> _plan.Plan:
        for name in names:
            check_name("names", name)
        stores.append(_store(p))
        held, made = stores[0].held(), _plan.Plan()
        decided.update({} if absent else stores[0].choose(names) if names else held)
        for name in names:
            made.compare(f"pair of {name}", decided.get(name), held.get(name))
        return made

    def apply(_decided: _plan.Plan) -> Json:
        if absent:
            stores[0].release(names)
            return _shown({})
        return _shown(stores[0].reserve(names))

    _plan.run(module, plan, apply, lambda: _shown(decided))
