# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What the guard has to know about its host: networks on its links, uplinks, resolvers, and what it serves."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import re
import typing as t

from .host import Host

Route = dict[str, t.Any]
# What a guest needs to come up, where the host serves it.
SERVED = {53: "DNS", 67: "DHCP", 547: "DHCPv6"}
# Where Docker sends queries when all of the host's own resolvers are on its loopback.
ENGINE_RESOLVERS = ("8.8.8.8", "8.8.4.4")
# Below, an on-link route is a tunnel that stands in for the default route (0.0.0.0/1), not a neighbourhood.
_SHORTEST = 8


@dataclasses.dataclass(frozen=True)
class Surroundings:
    on_link: tuple[str, ...]
    uplinks: tuple[str, ...]
    resolvers: tuple[str, ...]
    served: tuple[int, ...]


def observe(host: Host, guarded: t.Callable[[str], bool]) -> Surroundings:
    """guarded tells by its name whether an interface is a bridge of containers."""
    tables = [host.run("ip", "-json", family, "route") for family in ("-4", "-6")]
    routes = [route for table in tables for route in json.loads(table or "[]")]
    sockets = host.run("ss", "--no-header", "--listening", "--udp", "--numeric", "--processes")
    on_link = {route["dst"] for route in routes if _is_on_link(route) and not guarded(route["dev"])}
    return Surroundings(tuple(sorted(on_link)), tuple(sorted(_uplinks(routes) | _bridged(host))),
                        resolvers(host), served(sockets))


def _is_on_link(route: Route) -> bool:
    plain = not {"gateway", "via", "nexthops", "type"} & set(route) and route["dst"] != "default"
    return plain and ipaddress.ip_network(route["dst"]).prefixlen >= _SHORTEST


def _uplinks(routes: list[Route]) -> set[str]:
    hops = [hop for route in routes if route["dst"] == "default" for hop in route.get("nexthops", [route])]
    return {hop["dev"] for hop in hops if "dev" in hop}


def _bridged(host: Host) -> set[str]:
    """Bridges that a network card is a port of."""
    network = host.path("/sys/class/net")
    return {port.parts[-3] for port in network.glob("*/brif/*") if (network / port.name / "device").exists()}


def resolvers(host: Host) -> tuple[str, ...]:
    """Where containers send their queries: the host's name servers as Docker takes them over."""
    found = _name_servers(host, "/etc/resolv.conf")
    if found == ["127.0.0.53"]:
        found = _name_servers(host, "/run/systemd/resolve/resolv.conf")
    return tuple(server for server in found if not ipaddress.ip_address(server).is_loopback) or ENGINE_RESOLVERS


def _name_servers(host: Host, path: str) -> list[str]:
    """Without link-local ones, which are of no use beyond the host's own link."""
    file = host.read(path)
    words = re.findall(r"^\s*nameserver\s+(\S+)", file.text if file else "", re.MULTILINE)
    return [word for word in words if _is_address(word)]


def _is_address(word: str) -> bool:
    try:
        return not ipaddress.ip_address(word.partition("%")[0]).is_link_local
    except ValueError:
        return False


def served(sockets: str) -> tuple[int, ...]:
    """Those of SERVED that a program listens on. docker-proxy is none: behind it is a container."""
    ports = set()
    for line in sockets.splitlines():
        address, _colon, port = line.split()[3].rpartition(":")
        loopback = address.startswith(("127.", "[::1]"))
        if port.isdigit() and int(port) in SERVED and not loopback and '"docker-proxy"' not in line:
            ports.add(int(port))
    return tuple(sorted(ports))
