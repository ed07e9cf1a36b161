# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A tree with files of all kinds, and all that can be said of one; as root.

  on_host_tree.py fill DIRECTORY USER FILES LARGE    so many small files, and one of so many bytes
  on_host_tree.py look DIRECTORY                     JSON: each entry with what it is
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import random
import sqlite3
import stat
import subprocess
import sys
import typing as t

NAMES = [b"two\nlines", "caf\u00e9 \U0001f98e".encode(), b"with blanks ", b" ", b"-rf", b"*?[x]", b"back\\slash",
         b"$HOME", b"%s %n", b"'\"`", b"!not", b"#hash", b"\xff\xfe no text", b"\x01\x7f", b"..data", b"x" * 255]
DATABASE = "memory\nof [all]*.sqlite"
STRANGER = 4321


def fill(top: str, user: str, files: int, large: int) -> None:
    owner = pwd.getpwnam(user)
    os.makedirs(top, exist_ok=True)
    os.chdir(top)
    _files(files)
    _kinds()
    for number in range(2):
        _database(("databases", "databases/deep")[number])
    if large:
        _large(large)
    for place, folders, names in os.walk(b"."):
        for name in [b"", *folders, *names]:
            os.chown(os.path.join(place, name), owner.pw_uid, owner.pw_gid, follow_symlinks=False)
    os.mkdir("others")
    for number, uid in enumerate((0, STRANGER)):
        with open(f"others/{number}", "w", encoding="ascii") as file:
            file.write("theirs")
        os.chown(f"others/{number}", uid, (uid, owner.pw_gid)[number])
    os.chown("others", owner.pw_uid, owner.pw_gid)
    os.chmod(top, 0o2750)  # noqa: S103
    subprocess.run(["setfacl", "-m", "u:backup:rX,d:g:news:r", top, "others"], check=True)
    subprocess.run(["setfacl", "-m", "u:backup:r", f"databases/{DATABASE}"], check=True)
    for name in ("sparse", f"databases/{DATABASE}", "others", "."):
        os.setxattr(name, "user.origin", b"the \x00 past")
    os.setxattr("others/0", "trusted.note", b"root's")
    for count, name in enumerate(sorted(os.listdir(b"names"))):
        os.utime(b"names/" + name, ns=(10 ** 9, count * 10 ** 17 + 123456789), follow_symlinks=False)


def _files(count: int) -> None:
    noise = random.Random(7)  # noqa: S311 - nothing secret
    for number in range(count):
        folder = os.fsencode(f"files/{number % 97}/{number % 7}")
        os.makedirs(folder, exist_ok=True)
        name = NAMES[number % len(NAMES)][:200] + str(number).encode()
        with open(os.path.join(folder, name), "wb") as file:
            file.write(noise.randbytes(noise.randrange(3000)))


def _kinds() -> None:
    os.mkdir("names")
    for name in NAMES:
        with open(b"names/" + name, "wb") as file:
            file.write(name)
    deep = "deep/" + "/".join("d" * 200 for _level in range(10))
    os.makedirs(deep)
    os.mkdir("links")
    for number, target in enumerate(("../names/-rf", "/nowhere at all", "..", "two\nlines \u00e9", "a" * 1000)):
        os.symlink(target, f"links/{number}")
    for number in range(3):
        os.link(b"names/" + NAMES[number], f"links/hard {number}")
        os.link(b"names/" + NAMES[number], f"{deep}/{number}")
    with open("sparse", "wb") as file:
        for where in (0, 30 << 20, 77 << 20):
            file.seek(where)
            file.write(b"here")
        file.truncate(128 << 20)
    os.mkdir("modes")
    for mode in (0, 0o400, 0o600, 0o640, 0o755, 0o777):
        with open(f"modes/{mode:o}", "w", encoding="ascii") as file:
            file.write("x")
        os.chmod(f"modes/{mode:o}", mode)
    for mode in (0o700, 0o1777, 0o2770, 0o500):
        os.mkdir(f"modes/d{mode:o}")
        os.chmod(f"modes/d{mode:o}", mode)
    os.mkfifo("pipe")
    open("empty", "wb").close()
    os.mkdir("empty folder")


def _database(folder: str) -> None:
    """With rows in its log, as a writer that died leaves it."""
    os.mkdir(folder)
    path = f"{folder}/{DATABASE}"
    writer = os.fork()
    if writer:
        if os.waitpid(writer, 0)[1]:
            sys.exit(f"{path} could not be written.")
        os.chmod(path, 0o660)
        return
    base = sqlite3.connect(path)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("CREATE TABLE said (words TEXT)")
    base.executemany("INSERT INTO said VALUES (?)", [(str(number),) for number in range(500)])
    base.commit()
    os._exit(0)


def _large(size: int) -> None:
    """Noise in blocks that don't repeat; hashing makes it faster than drawing."""
    with open("large", "wb") as file:
        block = random.Random(1).randbytes(1 << 20)  # noqa: S311
        for number in range(size >> 20):
            file.write(hashlib.sha256(str(number).encode()).digest() + block[number % 1000:])
        file.truncate(size)


def look(top: str) -> dict[str, dict[str, t.Any]]:
    os.chdir(top)
    found = {".": _entry(b".")}
    for place, folders, names in os.walk(b"."):
        for name in folders + names:
            path = os.path.join(place, name)
            if not name.endswith((b"-wal", b"-shm")):
                found[os.fsdecode(os.path.relpath(path))] = _entry(path)
    first: dict[int, str] = {}
    for name in sorted(found):
        number = found[name].pop("inode")
        found[name]["first"] = first.setdefault(number, name) if found[name]["kind"] == "file" else name
    return found


def _entry(path: bytes) -> dict[str, t.Any]:
    facts = os.lstat(path)
    attributes = {name: os.getxattr(path, name, follow_symlinks=False).hex()
                  for name in sorted(os.listxattr(path, follow_symlinks=False))}
    entry: dict[str, t.Any] = {"mode": facts.st_mode, "uid": facts.st_uid, "gid": facts.st_gid, "kind": "other",
                               "attributes": attributes, "inode": facts.st_ino, "time": facts.st_mtime_ns}
    if path.endswith(b".sqlite"):
        with contextlib.closing(sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True)) as base:
            words = [row[0] for row in base.execute("SELECT words FROM said")]
        return {**entry, "kind": "database", "content": words}
    if stat.S_ISLNK(facts.st_mode):
        return {**entry, "kind": "link", "content": os.fsdecode(os.readlink(path))}
    if stat.S_ISREG(facts.st_mode):
        # The blocks of a sparse file depend on the file system; whether it is one does not.
        return {**entry, "kind": "file", "size": facts.st_size, "links": facts.st_nlink,
                "sparse": facts.st_blocks * 512 < facts.st_size // 2, "content": _digest(path)}
    return entry


def _quoted(path: bytes) -> str:
    return "".join(f"%{byte:02x}" for byte in path)


def _digest(path: bytes) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
    else:
        json.dump(look(sys.argv[2]), sys.stdout)
