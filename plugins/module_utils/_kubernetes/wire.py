# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""HTTP to one server, over connections that stay open. The standard library alone: others cost more to import than
a whole run over a fleet takes."""

from __future__ import annotations

import contextlib
import http.client
import typing as t
import urllib.parse

from .._errors import bad_value
from .connection import Connection

CONNECT, READ = 5.0, 60.0
Answer = http.client.HTTPResponse
Headers = t.Mapping[str, str]


class Wire:
    """One server, reached directly or through an HTTP proxy. Threads may share it."""

    def __init__(self, connection: Connection):
        self._server = _address("host", connection.host, ("https", "http"))
        self._proxy = _address("proxy", connection.proxy, ("http",)) if connection.proxy else None
        self._tls = connection.tls
        self._idle: list[http.client.HTTPConnection] = []
        proxied = self._proxy and self._server.scheme == "http"
        self._start = connection.host if proxied else self._server.path

    def call(self, method: str, path: str, body: bytes | None, headers: Headers) -> tuple[Answer, bytes]:
        """The answer, and all of its content."""
        line = self._take()
        try:
            answer = self._ask(line, method, path, body, headers, READ)
            content = answer.read()
        except BaseException:
            line.close()
            self._idle.clear()  # those have hardly fared better
            raise
        self._idle.append(line)
        return answer, content

    @contextlib.contextmanager
    def stream(self, path: str, headers: Headers, timeout: float | None) -> t.Iterator[Answer]:
        """The answer to a GET whose content comes little by little; the seconds are for each piece of it."""
        with contextlib.closing(self._connection()) as line:
            yield self._ask(line, "GET", path, None, headers, timeout)

    def _ask(self, line: http.client.HTTPConnection, method: str, path: str, body: bytes | None, headers: Headers,
             timeout: float | None) -> Answer:
        if line.sock is None:
            line.connect()
        line.sock.settimeout(timeout)
        line.request(method, self._start + path, body, dict(headers))
        return line.getresponse()

    def _take(self) -> http.client.HTTPConnection:
        try:
            return self._idle.pop()
        except IndexError:
            return self._connection()

    def _connection(self) -> http.client.HTTPConnection:
        server, nearest = self._server, self._proxy or self._server
        if server.scheme == "http":
            return http.client.HTTPConnection(nearest.hostname or "", nearest.port, timeout=CONNECT)
        line = http.client.HTTPSConnection(nearest.hostname or "", nearest.port, timeout=CONNECT, context=self._tls)
        if self._proxy:
            line.set_tunnel(server.hostname or "", server.port or 443)
        return line


def _address(parameter: str, url: str, schemes: tuple[str, ...]) -> urllib.parse.SplitResult:
    """Its parts; raises where it is no address of such a server."""
    with contextlib.suppress(ValueError):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in schemes and parts.hostname and parts.port != 0:
            return parts
    raise bad_value(parameter, url.rpartition("@")[2], f"Give an address such as {schemes[0]}://example.org:6443.")
