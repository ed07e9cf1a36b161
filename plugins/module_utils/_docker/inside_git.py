# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The program that stands between the git of a space and one repository, and alone knows the token.

It runs in the space's network, as a user of its own, whose memory, files and environment nobody else there can read.
git talks to it over the loopback, without a token. It forwards to one path of one server only, what the declared step
needs, adds the token, follows no redirection, and lets a push change none but the declared branch.

The settings come as a line of JSON on standard input, whose end is the program's end. It writes its port as a line of
JSON, and one for each thing that went wrong. It stands alone: nothing of the collection is there.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import json
import os
import ssl
import sys
import threading
import typing as t

CHUNK = 65536
COMMANDS = 65536
PASSED = ("Accept", "Accept-Encoding", "Content-Encoding", "Content-Type", "Git-Protocol", "User-Agent")
RETURNED = ("Cache-Control", "Content-Encoding", "Content-Type")
Pieces = t.Iterator[bytes]


class Refused(Exception):
    """What git asks for is not what was declared."""


class Settings:
    """Where to, as whom, and what for."""

    def __init__(self, values: dict[str, t.Any]) -> None:
        self.tls, self.host, self.port = values["tls"], values["host"], values["port"]
        self.path, self.services, self.refs = values["path"], values["services"], values["refs"]
        word = base64.b64encode(f"{values['username']}:{values['token']}".encode()).decode()
        self.authorization = f"Basic {word}"

    def connect(self) -> http.client.HTTPConnection:
        if self.tls:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self.host, self.port, timeout=120, context=context)
        return http.client.HTTPConnection(self.host, self.port, timeout=120)


def tell(value: dict[str, t.Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def checked(pieces: Pieces, refs: list[str]) -> Pieces:
    """The body of a push, held back until it is known which branches it changes."""
    head = bytearray()

    def need(size: int) -> None:
        while len(head) < size:
            piece = next(pieces, b"")
            if not piece or size > COMMANDS:
                raise Refused("A push that can't be read was refused.")
            head.extend(piece)

    place = 0
    while True:
        need(place + 4)
        try:
            size = int(bytes(head[place:place + 4]), 16)
        except ValueError:
            raise Refused("A push that can't be read was refused.") from None
        if size == 0:
            break
        need(place + max(size, 4))
        check_command(bytes(head[place + 4:place + size]), refs)
        place += max(size, 4)
    yield bytes(head)
    yield from pieces


def check_command(line: bytes, refs: list[str]) -> None:
    words = line.partition(b"\0")[0].split()
    if words[:1] == [b"shallow"]:
        return
    if len(words) != 3 or words[2].decode("utf-8", "replace") not in refs or not words[1].strip(b"0"):
        name = words[2].decode("utf-8", "replace") if len(words) == 3 else "something else"
        raise Refused(f"A push that changes {name} was refused.")


class Handler(http.server.BaseHTTPRequestHandler):
    """Forwards one request."""

    protocol_version = "HTTP/1.1"
    settings: Settings

    def log_message(self, *_words: t.Any) -> None:
        pass

    def do_GET(self) -> None:
        wanted = [f"{self.settings.path}/info/refs?service={service}" for service in self.settings.services]
        self.forward(wanted, None)

    def do_POST(self) -> None:
        self.forward([f"{self.settings.path}/{service}" for service in self.settings.services], self.body())

    def forward(self, wanted: list[str], body: Pieces | None) -> None:
        self.close_connection = True
        connection = self.settings.connect()
        try:
            if self.path not in wanted:
                raise Refused("A request that belongs to no declared step was refused.")
            if body is not None and self.path.endswith("/git-receive-pack"):
                if self.headers.get("Content-Encoding"):
                    raise Refused("A push that can't be read was refused.")
                body = checked(body, self.settings.refs)
            headers = {name: self.headers[name] for name in PASSED if self.headers.get(name)}
            headers["Authorization"] = self.settings.authorization
            if body is not None:
                headers["Transfer-Encoding"] = "chunked"
            connection.request(self.command, self.path, body, headers, encode_chunked=True)
            self.answer(connection.getresponse())
            tell({"forwarded": self.path.rpartition("/")[2]})
        except Refused as refused:
            self.fail(403, str(refused))
        except (OSError, http.client.HTTPException) as error:
            self.fail(502, f"The server can't be reached: {error}.")
        finally:
            connection.close()

    def answer(self, response: http.client.HTTPResponse) -> None:
        if response.status in (401, 403):
            raise Refused(f"The server refuses the token ({response.status}).")
        if 300 <= response.status < 400:
            where = response.getheader("Location", "another place")
            raise Refused(f"The server redirects to {where}: give that repository's URL.")
        if response.status == 404:
            raise Refused("The server knows no such repository, or does not show it to this token.")
        self.send_response(response.status)
        for name in RETURNED:
            if response.getheader(name):
                self.send_header(name, str(response.getheader(name)))
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in iter(lambda: response.read1(CHUNK), b""):
            self.wfile.write(piece)

    def fail(self, status: int, words: str) -> None:
        tell({"problem": words})
        with contextlib.suppress(OSError):
            self.send_error(status)

    def body(self) -> Pieces:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while True:
                size = int(self.rfile.readline(64).split(b";")[0], 16)
                yield from self.exactly(size)
                self.rfile.readline(64)
                if not size:
                    return
        else:
            yield from self.exactly(int(self.headers.get("Content-Length") or 0))

    def exactly(self, size: int) -> Pieces:
        while size:
            piece = self.rfile.read(min(CHUNK, size))
            if not piece:
                raise OSError("git ended too early")
            size -= len(piece)
            yield piece


def main() -> None:
    Handler.settings = Settings(json.loads(sys.stdin.readline()))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tell({"port": server.server_address[1]})
    sys.stdin.read()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
