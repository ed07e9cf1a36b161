# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""One lock for each space of a host: shared while somebody works in it, exclusive to change it or put it to sleep.

The kernel lets go of a lock when its holder ends, however it ends. The file's time is that of the last work.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import time
import typing as t

from .._errors import FleetError
from .._ownership import check_name
from . import names

PAUSE = 0.05


def path(name: str) -> pathlib.Path:
    return names.LOCKS / f"{check_name('space', name)}.lock"


@contextlib.contextmanager
def hold(name: str, shared: bool = False, timeout: float = 60.0) -> t.Iterator[None]:
    """Holds the lock of a space; FleetError busy after timeout seconds, with 0 at once."""
    handle = _open(path(name))
    try:
        _wait(handle, name, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, timeout)
        yield
    finally:
        os.close(handle)


def touch(name: str) -> None:
    """Says that there is work in the space now."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(path(name))


def _open(file: pathlib.Path) -> int:
    try:
        # Only root's: who can open a file can also lock it.
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FleetError("no_lock", f"{file} can't be opened: {error.strerror}.",
                         "Work on spaces as root of their host.") from None


def _wait(handle: int, name: str, kind: int, timeout: float) -> None:
    end = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise _busy(name, _holders(os.fstat(handle))) from None
        time.sleep(PAUSE)


def _busy(name: str, holders: list[str]) -> FleetError:
    whose = f" by {', '.join(holders)}" if holders else ""
    return FleetError("busy", f"Space {name} is in use{whose}.", "Try again when that has ended.", holders=holders)


def _holders(found: os.stat_result, proc: pathlib.Path = pathlib.Path("/proc")) -> list[str]:
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
