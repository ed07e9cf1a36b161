# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Finds the SQLite databases below a directory by their magic, and has them copied by their owners.

Between the two the owner of a directory may put links to databases of others there. Copies are therefore made where
nothing but the directories that are backed up can be seen.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fnmatch
import hashlib
import inspect
import json
import os
import stat
import subprocess
import sys
import typing as t

from .._errors import FleetError
from . import copier, jail

MAGIC = b"SQLite format 3\x00"
COMPANIONS = ("", "-wal", "-shm", "-journal")
Pattern = tuple[str, ...]
# All imports come first: afterwards there is nothing to import from, and the owner might not be allowed to.
# The bot, and restic, which opens the repository meanwhile, go before.
_PROGRAM = """import json, os, sys
os.nice(5)
order = json.loads(sys.stdin.readline())
jail, copier = {"__name__": "jail"}, {"__name__": "copier"}
exec(order["jail"], jail)
exec(order["copier"], copier)
if order["shown"]:
    jail["enter"](order["shown"])
work = sys.stdin.readline()
if work:
    owner, jobs = json.loads(work)
    copier["become"](*owner)
    json.dump(copier["copy_all"](jobs), sys.stdout)
"""


@dataclasses.dataclass(frozen=True)
class Found:
    """A database: its path, and its path below the directory that was searched."""

    path: str
    relative: str
    uid: int
    gid: int
    mode: int
    size: int


def find(root: str, exclude: t.Sequence[str] = ()) -> list[Found]:
    """Every SQLite file below root that no pattern excludes; symbolic links are not followed."""
    found: list[Found] = []
    todo = [(root, "", _open([tuple(one.split("/")) for one in exclude]))]
    while todo:
        directory, above, patterns = todo.pop()
        for entry in _entries(directory):
            below = _advance(patterns, entry.name)
            if below is None:
                continue
            relative = above + entry.name
            if entry.is_dir(follow_symlinks=False):
                todo.append((entry.path, f"{relative}/", below))
                continue
            with contextlib.suppress(FileNotFoundError):
                facts = entry.stat(follow_symlinks=False)
                if not _is_database(entry.path, facts):
                    continue
                found.append(Found(entry.path, relative, facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode),
                                   _size(entry.path)))
    return sorted(found, key=lambda one: one.relative)


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _is_database(path: str, facts: os.stat_result) -> bool:
    """Pages are at least 512 bytes, which spares opening most files. What can't be read restic will name."""
    if not stat.S_ISREG(facts.st_mode) or facts.st_size == 0 or facts.st_size % 512:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(descriptor, len(MAGIC)) == MAGIC
        finally:
            os.close(descriptor)
    except OSError:
        return False


def _size(path: str) -> int:
    total = 0
    for companion in ("", "-wal"):
        if os.path.lexists(path + companion):
            total += os.lstat(path + companion).st_size
    return total


def _open(patterns: t.Iterable[Pattern]) -> frozenset[Pattern]:
    """The patterns, and with each that begins with '**', which may stand for no directory, what is behind it."""
    return frozenset(one[skip:] for one in patterns for skip in range(_stars(one) + 1))


def _stars(pattern: Pattern) -> int:
    return next((count for count, part in enumerate(pattern) if part != "**"), len(pattern))


def _advance(patterns: frozenset[Pattern], name: str) -> frozenset[Pattern] | None:
    """What anchored patterns of restic's ask for below an entry of that name; None when one of them means the entry."""
    if not patterns:
        return patterns
    below = _open(one if one[0] == "**" else one[1:] for one in patterns
                  if one and (one[0] == "**" or fnmatch.fnmatchcase(name, one[0])))
    return None if () in below else below


class Copying:
    """Copies databases into directory/sqlite/{uid}/, each by a process of its owner's; a context manager.

    The first process begins at once: what there is to copy may be found meanwhile. shown are the directories that are
    searched for databases: whoever copies gets to see nothing else of this host, and these even where no way of his
    leads to them. Without any he sees what he always does.
    """

    def __init__(self, directory: str, timeout: float, shown: t.Sequence[str] = ()) -> None:
        self.directory, self.timeout = directory, timeout
        self.shown = [*shown, directory] if shown else []
        self._processes = contextlib.ExitStack()
        self._idle = [self._begin()]

    def __enter__(self) -> Copying:
        return self

    def __exit__(self, *_error: object) -> None:
        self._processes.close()

    def copy(self, databases: t.Sequence[Found]) -> dict[str, str]:
        """Returns relative copy names by path; without those that disappeared."""
        copies: dict[str, str] = {}
        top = os.path.join(self.directory, "sqlite")
        os.mkdir(top, 0o711)
        by_owner: dict[tuple[int, int], list[Found]] = collections.defaultdict(list)
        for database in databases:
            by_owner[database.uid, database.gid].append(database)
        for (uid, gid), owned in by_owner.items():
            place = os.path.join(top, str(uid))
            os.makedirs(place, 0o700, exist_ok=True)
            jobs = [(one.path, os.path.join(place, str(number))) for number, one in enumerate(owned, len(copies))]
            _check_room(place, sum(one.size for one in owned))
            if os.geteuid() == 0:
                os.chown(place, uid, gid)
            try:
                problems = self._run_as((uid, gid), jobs)
            finally:
                os.chown(place, os.geteuid(), os.getegid())
            for (source, target), problem in zip(jobs, problems):
                if not problem:
                    copies[source] = os.path.relpath(target, self.directory)
                elif problem != "gone":
                    raise _failure(source, problem)
        return copies

    def _begin(self) -> subprocess.Popen[str]:
        child = subprocess.Popen([sys.executable, "-I", "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True, cwd="/")
        self._processes.callback(_end, child)
        order = {"jail": inspect.getsource(jail), "copier": inspect.getsource(copier), "shown": self.shown}
        with contextlib.suppress(BrokenPipeError):  # what it died of is asked for later
            os.write(t.cast("t.IO[str]", child.stdin).fileno(), f"{json.dumps(order)}\n".encode())
        return child

    def _run_as(self, owner: tuple[int, int], jobs: list[tuple[str, str]]) -> list[str]:
        child, words = self._idle.pop() if self._idle else self._begin(), ""
        try:
            answer, words = child.communicate(json.dumps([owner, jobs]), timeout=self.timeout)
            return t.cast("list[str]", json.loads(answer))
        except subprocess.TimeoutExpired:
            raise FleetError("timeout", f"Copying {len(jobs)} SQLite databases took more than {self.timeout} seconds.",
                             "Raise timeout, or see who keeps them locked.") from None
        except ValueError:
            words = words.strip()[-500:]
            known = ("not_confined", jail.HINT) if jail.SIGN in words else ("copy_failed", "")
            raise FleetError(known[0], f"Copying SQLite databases failed: {words}", known[1]) from None


def _end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def _check_room(place: str, needed: int) -> None:
    facts = os.statvfs(place)
    free = facts.f_bavail * facts.f_frsize
    if needed > free:
        raise disk_full(place, needed, free)


def disk_full(place: str, needed: int, free: int) -> FleetError:
    return FleetError("disk_full", f"{place} needs {needed} bytes, {free} are free.", "Make room on this host.",
                      needed=needed, free=free)


def _failure(source: str, problem: str) -> FleetError:
    if "full" in problem:
        return FleetError("disk_full", f"No room to copy {source}: {problem}.", "Make room on this host.")
    if "unable to open" in problem:
        return FleetError("database_unreadable", f"The owner of {source} can't open it, or can't reach the staging "
                                                 f"directory: {problem}.", "Let the directories above be traversable.")
    return FleetError("database_damaged", f"{source} is not sound: {problem}.",
                      "Repair it (sqlite3 .recover), or exclude it if it is of no value.")


def sha256(path: str) -> str:
    """The hash of a regular file; a symbolic link is an error."""
    digest = hashlib.sha256()
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
