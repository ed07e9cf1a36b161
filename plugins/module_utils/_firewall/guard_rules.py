# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""From the policy to the rules of the table."""

from __future__ import annotations

import ipaddress
import typing as t

from . import nft
from .guard_host import SERVED, Surroundings
from .guard_policy import Permit, Policy, Service, collapse
from .guard_units import LOG_GROUP
from .rules import VERSIONS, Version

# What is not the internet: private, shared and link-local networks, multicast, and the address at which Azure serves
# its machines. The metadata services of the other clouds lie within.
INNER4 = ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16",
          "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "224.0.0.0/3")
# ::/64 and 2002::/16 are forms that carry IPv4 addresses. So is NAT64's, by which the internet must stay reachable.
INNER6 = ("::/64", "64:ff9b:1::/48", "2002::/16", "fc00::/7", "fe80::/9", "ff00::/8")
_NAT64 = int(ipaddress.IPv6Address("64:ff9b::"))
_NEIGHBOURS = ("nd-router-solicit", "nd-neighbor-solicit", "nd-neighbor-advert",
               "mld-listener-report", "mld-listener-done", "mld2-listener-report")
_DNS = ("53", "853")
_TO = {4: "ip daddr", 6: "ip6 daddr"}
_KNOWN = "ct state established,related accept"
_SPOOFED = 'fib saddr . iif oif missing goto refuse comment "spoofed source"'


def inner(version: Version, on_link: t.Iterable[str]) -> list[str]:
    """The networks of one family that are refused unless something in them is allowed."""
    behind_nat64 = (ipaddress.IPv6Network((_NAT64 + int(net.network_address), 96 + net.prefixlen))
                    for net in map(ipaddress.IPv4Network, INNER4))
    return collapse([*INNER4, *INNER6, *map(str, behind_nat64), *on_link], version)


def permits(policy: Policy, seen: Surroundings) -> list[Permit]:
    """The resolvers that are listed or else found, then what is listed."""
    servers = tuple(str(ipaddress.ip_network(server)) for server in policy.resolvers or seen.resolvers)
    return [*(Permit("resolver", servers, _DNS, protocol) for protocol in ("udp", "tcp")), *policy.allow]


def services(policy: Policy, seen: Surroundings) -> list[Service]:
    """What is listed, then what every guest may use of what the host serves."""
    found = (Service(str(port), protocol, SERVED[port]) for port in seen.served
             for protocol in (("udp", "tcp") if port == 53 else ("udp",)))
    return [*policy.services, *found]


def render(policy: Policy, seen: Surroundings) -> str:
    """The transaction that replaces the rules. Chains come before those that jump to them."""
    return nft.transaction({
        "chain refuse": _refuse(policy),
        "chain allowed": [line for permit in permits(policy, seen) for line in _permit(permit)],
        "chain egress": _egress(policy),
        "chain leaving": [_KNOWN, _SPOOFED, "jump allowed",
                          *(f"oifname {name} goto refuse" for name in _names(policy)),
                          *(f"{_TO[version]} {net} goto refuse"
                            for version in VERSIONS for net in inner(version, seen.on_link)),
                          "goto egress"],
        "chain arriving": [_KNOWN, *(f"icmpv6 type {kind} accept" for kind in _NEIGHBOURS), _SPOOFED, "jump allowed",
                           *map(_service, services(policy, seen)), "goto refuse"],
        "chain forward": _hooked("forward", "leaving", policy),
        "chain input": _hooked("input", "arriving", policy),
    })


def _names(policy: Policy) -> list[str]:
    return [f'"{name[:-1]}*"' if name.endswith("+") else f'"{name}"' for name in policy.bridges]


def _hooked(hook: str, chain: str, policy: Policy) -> list[str]:
    """Before the rules of Docker and UFW, which stand at priority filter."""
    return [f"type filter hook {hook} priority filter - 10; policy accept;",
            *(f"iifname {name} goto {chain}" for name in _names(policy))]


def _refuse(policy: Policy) -> list[str]:
    """Only the log is limited. Whoever is refused learns it at once instead of waiting."""
    log = f'limit rate 10/second burst 50 packets log prefix "clawops refused" group {LOG_GROUP} snaplen 128'
    return [*[log] * policy.log, "counter", "meta l4proto tcp reject with tcp reset",
            "reject with icmpx type admin-prohibited"]


def _egress(policy: Policy) -> list[str]:
    """What goes to the internet. A query to somebody's own resolver carries data out."""
    foreign = [f'{protocol} dport {port} goto refuse comment "foreign resolver"'
               for protocol in ("udp", "tcp") for port in _DNS]
    return [*([] if policy.foreign_dns else foreign), "accept"]


def _permit(permit: Permit) -> list[str]:
    return [f'{_TO[version]} {net} {permit.protocol} dport {port} accept comment "{permit.purpose}"'
            for version in VERSIONS for net in permit.destinations_of(version) for port in permit.ports]


def _service(service: Service) -> str:
    comment = f' comment "{service.comment}"' if service.comment else ""
    return f"{service.protocol} dport {service.port} accept{comment}"
