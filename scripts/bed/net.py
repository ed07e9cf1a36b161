# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The bed's network: one bridge with fixed addresses, and network namespaces attached to it."""

from __future__ import annotations

import ipaddress
import json
import pathlib

from . import cache, engine, machine
from .job import BedError, Job, output

NAME = "clawops-bed"
V4 = ipaddress.ip_network("10.213.0.0/24")
V6 = ipaddress.ip_network("fd13:c1a0:beef::/64")
LAST = {"minio": 5, "model": 6, "minio-tls": 7, "kubernetes": 8, "cloudimage": 9, "alder": 11, "birch": 12,
        "oak": 14, "maple": 15, "outside": 66}


def v4(who: str) -> str:
    """The fixed IPv4 address of a part."""
    return str(V4[LAST[who]])


def v6(who: str) -> str:
    """The fixed IPv6 address of a part; it reads like the IPv4 one."""
    return f"{V6.network_address}{LAST[who]}"


def container(who: str) -> str:
    """The container (and volume) of a host."""
    return f"{NAME}-{who}"


def options(who: str) -> list[str]:
    """How a container joins the network."""
    return ["--network", NAME, "--ip", v4(who), "--ip6", v6(who)]


def ensure(job: Job) -> None:
    """The network, on an engine that answers."""
    engine.ensure(job)
    machine.need(job, {"ip": "iproute2"})
    with cache.lock("net"):
        if engine.inspect("network", NAME, "{{.Id}}"):
            return
        _refuse_taken()
        machine.keep_sysctls()
        # Dynamic addresses stay in the upper half, away from the fixed ones.
        subnets = ["--subnet", V4, "--ip-range", list(V4.subnets())[1], "--gateway", V4[1]]
        subnets += ["--ipv6", "--subnet", V6, "--gateway", V6[1]]
        label = ["--label", f"{engine.LABEL}=network", "--opt", f"com.docker.network.bridge.name={NAME}"]
        job.run(["docker", "network", "create", *label, *subnets, NAME])


def _refuse_taken() -> None:
    routes = [route for family in "46" for route in json.loads(output("ip", f"-{family}", "-j", "route") or "[]")]
    for route in routes:
        if route["dst"] != "default" and _overlaps(route["dst"]):
            raise BedError(f"the bed's subnets {V4} and {V6} meet this machine's route {route['dst']}")
    for resolver in resolvers():
        if _overlaps(resolver):
            raise BedError(f"the bed's subnet {V4} holds this machine's resolver {resolver}")


def _overlaps(text: str) -> bool:
    try:
        other = ipaddress.ip_network(text.split("%")[0], strict=False)
    except ValueError:  # a route type such as "multicast"
        return False
    return other.overlaps(V4) if other.version == 4 else other.overlaps(V6)


def resolvers() -> list[str]:
    """This machine's name servers."""
    lines = [line.split() for line in pathlib.Path("/etc/resolv.conf").read_text().splitlines()]
    return [words[1] for words in lines if words[:1] == ["nameserver"] and len(words) > 1]


def remove(job: Job) -> None:
    """No network any more; the machine's forwarding as it was found."""
    if engine.inspect("network", NAME, "{{.Id}}"):
        job.run(["docker", "network", "rm", NAME])
    output("ip", "link", "delete", NAME)


def namespace(who: str) -> str:
    """The namespace of a part."""
    return f"clawops-{who}"


def attach(job: Job, who: str) -> None:
    """A namespace with the part's addresses on the bridge, and no other way out. Repairs what is missing."""
    ns, port = namespace(who), f"cb-{who}"
    if output("ip", "netns", "exec", ns, "true") is None:
        detach(who)
        job.run(["ip", "netns", "add", ns])
    if output("ip", "link", "show", port) is None:
        job.run(["ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns])
    job.run(["ip", "link", "set", port, "master", NAME, "up"])
    for link in ("lo", "eth0"):
        job.run(["ip", "-n", ns, "link", "set", link, "up"])
    job.run(["ip", "-n", ns, "address", "replace", f"{v4(who)}/{V4.prefixlen}", "dev", "eth0"])
    job.run(["ip", "-n", ns, "address", "replace", f"{v6(who)}/{V6.prefixlen}", "dev", "eth0", "nodad"])


def attached(who: str) -> bool:
    """Whether the namespace is up and on the bridge."""
    links = json.loads(output("ip", "-j", "link", "show", "master", NAME) or "[]")
    here = any(link.get("ifname") == f"cb-{who}" for link in links)
    return here and v4(who) in (output("ip", "-n", namespace(who), "address") or "")


def detach(who: str) -> None:
    """No such namespace any more; also a stale name of one."""
    output("ip", "link", "delete", f"cb-{who}")
    output("ip", "netns", "delete", namespace(who))
