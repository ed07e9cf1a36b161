# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""One table of nftables: replaced whole in one transaction, read back, and compared by meaning.

nft prints rules in its own words, which differ from release to release. So the desired ruleset is loaded into a
network namespace that exists for that moment only, and both sides are compared as this host's nft prints them.
"""

from __future__ import annotations

import re

from .host import Host

FAMILY, NAME = "inet", "clawops"
TABLE = f"{FAMILY} {NAME}"
_LIST = ("nft", "--stateless", "list", "table", FAMILY, NAME)
_ELSEWHERE = ("unshare", "--net", "sh", "-c", f"nft -f - && {' '.join(_LIST)}")
_BLOCK = re.compile(r"^\t(?P<name>\w+ \w+) \{\n(?P<body>.*?)^\t\}$", re.MULTILINE | re.DOTALL)

# Chains and whatever else stands in the table, by kind and name, each with its lines.
Blocks = dict[str, list[str]]


def transaction(blocks: Blocks) -> str:
    """Replaces all rules. The chains themselves stay: while a table or a base chain is replaced, some packets meet the
    new chain before it has rules and the old one when it has none any more. For the same reason rules have no sets: in
    a new one, a packet may not find the elements yet."""
    declared = [f"add {name.replace(' ', f' {TABLE} ')}{_hook(lines)}" for name, lines in blocks.items()]
    defined = [line for name, lines in blocks.items()
               for line in (f"\t{name} {{", *(f"\t\t{line}" for line in lines), "\t}")]
    return "\n".join([f"add table {TABLE}", *declared, f"flush table {TABLE}", f"table {TABLE} {{", *defined, "}", ""])


def _hook(lines: list[str]) -> str:
    return f" {{ {lines[0]} }}" if lines and lines[0].startswith("type ") else ""


def is_strange(found: Blocks | None, desired: Blocks) -> bool:
    """Somebody put more into the table, or hooked its chains elsewhere: no flush takes that back."""
    return found is not None and any(name not in desired or _hook(lines) != _hook(desired[name])
                                     for name, lines in found.items())


def anew(text: str) -> str:
    """The same transaction for a table that is strange."""
    return f"delete table {TABLE}\n{text}"


def parse_listing(text: str) -> Blocks:
    """The contents of the table by one listing."""
    return {match["name"]: [line.strip() for line in match["body"].splitlines()] for match in _BLOCK.finditer(text)}


def as_printed(host: Host, text: str) -> Blocks:
    """What a transaction makes, as this host's nft prints it. Fails where the kernel would refuse it."""
    return parse_listing(host.run(*_ELSEWHERE, stdin=text))


def live(host: Host) -> Blocks | None:
    """The table in the kernel; None when it is not there."""
    return parse_listing(host.run(*_LIST)) if host.succeeds(*_LIST) else None


def check(host: Host, text: str) -> None:
    host.run("nft", "--check", "--file", "-", stdin=text)


def load(host: Host, text: str) -> None:
    host.run("nft", "--file", "-", stdin=text)


def remove(host: Host) -> None:
    host.run("nft", "delete", "table", FAMILY, NAME)
