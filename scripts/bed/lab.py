# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A LAN without an uplink, for attacks and load: it plays router, neighbours, metadata server, resolvers and internet.

`isolate` moves a host's cable from the bed's bridge to this LAN, and gives the host a second network interface on a
LAN of its own. Every address of the world ends here: a witness answers on it, and writes down what came out of a host.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import pathlib
import sys
import typing as t

from . import cache, engine, machine, net
from .daemon import Daemon
from .job import BedError, Job, output

INSTANCES = DEFAULT = ["lab"]
NAMESPACE = net.namespace("lab")
SERVING = Daemon("lab")
WITNESS = pathlib.Path(__file__).with_name("witness.py")
LANS = {
    "lan": (net.V4, net.V6),
    "lan2": (ipaddress.ip_network("10.214.0.0/24"), ipaddress.ip_network("fd13:c1a0:bee2::/64")),
}
FIRST, SECOND = LANS
# The router, what else a fleet has on its LAN, and neighbours. Addresses of elsewhere need no mention.
LAST = [1, 5, 6, 66, 77, 78]
METADATA = ["169.254.169.254/32", "fd00:ec2::254/128"]
PORTS = "25,53,80,443,853,2375,4789,8080,9000"
SYSCTLS = {
    "ipv4/ip_forward": "0",
    "ipv6/conf/all/forwarding": "0",
    "ipv4/conf/all/accept_local": "1",  # sources may be anything: to this LAN all addresses are its own
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    "ipv4/icmp_ratelimit": "0",
    "ipv6/icmp/ratelimit": "0",
}


def journal() -> pathlib.Path:
    """What came out of isolated hosts; see witness.py."""
    return cache.folder("lab") / "arrivals.jsonl"


def _ip(*words: object) -> str | None:
    return output("ip", "-n", NAMESPACE, *words)


def cable(host: str) -> str:
    """The name of the other end of a host's network interface."""
    return f"cb-{host}"


def _second(host: str) -> str:
    return f"c2-{host}"


def addresses(lan: str, last: int) -> tuple[str, str]:
    """One member's addresses on a LAN, with prefix lengths; the IPv6 one reads like the IPv4 one."""
    v4, v6 = LANS[lan]
    return f"{v4[last]}/{v4.prefixlen}", f"{v6.network_address}{last}/{v6.prefixlen}"


def exists() -> bool:
    """Whether the namespace does; a name of a dead one does not count."""
    return output("ip", "netns", "exec", NAMESPACE, "true") is not None


def isolated() -> list[str]:
    """The hosts whose cable is here."""
    links = json.loads(_ip("-j", "link") or "[]")
    names = {link.get("ifname") for link in links}
    return [host for host in net.LAST if cable(host) in names]


def up(job: Job, _name: str) -> None:
    """Namespace, both LANs, and the witness of today's code. Repairs what is missing."""
    machine.need(job, {"ip": "iproute2"})
    if not exists():
        SERVING.stop()  # of a namespace that has lost its name
        output("ip", "netns", "delete", NAMESPACE)
        job.run(["ip", "netns", "add", NAMESPACE])
    for key, value in SYSCTLS.items():
        path = f"/proc/sys/net/{key}"
        job.run(["ip", "netns", "exec", NAMESPACE, "sh", "-c", f"[ ! -e {path} ] || echo {value} >{path}"])
    steps = "".join(f"{step}\n" for step in _steps({link["ifname"] for link in json.loads(_ip("-j", "link") or "[]")}))
    job.run(["ip", "-n", NAMESPACE, "-batch", "-"], data=steps.encode())
    _start_witness(job)


def _steps(links: t.Collection[str]) -> t.Iterator[str]:
    """What makes two LANs of an empty namespace, or of one that is half done."""
    yield "link set lo up"
    for bridge in LANS:
        if bridge not in links:
            yield f"link add {bridge} type bridge"
        yield f"link set {bridge} up"
        for last in LAST:
            yield from (f"address replace {address} dev {bridge} nodad" for address in addresses(bridge, last))
    for address in METADATA:
        yield f"address replace {address} dev {FIRST} nodad"
    for everything in ("0.0.0.0/0", "::/0"):
        yield f"route replace local {everything} dev lo table main"


def _start_witness(job: Job) -> None:
    version = cache.digest(WITNESS.read_text(), PORTS, sys.version)
    if SERVING.alive(version):
        return
    SERVING.stop()
    journal().unlink(missing_ok=True)
    argv = ["ip", "netns", "exec", NAMESPACE, sys.executable, WITNESS, "--journal", journal(), "--tcp", PORTS]
    argv += ["--udp", PORTS, "--wires", "cb-,c2-", "--foreign"]
    SERVING.start(job, argv, version, lambda: journal().exists())


def down(job: Job, _name: str) -> None:
    """No lab; hosts that are in it go back to the bed first, because a cable dies with its namespace."""
    for host in isolated():
        with contextlib.suppress(BedError):
            rejoin(job, host)
    SERVING.stop()
    output("ip", "netns", "delete", NAMESPACE)


def status(_name: str) -> tuple[str, str]:
    """State, and who is in it."""
    return ("up" if exists() and SERVING.alive() else "down"), f"isolated: {' '.join(isolated()) or 'none'}"


# -- cables -----------------------------------------------------------------------------------------------------------


def isolate(job: Job, host: str) -> None:
    """The host on the lab's LANs. Its own addresses and default routes stay as they are."""
    pid = engine.inspect("container", net.container(host), "{{.State.Pid}}")
    if not pid or pid == "0":
        raise BedError(f"{host} is not up: scripts/testbed up dockerhost:{host}")
    if not set(isolated()) - {host}:
        os.truncate(journal(), 0)
    name, second = cable(host), _second(host)
    # What is there of that name may be of an earlier boot of the host, and about to go.
    if _plugged(host):
        _ip("link", "delete", name)
        job.run(["ip", "link", "set", "dev", _machine_side(host), "netns", NAMESPACE, "name", name])
    if output("docker", "exec", net.container(host), "test", "-e", "/sys/class/net/eth1") is None:
        _ip("link", "delete", second)
        job.run(["ip", "-n", NAMESPACE, "link", "add", second, "type", "veth", "peer", "name", "eth1", "netns", pid])
    for link, bridge in ((name, FIRST), (second, SECOND)):
        job.run(["ip", "-n", NAMESPACE, "link", "set", link, "master", bridge, "up"])
    steps = ["set -e", "echo 0 >/proc/sys/net/ipv6/conf/eth1/disable_ipv6"]  # the engine's default is 1
    steps += [f"ip address replace {address} dev eth1" for address in addresses(SECOND, net.LAST[host])]
    steps += ["ip link set eth1 up", "ip neigh flush all"]
    job.run(["docker", "exec", net.container(host), "sh", "-c", "\n".join(steps)])


def _machine_side(host: str) -> str:
    """The port of the bed's bridge that a host's eth0 is plugged in."""
    own = output("docker", "exec", net.container(host), "sh", "-c", "cd /sys/class/net/eth0 && cat ifindex iflink")
    index, peer = (int(word) for word in own.split()) if own else (0, 0)
    for link in json.loads(output("ip", "-j", "link", "show", "master", net.NAME) or "[]"):
        if link["ifindex"] == peer and link.get("link_index") == index:
            return str(link["ifname"])
    raise BedError(f"{host} has no cable on {net.NAME}: scripts/testbed rejoin {host}")


def rejoin(job: Job, host: str) -> None:
    """The host back on the bed's bridge; with a new cable if the old one is lost."""
    _ip("link", "delete", _second(host))
    name = cable(host)
    if _ip("link", "show", name) is not None:
        job.run(["ip", "-n", NAMESPACE, "link", "set", "dev", name, "netns", os.getpid()])
    if output("ip", "link", "show", name) is not None:
        job.run(["ip", "link", "set", name, "master", net.NAME, "up"])
    elif engine.running(net.container(host)) and not _plugged(host):
        job.say(f"{host} has lost its cable: starting it again")
        job.run(["docker", "restart", net.container(host)])
    output("docker", "exec", net.container(host), "ip", "neigh", "flush", "all")


def _plugged(host: str) -> bool:
    try:
        return bool(_machine_side(host))
    except BedError:
        return False


def relay(address: str, port: str) -> t.NoReturn:
    """Become a pipe to a port on the lab's LAN: an SSH client's ProxyCommand."""
    pipe = 'exec 3<>"/dev/tcp/$0/$1"; cat <&3 & cat >&3; kill $!'
    os.execvp("ip", ["ip", "netns", "exec", NAMESPACE, "bash", "-c", pipe, address, port])  # noqa: S606
