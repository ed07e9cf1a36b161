# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The program that reads and writes files inside of a space, as its user; its text is handed to the python3 there.

Paths are walked one name at a time from an open directory on, so that neither '..' nor a link leads out of the root,
also when the space changes them meanwhile. It stands alone: nothing of the collection is there.

The request is the only argument. The reply is one line of JSON; what "get" reads follows it, and "put" reads it from
standard input: pieces, each with its length before it, an empty one at the end, then the SHA-256 of everything.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import struct
import sys
import typing as t

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CHUNK = 262144
LINKS = 40
Json = t.Dict[str, t.Any]  # noqa: UP006 - Python 3.7
KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


class Refused(Exception):
    """code, and words for people."""


def enter(root: str, path: str, follow: bool, make: bool = False) -> tuple[int, str]:
    """An open directory and the last name in it. Links are followed as long as they stay below the root."""
    stack, todo, links = [os.open(root, DIRECTORY)], names(path), 0
    while todo:
        name = todo.pop(0)
        if name == "..":
            if len(stack) == 1:
                raise Refused("escape", f"A link leads out of {root}.")
            os.close(stack.pop())
            continue
        if not todo and not follow:
            return stack[-1], name
        try:
            found = os.lstat(name, dir_fd=stack[-1]).st_mode
        except FileNotFoundError:
            if not todo or not make:
                if not todo:
                    return stack[-1], name
                raise
            os.mkdir(name, dir_fd=stack[-1])
            found = stat.S_IFDIR
        if stat.S_ISLNK(found):
            links += 1
            if links > LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink(name, dir_fd=stack[-1])
            if target.startswith("/"):
                if target != root and not target.startswith(root + "/"):
                    raise Refused("escape", f"A link leads out of {root}.")
                for handle in stack[1:]:
                    os.close(handle)
                stack, target = stack[:1], target[len(root):]
            todo = names(target) + todo
        elif todo:
            stack.append(os.open(name, DIRECTORY, dir_fd=stack[-1]))
        else:
            return stack[-1], name
    return stack[-1], "."


def names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def describe(folder: int, name: str) -> Json:
    """What an entry is; a link is not followed."""
    found = os.lstat(name, dir_fd=folder)
    entry = {"kind": KINDS.get(stat.S_IFMT(found.st_mode), "other"), "mode": f"{stat.S_IMODE(found.st_mode):04o}",
             "size": found.st_size, "modified": int(found.st_mtime), "uid": found.st_uid, "gid": found.st_gid}
    if entry["kind"] == "link":
        entry["target"] = os.readlink(name, dir_fd=folder)
    return entry


def open_file(folder: int, name: str) -> t.BinaryIO:
    """A plain file; opening it neither waits for the other end of a pipe nor follows a link."""
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise Refused("not_a_file", "It is not a plain file.")
    return os.fdopen(handle, "rb")


def look(request: Json) -> Json:
    try:
        folder, name = enter(request["root"], request["path"], request["follow"])
        entry = describe(folder, name)
    except FileNotFoundError:
        return {"kind": "absent"}
    if entry["kind"] == "file":
        digest = hashlib.sha256()
        with open_file(folder, name) as file:
            for piece in iter(lambda: file.read(CHUNK), b""):
                digest.update(piece)
        entry["sha256"] = digest.hexdigest()
    return entry


def put(request: Json) -> Json:
    """Writes beside and renames; what was sent only in part never gets the name."""
    folder, name = enter(request["root"], request["path"], False, make=True)
    beside = f".clawops-{os.urandom(8).hex()}"
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            digest = receive(file)
            os.fchmod(file.fileno(), request["mode"])
            file.flush()
            os.fsync(file.fileno())
        os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(beside, dir_fd=folder)
        raise
    return {"sha256": digest}


def receive(file: t.BinaryIO) -> str:
    source, digest = sys.stdin.buffer, hashlib.sha256()
    while True:
        size = struct.unpack(">L", exactly(source, 4))[0]
        if not size:
            break
        piece = exactly(source, size)
        digest.update(piece)
        file.write(piece)
    if exactly(source, 32) != digest.digest():
        raise Refused("damaged", "What arrived is not what was sent.")
    return digest.hexdigest()


def exactly(source: t.BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise Refused("torn", "The content ended too early.")
    return data


def get(request: Json) -> None:
    folder, name = enter(request["root"], request["path"], True)
    with open_file(folder, name) as file:
        entry = describe(folder, name)
        reply(entry)
        digest, left, out = hashlib.sha256(), entry["size"], sys.stdout.buffer
        while left:
            piece = file.read(min(CHUNK, left))
            if not piece:
                break
            left -= len(piece)
            digest.update(piece)
            out.write(struct.pack(">L", len(piece)) + piece)
        out.write(struct.pack(">L", 0) + digest.digest())
        out.flush()


def remove(request: Json) -> Json:
    folder, name = enter(request["root"], request["path"], False)
    os.unlink(name, dir_fd=folder)
    return {}


def listing(request: Json) -> Json:
    folder, name = enter(request["root"], request["path"], True)
    entries: list[Json] = []
    top = os.open(name, DIRECTORY, dir_fd=folder)
    return {"entries": entries, "complete": collect(top, "", request["recurse"], request["most"], entries)}


def collect(folder: int, above: str, recurse: bool, most: int, entries: list[Json]) -> bool:
    """Whether all entries fitted. Closes the directory."""
    try:
        for name in sorted(os.listdir(folder)):
            if len(entries) >= most:
                return False
            try:
                entry = describe(folder, name)
                entries.append({"path": above + name, **entry})
                below = os.open(name, DIRECTORY, dir_fd=folder) if recurse and entry["kind"] == "directory" else None
            except (FileNotFoundError, PermissionError, NotADirectoryError):
                continue
            if below is not None and not collect(below, above + name + "/", recurse, most, entries):
                return False
        return True
    finally:
        os.close(folder)


def reply(value: Json) -> None:
    sys.stdout.buffer.write(json.dumps(value).encode() + b"\n")
    sys.stdout.buffer.flush()


Action = t.Callable[[Json], t.Optional[Json]]
ACTIONS: dict[str, Action] = {"look": look, "put": put, "get": get, "remove": remove, "list": listing}


def main(request: Json) -> None:
    os.umask(0o022)
    try:
        answer = ACTIONS[request["do"]](request)
    except Refused as refused:
        answer = {"refused": refused.args[0], "words": refused.args[1]}
    except OSError as error:
        number = error.errno or errno.EIO
        answer = {"refused": errno.errorcode.get(number, "EIO"), "words": f"{os.strerror(number)}."}
    except RecursionError:
        answer = {"refused": "too_deep", "words": "The directories are too deep."}
    if answer is not None:
        reply(answer)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
