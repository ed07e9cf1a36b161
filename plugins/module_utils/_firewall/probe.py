# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What answers when somebody really connects: a list of questions, with controls that make a closed port a fact."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import dataclasses
import errno
import ipaddress
import os
import re
import socket
import typing as t

from .._errors import FleetError, bad_value
from .host import Host
from .rules import Version

OPEN, REFUSED, FILTERED, UNREACHABLE, FAILED = "open", "refused", "filtered", "unreachable", "failed"
RIGHT, WRONG, UNPROVED = "right", "WRONG", "UNPROVED"

# A query for the name servers of the root: a DNS server answers it, and so does an echo.
QUERY = bytes.fromhex("c1a0 0100 0001 0000 0000 0000 00 0002 0001")

CHECK_OPTIONS: dict[str, t.Any] = {
    "name": {"type": "str", "default": ""},
    "address": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
    "expect": {"type": "str", "choices": ["open", "closed"], "required": True},
    "source": {"type": "str"},
    "payload": {"type": "str"},
}

_WORKERS = 32
_CLONE_NEWNET = 0x40000000
_RECVERR = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}
# What the network says on the way. Other errors are made on the spot, and say nothing about the target.
_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.ENOPROTOOPT, errno.EHOSTDOWN}
_REFUSED = {errno.ECONNREFUSED, errno.ECONNRESET}

Address = t.Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


@dataclasses.dataclass(frozen=True)
class Check:
    """One question: a port of an address, and whether it has to answer."""

    name: str
    address: Address
    port: int
    protocol: str
    expect: str
    source: Address | None = None
    payload: bytes = QUERY

    @property
    def family(self) -> Version:
        """Of the packets: a mapped address is IPv4 on the wire."""
        return 4 if self.address.version == 4 or self.address.ipv4_mapped else 6

    @property
    def target(self) -> tuple[t.Any, ...]:
        return _endpoint(self.address, self.port)

    def socket(self) -> socket.socket:
        kind = socket.SOCK_STREAM if self.protocol == "tcp" else socket.SOCK_DGRAM
        return socket.socket(socket.AF_INET if self.address.version == 4 else socket.AF_INET6, kind)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back, and how the check was decided."""

    check: Check
    answer: str
    reason: str
    attempts: int

    @property
    def expected(self) -> bool:
        if self.check.expect == "open":
            return self.answer == OPEN
        return self.answer in (REFUSED, FILTERED, UNREACHABLE)


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long to wait for an answer, and how often to ask again when none came."""

    timeout: float = 2.0
    retries: int = 2


# -- questions -----------------------------------------------------------------------------------------------------

def parse_checks(parameter: str, entries: t.Sequence[t.Mapping[str, t.Any]]) -> tuple[Check, ...]:
    """The whole list, with a control in each of its IP families, or one error."""
    checks = tuple(_parse_check(f"{parameter}[{index}]", entry) for index, entry in enumerate(entries))
    if not checks:
        raise bad_value(parameter, [], "List at least one check that expects open, and what has to be closed.")
    seen: set[tuple[object, ...]] = set()
    for check in checks:
        question = (check.address, check.port, check.protocol, check.source, check.payload)
        if question in seen:
            raise bad_value(parameter, f"{check.protocol} {check.address} {check.port}",
                            "It stands in the list twice; remove one.")
        seen.add(question)
    _need_controls(parameter, checks)
    return checks


def parse_patience(timeout: float, retries: int) -> Patience:
    if not 0 < timeout <= 60:
        raise bad_value("timeout", timeout, "Write seconds, more than 0 and at most 60.")
    if not 0 <= retries <= 10:
        raise bad_value("retries", retries, "Write a number from 0 to 10.")
    return Patience(timeout, retries)


def _need_controls(parameter: str, checks: t.Iterable[Check]) -> None:
    missing = {check.family for check in checks} - {check.family for check in checks if check.expect == "open"}
    if missing:
        families = " and ".join(f"IPv{family}" for family in sorted(missing))
        raise FleetError("missing_control", f"{parameter}: no check over {families} expects open, so that an "
                         "unreachable host would pass for a closed port.",
                         "Add one that must answer, such as SSH.", parameter=parameter)


def _parse_check(parameter: str, entry: t.Mapping[str, t.Any]) -> Check:
    address = _parse_address(f"{parameter}.address", entry["address"])
    source = _parse_address(f"{parameter}.source", entry["source"]) if entry.get("source") else None
    if source and source.version != address.version:
        raise bad_value(f"{parameter}.source", entry["source"], f"Write an address of the same family as {address}.")
    port, protocol = entry["port"], entry.get("protocol") or "tcp"
    if not 1 <= port <= 65535:
        raise bad_value(f"{parameter}.port", port, "Write a port from 1 to 65535.")
    if entry.get("payload") and protocol != "udp":
        raise bad_value(f"{parameter}.payload", entry["payload"], "Only a check over udp has a payload.")
    return Check(entry.get("name") or "", address, port, protocol, entry["expect"], source,
                 _parse_payload(f"{parameter}.payload", entry.get("payload")))


def _parse_address(parameter: str, value: str) -> Address:
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        raise bad_value(parameter, value, "Write an IPv4 or IPv6 address, not a name.") from None


def _parse_payload(parameter: str, value: str | None) -> bytes:
    try:
        payload = bytes.fromhex(value or "")
    except ValueError:
        payload = bytes(2000)
    if len(payload) > 1400:
        raise bad_value(parameter, value, "Write at most 1400 bytes in hexadecimal, such as '01 ff'.")
    return payload or QUERY


# -- the place to ask from -----------------------------------------------------------------------------------------

def namespace_of(netns: str | None, container: str | None, host: Host) -> str | None:
    """The file of the network namespace to connect from; None for the one that we are in."""
    for parameter, name in (("netns", netns), ("container", container)):
        if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise bad_value(parameter, name, "Use letters, digits, '_', '.' and '-'.")
    if netns:
        return f"/run/netns/{netns}"
    if not container:
        return None
    pid = host.run("docker", "container", "inspect", "--format", "{{.State.Pid}}", container).strip()
    if pid == "0":
        raise FleetError("not_running", f"The container {container} does not run.", "Start it, or name another one.")
    return f"/proc/{pid}/ns/net"


@contextlib.contextmanager
def inside(namespace: str | None) -> t.Iterator[None]:
    """Moves this thread, and those that it starts, to a network namespace and back."""
    if namespace is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            home, there = (stack.enter_context(open(path, "rb")) for path in ("/proc/thread-self/ns/net", namespace))
            _enter(there)
        except OSError as error:
            raise FleetError("no_namespace", f"The network namespace {namespace} can't be entered: {error.strerror}.",
                             "Check the name, and be root there (become: true).") from error
        try:
            yield
        finally:
            _enter(home)


def _enter(namespace: t.BinaryIO) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


# -- answers -------------------------------------------------------------------------------------------------------

def ask(check: Check, patience: Patience) -> Answer:
    """Silence is asked again, because it may be a lost packet; what came back from the target is an answer."""
    attempt = 0
    while True:
        attempt += 1
        answer, reason = _attempt(check, patience.timeout)
        if answer in (OPEN, REFUSED, FAILED) or attempt > patience.retries:
            return Answer(check, answer, reason, attempt)


def _attempt(check: Check, timeout: float) -> tuple[str, str]:
    try:
        with check.socket() as sock:
            sock.settimeout(timeout)
            if check.source:
                sock.bind(_endpoint(check.source, 0))
            return OPEN, _connect(sock, check) if check.protocol == "tcp" else _exchange(sock, check)
    except (socket.timeout, TimeoutError):
        return FILTERED, f"no answer within {timeout:g} s"
    except OSError as error:
        kind = REFUSED if error.errno in _REFUSED else UNREACHABLE if error.errno in _UNREACHABLE else FAILED
        return kind, error.strerror or str(error)


def _endpoint(address: Address, port: int) -> tuple[t.Any, ...]:
    """With the number of the interface that a link-local address names."""
    return socket.getaddrinfo(str(address), port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4]


def _connect(sock: socket.socket, check: Check) -> str:
    sock.connect(check.target)
    return "connected"


def _exchange(sock: socket.socket, check: Check) -> str:
    """Not connected, so that an answer from another address of the target counts, too; errors are asked for."""
    level, option = _RECVERR[check.address.version]
    sock.setsockopt(level, option, 1)
    if check.family != check.address.version:
        sock.setsockopt(*_RECVERR[4], 1)
    sock.sendto(check.payload, check.target)
    data, peer = sock.recvfrom(2048)
    return f"{len(data)} bytes from {peer[0]}"


def ask_all(checks: t.Sequence[Check], patience: Patience, namespace: str | None = None) -> tuple[Answer, ...]:
    """All of them side by side, in the order of the list."""
    with inside(namespace), concurrent.futures.ThreadPoolExecutor(min(_WORKERS, len(checks))) as pool:
        return tuple(pool.map(lambda check: ask(check, patience), checks))


def has_route(check: Check) -> bool:
    """Whether packets could leave for this target at all. Nothing is sent."""
    try:
        with dataclasses.replace(check, protocol="udp").socket() as sock:
            sock.connect(check.target)
    except OSError:
        return False
    return True


def routable(checks: tuple[Check, ...], namespace: str | None) -> tuple[tuple[Check, ...], list[str]]:
    """The checks without the families for whose controls there is no route, and a note about each of those."""
    with inside(namespace):
        reached = {check.family for check in checks if check.expect == "open" and has_route(check)}
    unreached = sorted({check.family for check in checks} - reached)
    if not reached:
        raise FleetError("no_route", "There is no route to any of the controls.",
                         "Connect from elsewhere, or name addresses that can be reached.")
    notes = [f"IPv{family}: not probed, there is no route to it from here." for family in unreached]
    return tuple(check for check in checks if check.family in reached), notes


# -- the verdict ---------------------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class Report:
    """All answers of one list."""

    origin: str
    answers: tuple[Answer, ...]
    notes: tuple[str, ...] = ()

    def verdict(self, answer: Answer) -> str:
        if not answer.expected:
            return WRONG
        return RIGHT if answer.check.family in self._proved else UNPROVED

    @property
    def _proved(self) -> set[Version]:
        return {answer.check.family for answer in self.answers if answer.check.expect == "open" and answer.expected}

    def rows(self) -> list[dict[str, t.Any]]:
        return [{"name": a.check.name, "address": str(a.check.address), "port": a.check.port,
                 "protocol": a.check.protocol, "family": f"ipv{a.check.family}", "expect": a.check.expect,
                 "answer": a.answer, "reason": a.reason, "attempts": a.attempts,
                 "verdict": self.verdict(a).lower()} for a in self.answers]

    def table(self) -> str:
        lines = [["", "what", "address", "port", "expected", "answer", "because"]]
        lines += [[self.verdict(a), a.check.name, str(a.check.address), f"{a.check.port}/{a.check.protocol}",
                   a.check.expect, a.answer, a.reason + (f" ({a.attempts} attempts)" if a.attempts > 1 else "")]
                  for a in self.answers]
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
        return "\n".join([f"Connected from {self.origin}:", *rows, *self.notes])

    def result(self) -> dict[str, t.Any]:
        """The keys that the module returns; those of a failure come with it."""
        values: dict[str, t.Any] = {"answers": self.rows(), "table": self.table()}
        failure = self.failure()
        if failure:
            values.update(failure.result())
            values["msg"] = f"{values['msg']}\n{values['table']}"
        return values

    def failure(self) -> FleetError | None:
        """None when every answer is the expected one and proved by a control."""
        blind = sorted({answer.check.family for answer in self.answers} - self._proved)
        if blind:
            families = " and ".join(f"IPv{family}" for family in blind)
            return FleetError("control_failed", f"No control over {families} answered, so that the closed answers "
                              "there prove nothing.", "Check the addresses, the route to them, and that what must "
                              "answer runs; if all is well there, the firewall closes too much.")
        wrong = [answer for answer in self.answers if not answer.expected]
        if not wrong:
            return None
        leaks = [f"{a.check.address} {a.check.port}/{a.check.protocol}" for a in wrong if a.answer == OPEN]
        found = f"Open and must be closed: {', '.join(leaks)}." if leaks else f"{len(wrong)} wrong answers."
        return FleetError("wrong_answer", found, "Run the playbook site to put the firewall right, or correct what is "
                                                 "expected.")


def probe(params: t.Mapping[str, t.Any], host: Host) -> Report:
    """The whole of one call: asks, and judges."""
    checks = parse_checks("checks", params["checks"])
    patience = parse_patience(params["timeout"], params["retries"])
    namespace = namespace_of(params["netns"], params["container"], host)
    notes = list(params["notes"])
    if params["skip_unroutable"]:
        checks, skipped = routable(checks, namespace)
        notes += skipped
    place = next((f", {kind} {params[kind]}" for kind in ("netns", "container") if params[kind]), "")
    return Report(socket.gethostname() + place, ask_all(checks, patience, namespace), tuple(notes))
