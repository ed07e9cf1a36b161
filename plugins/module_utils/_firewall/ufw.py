# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""UFW of one host: default policies and the permissions that carry our comment.

UFW's files are the model. What is desired is rendered into them as UFW itself would write it, and the same text is
loaded into the kernel, one transaction for each IP family. ufw's own commands, which take one rule at a time, or stop
and start the firewall, are not used; only one that is off is switched on by 'ufw enable'.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import shlex
import typing as t

from .._errors import FleetError
from .._plan import Plan
from . import confirm
from .confirm import LOADERS, RULES, Changes, Connection
from .host import File, Host
from .rules import Allow, Version, parse_allow

DEFAULTS, SETTINGS = "/etc/default/ufw", "/etc/ufw/ufw.conf"
FILES = (DEFAULTS, SETTINGS, *RULES.values())
OURS = "clawops.fleet"
CHAINS = {"incoming": "INPUT", "outgoing": "OUTPUT", "routed": "FORWARD"}
PLACES = {"incoming": "input", "outgoing": "output", "routed": "forward"}
VERDICTS = {"allow": "ACCEPT", "deny": "DROP"}
SAVERS: dict[Version, str] = {4: "iptables-save", 6: "ip6tables-save"}
PREFIXES: dict[Version, str] = {4: "ufw", 6: "ufw6"}
_STAGES = ("before-logging", "before", "after", "after-logging", "reject", "track")
SSH = "ssh"
_ANYWHERE = {4: "0.0.0.0/0", 6: "::/0"}
_SINGLE = {4: "/32", 6: "/128"}
_BLOCK = re.compile(r"\n### tuple ### (?P<rule>.*)\n(?:-A ufw6?-user-(?!limit).*\n)*")
_BEGIN, _END = "### RULES ###\n", "\n### END RULES ###"


@dataclasses.dataclass(frozen=True)
class Policy:
    """What comes in, and the verdict for everything else, by direction."""

    allow: tuple[Allow, ...]
    verdicts: dict[str, str]


def ssh_port(connection: Connection | None) -> int:
    return connection.port if connection else 22


def parse_policy(params: t.Mapping[str, t.Any], connection: Connection | None) -> Policy:
    entries = [{**entry, "port": ssh_port(connection)} if entry["port"] == SSH else entry for entry in params["allow"]]
    return Policy(parse_allow("allow", entries), {direction: VERDICTS[params[direction]] for direction in CHAINS})


# -- one permission ---------------------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class Rule:
    """One permission in one family."""

    protocol: str
    port: str
    source: str
    interface: str = ""

    def block(self, version: Version, comment: str) -> str:
        """As UFW writes it: its own line, and the one of iptables-restore."""
        anywhere = _ANYWHERE[version]
        direction = f"in_{self.interface}" if self.interface else "in"
        rule = " ".join(["allow", self.protocol, self.port, anywhere, "any", self.source, direction])
        ports = f"-m multiport --dports {self.port}" if ":" in self.port else f"--dport {self.port}"
        words = [f"-i {self.interface}"] * bool(self.interface) + [f"-p {self.protocol} {ports}"]
        words += [f"-s {self.source}"] * (self.source != anywhere)
        return (f"\n### tuple ### {rule} comment={comment.encode().hex()}\n"
                f"-A {PREFIXES[version]}-user-input {' '.join(words)} -j ACCEPT\n")


def desired_rules(allow: tuple[Allow, ...], version: Version) -> dict[Rule, str]:
    """The rules of one family with their comments."""
    return {Rule(entry.protocol, entry.port, _source(source, version), entry.interface): _comment(entry.comment)
            for entry in allow for source in entry.sources_of(version)}


def _source(source: str | None, version: Version) -> str:
    return source.removesuffix(_SINGLE[version]) if source else _ANYWHERE[version]


def _comment(text: str) -> str:
    return f"{OURS}: {text}" if text else OURS


def _is_ours(comment: str) -> bool:
    return comment == OURS or comment.startswith(f"{OURS}: ")


# -- UFW's files ------------------------------------------------------------------------------------------------------

class Line(t.NamedTuple):
    """UFW's own line about one rule."""

    action: str
    protocol: str
    port: str
    to: str
    source_port: str
    source: str
    direction: str
    comment: str
    plain: bool

    @property
    def interface(self) -> str:
        return self.direction.partition("_")[2]

    @property
    def permission(self) -> Rule | None:
        """What it permits, when it says no more than rules of ours do."""
        here = self.direction.partition("_")[0] == "in" and "!" not in self.direction
        simple = self.plain and self.to in _ANYWHERE.values() and self.source_port == "any"
        if self.action == "allow" and here and simple:
            return Rule(self.protocol, self.port, self.source, self.interface)
        return None


def parse_line(text: str) -> Line | None:
    body, _mark, comment = text.partition(" comment=")
    fields = body.split()
    if len(fields) not in (7, 9):  # nine: two names of application profiles before the direction
        return None
    action, protocol, port, to, source_port, source = fields[:6]
    said = bytes.fromhex(comment.strip()).decode(errors="replace")
    return Line(action, protocol, port, to, source_port, source, fields[-1], said, len(fields) == 7)


def parse_lines(text: str) -> list[Line]:
    found = (parse_line(rule) for rule in re.findall(r"^### tuple ### (.*)$", text, re.MULTILINE))
    return [line for line in found if line]


def permissions(text: str) -> dict[Rule, str]:
    """The plain permissions, ours and others', with their comments."""
    return {line.permission: line.comment for line in parse_lines(text) if line.permission}


def with_rules(text: str, desired: t.Mapping[Rule, str], version: Version) -> str:
    """Ours become the desired ones. The same permission in somebody else's words is good enough, and stays theirs."""
    present = permissions(text)

    def keep(block: re.Match[str]) -> str:
        line = parse_line(block["rule"])
        rule = line.permission if line else None
        outdated = line and rule and _is_ours(line.comment) and desired.get(rule) != line.comment
        return "" if outdated else block[0]

    additions = "".join(rule.block(version, comment) for rule, comment in desired.items()
                        if rule not in present or (_is_ours(present[rule]) and present[rule] != comment))
    return _inserted(_BLOCK.sub(keep, text), additions, first=False)


def _inserted(text: str, blocks: str, first: bool) -> str:
    mark = _BEGIN if first or _END not in text else _END
    head, found, tail = text.partition(mark)
    if not found:
        raise FleetError("unreadable", "A file of UFW's user rules has no section for rules.",
                         f"Compare {' and '.join(RULES.values())} with those that the package ufw brings.")
    return head + (found + blocks if mark == _BEGIN else blocks + found) + tail


def setting(file: File | None, name: str) -> str | None:
    match = re.search(rf'^{name}="?(\w+)"?\s*$', file.text if file else "", re.MULTILINE)
    return match[1] if match else None


def with_setting(file: File, name: str, value: str) -> File:
    text, found = re.subn(rf'^{name}=("?).*$', rf"{name}=\g<1>{value}\g<1>", file.text, flags=re.MULTILINE)
    return File(file.mode, text if found else f"{file.text.rstrip()}\n{name}={value}\n")


# -- the kernel -------------------------------------------------------------------------------------------------------

def live_policy(version: Version, direction: str, verdict: str) -> list[str]:
    """The lines by which ufw-init itself would set the policy, as one part of a transaction."""
    prefix, place = PREFIXES[version], PLACES[direction]
    accept = [f"-A {prefix}-track-{place} -p {protocol} -m conntrack --ctstate NEW -j ACCEPT"
              for protocol in ("tcp", "udp") if verdict == "ACCEPT"]
    reject = [f"-A {prefix}-reject-{place} -j REJECT"] * (verdict == "REJECT")
    return [f":{CHAINS[direction]} {'ACCEPT' if verdict == 'ACCEPT' else 'DROP'} [0:0]",
            f"-F {prefix}-reject-{place}", f"-F {prefix}-track-{place}", *reject, *accept,
            f"-F {prefix}-skip-to-policy-{place}", f"-A {prefix}-skip-to-policy-{place} -j {verdict}"]


def policy_text(version: Version, defaults: File) -> str:
    """The end of a transaction: the policies that UFW's defaults name."""
    verdicts = {direction: setting(defaults, f"DEFAULT_{chain}_POLICY") for direction, chain in CHAINS.items()}
    lines = [line for direction, verdict in verdicts.items() if verdict
             for line in live_policy(version, direction, verdict)]
    return "\n".join([*lines, "COMMIT", ""])


def way(version: Version, direction: str) -> list[str]:
    """The jumps by which a built-in chain leads to UFW's, in UFW's order."""
    return [f"-A {CHAINS[direction]} -j {PREFIXES[version]}-{stage}-{PLACES[direction]}" for stage in _STAGES]


def way_in_force(text: str, version: Version, direction: str) -> list[str]:
    """Those of the jumps that the kernel has, in its order."""
    wanted = set(way(version, direction))
    return [line for line in text.splitlines() if line in wanted]


def transaction(version: Version, rules: File, defaults: File, live: str) -> str:
    """UFW's rules and policies of one family. Each chain that the file declares is emptied and filled in one go."""
    jumps = [line for direction in CHAINS for line in _repair(version, direction, live)]
    return "\n".join([rules.text.replace("\nCOMMIT\n", "\n").rstrip("\n"), *jumps, policy_text(version, defaults)])


def _repair(version: Version, direction: str, live: str) -> list[str]:
    found, wanted = way_in_force(live, version, direction), way(version, direction)
    return [] if found == wanted else [*(line.replace("-A", "-D", 1) for line in found), *wanted]


def in_force(text: str, version: Version) -> list[str]:
    """The plain permissions among the rules, of a file or of the kernel, in one spelling."""
    found = []
    for line in re.findall(rf"^-A {PREFIXES[version]}-user-input (.*) -j ACCEPT$", text, re.MULTILINE):
        words = shlex.split(line)
        options = {name: value.removesuffix(_SINGLE[version]) for name, value in zip(words[::2], words[1::2])
                   if name != "-m"}
        if set(options) <= {"-s", "-i", "-p", "--dport", "--dports"}:
            found.append(" ".join(f"{name} {value}" for name, value in sorted(options.items())))
    return sorted(found)


# -- the module -------------------------------------------------------------------------------------------------------

class Ufw:
    """plan() reads, apply() writes. With a confirm_timeout, the change stays on trial until it is confirmed."""

    def __init__(self, host: Host, policy: Policy, connection: Connection | None = None, confirm_timeout: int = 0,
                 ) -> None:
        self.host = host
        self.policy = policy
        self.connection = connection
        self.confirm_timeout = confirm_timeout
        self.files: dict[str, File] = {}
        self.live: dict[Version, str] = {}
        self.trial = ""

    @property
    def versions(self) -> list[Version]:
        return [4, 6] if self.host.path("/proc/sys/net/ipv6").exists() else [4]

    @property
    def active(self) -> bool:
        return ":ufw-user-input " in self.live[4]

    @property
    def closed(self) -> bool:
        """Whether the present state may come back when nobody confirms the new one."""
        return self.active and setting(self.files[DEFAULTS], "DEFAULT_INPUT_POLICY") in ("DROP", "REJECT")

    def plan(self) -> Plan:
        plan = Plan()
        if not (self.host.has("ufw") and self._read()):
            plan.cannot_see("ufw is not installed yet")
            return plan
        self.live = {version: self.host.run(SAVERS[version], "-t", "filter") for version in self.versions}
        self._plan_ipv6(plan)
        defaults = self.files[DEFAULTS]
        for direction, verdict in self.policy.verdicts.items():
            plan.compare(f"default {direction}", verdict, setting(defaults, f"DEFAULT_{CHAINS[direction]}_POLICY"))
        for version in RULES:
            self._plan_rules(plan, version)
        if self.active:
            self._plan_live(plan)
        enabled = setting(self.files[SETTINGS], "ENABLED") == "yes"
        plan.compare("firewall", "active", "active" if enabled and self.active else "inactive")
        self._refuse_lockout()
        return plan

    def _read(self) -> bool:
        found = {path: self.host.read(path) for path in FILES}
        self.files = {path: file for path, file in found.items() if file}
        return len(self.files) == len(FILES)

    def _plan_ipv6(self, plan: Plan) -> None:
        found = (setting(self.files[DEFAULTS], "IPV6") or "no").lower()
        if plan.compare("IPV6", "yes", found) and self.active:
            raise FleetError("needs_restart", f"UFW is running with IPV6 switched off in {DEFAULTS}.",
                             "Set IPV6=yes there and run 'ufw reload' when an open moment does no harm; "
                             "this module never stops a running firewall.")

    def _plan_rules(self, plan: Plan, version: Version) -> None:
        observed = permissions(self.files[RULES[version]].text)
        desired = desired_rules(self.policy.allow, version)
        for rule, comment in desired.items():
            found = observed.get(rule)
            if found is None or (_is_ours(found) and found != comment):
                plan.compare(_subject(rule, version), {"comment": comment}, found and {"comment": found})
        for rule, comment in observed.items():
            if _is_ours(comment) and rule not in desired:
                plan.compare(_subject(rule, version), None, {"comment": comment})

    def _plan_live(self, plan: Plan) -> None:
        """What the kernel has against what UFW's files say."""
        for version, text in self.live.items():
            for direction, chain in CHAINS.items():
                plan.compare(f"{chain} -> UFW (IPv{version})", way(version, direction),
                             way_in_force(text, version, direction))
            verdict = setting(self.files[DEFAULTS], "DEFAULT_INPUT_POLICY")
            policy = re.search(r"^:INPUT (\w+)", text, re.MULTILINE)
            plan.compare(f"default incoming in force (IPv{version})", "ACCEPT" if verdict == "ACCEPT" else "DROP",
                         policy and policy[1])
            plan.compare(f"permissions in force (IPv{version})",
                         in_force(self.files[RULES[version]].text, version), in_force(text, version))

    # -- the guard against locking Ansible out

    def _refuse_lockout(self) -> None:
        connection = self.connection
        if connection is None or connection.client.is_loopback or self.policy.verdicts["incoming"] == "ACCEPT":
            return
        version: Version = 4 if connection.client.version == 4 else 6
        if not self._admits(self._desired()[RULES[version]].text, connection):
            raise FleetError("bad_value", f"allow: this policy would close port {connection.port} for "
                                          f"{connection.client}, over which Ansible is connected.",
                             f"Let the port in for this address: in the role host_firewall, host_firewall_ssh_port is "
                             f"{connection.port} and host_firewall_ssh_sources is empty or has the address.",
                             parameter="allow")

    def _admits(self, text: str, connection: Connection) -> bool:
        """As UFW decides: the first rule that matches."""
        for line in parse_lines(text):
            if self._matches(line, connection):
                return line.action.partition("_")[0] in ("allow", "limit")
        return False

    def _matches(self, line: Line, connection: Connection) -> bool:
        return (line.action.partition(":")[0] != "route" and line.direction.partition("_")[0] == "in"
                and line.protocol in ("tcp", "any") and _has_port(line.port, connection.port)
                and line.to in _ANYWHERE.values() and line.source_port == "any"
                and connection.client in ipaddress.ip_network(line.source, strict=False)
                and self._comes_by(line.interface, connection))

    def _comes_by(self, interface: str, connection: Connection) -> bool:
        if not interface:
            return True
        route = connection.zone or self.host.run("ip", "-o", "route", "get", str(connection.client))
        name = connection.zone or route.partition(" dev ")[2].partition(" ")[0]
        return name == interface or (interface.endswith("+") and name.startswith(interface[:-1]))

    # -- the change

    def _desired(self) -> dict[str, File]:
        files = dict(self.files)
        files[SETTINGS] = with_setting(files[SETTINGS], "ENABLED", "yes")
        files[DEFAULTS] = with_setting(files[DEFAULTS], "IPV6", "yes")
        for direction, verdict in self.policy.verdicts.items():
            files[DEFAULTS] = with_setting(files[DEFAULTS], f"DEFAULT_{CHAINS[direction]}_POLICY", verdict)
        for version, path in RULES.items():
            mode, text = files[path]
            files[path] = File(mode, with_rules(text, desired_rules(self.policy.allow, version), version))
        return files

    def _fallback(self) -> dict[str, File]:
        """Closed but for SSH, which comes first: what holds when there was no closed state before."""
        files = dict(self.files)
        defaults = with_setting(files[DEFAULTS], "IPV6", "yes")
        files[DEFAULTS] = with_setting(defaults, "DEFAULT_INPUT_POLICY", "DROP")
        for version, path in RULES.items():
            rule = Rule("tcp", str(ssh_port(self.connection)), _ANYWHERE[version])
            mode, text = files[path]
            block = rule.block(version, _comment("SSH until the policy is confirmed"))
            files[path] = File(mode, _inserted(with_rules(text, {}, version), block, first=True))
        return files

    def apply(self, plan: Plan) -> dict[str, t.Any]:
        if not self.closed:
            self._close()
        after = self._desired()
        changes = self._changes(after)
        if self.confirm_timeout:
            policies = {version: policy_text(version, self.files[DEFAULTS]) for version in RULES}
            self.trial = confirm.start(self.host, self.confirm_timeout, changes, policies, self.connection)
        self._load(after)
        if not self.trial:
            confirm.replace(self.host, changes)
        return self.facts()

    def _close(self) -> None:
        fallback = self._fallback()
        confirm.replace(self.host, self._changes(fallback))
        if self.active:
            self._load(fallback)
        else:
            self.host.run("ufw", "--force", "enable")
        self._read()

    def _changes(self, after: dict[str, File]) -> Changes:
        return {path: (self.files[path], file) for path, file in after.items() if file != self.files[path]}

    def _load(self, files: dict[str, File]) -> None:
        for version in self.versions:
            live = self.host.run(SAVERS[version], "-t", "filter")
            text = transaction(version, files[RULES[version]], files[DEFAULTS], live)
            self.host.run(*LOADERS[version], stdin=text)

    def facts(self) -> dict[str, t.Any]:
        connection = self.connection
        return {"allowed": [{"port": entry.port.replace(":", "-"), "protocol": entry.protocol,
                             "sources": list(entry.sources), "interface": entry.interface}
                            for entry in self.policy.allow],
                "connection": {"address": str(connection.client), "port": connection.port} if connection else {},
                "trial": self.trial, "confirm_timeout": self.confirm_timeout}


def _has_port(written: str, port: int) -> bool:
    if written == "any":
        return True
    ranges = (part.partition(":") for part in written.split(","))
    return any(int(first) <= port <= int(last or first) for first, _colon, last in ranges)


def _subject(rule: Rule, version: Version) -> str:
    where = f" on {rule.interface}" if rule.interface else ""
    return f"allow {rule.protocol} {rule.port} from {rule.source}{where}" + (" (IPv6)" if version == 6 else "")
