# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Which networks are not the internet."""

from __future__ import annotations

import ipaddress
import typing as t

from .rules import Version

# What is not the internet, and nobody's LAN either: link-local networks, multicast, and the addresses at which clouds
# serve their machines.
NEVER4 = ("0.0.0.0/8", "100.100.100.200/32", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16", "192.0.0.0/24",
          "224.0.0.0/3")
# ::/64 and 2002::/16 are forms that carry IPv4 addresses. So is NAT64's, by which the internet must stay reachable.
NEVER6 = ("::/64", "64:ff9b:1::/48", "2002::/16", "fd00:ec2::/32", "fd20:ce::/32", "fe80::/9", "ff00::/8")
PRIVATE4 = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16")
PRIVATE6 = ("fc00::/7",)
_NAT64 = int(ipaddress.IPv6Address("64:ff9b::"))


def collapse(networks: t.Iterable[str], version: Version) -> list[str]:
    """Those of one family, without those that lie within others."""
    members = [net for net in map(ipaddress.ip_network, networks) if net.version == version]
    return [str(net) for net in ipaddress.collapse_addresses(t.cast("list[ipaddress.IPv4Network]", members))]


def inner(version: Version, on_link: t.Iterable[str]) -> list[str]:
    """The networks of one family that are refused unless something in them is allowed."""
    return collapse([*never(version), *PRIVATE4, *PRIVATE6, *_behind_nat64(PRIVATE4), *on_link], version)


def never(version: Version) -> list[str]:
    """Those of them that no bridge may reach as a whole."""
    return collapse([*NEVER4, *NEVER6, *_behind_nat64(NEVER4)], version)


def _behind_nat64(networks: t.Iterable[str]) -> list[str]:
    return [str(ipaddress.IPv6Network((_NAT64 + int(net.network_address), 96 + net.prefixlen)))
            for net in map(ipaddress.IPv4Network, networks)]
