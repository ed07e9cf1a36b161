# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Locks between processes of one host: files of root's in /run.

The kernel lets go of a lock when its holder ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import time
import typing as t

from ._errors import FleetError

_PAUSE = 0.05


@contextlib.contextmanager
def hold(file: pathlib.Path, subject: str, shared: bool = False, timeout: float = 60.0) -> t.Iterator[None]:
    """Holds a lock for what subject names; FleetError busy after timeout seconds, with 0 at once."""
    handle = _open(file)
    try:
        _wait(handle, subject, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, timeout)
        yield
    finally:
        os.close(handle)


def _open(file: pathlib.Path) -> int:
    try:
        # Only root's: who can open a file can also lock it.
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FleetError("no_lock", f"{file} can't be opened: {error.strerror}.", "Work as root of the host.") from None


def _wait(handle: int, subject: str, kind: int, timeout: float) -> None:
    end = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise _busy(subject, holders(os.fstat(handle))) from None
        time.sleep(_PAUSE)


def _busy(subject: str, found: list[str]) -> FleetError:
    whose = f" by {', '.join(found)}" if found else ""
    return FleetError("busy", f"{subject} is in use{whose}.", "Try again when that has ended.", holders=found)


def holders(found: os.stat_result, proc: pathlib.Path = pathlib.Path("/proc")) -> list[str]:
    """Who holds the lock, from the kernel's own list."""
    file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    with contextlib.suppress(OSError):
        rows = [line.split() for line in (proc / "locks").read_text().splitlines()]
        pids = {row[4] for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5] == file}
        return [f"process {pid} ({_program(proc / pid)})" for pid in sorted(pids, key=int)]
    return []


def _program(process: pathlib.Path) -> str:
    """Its name only: what it was called with is not ours to tell."""
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "unknown"
