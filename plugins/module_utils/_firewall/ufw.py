# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""UFW of one host: default policies and the permissions that carry our comment.

What stands is read from UFW's own files, one read each, instead of from its slow command. Changes go by ufw's
commands that work on a running firewall; those that stop and start it (reload, default) are never used.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._errors import FleetError
from .._plan import Plan
from .host import File, Host
from .rules import Allow, Version, parse_allow

DEFAULTS, SETTINGS = "/etc/default/ufw", "/etc/ufw/ufw.conf"
RULES: dict[Version, str] = {4: "/etc/ufw/user.rules", 6: "/etc/ufw/user6.rules"}
OURS = "clawops.fleet"
CHAINS = {"incoming": "INPUT", "outgoing": "OUTPUT", "routed": "FORWARD"}
VERDICTS = {"allow": "ACCEPT", "deny": "DROP"}
_ANYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


@dataclasses.dataclass(frozen=True)
class Policy:
    """What comes in, and the verdict for everything else, by direction."""

    allow: tuple[Allow, ...]
    verdicts: dict[str, str]


def parse_policy(params: t.Mapping[str, t.Any]) -> Policy:
    return Policy(parse_allow("allow", params["allow"]),
                  {direction: VERDICTS[params[direction]] for direction in CHAINS})


@dataclasses.dataclass(frozen=True)
class Rule:
    """One permission in one family, as a line of user.rules has it."""

    protocol: str
    port: str
    source: str

    @property
    def arguments(self) -> list[str]:
        return ["allow", "proto", self.protocol, "from", self.source, "to", "any", "port", self.port]


def desired_rules(allow: tuple[Allow, ...], version: Version) -> dict[Rule, str]:
    """The rules of one family with their comments."""
    return {Rule(entry.protocol, entry.port, _source(source, version)): _comment(entry.comment)
            for entry in allow for source in entry.sources_of(version)}


def _source(source: str | None, version: Version) -> str:
    return re.sub(r"/(32|128)$", "", source) if source else _ANYWHERE[version]


def _comment(text: str) -> str:
    return f"{OURS}: {text}" if text else OURS


def parse_rules(text: str) -> dict[Rule, str]:
    """The plain permissions of user.rules (others are none of ours) with their comments."""
    rules = {}
    for line in re.findall(r"^### tuple ### (.*)$", text, re.MULTILINE):
        body, _mark, comment = line.partition(" comment=")
        fields = body.split()
        if len(fields) == 7 and fields[0] == "allow" and fields[6] == "in" and fields[3] in _ANYWHERE.values():
            _action, protocol, port, _to, sport, source, _direction = fields
            if sport == "any":
                rules[Rule(protocol, port, source)] = bytes.fromhex(comment.strip()).decode(errors="replace")
    return rules


def setting(file: File | None, name: str) -> str | None:
    match = re.search(rf'^{name}="?(\w+)"?\s*$', file.text if file else "", re.MULTILINE)
    return match[1] if match else None


def with_setting(file: File, name: str, value: str) -> File:
    line = f'{name}="{value}"'
    text, found = re.subn(rf"^{name}=.*$", line, file.text, flags=re.MULTILINE)
    return File(file.mode, text if found else f"{file.text.rstrip()}\n{line}\n")


def live_policy(version: Version, direction: str, verdict: str) -> list[str]:
    """The lines by which ufw-init itself would set the policy, as one part of a transaction."""
    prefix = "ufw" if version == 4 else "ufw6"
    place = {"incoming": "input", "outgoing": "output", "routed": "forward"}[direction]
    accept = [f"-A {prefix}-track-{place} -p {protocol} -m conntrack --ctstate NEW -j ACCEPT"
              for protocol in ("tcp", "udp") if verdict == "ACCEPT"]
    return [f":{CHAINS[direction]} {verdict} [0:0]", f"-F {prefix}-reject-{place}", f"-F {prefix}-track-{place}",
            *accept, f"-F {prefix}-skip-to-policy-{place}", f"-A {prefix}-skip-to-policy-{place} -j {verdict}"]


class Ufw:
    """plan() reads, apply() writes what is in the plan."""

    def __init__(self, host: Host, policy: Policy) -> None:
        self.host = host
        self.policy = policy
        self.defaults: File | None = None
        self.active = False
        self.additions: list[tuple[Rule, str]] = []
        self.removals: list[Rule] = []

    def plan(self) -> Plan:
        plan = Plan()
        self.defaults = self.host.read(DEFAULTS)
        if self.defaults is None or not self.host.has("ufw"):
            plan.cannot_see("ufw is not installed yet")
            return plan
        enabled = setting(self.host.read(SETTINGS), "ENABLED") == "yes"
        self.active = self.host.succeeds("iptables", "-S", "ufw-user-input")
        self._plan_ipv6(plan)
        for direction, verdict in self.policy.verdicts.items():
            plan.compare(f"default {direction}", verdict, setting(self.defaults, f"DEFAULT_{CHAINS[direction]}_POLICY"))
        for version in RULES:
            self._plan_rules(plan, version)
        plan.compare("firewall", "active", "active" if enabled and self.active else "inactive")
        return plan

    def _plan_ipv6(self, plan: Plan) -> None:
        if plan.compare("IPV6", "yes", (setting(self.defaults, "IPV6") or "no").lower()) and self.active:
            raise FleetError("needs_restart", f"UFW is running with IPV6 switched off in {DEFAULTS}.",
                             "Set IPV6=yes there and run 'ufw reload' when an open moment does no harm; "
                             "this module never stops a running firewall.")

    def _plan_rules(self, plan: Plan, version: Version) -> None:
        file = self.host.read(RULES[version])
        observed = parse_rules(file.text if file else "")
        desired = desired_rules(self.policy.allow, version)
        for rule, comment in desired.items():
            found = observed.get(rule)
            # The same permission in somebody else's words is good enough, and stays theirs.
            if found is None or (_is_ours(found) and found != comment):
                self.additions.append((rule, comment))
                plan.compare(_subject(rule, version), {"comment": comment}, found and {"comment": found})
        for rule, comment in observed.items():
            if _is_ours(comment) and rule not in desired:
                self.removals.append(rule)
                plan.compare(_subject(rule, version), None, {"comment": comment})

    def apply(self, plan: Plan) -> dict[str, t.Any]:
        """Permissions come first: whoever is connected stays connected when the firewall starts."""
        for rule, comment in self.additions:
            self.host.run("ufw", *rule.arguments, "comment", comment)
        self._write_defaults(plan)
        for rule in self.removals:
            self.host.run("ufw", "delete", *rule.arguments)
        if plan.touches("firewall"):
            self.host.run("ufw", "--force", "enable")
        return self.facts()

    def _write_defaults(self, plan: Plan) -> None:
        changed = {direction: verdict for direction, verdict in self.policy.verdicts.items()
                   if plan.touches(f"default {direction}")}
        if self.defaults is None or not (changed or plan.touches("IPV6")):
            return
        file = with_setting(self.defaults, "IPV6", "yes")
        for direction, verdict in changed.items():
            file = with_setting(file, f"DEFAULT_{CHAINS[direction]}_POLICY", verdict)
        self.host.write(DEFAULTS, file)
        if changed and self.active:
            for version, tool in ((4, "iptables-restore"), (6, "ip6tables-restore")):
                lines = [line for item in changed.items() for line in live_policy(t.cast("Version", version), *item)]
                self.host.run(tool, "--noflush", stdin="\n".join(["*filter", *lines, "COMMIT", ""]))

    def facts(self) -> dict[str, t.Any]:
        return {"allowed": [{"port": entry.port.replace(":", "-"), "protocol": entry.protocol,
                             "sources": list(entry.sources)} for entry in self.policy.allow]}


def _is_ours(comment: str) -> bool:
    return comment == OURS or comment.startswith(f"{OURS}: ")


def _subject(rule: Rule, version: Version) -> str:
    return f"allow {rule.protocol} {rule.port} from {rule.source}" + (" (IPv6)" if version == 6 else "")
