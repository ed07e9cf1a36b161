# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Files of a space, of any size and content, both ways.

The space is master of its links and directories, so its own user does the reading and writing, inside, with the
program in inside_files.py. What that answers is taken for what anybody in the space may have made up.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import posixpath
import struct
import typing as t

from .._errors import FleetError, bad_value
from . import inside_files
from .client import Engine
from .exec import CHUNK, OUT, Source, run_in
from .names import WORKSPACE
from .work import Container, awake

ROOTS = (WORKSPACE, "/tmp")  # noqa: S108
LISTED = 10000
_HEAD = 65536
_LISTING = 16 * 1024**2
_HINTS = {
    "escape": "Name the file by a path without such a link.",
    "EACCES": "The user of the space may not do that.",
    "EROFS": "Only /workspace and /tmp can be written to.",
    "ENOSPC": "The volume or the tmpfs is full.",
}
Json = dict[str, t.Any]


def place(path: str) -> tuple[str, str]:
    """Root and the path below it; relative ones are below the workspace."""
    whole = posixpath.join(WORKSPACE, path)
    if "\0" in path or not path or ".." in path.split("/"):
        raise bad_value("path", path, "Write a path below /workspace or /tmp, without '..'.")
    whole = posixpath.normpath(whole)
    for root in ROOTS:
        if whole == root or whole.startswith(f"{root}/"):
            return root, whole[len(root) + 1:]
    raise bad_value("path", path, f"Only {' and '.join(ROOTS)} can be read and written.")


def mode_of(mode: str | int | None) -> int | None:
    """Permissions of a file as number; None stands for those it has."""
    if mode is None:
        return None
    try:
        value = mode if isinstance(mode, int) and not isinstance(mode, bool) else int(str(mode), 8)
    except ValueError:
        value = -1
    if not 0 <= value <= 0o777:
        raise bad_value("mode", mode, "Write permissions as an octal number in quotes, such as '0644'.")
    return value


class Reply:
    """What the program inside writes: a line of JSON, then pieces for the target."""

    def __init__(self, target: t.Callable[[bytes], object] | None = None, most: int = _LISTING) -> None:
        self.head: Json | None = None
        self.target, self.most = target, most
        self.err, self.rest = bytearray(), bytearray()
        self.size, self.digest, self.complete = 0, hashlib.sha256(), False

    def __call__(self, stream: int, data: bytes) -> None:
        if stream != OUT:
            self.err += data[:_HEAD - len(self.err)]
            return
        self.rest += data
        if self.head is None:
            self._read_head()
        if self.head is not None:
            self._read_pieces()

    def _read_head(self) -> None:
        line, found, rest = bytes(self.rest).partition(b"\n") if b"\n" in self.rest else (b"", b"", b"")
        if not found:
            if len(self.rest) > self.most:
                raise _nonsense()
            return
        try:
            self.head = json.loads(line)
        except ValueError:
            raise _nonsense() from None
        if not isinstance(self.head, dict):
            raise _nonsense()
        self.rest = bytearray(rest)

    def _read_pieces(self) -> None:
        start = 0
        while len(self.rest) - start >= 4:
            length = struct.unpack_from(">L", self.rest, start)[0]
            end = start + 4 + (length or 32)
            if length > inside_files.CHUNK or self.target is None or self.complete:
                raise _nonsense()
            if len(self.rest) < end:
                break
            self._take(bytes(self.rest[start + 4:end]), bool(length))
            start = end
        del self.rest[:start]

    def _take(self, data: bytes, content: bool) -> None:
        if not content:
            if data != self.digest.digest():
                raise FleetError("damaged", "What arrived from the space is not what was sent.", "Try again.")
            self.complete = True
            return
        self.size += len(data)
        if self.size > int((self.head or {}).get("size", 0)):
            raise _nonsense()
        self.digest.update(data)
        if self.target:
            self.target(data)


def _nonsense() -> FleetError:
    return FleetError("bad_reply", "The space answered what its programs don't answer.",
                      "Somebody in it may have replaced python3; recreate it.")


def ask(engine: Engine, container: Container, what: Json, source: Source = (), reply: Reply | None = None) -> Json:
    """One request to the program inside. A refusal becomes FleetError."""
    reply = reply or Reply()
    argv = ["python3", "-I", "-S", "-c", inspect.getsource(inside_files), json.dumps(what)]
    done = run_in(engine, container, argv, source, sink=reply)
    if reply.head is None:
        if done.rc == 127:
            raise FleetError("no_python", "The image of the space has no python3.",
                             "Use an image with Python 3.7 or newer.")
        words = reply.err[-500:].decode("utf-8", "replace")
        raise FleetError("failed", f"Files of the space can't be reached: {words}")
    if "refused" in reply.head:
        code, words = str(reply.head["refused"]), str(reply.head.get("words", ""))[:500]
        raise FleetError("refused", f"{what['path'] or what['root']}: {words}", _HINTS.get(code, ""), reason=code)
    return reply.head


def request(do: str, path: str, **more: t.Any) -> Json:
    root, below = place(path)
    return {"do": do, "root": root, "path": below, **more}


def look(engine: Engine, container: Container, path: str, follow: bool = True) -> Json:
    """kind (file, directory, link, other, absent), mode, size, sha256 of what is there."""
    return ask(engine, container, request("look", path, follow=follow))


def put(engine: Engine, container: Container, path: str, source: Source, mode: int = 0o644) -> Json:
    return ask(engine, container, request("put", path, mode=mode), _pieces(source))


def get(engine: Engine, container: Container, path: str, target: t.Callable[[bytes], object]) -> Json:
    """Hands the content to the target; returns size, mode and sha256."""
    reply = Reply(target)
    found = ask(engine, container, request("get", path), reply=reply)
    if not reply.complete:
        raise FleetError("torn", f"{path} did not arrive whole.", "Try again.")
    return {"size": reply.size, "mode": str(found.get("mode", "")), "sha256": reply.digest.hexdigest()}


def entries(engine: Engine, container: Container, path: str, recurse: bool = False) -> tuple[list[Json], bool]:
    """What is in a directory, and whether that is all."""
    found = ask(engine, container, request("list", path, recurse=recurse, most=LISTED))
    return list(found.get("entries", [])), bool(found.get("complete"))


def _pieces(source: Source) -> t.Iterator[bytes]:
    digest = hashlib.sha256()
    for data in source:
        digest.update(data)
        yield struct.pack(">L", len(data)) + data if data else b""
    yield struct.pack(">L", 0) + digest.digest()


def chunks(stream: t.BinaryIO) -> Source:
    return iter(lambda: stream.read(CHUNK), b"")


def put_stream(engine: Engine, name: str, path: str, stream: t.BinaryIO, mode: str | int | None = None) -> Json:
    """Writes a file in a space, which is woken for it."""
    place(path)
    with awake(engine, name) as container:
        return put(engine, container, path, chunks(stream), 0o644 if mode is None else t.cast(int, mode_of(mode)))


def get_stream(engine: Engine, name: str, path: str, stream: t.BinaryIO) -> Json:
    """Reads a file of a space, which is woken for it."""
    place(path)
    with awake(engine, name) as container:
        return get(engine, container, path, stream.write)


def listing(engine: Engine, name: str, path: str = WORKSPACE, recurse: bool = False) -> list[Json]:
    """What is in a directory of a space: path, kind, size, mode, modified, and target of a link."""
    place(path)
    with awake(engine, name) as container:
        return entries(engine, container, path, recurse)[0]
