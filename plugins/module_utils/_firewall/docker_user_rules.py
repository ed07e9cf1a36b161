# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Chain CLAWOPS-USER below DOCKER-USER, and CLAWOPS-PROXY below INPUT: what they hold, as wished and as found.

Over IPv6 a published port may also be served by docker-proxy, a program of the host. Its packets come through INPUT,
where CLAWOPS-PROXY opens what is allowed and the default of the host's firewall closes the rest.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import shlex
import typing as t

from .rules import Allow, Version, parse_allow, parse_interfaces

CHAIN, HOOK, PROXY = "CLAWOPS-USER", "DOCKER-USER", "CLAWOPS-PROXY"
CHAINS: dict[Version, tuple[str, ...]] = {4: (CHAIN,), 6: (CHAIN, PROXY)}
JUMPS: dict[Version, tuple[tuple[str, str], ...]] = {
    4: ((HOOK, CHAIN), ("FORWARD", HOOK)),
    6: ((HOOK, CHAIN), ("FORWARD", HOOK), ("INPUT", PROXY)),
}
BRIDGES = ("docker0", "br-+", "cb-+", "cs-+", "virbr+")
ENGINE_CHAINS = ("DOCKER", "DOCKER-FORWARD")

_MATCH = {"--ctstate": "conntrack", "--ctorigdstport": "conntrack", "--comment": "comment"}
_OPTION_ORDER = ("-s", "-i", "-p", "--ctstate", "--ctorigdstport", "--ctdir", "--comment", "-j")
# DOCKER-USER comes after DNAT: only conntrack still knows the published port. Without the state, a packet that goes
# straight to a container's address at a port of the same number would pass, published or not.
_TRANSLATED = "--ctstate DNAT"
_ESTABLISHED = "--ctstate ESTABLISHED,RELATED -j RETURN"


@dataclasses.dataclass(frozen=True)
class Policy:
    allow: tuple[Allow, ...]
    bridges: tuple[str, ...]
    trusted: tuple[str, ...]


def parse_policy(params: t.Mapping[str, t.Any]) -> Policy:
    return Policy(parse_allow("allow", params["allow"]), parse_interfaces("bridges", params["bridges"]),
                  parse_interfaces("trusted_interfaces", params["trusted_interfaces"]))


# -- as wished --------------------------------------------------------------------------------------------------------

def render(policy: Policy, version: Version) -> dict[str, list[str]]:
    """The rules of each chain, in order.

    In FORWARD, RETURN leaves the packet to the engine's own rules, which ACCEPT would skip. In INPUT the host's
    firewall decides about the rest, and would also close what is allowed.
    """
    chains = {CHAIN: [_ESTABLISHED, *(f"-i {name} -j RETURN" for name in (*policy.bridges, *policy.trusted)),
                      *_allowed(policy, version, f"{_TRANSLATED} --ctorigdstport", "RETURN"), "-j DROP"]}
    if PROXY in CHAINS[version]:
        chains[PROXY] = [_ESTABLISHED, *_allowed(policy, version, "--ctorigdstport", "ACCEPT")]
    return chains


def _allowed(policy: Policy, version: Version, match: str, verdict: str) -> list[str]:
    return [_render_allow(allow, source, match, verdict)
            for allow in policy.allow for source in allow.sources_of(version)]


def _render_allow(allow: Allow, source: str | None, match: str, verdict: str) -> str:
    parts = [f"-s {source}"] if source else []
    parts += [f"-i {allow.interface}"] if allow.interface else []
    parts += [f"-p {allow.protocol}", f"{match} {allow.port}", "--ctdir ORIGINAL"]
    if allow.comment:
        parts.append(f"--comment {shlex.quote(allow.comment)}")
    return " ".join([*parts, f"-j {verdict}"])


def boot_file(chains: t.Mapping[str, t.Sequence[str]]) -> str:
    """iptables-restore format. Only our chains are declared: declaring DOCKER-USER would empty it of others' rules."""
    declared = (f":{chain} - [0:0]" for chain in chains)
    lines = (f"-A {chain} {_boot_line(rule)}" for chain, rules in chains.items() for rule in rules)
    return "\n".join(["# Written by clawops.fleet.ufw_docker_user; loaded by firewall-restore.", "*filter",
                      *declared, *lines, "COMMIT", ""])


def _boot_line(rule: str) -> str:
    words = shlex.split(rule)
    parts: list[str] = []
    for option, value in zip(words[::2], words[1::2]):
        match = f"-m {_MATCH[option]}" if option in _MATCH else ""
        parts += [match] if match and match not in parts else []
        parts.append(f'{option} "{value}"' if option == "--comment" else f"{option} {value}")
    return " ".join(parts)


# -- as found ---------------------------------------------------------------------------------------------------------

def parse_saved(text: str) -> dict[str, list[str]]:
    """The chains of one iptables-save output, each with its rules as written."""
    chains: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith(":"):
            chains[line[1:].split()[0]] = []
        elif line.startswith("-A "):
            _append, chain, rule = line.split(" ", 2)
            chains[chain].append(rule)
    return chains


def canonical(rule: str) -> str:
    """One spelling per meaning: without -m, options and states in a fixed order."""
    options: list[tuple[str, list[str]]] = []
    negation = ""
    for word in shlex.split(rule):
        if word == "!":
            negation = "! "
        elif word.startswith("--") or (word.startswith("-") and len(word) == 2):
            options.append((negation + word, []))
            negation = ""
        elif options:
            options[-1][1].append(word)
    kept = [(name, _canonical_value(name, " ".join(values))) for name, values in options if name != "-m"]
    kept.sort(key=lambda option: _OPTION_ORDER.index(option[0]) if option[0] in _OPTION_ORDER else -1)
    return " ".join(f"{name} {value}".rstrip() for name, value in kept)


def _canonical_value(option: str, value: str) -> str:
    if option == "--ctstate":
        return ",".join(sorted(value.split(",")))
    return shlex.quote(value) if value else ""


@dataclasses.dataclass(frozen=True)
class Family:
    """One IP family as it stands in the kernel."""

    version: Version
    saved: str

    @functools.cached_property
    def chains(self) -> dict[str, list[str]]:
        return parse_saved(self.saved)

    @property
    def label(self) -> str:
        return f"IPv{self.version}"

    @property
    def engine(self) -> bool:
        """Docker filters this family by itself."""
        return has_engine(self.chains)

    @property
    def input_is_closed(self) -> bool:
        """What no rule of INPUT decides about is not let in."""
        return bool(re.search(r"^:INPUT DROP\b|^-A INPUT -j (DROP|REJECT)\b", self.saved, re.MULTILINE))

    def rules(self, chain: str) -> list[str] | None:
        found = self.chains.get(chain)
        return None if found is None else [canonical(rule) for rule in found]

    def jump(self, chain: str, target: str) -> str | None:
        rules = self.chains.get(chain, [])
        if f"-j {target}" not in rules:
            return None
        return "first" if rules[0] == f"-j {target}" else "not first"

    @property
    def hook_is_ours(self) -> bool:
        """No engine made DOCKER-USER, and nobody else put a rule in: it goes when our chain goes."""
        return HOOK in self.chains and not self.engine and set(self.chains[HOOK]) <= {f"-j {CHAIN}", "-j RETURN"}


def has_engine(chains: t.Iterable[str]) -> bool:
    return not set(ENGINE_CHAINS).isdisjoint(chains)


def live_subjects(family: Family) -> list[str]:
    return [*(f"{chain} {family.label}" for chain in CHAINS[family.version]),
            *(f"{parent} -> {target} {family.label}" for parent, target in JUMPS[family.version])]


def removal(family: Family) -> list[str]:
    """What one transaction takes out: our jumps and chains, and DOCKER-USER where only we made it."""
    chains = [HOOK] * family.hook_is_ours + [chain for chain in CHAINS[family.version] if chain in family.chains]
    jumps = [f"-D {parent} -j {target}" for parent, target in JUMPS[family.version]
             if target in chains and parent not in chains
             for rule in family.chains.get(parent, []) if rule == f"-j {target}"]
    # Flushing comes first: iptables-nft can't delete a chain whose jump it removed by -D and -F at once.
    return [*(f"-F {chain}" for chain in chains), *jumps, *(f"-X {chain}" for chain in chains)]
