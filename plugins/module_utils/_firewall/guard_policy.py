# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What the guard is to let through: options, checked and normalised."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing as t

from .._errors import bad_value
from .guard_networks import collapse, never
from .rules import (
    VERSIONS,
    Version,
    parse_allow,
    parse_interface,
    parse_interfaces,
    parse_network,
    parse_networks,
    parse_ports,
)

BRIDGES = ("docker0", "br-+", "cb-+", "cs-+", "virbr+")
_PURPOSE = re.compile(r"[a-z][a-z0-9-]{0,31}")

SERVICE_OPTIONS: dict[str, t.Any] = {
    "port": {"type": "str", "required": True},
    "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
    "comment": {"type": "str", "default": ""},
}
PERMIT_OPTIONS: dict[str, t.Any] = {
    "purpose": {"type": "str", "required": True},
    "destinations": {"type": "list", "elements": "str", "required": True},
    "ports": {"type": "list", "elements": "str", "required": True},
    "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
}
REACH_OPTIONS: dict[str, t.Any] = {
    "interface": {"type": "str", "required": True},
    "allow": {"type": "list", "elements": "str", "default": []},
    "block": {"type": "list", "elements": "str", "default": []},
}


@dataclasses.dataclass(frozen=True)
class Service:
    """Something of the host itself that containers may use."""

    port: str
    protocol: str
    comment: str


@dataclasses.dataclass(frozen=True)
class Permit:
    """Something beyond the host that containers may use although it is not the internet."""

    purpose: str
    destinations: tuple[str, ...]
    ports: tuple[str, ...]
    protocol: str

    def destinations_of(self, version: Version) -> list[str]:
        return collapse(self.destinations, version)


@dataclasses.dataclass(frozen=True)
class Reach:
    """Networks that one bridge reaches beyond what all do, and such that it doesn't although all do."""

    interface: str
    allow: tuple[str, ...]
    block: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Policy:
    bridges: tuple[str, ...]
    services: tuple[Service, ...]
    allow: tuple[Permit, ...]
    reach: tuple[Reach, ...]
    resolvers: tuple[str, ...]
    foreign_dns: bool
    log: bool

    def guards(self, interface: str) -> bool:
        return _is_among(interface, self.bridges)


def _is_among(interface: str, patterns: t.Iterable[str]) -> bool:
    return any(interface.startswith(pattern[:-1]) if pattern.endswith("+") else interface == pattern
               for pattern in patterns)


# -- from options to the policy ---------------------------------------------------------------------------------------

def parse_policy(params: t.Mapping[str, t.Any]) -> Policy:
    """The whole policy, or one error."""
    if not params["bridges"]:
        raise bad_value("bridges", [], "Name the bridges of containers and guests, or take the guard out with "
                                       "state: absent.")
    bridges = parse_interfaces("bridges", params["bridges"])
    return Policy(
        bridges=bridges,
        services=_parse_services(params["host_services"]),
        allow=_parse_permits(params["allow"]),
        reach=_parse_reach(params["reach"], bridges),
        resolvers=tuple(_parse_address("resolvers", address) for address in params["resolvers"]),
        foreign_dns=params["foreign_dns"],
        log=params["log"],
    )


def _parse_services(entries: t.Sequence[t.Mapping[str, t.Any]]) -> tuple[Service, ...]:
    return tuple(Service(entry.port.replace(":", "-"), entry.protocol, _short("host_services", entry.comment))
                 for entry in parse_allow("host_services", entries))


def _short(parameter: str, comment: str) -> str:
    if len(comment.encode()) > 100:
        raise bad_value(f"{parameter}.comment", comment, "Write at most 100 bytes.")
    return comment


def _parse_permits(entries: t.Sequence[t.Mapping[str, t.Any]]) -> tuple[Permit, ...]:
    permits = tuple(_parse_permit(f"allow[{index}]", entry) for index, entry in enumerate(entries))
    for index, permit in enumerate(permits):
        if permit in permits[:index]:
            raise bad_value(f"allow[{index}]", permit.purpose, "This entry stands in the list twice; remove one.")
    return permits


def _parse_permit(parameter: str, entry: t.Mapping[str, t.Any]) -> Permit:
    if not _PURPOSE.fullmatch(entry["purpose"]):
        raise bad_value(f"{parameter}.purpose", entry["purpose"], "Write one word of a-z, 0-9 and '-', at most 32 "
                                                                  "characters, first a letter.")
    for name in ("destinations", "ports"):
        if not entry[name]:
            raise bad_value(f"{parameter}.{name}", entry[name], "List at least one.")
    ports = [parse_ports(f"{parameter}.ports", value) for value in entry["ports"]]
    destinations = [_parse_destination(f"{parameter}.destinations", value) for value in entry["destinations"]]
    return Permit(entry["purpose"], tuple(sorted(set(destinations))),
                  tuple(_shown(*pair) for pair in sorted(set(ports))), entry.get("protocol") or "tcp")


def _parse_reach(entries: t.Sequence[t.Mapping[str, t.Any]], bridges: tuple[str, ...]) -> tuple[Reach, ...]:
    """In the order of the interfaces: the order of the list has no meaning."""
    reach = [_parse_one_reach(f"reach[{index}]", entry, bridges) for index, entry in enumerate(entries)]
    names = [one.interface for one in reach]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise bad_value(f"reach[{index}].interface", name, "It stands in the list twice; put all of a bridge into "
                                                               "one entry.")
    return tuple(sorted(reach, key=lambda one: one.interface))


def _parse_one_reach(parameter: str, entry: t.Mapping[str, t.Any], bridges: tuple[str, ...]) -> Reach:
    interface = parse_interface(f"{parameter}.interface", entry["interface"])
    if interface.endswith("+") or not _is_among(interface, bridges):
        raise bad_value(f"{parameter}.interface", interface, "Name one interface that bridges covers; the guard "
                                                             "doesn't concern others.")
    allow, block = (parse_networks(f"{parameter}.{name}", entry.get(name) or ()) for name in ("allow", "block"))
    for network in allow:
        if any(_lies_in(network, other) for version in VERSIONS for other in never(version)):
            raise bad_value(f"{parameter}.allow", network, "This is no LAN: metadata services, loopback and link-local "
                                                           "networks stay refused. Remove it.")
    if not allow and not block:
        raise bad_value(parameter, interface, "List networks in allow or block, or remove the entry.")
    return Reach(interface, allow, block)


def _lies_in(network: str, other: str) -> bool:
    return collapse([network, other], ipaddress.ip_network(network).version) == [other]


def _parse_destination(parameter: str, value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.-]*[A-Za-z_][A-Za-z0-9_.-]*", value):
        raise bad_value(parameter, value, "Write addresses or networks. A name may stand for another address tomorrow.")
    return parse_network(parameter, value)


def _parse_address(parameter: str, value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise bad_value(parameter, value, f"Write an address such as 192.0.2.53 ({error}).") from error


def _shown(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
