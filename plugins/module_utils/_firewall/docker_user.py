# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The policy for published ports: chain CLAWOPS-USER below DOCKER-USER, live and for the boot, in both IP families.

One model renders the boot files; the restore script loads exactly these files, now and after each start of
Docker and UFW. The jumps are facts of their own: rules in a chain that nobody jumps to filter nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import typing as t

from .._errors import FleetError, bad_value
from .._plan import Plan, Warner, run
from .docker_user_files import (
    BOOT_FILES,
    DIRECTORY,
    DROP_IN,
    DROP_IN_TEXT,
    SCRIPT,
    SCRIPT_TEXT,
    STARTS,
    UFW_HOOK,
    UNIT,
    with_block,
    without_block,
)
from .docker_user_rules import (
    CHAIN,
    CHAINS,
    HOOK,
    JUMPS,
    PROXY,
    Family,
    Policy,
    boot_file,
    has_engine,
    live_subjects,
    parse_saved,
    removal,
    render,
)
from .host import File, Host, plan_files
from .rules import VERSIONS, Version

TOOLS: dict[Version, str] = {4: "iptables", 6: "ip6tables"}
UFW_DEFAULTS = "/etc/default/ufw"
AFTER_RULES: dict[Version, str] = {4: "/etc/ufw/after.rules", 6: "/etc/ufw/after6.rules"}
AS_SHIPPED = "/usr/share/ufw/iptables"
DAEMON, LEGACY_TABLES = "/etc/docker/daemon.json", "/proc/net/ip_tables_names"


def manage(module: Warner, host: Host, policy: Policy | None) -> None:
    """The whole run is under the lock: of two at once, the second one plans on what the first one left."""
    firewall = DockerUser(host, policy, module.check_mode, module.warn)
    with contextlib.nullcontext() if module.check_mode else host.locked(DIRECTORY):
        run(module, firewall.plan, firewall.apply, firewall.facts)


class DockerUser:
    """The policy of one host: plan() reads, apply() writes what is in the plan."""

    def __init__(self, host: Host, policy: Policy | None, check_mode: bool = False,
                 warn: t.Callable[[str], None] = lambda warning: None) -> None:
        self.host = host
        self.policy = policy
        self.check_mode = check_mode
        self.warn = warn
        self.families: list[Family] = []
        self.files: dict[str, File | None] = {}
        self.problems: list[str] = []

    @property
    def versions(self) -> list[Version]:
        return [4, 6] if self.host.path("/proc/sys/net/ipv6").exists() else [4]

    @property
    def engine(self) -> bool:
        return any(family.engine for family in self.families)

    def plan(self) -> Plan:
        plan = Plan()
        self._refuse_uplink_as_bridge()
        self._plan_files(plan)
        if self.host.has("iptables-save"):
            self.families = [self._observe(version) for version in self.versions]
            if self.policy:
                self._judge(plan, self.policy)
            for family in self.families:
                self._plan_family(plan, family)
        elif self.policy:
            plan.cannot_see("iptables is not installed yet")
        return plan

    def _plan_files(self, plan: Plan) -> None:
        self.files = plan_files(plan, self.host, self._desired_files())
        if self._systemd:
            stale = self.host.run("systemctl", "show", "--property=NeedDaemonReload", "--value", UNIT).strip() == "yes"
            plan.compare(UNIT, "loaded as on disk", "loaded from older files" if stale else "loaded as on disk")

    @property
    def _systemd(self) -> bool:
        return self.host.path("/run/systemd/system").exists()

    def _observe(self, version: Version) -> Family:
        saved = self.host.run(f"{TOOLS[version]}-save", "-t", "filter")
        if re.search(r"^# Table .* is incompatible", saved, re.MULTILINE):
            raise FleetError("foreign_object", f"{TOOLS[version]} can't read the table filter of IPv{version}: by nft, "
                             "somebody wrote rules into it that it has no words for.", "Keep them in another table.")
        return Family(version, saved)

    def _plan_family(self, plan: Plan, family: Family) -> None:
        desired = render(self.policy, family.version) if self.policy else {}
        for chain in CHAINS[family.version]:
            plan.compare(f"{chain} {family.label}", desired.get(chain), family.rules(chain))
        for parent, target in JUMPS[family.version]:
            found = family.jump(parent, target)
            # Where Docker stands behind DOCKER-USER, the way to it is Docker's and stays when our chain goes.
            stays = found if target == HOOK and not family.hook_is_ours else None
            plan.compare(f"{parent} -> {target} {family.label}", "first" if self.policy else stays, found)

    def _desired_files(self) -> dict[str, File | None]:
        hook = without_block(self.host.read(UFW_HOOK))
        if self.policy is None:
            paths = (UFW_HOOK, DROP_IN, SCRIPT, *BOOT_FILES.values())
            return {path: hook if path == UFW_HOOK else None for path in paths}
        # The rules come before the script that loads them.
        files: dict[str, File | None] = {
            BOOT_FILES[version]: File(0o644, boot_file(render(self.policy, version))) for version in VERSIONS}
        files[SCRIPT] = File(0o755, SCRIPT_TEXT)
        files[DROP_IN] = File(0o644, DROP_IN_TEXT)
        if self.host.path(UFW_DEFAULTS).exists():
            files[UFW_HOOK] = with_block(hook)
        return files

    # -- what is refused, or told -------------------------------------------------------------------------------------

    def _refuse_uplink_as_bridge(self) -> None:
        uplinks, bridges = self._uplinks(), self.policy.bridges if self.policy else ()
        for name, pattern in itertools.product(sorted(uplinks), bridges):
            if name == pattern or (pattern.endswith("+") and name.startswith(pattern[:-1])):
                raise bad_value("bridges", pattern, f"{name} carries the default route and would count as "
                                                    "a Docker bridge. List only the bridges of containers.")

    def _uplinks(self) -> set[str]:
        v4, v6 = (self.host.read(path) for path in ("/proc/net/route", "/proc/net/ipv6_route"))
        rows4 = [row.split() for row in v4.text.splitlines()[1:]] if v4 else []
        rows6 = [row.split() for row in v6.text.splitlines()] if v6 else []
        return ({row[0] for row in rows4 if row[1] == row[7] == "0" * 8}
                | {row[9] for row in rows6 if row[0] == "0" * 32 and row[1] == "00" and row[9] != "lo"})

    def _judge(self, plan: Plan, policy: Policy) -> None:
        self.problems = []
        self._refuse_missing_interfaces(plan, policy)
        self._refuse_other_backends()
        self._refuse_open_input(plan)
        self._inspect_after_rules()
        for problem in self.problems:
            self.warn(problem)

    def _refuse(self, plan: Plan, error: FleetError) -> None:
        """In check mode, an earlier task may not really have brought yet what is missing."""
        if not self.check_mode:
            raise error
        plan.cannot_see(f"{error.message} {error.hint}")

    def _refuse_missing_interfaces(self, plan: Plan, policy: Policy) -> None:
        named = [("trusted_interfaces", name) for name in policy.trusted]
        named += [(f"allow[{index}].interface", allow.interface) for index, allow in enumerate(policy.allow)]
        for parameter, name in named:
            if name and not name.endswith("+") and not self.host.path(f"/sys/class/net/{name}").exists():
                self._refuse(plan, bad_value(parameter, name, "This host has no such interface. Correct the name, or "
                                                              f"write '{name[:14]}+' if it comes and goes."))

    def _refuse_other_backends(self) -> None:
        if self._engine_uses_nft():
            raise FleetError("unsupported_backend", "Docker filters by nftables on this host, where it has no chain "
                             f"{HOOK}.", f'Set "firewall-backend": "iptables" in {DAEMON} and restart Docker.')
        for world in () if self.engine else ("legacy", "nft"):
            if has_engine(self._chains_of_world(world)):
                raise FleetError("two_worlds", f"Docker's rules stand in iptables-{world}, where iptables of this host "
                                 "does not look.", "Choose one for all, such as 'update-alternatives --set iptables "
                                 "/usr/sbin/iptables-nft' and the same for ip6tables, and restart the host.")

    def _engine_uses_nft(self) -> bool:
        daemon = self.host.read(DAEMON)
        with contextlib.suppress(ValueError, AttributeError):
            if daemon and json.loads(daemon.text).get("firewall-backend") == "nftables":
                return True
        if self.engine or not self.host.has("nft"):
            return False
        return "table ip docker-bridges" in self.host.run("nft", "list", "tables").splitlines()

    def _chains_of_world(self, world: str) -> t.Iterable[str]:
        tables = self.host.read(LEGACY_TABLES)
        # Asking iptables-legacy for a table creates it.
        asleep = world == "legacy" and (tables is None or "filter" not in tables.text.split())
        if asleep or not self.host.has(f"iptables-{world}-save"):
            return ()
        return parse_saved(self.host.run(f"iptables-{world}-save", "-t", "filter"))

    def _refuse_open_input(self, plan: Plan) -> None:
        """What is published changes with every container: only a default closes what docker-proxy will serve."""
        if all(family.input_is_closed for family in self.families if PROXY in CHAINS[family.version]):
            return
        error = FleetError("open_input", "Over IPv6 this host lets in by default what no rule of INPUT decides about, "
                           "and docker-proxy serves published ports there.",
                           "Let UFW deny incoming connections first; clawops.fleet.ufw_host does.")
        if self.engine:
            self._refuse(plan, error)
        else:
            self.problems.append(f"{error.message} {error.hint}")

    def _inspect_after_rules(self) -> None:
        for version in self.versions:
            path = AFTER_RULES[version]
            file, shipped = self.host.read(path), self.host.read(f"{AS_SHIPPED}/{path.rpartition('/')[2]}")
            if file is None or (shipped and shipped.text == file.text):
                continue
            if re.search(rf"^:{HOOK}\s", file.text, re.MULTILINE):
                self.problems.append(f"{path} declares :{HOOK}, and so empties it at each start and reload of UFW. "
                                     "Published ports are open until our jump is back. Take that line out, and put the "
                                     "rules below it into a chain of their own.")
            complaint = self.host.complaint(f"{TOOLS[version]}-restore", "--noflush", "--test", stdin=file.text)
            if complaint:
                said = " ".join(complaint.split())
                self.problems.append(f"{path} is broken, and UFW will not start whole: {said}")

    # -- what is done -------------------------------------------------------------------------------------------------

    def apply(self, plan: Plan) -> dict[str, t.Any]:
        if self.policy:
            self._install(plan)
        else:
            self._uninstall(plan)
        return self.facts()

    def _install(self, plan: Plan) -> None:
        for family in self.families:
            file = self.files[BOOT_FILES[family.version]]
            self.host.run(f"{TOOLS[family.version]}-restore", "--noflush", "--test", stdin=file.text if file else "")
        self._write_files(plan, lambda path: path not in STARTS)
        if any(plan.touches(subject) for family in self.families for subject in live_subjects(family)):
            self.host.run(str(self.host.path(SCRIPT)))
        self._write_starts(plan)

    def _uninstall(self, plan: Plan) -> None:
        self._write_starts(plan)
        for family in self.families:
            lines = removal(family)
            if lines:
                self.host.run(f"{TOOLS[family.version]}-restore", "--noflush", "--wait",
                              stdin="\n".join(["*filter", *lines, "COMMIT", ""]))
        self._write_files(plan, lambda path: path not in STARTS)

    def _write_starts(self, plan: Plan) -> None:
        self._write_files(plan, lambda path: path in STARTS)
        if self._systemd and (plan.touches(DROP_IN) or plan.touches(UNIT)):
            self.host.run("systemctl", "daemon-reload")

    def _write_files(self, plan: Plan, chosen: t.Callable[[str], bool]) -> None:
        for path, file in self.files.items():
            if not (chosen(path) and plan.touches(path)):
                continue
            if file is None:
                self.host.remove(path)
            else:
                self.host.write(path, file)

    def facts(self) -> dict[str, t.Any]:
        rendered = {version: render(self.policy, version) if self.policy else {} for version in self.versions}
        rules = {f"ipv{version}": chains.get(CHAIN, []) for version, chains in rendered.items()}
        if 6 in rendered:
            rules["ipv6_input"] = rendered[6].get(PROXY, [])
        return {"rules": rules, "ipv6_engine": self._ipv6_engine(), "problems": self.problems}

    def _ipv6_engine(self) -> str:
        if 6 not in self.versions:
            return "disabled"
        if not self.families:
            return "unknown"
        ipv6 = self.families[-1]
        return "filtered" if ipv6.engine else "proxy" if self.engine else "none"
