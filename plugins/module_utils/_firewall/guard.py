# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The network guard: what containers and guests of a host can't reach, whatever Docker and UFW let through.

The table only refuses; what it lets pass goes on to the rules of Docker, libvirt and UFW. It matches bridges by name,
so that it is loaded before there is one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from .._errors import bad_value
from .._plan import Plan
from . import guard_bridging, guard_networks, guard_rules, nft
from .guard_host import Surroundings, observe
from .guard_policy import Policy
from .guard_units import DIRECTORY, LOG_UNIT, RULES, SYSTEMD, UNIT, guard_files, log_files
from .host import File, Host, plan_files
from .rules import VERSIONS

LIVE = f"table {nft.TABLE}"
_HEAD = "#!/usr/sbin/nft -f\n# Written by clawops.fleet.network_guard.\n"
_RUNNING, _LOADED = "enabled and active", "loaded as on disk"
# Units of others that have a drop-in of ours.
EXTENDED = ("docker.service", "nftables.service")


class Guard:
    """plan() reads, apply() writes what is in the plan. No policy means that the guard is to go."""

    def __init__(self, host: Host, policy: Policy | None) -> None:
        self.host = host
        self.policy = policy
        self.seen: Surroundings | None = None
        self.files: dict[str, File | None] = {}
        self.transaction = ""
        self.units: dict[str, str | None] = {}
        self.known: set[str] = set()

    # -- reading ------------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        plan = Plan()
        if self.policy:
            self._observe(plan, self.policy)
        self.files = plan_files(plan, self.host, self._desired_files())
        if self.host.has("nft") and plan.complete:
            self._plan_table(plan)
        guard_bridging.plan(self.host, plan, present=self.policy is not None)
        if self.host.path("/run/systemd/system").exists():
            self._plan_units(plan)
        return plan

    def _observe(self, plan: Plan, policy: Policy) -> None:
        missing = [package for program, package in (("nft", "nftables"), ("ip", "iproute2"), ("ulogd", "ulogd2"))
                   if not self.host.has(program) and (policy.log or program != "ulogd")]
        for package in missing:
            plan.cannot_see(f"{package} is not installed yet")
        if not missing:
            self.seen = observe(self.host, policy.guards)
            _refuse_uplinks(policy, self.seen.uplinks)

    def _desired_files(self) -> dict[str, File | None]:
        wanted: dict[str, File | None] = dict.fromkeys((RULES, *guard_files(), *guard_bridging.files(), *log_files()))
        if self.policy:
            wanted.update({**guard_files(), **guard_bridging.files()})
            wanted.update(log_files() if self.policy.log else {})
        if self.policy and self.seen:
            wanted[RULES] = File(0o644, _HEAD + guard_rules.render(self.policy, self.seen))
        elif self.policy:
            del wanted[RULES]
        return wanted

    def _plan_table(self, plan: Plan) -> None:
        rules, found = self.files.get(RULES), nft.live(self.host)
        desired = nft.as_printed(self.host, rules.text) if rules else None
        plan.compare(LIVE, desired, found)
        if rules and desired:
            self.transaction = nft.anew(rules.text) if nft.is_strange(found, desired) else rules.text

    def _plan_units(self, plan: Plan) -> None:
        self.units = {UNIT: _RUNNING if self.policy else None,
                      LOG_UNIT: _RUNNING if self.policy and self.policy.log else None}
        shown = self.host.run("systemctl", "show", "--property=ActiveState,UnitFileState,NeedDaemonReload",
                              *self.units, *EXTENDED)
        facts = [dict(line.partition("=")[::2] for line in text.splitlines()) for text in shown.strip().split("\n\n")]
        stale = any(fact.get("NeedDaemonReload") == "yes" for fact in facts)
        plan.compare("systemd", _LOADED, "loaded from older files" if stale else _LOADED)
        for (unit, wanted), fact in zip(self.units.items(), facts):
            states = (fact.get("UnitFileState") or "absent", fact.get("ActiveState") or "inactive")
            found = None if states == ("absent", "inactive") else " and ".join(states)
            plan.compare(unit, wanted, found)
            if found:
                self.known.add(unit)

    # -- writing ------------------------------------------------------------------------------------------------------

    def apply(self, plan: Plan) -> dict[str, t.Any]:
        """systemd works while the lock is free: its units take the same one."""
        if self.transaction:
            nft.check(self.host, self.transaction)
        self._stop_units(plan)
        with self.host.locked(DIRECTORY):
            self._load(plan)
            self._write_files(plan)
            guard_bridging.apply(self.host, plan, present=self.policy is not None)
        with contextlib.suppress(OSError):
            self.host.path(DIRECTORY).parent.rmdir()
        self._start_units(plan)
        return self.facts()

    def _load(self, plan: Plan) -> None:
        """Boot file and kernel go together: of two runs at once, the last one decides about both."""
        rules = self.files.get(RULES)
        if rules and (plan.touches(RULES) or plan.touches(LIVE)):
            self.host.write(RULES, rules)
            nft.load(self.host, self.transaction)
        elif plan.touches(LIVE):
            nft.remove(self.host)

    def _write_files(self, plan: Plan) -> None:
        for path, file in self.files.items():
            if plan.touches(path) and file is None:
                self.host.remove(path)
            elif plan.touches(path) and file and path != RULES:
                self.host.write(path, file)

    def _stop_units(self, plan: Plan) -> None:
        for unit, wanted in self.units.items():
            if wanted is None and plan.touches(unit):
                # It takes the unit out of Docker's requirements first, so Docker goes on.
                self.host.run("systemctl", "disable", "--now", unit)
            elif unit == LOG_UNIT and unit in self.known and any(map(plan.touches, log_files())):
                self.host.run("systemctl", "stop", unit)

    def _start_units(self, plan: Plan) -> None:
        if self.units and any(path.startswith(SYSTEMD) or path == "systemd" for path in self._touched(plan)):
            self.host.run("systemctl", "daemon-reload")
        for unit, wanted in self.units.items():
            if wanted and (self._touched(plan) & {unit, *_files_of(unit)}):
                self.host.run("systemctl", "enable", "--now", unit)

    @staticmethod
    def _touched(plan: Plan) -> set[str]:
        return {change.subject for change in plan.changes}

    # -- telling ------------------------------------------------------------------------------------------------------

    def facts(self) -> dict[str, t.Any]:
        policy, seen = self.policy, self.seen
        return {
            "allowed": _shown(guard_rules.permits(policy, seen)) if policy and seen else [],
            "host_services": _shown(guard_rules.services(policy, seen)) if policy and seen else [],
            "reach": _shown(policy.reach) if policy else [],
            "refused": [net for version in VERSIONS if seen for net in guard_networks.inner(version, seen.on_link)],
            "same_bridge": {family: "refused" if policy and seen_there else "open"
                            for family, seen_there in guard_bridging.refused(self.host).items()},
        }


def _files_of(unit: str) -> dict[str, File]:
    return log_files() if unit == LOG_UNIT else guard_files()


def _shown(entries: t.Sequence[t.Any]) -> list[dict[str, t.Any]]:
    return [dataclasses.asdict(entry) for entry in entries]


def _refuse_uplinks(policy: Policy, uplinks: t.Iterable[str]) -> None:
    for name in uplinks:
        if policy.guards(name):
            raise bad_value("bridges", name, "This interface leads to the host's own network and would be guarded as a "
                                             "bridge of containers. List narrower patterns.")
