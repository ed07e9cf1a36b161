# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A store that speaks TLS and fails on demand: on_host_relay.py FOLDER PORT ADDRESS, where the real one is.

The folder has good.pem and foreign.pem (key and certificate), and the file `mode`: pass, slow, cut (whoever connects is
thrown out), foreign (the other certificate). How many bytes went through stands in `count`.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import ssl
import sys

FOLDER, PORT, ADDRESS = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
RATE = 1 << 20
count = 0


def mode() -> str:
    return (FOLDER / "mode").read_text()


def context(name: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(FOLDER / name)
    return made


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, began: str) -> None:
    """Until one of them ends, or the way is no longer what it was when they met."""
    global count
    while data := await reader.read(1 << 16):
        now = mode()
        if now in ("cut", "foreign") and now != began:
            return
        if now == "slow":
            await asyncio.sleep(0.02 + len(data) / RATE)
        count += len(data)
        writer.write(data)
        await writer.drain()


async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    began, others = mode(), [writer]
    try:
        if began != "cut":
            host, port = ADDRESS.split(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            others.append(far_writer)
            ways = [asyncio.ensure_future(pump(*way, began)) for way in ((reader, far_writer), (far_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
    except OSError:
        pass
    finally:
        for other in others:
            other.transport.abort()


async def main() -> None:
    good, foreign = context("good.pem"), context("foreign.pem")

    def choose(connection: ssl.SSLObject, _name: str, _context: ssl.SSLContext) -> None:
        connection.context = foreign if mode() == "foreign" else good

    good.sni_callback = choose
    async with await asyncio.start_server(meet, "127.0.0.1", PORT, ssl=good):
        while True:
            with contextlib.suppress(OSError):
                (FOLDER / "count").write_text(str(count))
            await asyncio.sleep(0.05)


asyncio.run(main())
