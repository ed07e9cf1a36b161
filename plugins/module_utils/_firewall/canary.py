# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Something that listens for a while, so that a closed port is the firewall's doing: a process of the host and a
container with published ports. Both end by themselves, also when the run that started them was killed."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import socket
import time
import typing as t

from .._errors import FleetError, bad_value
from .._ownership import MANAGED, SPEC, digest, is_ours
from .._plan import Plan
from . import probe
from .host import Host
from .rules import parse_ports
from .ufw import SSH

NAME = "clawops-canary"
UNIT = f"{NAME}.service"
IMAGE = "clawops/canary:1"
PROTOCOLS = ("tcp", "udp")

_INNER_PORT = 61000
# Answers a datagram by setting the bit that makes a DNS query a response, and nothing that has it: no loops.
_PROGRAM = """\
import contextlib, selectors, socket, sys, time
end, port = time.monotonic() + float(sys.argv[1]), int(sys.argv[2])
family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
ready = selectors.DefaultSelector()
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    sock = socket.socket(family, kind)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if kind == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", port))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    sock.setblocking(False)
    ready.register(sock, selectors.EVENT_READ)
while time.monotonic() < end:
    for key, _ in ready.select(end - time.monotonic()):
        with contextlib.suppress(OSError):
            if key.fileobj.type == socket.SOCK_STREAM:
                key.fileobj.accept()[0].close()
            else:
                data, peer = key.fileobj.recvfrom(2048)
                if len(data) > 2 and data[2] < 128:
                    key.fileobj.sendto(data[:2] + bytes([data[2] | 128]) + data[3:], peer)
"""
_PYTHON = ("/usr/bin/python3", "-I", "-c", _PROGRAM)
# The image is empty; the program is the host's own, read-only.
_SYSTEM = ("/usr", "/lib", "/lib64")
_CONFINED_UNIT = ("DynamicUser=yes", "CapabilityBoundingSet=", "NoNewPrivileges=yes", "ProtectSystem=strict",
                  "ProtectHome=yes", "PrivateTmp=yes", "PrivateDevices=yes", "MemoryMax=64M", "TasksMax=16",
                  "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX")
_CONFINED_CONTAINER = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=65534:65534",
                       "--memory=64m", "--pids-limit=16", "--log-driver=none", "--pull=never")


@dataclasses.dataclass(frozen=True)
class Target:
    """A port to ask, and what the policy says about it; expect is None if that depends on who asks."""

    kind: str
    port: int
    protocol: str
    expect: str | None


@dataclasses.dataclass(frozen=True)
class Wanted:
    """No port of a kind, or 0, means no listener of that kind."""

    host_port: int | None
    published_port: int | None
    host_allow: tuple[t.Mapping[str, t.Any], ...]
    published_allow: tuple[t.Mapping[str, t.Any], ...]
    lifetime: int

    @property
    def host(self) -> list[Target]:
        return _targets("host", self.host_port, self.host_allow) if self.host_port else []

    @property
    def published(self) -> list[Target]:
        """The port of our choice, and one of each protocol that everybody may reach."""
        if not self.published_port:
            return []
        found = _targets("published", self.published_port, self.published_allow)
        for protocol in PROTOCOLS:
            free = [entry for entry in self.published_allow if _protocol(entry) == protocol and not _restricted(entry)]
            if free:
                port = parse_ports("port", free[0]["port"])[0]
                if port != self.published_port:
                    found.append(Target("published", port, protocol, "open"))
        return found

    @property
    def specs(self) -> dict[str, str | None]:
        return {kind: digest([_PROGRAM, _CONFINED_UNIT, _CONFINED_CONTAINER, self.lifetime,
                              [dataclasses.astuple(target) for target in targets]])[:16] if targets else None
                for kind, targets in (("host", self.host), ("published", self.published))}


NOTHING = Wanted(None, None, (), (), 0)


def parse(params: t.Mapping[str, t.Any]) -> Wanted:
    if params["state"] == "absent":
        return NOTHING
    for parameter in ("host_port", "published_port"):
        port = params[parameter]
        if port and not 1024 <= port <= 65535:
            raise bad_value(parameter, port, "Write a port from 1024 to 65535.")
    if params["host_port"] and params["host_port"] == params["published_port"]:
        raise bad_value("published_port", params["published_port"], "It is the host_port, too; choose another.")
    if not 10 <= params["lifetime"] <= 3600:
        raise bad_value("lifetime", params["lifetime"], "Write seconds, from 10 to 3600.")
    return Wanted(params["host_port"], params["published_port"], _policy("host_allow", params),
                  _policy("published_allow", params), params["lifetime"])


def _policy(parameter: str, params: t.Mapping[str, t.Any]) -> tuple[t.Mapping[str, t.Any], ...]:
    """Without the entry for SSH, which is where no listener of ours can be."""
    entries = [(index, entry) for index, entry in enumerate(params[parameter]) if entry.get("port") != SSH]
    for index, entry in entries:
        parse_ports(f"{parameter}[{index}].port", entry.get("port"))
    return tuple(entry for index, entry in entries)


def _protocol(entry: t.Mapping[str, t.Any]) -> str:
    return str(entry.get("protocol") or "tcp")


def _restricted(entry: t.Mapping[str, t.Any]) -> bool:
    return bool(entry.get("sources") or entry.get("interface"))


def _targets(kind: str, port: int, allow: t.Sequence[t.Mapping[str, t.Any]]) -> list[Target]:
    return [Target(kind, port, protocol, expected(port, protocol, allow)) for protocol in PROTOCOLS]


def expected(port: int, protocol: str, allow: t.Sequence[t.Mapping[str, t.Any]]) -> str | None:
    """What a policy says about a port."""
    def covers(entry: t.Mapping[str, t.Any]) -> bool:
        first, last = parse_ports("port", entry["port"])
        return first <= port <= last and _protocol(entry) == protocol

    covering = [entry for entry in allow if covers(entry)]
    if any(not _restricted(entry) for entry in covering):
        return "open"
    return None if covering else "closed"


class Canary:
    """The listeners of one host."""

    def __init__(self, host: Host, wanted: Wanted, ask: t.Callable[[probe.Check, probe.Patience], probe.Answer]
                 = probe.ask, free: t.Callable[[int, str], bool] | None = None, wait: float = 20.0) -> None:
        # Without Docker, nothing is published that could be proved closed.
        self.wanted = wanted if host.has("docker") else dataclasses.replace(wanted, published_port=None)
        self.host, self.wait = host, wait
        self._ask, self._free = ask, free or _is_free

    # -- observe and plan ------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        plan = Plan()
        specs = self.wanted.specs
        plan.compare(UNIT, specs["host"], self._unit())
        plan.compare(f"container {NAME}", specs["published"], self._container())
        if self.wanted == NOTHING and self.host.has("docker") and self._image():
            plan.compare(f"image {IMAGE}", None, "present")
        return plan

    def _unit(self) -> str | None:
        """The spec of the running unit; a failed one is none."""
        if not self.host.has("systemctl"):
            return None
        text = self.host.run("systemctl", "show", UNIT, "--property=ActiveState", "--property=Description")
        state = dict(line.partition("=")[::2] for line in text.splitlines())
        if state.get("ActiveState") not in ("active", "activating", "deactivating"):
            return None
        owner, *spec = state.get("Description", "").split(" ")
        if owner != MANAGED:
            raise _foreign(UNIT)
        return "".join(spec)

    def _container(self) -> str | None:
        if not self.host.has("docker") or not self.host.succeeds("docker", "container", "inspect", NAME):
            return None
        found = json.loads(self.host.run("docker", "container", "inspect", NAME))[0]
        labels: dict[str, str] = found["Config"]["Labels"] or {}
        if not is_ours(labels):
            raise _foreign(f"container {NAME}")
        return labels.get(SPEC, "") if found["State"]["Running"] else "stopped"

    def _image(self) -> bool:
        return self.host.succeeds("docker", "image", "inspect", IMAGE)

    # -- apply -----------------------------------------------------------------------------------------------------

    def apply(self, plan: Plan) -> dict[str, t.Any]:
        """A start that fails leaves nothing behind."""
        unit, container = plan.touches(UNIT), plan.touches(f"container {NAME}")
        self._stop(unit, container)
        if plan.touches(f"image {IMAGE}"):
            self.host.run("docker", "image", "rm", IMAGE)
        try:
            started = self._start_unit() if unit and self.wanted.host else []
            started += self._start_container() if container and self.wanted.published else []
            self._wait_for(started)
        except FleetError:
            self._stop(unit, container)
            raise
        return self.facts()

    def _stop(self, unit: bool, container: bool) -> None:
        if unit and self._unit() is not None:
            self.host.run("systemctl", "stop", UNIT)
        if container:
            self._stop_container()

    def _stop_container(self) -> None:
        """It may be on its way out by itself."""
        self.host.succeeds("docker", "rm", "--force", NAME)
        end = time.monotonic() + self.wait
        while self.host.succeeds("docker", "container", "inspect", NAME):
            if time.monotonic() > end:
                raise FleetError("timeout", f"The container {NAME} did not go within {self.wait:.0f} seconds.")
            time.sleep(0.2)

    def _start_unit(self) -> list[Target]:
        self._need_free(self.wanted.host, "host_port")
        confined = [f"--property={line}" for line in _CONFINED_UNIT]
        self.host.run("systemd-run", "--quiet", "--collect", f"--unit={NAME}", *confined,
                      f"--description={MANAGED} {self.wanted.specs['host']}",
                      *_PYTHON, str(self.wanted.lifetime), str(self.wanted.host_port))
        return self.wanted.host

    def _start_container(self) -> list[Target]:
        """A port in use is left to who uses it, unless it is the one that we must have."""
        self._need_free([target for target in self.wanted.published if target.port == self.wanted.published_port],
                        "published_port")
        ours = [target for target in self.wanted.published if self._free(target.port, target.protocol)]
        if not self._image():
            self.host.run("docker", "import", f"--change=LABEL {MANAGED}=true", "-", IMAGE, stdin="\0" * 1024)
        volumes = [f"--volume={path}:{path}:ro" for path in _SYSTEM if self.host.path(path).exists()]
        ports = [f"--publish={target.port}:{_INNER_PORT}/{target.protocol}" for target in ours]
        labels = [f"--label={MANAGED}=true", f"--label={SPEC}={self.wanted.specs['published']}"]
        self.host.run("docker", "run", "--detach", "--rm", f"--name={NAME}", *labels, *_CONFINED_CONTAINER, *volumes,
                      *ports, IMAGE, *_PYTHON, str(self.wanted.lifetime), str(_INNER_PORT))
        return ours

    def _need_free(self, targets: t.Iterable[Target], parameter: str) -> None:
        for target in targets:
            if not self._free(target.port, target.protocol):
                raise bad_value(parameter, target.port, f"Something uses {target.port}/{target.protocol} on this "
                                                        "host; choose another port.")

    def _wait_for(self, targets: list[Target]) -> None:
        end = time.monotonic() + self.wait
        while True:
            silent = [target for target in targets if not self._answers(target, "127.0.0.1")]
            if not silent:
                return
            if time.monotonic() > end:
                ports = ", ".join(f"{target.port}/{target.protocol}" for target in silent)
                raise FleetError("timeout", f"The listeners on {ports} did not answer on the host itself within "
                                            f"{self.wait:.0f} seconds.", "See the journal of systemd and Docker.")
            time.sleep(0.2)

    # -- facts -----------------------------------------------------------------------------------------------------

    def _answers(self, target: Target, address: str) -> bool:
        check = probe.Check(target.kind, ipaddress.ip_address(address), target.port, target.protocol, "open")
        return self._ask(check, probe.Patience(timeout=0.5, retries=0)).answer == probe.OPEN

    def facts(self) -> dict[str, t.Any]:
        return {"targets": [{**dataclasses.asdict(target), "ipv4": self._answers(target, "127.0.0.1"),
                             "ipv6": self._answers(target, "::1")}
                            for target in [*self.wanted.host, *self.wanted.published]]}


def _foreign(what: str) -> FleetError:
    return FleetError("foreign_object", f"{what} exists and is not managed by this collection.", "Rename or remove it.")


def _is_free(port: int, protocol: str) -> bool:
    """Whether nothing listens there in either family; a connection that only lingers does not count."""
    stream, dual = protocol == "tcp", socket.has_dualstack_ipv6()
    with socket.socket(socket.AF_INET6 if dual else socket.AF_INET,
                       socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as sock:
        if dual:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if stream:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("", port))
        except OSError:
            return False
    return True
