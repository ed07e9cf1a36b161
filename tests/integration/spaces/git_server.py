# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Serves the bare repositories of a directory by smart HTTPS to who has the token. Standard library and git only.

  git_server.py ADDRESS PORT DIRECTORY CERTIFICATE KEY < TOKEN
"""

from __future__ import annotations

import base64
import http.server
import os
import ssl
import subprocess
import sys

TOKEN = ""


class Handler(http.server.BaseHTTPRequestHandler):
    """What git's own http-backend says, as a web server would hand it on."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if not self._is_known():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="repositories"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        done = subprocess.run(["git", "http-backend"], input=self._body(), env=self._environment(), check=True,
                              stdout=subprocess.PIPE)
        head, _gap, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def _is_known(self) -> bool:
        kind, _gap, told = self.headers.get("Authorization", "").partition(" ")
        return kind == "Basic" and base64.b64decode(told).decode().partition(":")[2] == TOKEN

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _environment(self) -> dict[str, str]:
        path, _gap, query = self.path.partition("?")
        return {**os.environ, "GIT_PROJECT_ROOT": sys.argv[3], "GIT_HTTP_EXPORT_ALL": "1", "REMOTE_USER": "bot",
                "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", "")}

    def log_message(self, *_arguments: object) -> None:
        """Nothing: the test has other witnesses."""


if __name__ == "__main__":
    TOKEN = sys.stdin.readline().strip()
    server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*sys.argv[4:])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
