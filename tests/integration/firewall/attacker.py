# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sends what it is told to: honest connections, and frames made by hand. Standard library of Python 3.9 only.

  attacker.py send < PAYLOADS    once each; a JSON list in, one out that says what the sender saw (no proof of anything)
  attacker.py watch < TARGETS    tries all targets again and again until its input ends; what opened, and when
  attacker.py hold < TARGETS     talks over one connection each until its input ends; how it went
  attacker.py forget             empties the connection table of the kernel, so that nothing is an answer to before
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import ipaddress
import itertools
import json
import pathlib
import random
import select
import socket
import struct
import subprocess
import sys
import time
import typing as t

Payload = dict[str, t.Any]
PROTOCOLS = {"icmp": 1, "ipip": 4, "tcp": 6, "udp": 17, "gre": 47, "icmp6": 58, "sctp": 132}
SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10
LONGEST_WATCH = 240


# -- frames -----------------------------------------------------------------------------------------------------------


def checksum(data: bytes) -> int:
    """The one of RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def segment(payload: Payload, source: bytes, target: bytes) -> bytes:
    """The transport part."""
    kind, text = payload["via"], payload["mark"].encode()
    ports = struct.pack("!HH", payload["sport"], payload.get("port", 0))
    pseudo = source + target + struct.pack("!HH", PROTOCOLS[kind], 0)
    if kind == "udp":
        body = ports + struct.pack("!HH", 8 + len(text), 0) + text
        return _summed(body, 6, pseudo)
    if kind == "tcp":
        flags = payload.get("flags", SYN)
        body = ports + struct.pack("!IIBBHHH", payload.get("sequence", 7), 0, 5 << 4, flags, 64240, 0, 0) + text
        return _summed(body, 16, pseudo)
    if kind == "icmp":
        return _summed(struct.pack("!BBHHH", 8, 0, 0, payload["sport"], 1) + text, 2, b"")
    if kind == "icmp6":
        return _summed(struct.pack("!BBHHH", 128, 0, 0, payload["sport"], 1) + text, 2, pseudo)
    if kind == "gre":
        return struct.pack("!HH", 0, 0x0800) + packet({**payload, "via": "udp", **payload["inner"]})
    if kind == "ipip":
        return packet({**payload, "via": "udp", **payload["inner"]})
    return ports + struct.pack("!II", 0, 0) + struct.pack("!BBH", 1, 0, 4 + len(text)) + text  # sctp, its INIT


def _summed(body: bytes, place: int, pseudo: bytes) -> bytes:
    if pseudo:  # length as the upper-layer header wants it; the protocol is in the last four bytes already
        pseudo = pseudo[:-2] + struct.pack("!H", len(body))
    return body[:place] + struct.pack("!H", checksum(pseudo + body) or 0xFFFF) + body[place + 2 :]


def packets(payload: Payload) -> list[bytes]:
    """The IP packets of a payload: one, or its fragments."""
    source, target = (ipaddress.ip_address(payload[key]) for key in ("source", "to"))
    body = segment(payload, source.packed, target.packed)
    size = payload.get("fragment")
    parts = [(at, body[at : at + size]) for at in range(0, len(body), size)] if size else [(0, body)]
    make = _ipv6 if target.version == 6 else _ipv4
    return [make(payload, source.packed, target.packed, part, at, at + len(part) < len(body)) for at, part in parts]


def packet(payload: Payload) -> bytes:
    return packets(payload)[0]


def _ipv4(payload: Payload, source: bytes, target: bytes, body: bytes, at: int, more: bool) -> bytes:
    options = bytes.fromhex(payload.get("options", ""))
    if payload.get("by"):  # strict or loose source routing: the last hop stands in the option
        options = struct.pack("!BBB", 131, 7, 4) + target + b"\0"
        target = ipaddress.ip_address(payload["by"]).packed
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, words * 4 + len(body), payload["sport"], at // 8 | more << 13, 64,
                       PROTOCOLS[payload["via"]], 0) + source + target + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def _ipv6(payload: Payload, source: bytes, target: bytes, body: bytes, at: int, more: bool) -> bytes:
    protocol = PROTOCOLS[payload["via"]]
    if payload.get("fragment"):
        body, protocol = struct.pack("!BBHI", protocol, 0, at | more, payload["sport"]) + body, 44
    if payload.get("by"):  # routing header of type 0
        body, protocol = struct.pack("!BBBBI", protocol, 2, 0, 1, 0) + target + body, 43
        target = ipaddress.ip_address(payload["by"]).packed
    if payload.get("padded"):  # an empty destination options header before the port
        body, protocol = struct.pack("!BBBBI", protocol, 0, 1, 4, 0) + body, 60
    return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + source + target + body


def frames(payload: Payload, own: bytes) -> list[bytes]:
    head = bytes.fromhex(payload["mac"].replace(":", "")) + own
    if "vlan" in payload:
        head += struct.pack("!HH", 0x8100, payload["vlan"])
    return [head + struct.pack("!H", 0x86DD if ":" in payload["to"] else 0x0800) + one for one in packets(payload)]


@functools.cache
def _mac(interface: str) -> bytes:
    return bytes.fromhex(pathlib.Path(f"/sys/class/net/{interface}/address").read_text().strip().replace(":", ""))


# -- sending once -----------------------------------------------------------------------------------------------------


def send(payload: Payload) -> Payload:
    """What came of it, as the sender saw it."""
    work = _frame if payload.get("frame") else {"tcp": _connect, "udp": _datagram}[payload["via"]]
    try:
        return {"mark": payload["mark"], "seen": work(payload)}
    except OSError as error:
        return {"mark": payload["mark"], "seen": f"{type(error).__name__}: {error}"}


def _open(payload: Payload, kind: int) -> tuple[socket.socket, t.Any]:
    family = socket.AF_INET6 if ":" in payload["to"] else socket.AF_INET
    target = socket.getaddrinfo(payload["to"], payload["port"], family, kind)[0][4]
    opened = socket.socket(family, kind)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    opened.settimeout(payload.get("timeout", 1.5))
    source = payload.get("source") or ("::" if family == socket.AF_INET6 else "0.0.0.0")  # noqa: S104
    opened.bind((source, payload["sport"]))
    return opened, target


def _connect(payload: Payload) -> str:
    opened, target = _open(payload, socket.SOCK_STREAM)
    with opened:
        opened.connect(target)
        opened.sendall(payload["mark"].encode())
        return f"connected; {opened.recv(100)!r}"


def _datagram(payload: Payload) -> str:
    opened, target = _open(payload, socket.SOCK_DGRAM)
    with opened:
        opened.sendto(payload["mark"].encode(), target)
        return f"answered: {opened.recv(100)!r}"


def _frame(payload: Payload) -> str:
    payload.setdefault("mac", None)
    if payload["mac"] is None:
        payload["mac"] = _gateway(payload)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((payload["interface"], 0))
        for one in frames(payload, _mac(payload["interface"])):
            wire.send(one)
    return "sent"


def _gateway(payload: Payload) -> str:
    """The link address of the default gateway, which a packet to it makes known."""
    family = "-6" if ":" in payload["to"] else "-4"
    route = json.loads(subprocess.run(["ip", family, "-j", "route", "show", "default"], capture_output=True,
                                      check=True).stdout)[0]
    with socket.socket(socket.AF_INET6 if family == "-6" else socket.AF_INET, socket.SOCK_DGRAM) as prompt:
        prompt.sendto(b"", (route["gateway"], 9))
    for _attempt in range(20):
        known = json.loads(subprocess.run(["ip", "-j", "neigh", "show", route["gateway"]], capture_output=True,
                                          check=True).stdout)
        if known and known[0].get("lladdr"):
            return str(known[0]["lladdr"])
        time.sleep(0.1)
    raise OSError(f"no link address of {route['gateway']}")


def send_all(payloads: list[Payload]) -> list[Payload]:
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        return list(pool.map(send, payloads))


# -- watching ---------------------------------------------------------------------------------------------------------


class Watch:
    """Opens a connection (or sends a datagram) to each target every few milliseconds and notes every answer.

    The opening packets are made by hand, so a closed port costs nothing but the packet; the kernel resets what
    answers, because it knows nothing about it.
    """

    def __init__(self, targets: list[Payload]) -> None:
        self.targets = targets
        self.answers: dict[str, list[float]] = {target["name"]: [] for target in targets}
        self.sent = dict.fromkeys(self.answers, 0)
        self._tries: dict[tuple[t.Any, ...], str] = {}
        self._ports = itertools.cycle(random.sample(range(1024, 20000), 18000))
        self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)

    def run(self, interval: float, stop: t.IO[bytes]) -> Payload:
        began = due = time.time()
        with contextlib.suppress(KeyboardInterrupt):
            while time.time() < began + LONGEST_WATCH:
                ready = select.select([self._wire, stop], [], [], max(0.0, due - time.time()))[0]
                if self._wire in ready:
                    self._read()
                if stop in ready and not stop.read(1):
                    break
                if time.time() >= due:
                    due = max(due + interval, time.time() - 10 * interval)
                    self._try_all()
        ended = time.time()
        last_words = time.time() + 0.5
        while time.time() < last_words and select.select([self._wire], [], [], last_words - time.time())[0]:
            self._read()
        return {"began": began, "ended": ended, "sent": self.sent, "answers": self.answers}

    def _try_all(self) -> None:
        for target in self.targets:
            port = next(self._ports)
            asked = (target["interface"], bytes.fromhex(target["mac"].replace(":", "")), PROTOCOLS[target["via"]],
                     ipaddress.ip_address(target["to"].partition("%")[0]).packed, target["port"], port)
            self._tries[asked] = target["name"]
            for one in frames({**target, "sport": port, "mark": target.get("mark", "")}, _mac(target["interface"])):
                with contextlib.suppress(OSError):
                    self._wire.sendto(one, (target["interface"], 0))
            self.sent[target["name"]] += 1

    def _read(self) -> None:
        frame, (wire, _kind, direction, *_rest) = self._wire.recvfrom(2048)
        answered = None if direction == 4 else _answered(frame)
        # Only the first answer, and only of who was asked: who waits in vain for the third packet of the handshake
        # answers again, a bridge's ports tell everything twice, and others may be watching other hosts.
        name = self._tries.pop((wire, *answered), None) if answered else None
        if name and len(self.answers[name]) < 100_000:
            self.answers[name].append(time.time())


def _answered(frame: bytes) -> tuple[bytes, int, bytes, int, int] | None:
    """Who answers: link address, protocol, address and port, and the port that it comes back to."""
    kind = struct.unpack_from("!H", frame, 12)[0] if len(frame) > 53 else 0
    if kind not in (0x0800, 0x86DD):
        return None
    protocol, at, source = ((frame[23], 14 + (frame[14] & 15) * 4, frame[26:30]) if kind == 0x0800 else
                            (frame[20], 54, frame[22:38]))
    if protocol != 17 and (protocol != 6 or len(frame) < at + 14 or frame[at + 13] & 0x17 != SYN_ACK):
        return None
    port, asker = struct.unpack_from("!HH", frame, at) if len(frame) >= at + 4 else (0, 0)
    return frame[6:12], protocol, source, port, asker


# -- holding on -------------------------------------------------------------------------------------------------------


def hold(targets: list[Payload], stop: t.IO[bytes]) -> dict[str, Payload]:
    """Says something over each connection every few milliseconds, and waits for the echo."""
    ended = time.time() + LONGEST_WATCH
    talks = {target["name"]: _connected(target) for target in targets}
    found = {name: {"exchanges": 0, "slowest": 0.0, "error": None} for name in talks}
    print("holding", flush=True)
    while time.time() < ended and not select.select([stop], [], [], 0.02)[0]:
        for name, opened in talks.items():
            if found[name]["error"]:
                continue
            began = time.time()
            try:
                opened.sendall(b"clawops-lab:hold;")
                if not opened.recv(100):
                    raise ConnectionError("closed by the other side")
                found[name]["exchanges"] += 1
            except OSError as error:
                found[name]["error"] = f"{type(error).__name__}: {error}"
            found[name]["slowest"] = max(found[name]["slowest"], time.time() - began)
    return found


def _connected(target: Payload) -> socket.socket:
    opened = socket.create_connection((target["to"], target["port"]), 10, source_address=(target["source"], 0))
    opened.settimeout(10)
    return opened


def forget() -> None:
    """An empty delete request of the connection tracking subsystem of netlink, and its acknowledgement."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
        netlink.send(struct.pack("=IHHII", 20, 1 << 8 | 2, 5, 1, 0) + struct.pack("=BBH", 0, 0, 0))
        error = struct.unpack_from("=i", netlink.recv(64), 16)[0]
    if error:
        raise OSError(-error, "the connection table can't be emptied")


def main() -> None:
    if sys.argv[1] == "forget":
        forget()
        return
    if sys.argv[1] == "send":
        print(json.dumps(send_all(json.load(sys.stdin))))
        return
    job = json.loads(sys.stdin.buffer.readline())
    if sys.argv[1] == "hold":
        print(json.dumps(hold(job["targets"], sys.stdin.buffer)))
        return
    for target in job["targets"]:
        target.setdefault("mac", None)
        target["mac"] = target["mac"] or _gateway(target)
    print("watching", flush=True)
    print(json.dumps(Watch(job["targets"]).run(job["interval"], sys.stdin.buffer)))


if __name__ == "__main__":
    main()
