# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What may come in: ports, protocols and source networks, checked and normalised for both IP families."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing as t

from .._errors import bad_value

Version = t.Literal[4, 6]
VERSIONS: tuple[Version, ...] = (4, 6)
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_INTERFACE = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.@-]{1,15}|[A-Za-z0-9_.@-]{1,14}\+")

ALLOW_OPTIONS: dict[str, t.Any] = {
    "port": {"type": "str", "required": True},
    "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
    "sources": {"type": "list", "elements": "str", "default": []},
    "comment": {"type": "str", "default": ""},
}
PUBLISHED_OPTIONS: dict[str, t.Any] = {**ALLOW_OPTIONS, "interface": {"type": "str"}}


@dataclasses.dataclass(frozen=True)
class Allow:
    """One permission. No sources means from everywhere, no interface through any."""

    first: int
    last: int
    protocol: str
    sources: tuple[str, ...]
    comment: str
    interface: str = ""

    @property
    def port(self) -> str:
        """In the notation that iptables and ufw share."""
        return str(self.first) if self.first == self.last else f"{self.first}:{self.last}"

    def sources_of(self, version: Version) -> list[str | None]:
        """The sources of one family; None stands for any address of it."""
        if not self.sources:
            return [None]
        networks = [ipaddress.ip_network(source) for source in self.sources]
        return [str(net) if net.prefixlen else None for net in networks if net.version == version]


def parse_ports(parameter: str, value: object) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", str(value))
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= 65535:
        raise bad_value(parameter, value, "Write a port from 1 to 65535, or a range such as '8000-8010', lower first.")
    return first, last


def parse_network(parameter: str, value: str) -> str:
    try:
        network = ipaddress.ip_network(value)
    except ValueError as error:
        raise bad_value(parameter, value, f"Write an address or a network such as 192.0.2.0/24 ({error}).") from error
    if "%" in value:
        raise bad_value(parameter, value, "Write the address without a zone; the interface has an option of its own.")
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        raise bad_value(parameter, value, "No packet has an IPv4-mapped address. Write the IPv4 address itself.")
    return str(network)


def parse_networks(parameter: str, values: t.Iterable[str]) -> tuple[str, ...]:
    return _without_duplicates(parameter, tuple(sorted(parse_network(parameter, value) for value in values)))


def parse_interface(parameter: str, name: str) -> str:
    if not _INTERFACE.fullmatch(name):
        raise bad_value(parameter, name, "Write an interface name of at most 15 characters; "
                                         "'+' at its end stands for any ending.")
    return name


def parse_interfaces(parameter: str, names: t.Sequence[str]) -> tuple[str, ...]:
    return _without_duplicates(parameter, tuple(parse_interface(parameter, name) for name in names))


def parse_allow(parameter: str, entries: t.Sequence[t.Mapping[str, t.Any]]) -> tuple[Allow, ...]:
    """The whole list, or one error: nothing is half accepted."""
    allowed = tuple(_parse_entry(f"{parameter}[{index}]", entry) for index, entry in enumerate(entries))
    seen: set[tuple[t.Any, ...]] = set()
    for index, entry in enumerate(allowed):
        rules = {(entry.port, entry.protocol, entry.interface, version, source)
                 for version in VERSIONS for source in entry.sources_of(version)}
        if rules & seen:
            shown = f"{entry.protocol} {entry.port} from {list(entry.sources) or 'any'}"
            raise bad_value(f"{parameter}[{index}]", shown, "What it permits stands in the list twice; remove one.")
        seen |= rules
    return allowed


def _parse_entry(parameter: str, entry: t.Mapping[str, t.Any]) -> Allow:
    first, last = parse_ports(f"{parameter}.port", entry["port"])
    protocol = entry.get("protocol") or "tcp"
    if protocol not in ("tcp", "udp"):
        raise bad_value(f"{parameter}.protocol", protocol, "Use tcp or udp.")
    sources = parse_networks(f"{parameter}.sources", entry.get("sources") or ())
    interface = entry.get("interface") or ""
    return Allow(first, last, protocol, sources,
                 _parse_comment(f"{parameter}.comment", entry.get("comment") or ""),
                 interface and parse_interface(f"{parameter}.interface", interface))


def _parse_comment(parameter: str, comment: str) -> str:
    forbidden = set(comment) & set("\"'\\") or comment[:1] in {"-", "!"}
    if forbidden or not comment.isprintable() or len(comment.encode()) > 200:
        raise bad_value(parameter, comment, "Write one line of at most 200 bytes without quotes and backslashes, "
                                            "not starting with '-' or '!'.")
    return comment


def _without_duplicates(parameter: str, items: tuple[str, ...]) -> tuple[str, ...]:
    for index, item in enumerate(items):
        if item in items[:index]:
            raise bad_value(parameter, item, "It stands in the list twice; remove one.")
    return items
