# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What a host offers to its guests: networks and storage pools."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import typing as t
import xml.etree.ElementTree as ET

from .. import _process
from .._errors import FleetError, bad_value
from .._plan import Plan
from . import networks, virtualization
from .client import Host, library, parse
from .networks import Network

_AS_DEFINED, _OLDER, _DOWN = "as defined", "as defined earlier", "not active"


@dataclasses.dataclass(frozen=True)
class Pool:
    """A directory that libvirt lists."""

    name: str
    path: str


@dataclasses.dataclass
class Seen:
    """One network or pool as libvirt has it."""

    handle: t.Any
    xml: str
    values: dict[str, t.Any]
    active: str
    autostart: bool
    users: list[str] = dataclasses.field(default_factory=list)


def parse_pools(values: t.Sequence[t.Mapping[str, t.Any]]) -> list[Pool]:
    for index, one in enumerate(values):
        if not pathlib.PurePosixPath(one["path"]).is_absolute():
            raise bad_value(f"pools[{index}].path", one["path"], "Write the absolute path of a directory.")
    return [Pool(one["name"], str(pathlib.PurePosixPath(one["path"]))) for one in values]


class Hosting:
    """plan() reads, apply() writes what is in the plan."""

    def __init__(self, host: Host, wanted: t.Sequence[Network], pools: t.Sequence[Pool],
                 runner: _process.Runner = _process.run, may_be_missing: bool = False) -> None:
        self.host, self.wanted, self.pools, self.runner = host, wanted, pools, runner
        self._may_be_missing = may_be_missing
        self._seen: dict[str, Seen | None] = {}
        self._there = False

    # -- reading ------------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        plan = Plan()
        try:
            self._there = bool(self.host.connection)
        except FleetError as error:
            if not self._may_be_missing:
                raise
            plan.cannot_see(f"{error.message} It is not installed yet, or does not run.")
            return plan
        for index, network in enumerate(self.wanted):
            self._plan_network(plan, network, f"networks[{index}]")
        for pool in self.pools:
            self._plan_pool(plan, pool)
        return plan

    def _plan_network(self, plan: Plan, network: Network, parameter: str) -> None:
        subject = f"network {network.name}"
        seen = self._seen[subject] = self._network(network.name)
        if seen and not networks.is_ours(seen.xml):
            raise _foreign(subject)
        if plan.compare(subject, network.shown(), seen and seen.values):
            answer = _process.must(self.runner, ["ip", "-json", "-4", "route"], "Reading the routes")
            networks.refuse_overlap(network, json.loads(answer or "[]"), parameter)
        self._plan_state(plan, subject, seen)

    def _plan_pool(self, plan: Plan, pool: Pool) -> None:
        subject = f"pool {pool.name}"
        seen = self._seen[subject] = self._pool(pool.name)
        if seen and seen.values != {"type": "dir", "path": pool.path}:
            raise _foreign(f"{subject} ({seen.values['type']} {seen.values['path']})")
        plan.compare(subject, {"type": "dir", "path": pool.path}, seen and seen.values)
        self._plan_state(plan, subject, seen)

    def _plan_state(self, plan: Plan, subject: str, seen: Seen | None) -> None:
        """A network is not taken from under running guests: that is told instead."""
        active = seen.active if seen else _DOWN
        if active == _AS_DEFINED and plan.touches(subject) and seen and not seen.users:
            active = _OLDER
        if not (seen and seen.users):
            plan.compare(f"{subject}: state", _AS_DEFINED, active)
        plan.compare(f"{subject}: start with the host", True, bool(seen and seen.autostart))

    def _network(self, name: str) -> Seen | None:
        handle = self._find("listAllNetworks", name)
        if handle is None:
            return None
        with self.host.doing(f"read the network {name}"):
            xml = handle.XMLDesc(library().VIR_NETWORK_XML_INACTIVE)
            live = handle.XMLDesc(0) if handle.isActive() else None
            values, autostart = networks.observed(xml), bool(handle.autostart())
        active = _DOWN if live is None else _AS_DEFINED if networks.observed(live) == values else _OLDER
        return Seen(handle, xml, values, active, autostart, self._users(name) if live else [])

    def _users(self, name: str) -> list[str]:
        """The running guests that are plugged in."""
        with self.host.doing("list its guests"):
            running = self.host.connection.listAllDomains(library().VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            domains = [(one.name(), one.XMLDesc(0)) for one in running]
        return sorted(domain for domain, xml in domains
                      if any(source.get("network") == name
                             for source in parse(xml).iterfind("devices/interface/source")))

    def _pool(self, name: str) -> Seen | None:
        handle = self._find("listAllStoragePools", name)
        if handle is None:
            return None
        with self.host.doing(f"read the pool {name}"):
            xml = handle.XMLDesc(0)
            active, autostart = bool(handle.isActive()), bool(handle.autostart())
        tree = parse(xml)
        values = {"type": tree.get("type"), "path": tree.findtext("target/path")}
        return Seen(handle, xml, values, _AS_DEFINED if active else _DOWN, autostart)

    def _find(self, function: str, name: str) -> t.Any:
        """None where there is none of that name."""
        with self.host.doing(f"find {name}"):
            return next((one for one in getattr(self.host.connection, function)() if one.name() == name), None)

    # -- writing ------------------------------------------------------------------------------------------------------

    def apply(self, plan: Plan) -> dict[str, t.Any]:
        for network in self.wanted:
            subject = f"network {network.name}"
            seen = self._seen[subject]
            if plan.touches(subject):
                with self.host.doing(f"define the network {network.name}"):
                    xml = networks.definition(network, seen.xml if seen else None)
                    handle = self.host.connection.networkDefineXML(xml)
                self._seen[subject] = dataclasses.replace(seen, handle=handle) if seen else \
                    Seen(handle, xml, network.shown(), _DOWN, autostart=False)
            self._apply_state(plan, subject)
        for pool in self.pools:
            subject = f"pool {pool.name}"
            if plan.touches(subject):
                with self.host.doing(f"define the pool {pool.name}"):
                    handle = self.host.connection.storagePoolDefineXML(_pool_xml(pool), 0)
                self._seen[subject] = Seen(handle, "", {}, _DOWN, autostart=False)
            self._apply_state(plan, subject)
        return self.facts()

    def _apply_state(self, plan: Plan, subject: str) -> None:
        seen = self._seen[subject]
        with self.host.doing(f"start {subject}"):
            if seen and plan.touches(f"{subject}: state"):
                if seen.active != _DOWN:
                    seen.handle.destroy()
                seen.handle.create()
            if seen and plan.touches(f"{subject}: start with the host"):
                seen.handle.setAutostart(1)

    # -- telling ------------------------------------------------------------------------------------------------------

    def facts(self) -> dict[str, t.Any]:
        if not self._there:
            return {"networks": [], "pools": [], "restart_required": False, "virtualization": None}
        told = [self._told(network) for network in self.wanted]
        return {"networks": told, "pools": [dataclasses.asdict(pool) for pool in self.pools],
                "restart_required": any(one["restart_required"] for one in told),
                "virtualization": virtualization.facts(self.host.platform.kvm)}

    def _told(self, network: Network) -> dict[str, t.Any]:
        """users: running guests for whose sake a change waits."""
        seen = self._network(network.name)
        waiting = bool(seen and seen.active == _OLDER)
        return {**network.shown(), "subnet": str(network.subnet), "active": bool(seen and seen.active != _DOWN),
                "restart_required": waiting, "users": seen.users if seen else []}


def _pool_xml(pool: Pool) -> str:
    tree = ET.Element("pool", type="dir")
    ET.SubElement(tree, "name").text = pool.name
    ET.SubElement(ET.SubElement(tree, "target"), "path").text = pool.path
    return ET.tostring(tree, encoding="unicode")


def _foreign(what: str) -> FleetError:
    return FleetError("foreign_object", f"{what} exists and is not managed by this collection.",
                      "Rename or remove it, or choose another name.")
