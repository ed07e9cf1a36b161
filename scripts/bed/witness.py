# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whoever gets a packet says so: listeners that echo, and a recorder of what comes in on the wires.

The journal has one JSON object a line. Standard library of Python 3.9 only: it also runs inside containers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import ipaddress
import json
import os
import pathlib
import re
import signal
import socket
import struct
import time
import typing as t

MARK = re.compile(rb"clawops-lab:[\w.-]+;")
ECHO = b"echo of "
LIMIT = 1 << 28  # a journal does not grow for ever; whoever reads it may truncate it
ETHER_ALL, OTHER_HOST, OUTGOING = 3, 3, 4
IPV4, IPV6, VLAN = 0x0800, 0x86DD, 0x8100
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
SYN, ACK = 0x02, 0x10
FRAGMENT, EXTENSIONS = 44, (0, 43, 60)
# Errors quote what they answer, so the text in them did not get through; the others keep a link going.
ICMP_ERRORS = {ICMP: {3, 5, 11, 12}, ICMP6: {1, 2, 3, 4, *range(130, 138), 143}}


def describe(frame: bytes) -> dict[str, t.Any] | None:
    """What a frame is about, None when it proves nothing: a new connection, its answer, or a datagram."""
    kind, packet = struct.unpack_from("!H", frame, 12)[0], frame[14:]
    if kind == VLAN:
        kind, packet = struct.unpack_from("!H", packet, 2)[0], packet[4:]
    parse = {IPV4: _ipv4, IPV6: _ipv6}.get(kind)
    if parse is None:
        return None
    source, target, protocol, first, body = parse(packet)
    found: dict[str, t.Any] = {"from": str(source), "to": str(target), "protocol": protocol}
    mark = MARK.search(frame)
    if mark:
        found["mark"] = mark[0].decode()
    if not first or len(body) < 8:
        return found if mark else None
    if body[0] in ICMP_ERRORS.get(protocol, ()):
        return None
    if protocol in (TCP, UDP):
        found["sport"], found["port"] = struct.unpack_from("!HH", body)
    if protocol == TCP:
        flags = body[13] & (SYN | ACK) if len(body) > 13 else 0
        found["kind"] = {SYN: "opening", SYN | ACK: "answer"}.get(flags, "data")
        return found if flags & SYN or mark else None
    return found


Parsed = tuple[t.Any, t.Any, int, bool, bytes]


def _ipv4(packet: bytes) -> Parsed:
    first = not struct.unpack_from("!H", packet, 6)[0] & 0x1FFF
    source, target = ipaddress.IPv4Address(packet[12:16]), ipaddress.IPv4Address(packet[16:20])
    return source, target, packet[9], first, packet[(packet[0] & 15) * 4 :]


def _ipv6(packet: bytes) -> Parsed:
    source, target = ipaddress.IPv6Address(packet[8:24]), ipaddress.IPv6Address(packet[24:40])
    protocol, body, first = packet[6], packet[40:], True
    while len(body) >= 8 and first and (protocol in EXTENSIONS or protocol == FRAGMENT):
        if protocol == FRAGMENT:
            first = not struct.unpack_from("!H", body, 2)[0] & 0xFFF8
        protocol, body = body[0], body[8 if protocol == FRAGMENT else body[1] * 8 + 8 :]
    return source, target, protocol, first, body


class Journal:
    """A file of what happened, one JSON object a line."""

    def __init__(self, path: pathlib.Path) -> None:
        self._stream = path.open("a", buffering=1)

    def note(self, **facts: t.Any) -> None:
        if os.fstat(self._stream.fileno()).st_size < LIMIT:
            self._stream.write(json.dumps({"time": time.time(), **facts}) + "\n")


class Recorder:
    """Writes down every frame that proves something and comes in on an interface with one of the prefixes."""

    def __init__(self, journal: Journal, prefixes: t.Sequence[str], foreign: bool) -> None:
        self._journal, self._prefixes = journal, tuple(prefixes)
        self._ignored = {OUTGOING} if foreign else {OUTGOING, OTHER_HOST}
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHER_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self) -> None:
        frame, (wire, _kind, direction, *_rest) = self._socket.recvfrom(65535)
        if direction in self._ignored or not wire.startswith(self._prefixes):
            return
        with contextlib.suppress(struct.error, IndexError, ValueError):  # cut short: proves nothing
            found = describe(frame)
            if found:
                self._journal.note(wire=wire, **found)


def _socket(address: str, kind: int) -> socket.socket:
    """Bound to "::" it takes both families."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, kind)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    opened.setblocking(False)
    return opened


async def _talk(journal: Journal, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    peer, own = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    facts = {"protocol": TCP, "from": peer[0], "sport": peer[1], "to": own[0], "port": port}
    journal.note(kind="accepted", **facts)
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        while data := await asyncio.wait_for(reader.read(4096), timeout=300):
            for mark in MARK.findall(data):
                journal.note(kind="data", mark=mark.decode(), **facts)
            writer.write(ECHO + data)
            await writer.drain()
    writer.close()


def _answer(journal: Journal, port: int, opened: socket.socket) -> None:
    """Datagrams go back from the address they came to, so a wildcard socket may answer for any address."""
    with contextlib.suppress(OSError):
        data, ancillary, _flags, peer = opened.recvmsg(4096, 256)
        mark = MARK.search(data)
        journal.note(kind="datagram", protocol=UDP, sport=peer[1], port=port, mark=mark and mark[0].decode(),
                     **{"from": peer[0]})
        if mark and not data.startswith(ECHO):  # an echo of an echo would never end
            opened.sendmsg([ECHO + data], [item for item in ancillary if item[0] == socket.IPPROTO_IPV6], 0, peer)


async def serve(options: argparse.Namespace) -> None:
    journal = Journal(options.journal)
    loop, servers = asyncio.get_running_loop(), []
    for address in options.bind:
        for port in options.tcp:
            opened = _socket(address, socket.SOCK_STREAM)
            opened.bind((address, port))
            talk = functools.partial(_talk, journal, port)
            servers.append(await asyncio.start_server(talk, sock=opened, backlog=512))
        for port in options.udp:
            opened = _socket(address, socket.SOCK_DGRAM)
            opened.bind((address, port))
            loop.add_reader(opened, _answer, journal, port, opened)
    if options.wires:
        Recorder(journal, options.wires, options.foreign)
    journal.note(kind="ready")
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)  # as the first process of a container it would be deaf to it
    await ended.wait()


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def ports(text: str) -> list[int]:
    """80,8100-8103 as a list."""
    bounds = [word.partition("-") for word in _words(text)]
    return [port for first, _dash, last in bounds for port in range(int(first), int(last or first) + 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--journal", type=pathlib.Path, required=True)
    parser.add_argument("--bind", type=_words, default=["::"], help="addresses to listen on")
    parser.add_argument("--tcp", type=ports, default=[])
    parser.add_argument("--udp", type=ports, default=[])
    parser.add_argument("--wires", type=_words, default=[], help="prefixes of the interfaces to record from")
    parser.add_argument("--foreign", action="store_true", help="also record frames that were meant for others")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
