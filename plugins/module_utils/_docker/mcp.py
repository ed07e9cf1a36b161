# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Spaces as tools of an agent: the Model Context Protocol, line by line over standard input and output.

Both eras are spoken: revisions that begin with the handshake `initialize`, and 2026-07-28, whose requests say
themselves which revision they are of. Calls are done one after the other; everything else is answered meanwhile.
"""

from __future__ import annotations

import dataclasses
import json
import queue
import sys
import threading
import typing as t

from .._errors import FleetError
from . import agent

LEGACY, MODERN = ("2025-11-25", "2025-06-18", "2024-11-05"), "2026-07-28"
META = "io.modelcontextprotocol/"
PARSE, INVALID, NO_METHOD, BAD_PARAMS, INTERNAL, NO_VERSION = -32700, -32600, -32601, -32602, -32603, -32022
LINE = 8 * 2**20  # what one message may have
WAITING = 16      # calls that are read ahead
ABOUT = {"name": "clawops-spaces", "version": "1"}
INSTRUCTIONS = ("Spaces are small Linux machines of your own, in which you can run anything. Their files are in "
                "/workspace, which stays when a space sleeps. A sleeping space wakes by itself.")
CACHE = {"ttlMs": 0, "cacheScope": "private"}
Json = dict[str, t.Any]


class Refusal(Exception):
    """An error of the protocol, as opposed to a tool that fails."""

    def __init__(self, code: int, message: str, data: t.Any = None) -> None:
        super().__init__(message)
        self.body = {"code": code, "message": message, **({} if data is None else {"data": data})}


@dataclasses.dataclass(frozen=True)
class Request:
    """A message that has been checked, and that wants an answer."""

    id: t.Any
    method: str
    params: Json

    @property
    def modern(self) -> bool:
        return f"{META}protocolVersion" in (self.params.get("_meta") or {})


def serve(engine: t.Any, bot: str, policy: t.Mapping[str, t.Any], stdin: t.BinaryIO, stdout: t.BinaryIO) -> int:
    """Until standard input ends. policy is what the settings say under agents.BOT."""
    return Server(agent.Agent(engine, bot, agent.Policy.of(policy)), stdout).run(stdin)


class Server:
    """One client."""

    def __init__(self, tools: t.Any, stdout: t.BinaryIO) -> None:
        self.tools, self.stdout = tools, stdout
        self.calls: queue.Queue[Request | None] = queue.Queue(WAITING)
        self.gone = False
        self._writing = threading.Lock()

    def run(self, stdin: t.BinaryIO) -> int:
        worker = threading.Thread(target=self._work)
        worker.start()
        try:
            for line in _lines(stdin):
                self._read(line)
                if self.gone:
                    break
        finally:
            self.calls.put(None)
            worker.join()
        return 0

    def _read(self, line: bytes | None) -> None:
        request = None
        try:
            request = parse(line)
            if request is None:
                return
            if request.modern:
                _check_version(request)
            if request.method == "tools/call":
                self.calls.put(request)
                return
            self._answer(request, self._plain(request))
        except Refusal as refusal:
            self._send({"id": refusal.id if isinstance(refusal, Malformed) else getattr(request, "id", None),
                        "error": refusal.body})

    def _plain(self, request: Request) -> Json:
        """What is answered at once."""
        if request.method == "initialize":
            wanted = request.params.get("protocolVersion")
            return {"protocolVersion": wanted if wanted in LEGACY else LEGACY[0], "capabilities": {"tools": {}},
                    "serverInfo": ABOUT, "instructions": INSTRUCTIONS}
        if request.method == "server/discover":
            return {"supportedVersions": [MODERN], "capabilities": {"tools": {}},
                    "instructions": INSTRUCTIONS, **CACHE}
        if request.method == "ping":
            return {}
        if request.method == "tools/list":
            return {"tools": self.tools.described(), **(CACHE if request.modern else {})}
        raise Refusal(NO_METHOD, f"Method not found: {request.method[:100]}")

    def _work(self) -> None:
        for request in iter(self.calls.get, None):
            if self.gone:
                continue
            try:
                self._answer(request, self._call(request))
            except Refusal as refusal:
                self._send({"id": request.id, "error": refusal.body})
            except Exception as error:  # the next call may work
                sys.stderr.write(f"clawops-space mcp: {type(error).__name__}: {error}\n")
                self._send({"id": request.id, "error": Refusal(INTERNAL, "Internal error").body})

    def _call(self, request: Request) -> Json:
        name, given = request.params.get("name"), request.params.get("arguments") or {}
        if not self.tools.knows(name):
            raise Refusal(BAD_PARAMS, f"Unknown tool: {str(name)[:100]}")
        if not isinstance(given, dict):
            raise Refusal(BAD_PARAMS, "arguments is no object")
        try:
            text, failed = self.tools.call(name, given), False
        except FleetError as error:
            text, failed = error.result()["msg"], True
        return {"content": [{"type": "text", "text": text}], "isError": failed}

    def _answer(self, request: Request, result: Json) -> None:
        more = {"resultType": "complete", "_meta": {f"{META}serverInfo": ABOUT}} if request.modern else {}
        self._send({"id": request.id, "result": {**result, **more}})

    def _send(self, message: Json) -> None:
        line = json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"
        with self._writing:
            try:
                self.stdout.write(line)
                self.stdout.flush()
            except OSError:
                self.gone = True


class Malformed(Refusal):
    """No request, but perhaps the id of one."""

    def __init__(self, code: int, message: str, found: t.Any = None) -> None:
        super().__init__(code, message)
        self.id = found if _is_id(found) else None


def _is_id(value: t.Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def _lines(stream: t.BinaryIO) -> t.Iterator[bytes | None]:
    """Lines that have something in them; None for one that is too long, of which nothing is kept."""
    for line in iter(lambda: stream.readline(LINE), b""):
        if len(line) < LINE or line.endswith(b"\n"):
            if line.strip():
                yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(LINE)
        yield None


def parse(line: bytes | None) -> Request | None:
    """The request of a line; None for a notification, and for the answer to a question that nobody here asked."""
    if line is None:
        raise Malformed(INVALID, f"Invalid request: more than {LINE} bytes")
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise Malformed(PARSE, "Parse error") from None
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise Malformed(INVALID, "Invalid request")
    found, method, params = message.get("id"), message.get("method"), message.get("params", {})
    if "method" not in message and ("result" in message or "error" in message):
        return None
    if not isinstance(method, str) or ("id" in message and not _is_id(found)):
        raise Malformed(INVALID, "Invalid request", found)
    if "id" not in message:
        return None
    if not isinstance(params, dict) or not isinstance(params.get("_meta") or {}, dict):
        raise Malformed(BAD_PARAMS, "params is no object", found)
    return Request(found, method, params)


def _check_version(request: Request) -> None:
    meta = request.params["_meta"]
    version = meta[f"{META}protocolVersion"]
    if version != MODERN:
        raise Refusal(NO_VERSION, "Unsupported protocol version", {"supported": [MODERN], "requested": version})
    if not isinstance(meta.get(f"{META}clientCapabilities"), dict):
        raise Refusal(BAD_PARAMS, f"_meta needs {META}clientCapabilities")
