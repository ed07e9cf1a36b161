# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""From the policy to the rules of the table."""

from __future__ import annotations

import ipaddress

from . import nft
from .guard_host import SERVED, Surroundings
from .guard_networks import collapse, inner, never
from .guard_policy import Permit, Policy, Service
from .guard_units import LOG_GROUP
from .rules import VERSIONS

_NEIGHBOURS = ("nd-router-solicit", "nd-neighbor-solicit", "nd-neighbor-advert",
               "mld-listener-report", "mld-listener-done", "mld2-listener-report")
_DNS = ("53", "853")
_TO = {4: "ip daddr", 6: "ip6 daddr"}
_KNOWN = "ct state established,related accept"
_SPOOFED = 'fib saddr . iif oif missing goto refuse comment "spoofed source"'


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
        "chain blocked": [line for one in policy.reach for line in _from(one.interface, one.block, "refuse")],
        "chain allowed": [line for permit in permits(policy, seen) for line in _permit(permit)],
        "chain egress": _egress(policy),
        "chain reached": _reached(policy),
        "chain leaving": [_KNOWN, _SPOOFED, "jump blocked", "jump allowed",
                          *(f"oifname {name} goto refuse" for name in _names(policy)),
                          "jump reached",
                          *(f"{_TO[version]} {net} goto refuse"
                            for version in VERSIONS for net in inner(version, seen.on_link)),
                          "goto egress"],
        "chain arriving": [_KNOWN, *(f"icmpv6 type {kind} accept" for kind in _NEIGHBOURS), _SPOOFED,
                           "jump blocked", "jump allowed", *map(_service, services(policy, seen)), "goto refuse"],
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


def _reached(policy: Policy) -> list[str]:
    """After the bridges were refused, and only for what is forwarded: the host itself is never reached by this."""
    allowed = [line for one in policy.reach for line in _from(one.interface, one.allow, "egress")]
    return [*(f"{_TO[version]} {net} goto refuse" for version in VERSIONS for net in never(version) if allowed),
            *allowed]


def _from(interface: str, networks: tuple[str, ...], chain: str) -> list[str]:
    return [f'iifname "{interface}" {_TO[version]} {net} goto {chain}'
            for version in VERSIONS for net in collapse(networks, version)]


def _permit(permit: Permit) -> list[str]:
    return [f'{_TO[version]} {net} {permit.protocol} dport {port} accept comment "{permit.purpose}"'
            for version in VERSIONS for net in permit.destinations_of(version) for port in permit.ports]


def _service(service: Service) -> str:
    comment = f' comment "{service.comment}"' if service.comment else ""
    return f"{service.protocol} dport {service.port} accept{comment}"
