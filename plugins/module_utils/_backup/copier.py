# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Copies live SQLite databases; part of a program that runs as the user who owns them.

So whatever SQLite has to create beside a database belongs to its owner.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import urllib.parse
from concurrent.futures import ThreadPoolExecutor  # by name: a later import may be forbidden

THREADS = min(4, os.cpu_count() or 1)


def _open(path: str, options: str) -> contextlib.closing[sqlite3.Connection]:
    uri = f"file:{urllib.parse.quote(os.fsencode(path))}?{options}"
    return contextlib.closing(sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None))


def _copy(source: str, target: str, mode: str) -> None:
    with _open(source, f"mode={mode}") as live, contextlib.closing(sqlite3.connect(target)) as copy:
        # A copy that a crash cuts short is thrown away, so nothing waits for the disk.
        copy.execute("PRAGMA journal_mode=OFF")
        copy.execute("PRAGMA synchronous=OFF")
        live.backup(copy)


def copy_database(source: str, target: str) -> str:
    """The reason why the copy is not there, or nothing. 'gone' when the database has disappeared."""
    if not os.path.lexists(source):
        return "gone"
    try:
        try:
            _copy(source, target, "ro")
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise
            # A crash left a journal that has to be rolled back first, which needs the right to write.
            _copy(source, target, "rw")
        with _open(target, "mode=ro&immutable=1") as copy:
            verdict = str(copy.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        return str(error)
    _copy_attributes(source, target)
    return "" if verdict == "ok" else verdict


def _copy_attributes(source: str, target: str) -> None:
    """Time, access lists and the like, as far as an owner may set them; nothing that gives rights to a program.

    By name: whoever closes a database ends the locks that his other threads have on it.
    """
    with contextlib.suppress(OSError):
        facts = os.lstat(source)
        for name in os.listxattr(source, follow_symlinks=False):
            with contextlib.suppress(OSError):
                if not name.startswith("security."):
                    os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
        os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns), follow_symlinks=False)


def copy_all(jobs: list[list[str]]) -> list[str]:
    """One reason for each, several at a time: SQLite lets others work while it does."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(copy_database, *zip(*jobs))) if jobs else []


def become(uid: int, gid: int) -> None:
    """Gives up root's rights for good; after the imports, which the user may not be allowed to read."""
    if os.geteuid() == 0 and uid != 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
