# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A machine on the guests' bridge, without the machine: what it is offered by DHCP, and what it reaches.

guest.py BRIDGE ADDRESS:PORT... prints {"offer": address, "open": [ADDRESS:PORT...]}.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys

NAMESPACE, LINK, PORT = "clawops-guest", "eth0", "cg-guest"
INSIDE = "--inside"
MAC = bytes.fromhex("525400c1a0b5")
COOKIE, TRANSACTION = b"\x63\x82\x53\x63", 0xC1A0B5ED


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def discover() -> str:
    """The address in the server's offer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, LINK.encode())
        client.bind(("", 68))
        client.settimeout(5)
        head = struct.pack("!BBBBIHH16s16s64s128s", 1, 1, 6, 0, TRANSACTION, 0, 0x8000, bytes(16), MAC, b"", b"")
        for _attempt in range(6):
            client.sendto(head + COOKIE + b"\x35\x01\x01\xff", ("255.255.255.255", 67))
            try:
                answer = client.recv(1500)
            except socket.timeout:
                continue
            if struct.unpack_from("!I", answer, 4)[0] == TRANSACTION:
                return socket.inet_ntoa(answer[16:20])
    return ""


def reaches(target: str) -> bool:
    address, _colon, port = target.rpartition(":")
    try:
        with socket.create_connection((address, int(port)), timeout=5):
            return True
    except OSError:
        return False


def inside(targets: list[str]) -> dict[str, str | list[str]]:
    """In the namespace, which plays the machine."""
    offer = discover()
    if not offer:
        return {"offer": "", "open": []}
    ip("address", "add", f"{offer}/24", "dev", LINK)
    ip("route", "add", "default", "via", f"{offer.rpartition('.')[0]}.1")
    return {"offer": offer, "open": [target for target in targets if reaches(target)]}


def main() -> None:
    bridge, *targets = sys.argv[1:]
    if bridge == INSIDE:
        print(json.dumps(inside(targets)))
        return
    try:
        ip("netns", "add", NAMESPACE)
        ip("link", "add", PORT, "type", "veth", "peer", "name", LINK, "netns", NAMESPACE, "address", MAC.hex(":"))
        ip("link", "set", PORT, "master", bridge, "up")
        ip("-n", NAMESPACE, "link", "set", LINK, "up")
        ip("netns", "exec", NAMESPACE, sys.executable, __file__, INSIDE, *targets)
    finally:
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=False)


if __name__ == "__main__":
    main()
