# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The processes that an exec began, wherever they went since, as the host sees them.

A daemon leaves its parent, its session and its terminal, and may clean its environment. What it can't leave are its
container and, without wanting to, the mark that the exec was begun with: a variable, and a limit that limits nothing.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import time
import typing as t

from .._errors import FleetError

PROC, CGROUPS = pathlib.Path("/proc"), pathlib.Path("/sys/fs/cgroup")
MARK = "CLAWOPS_EXEC"
#: Seconds that killing may take: a process that waits for a disk ends late.
PATIENCE = 30.0


def kill(init: int, mark: str, main: int) -> int:
    """Ends every process of an exec and returns how many there were; FleetError when one can't be ended.

    init is the first process of the container, main that of the exec, or 0 when it has ended.
    """
    end = time.monotonic() + PATIENCE
    ours, others = set[int](), set[int]()
    with _hurry():
        while time.monotonic() < end:
            inside = _inside(init)
            new = {pid for pid in inside - ours - others if pid == main or _marked(pid, mark)}
            others |= inside - ours - new
            ours |= new
            left = {pid for pid in ours & inside if _lives(pid)}
            if not left:
                return len(ours)
            # What is stopped can't beget more, so first all of them are, and then they are killed.
            for pid in new or left:
                _send(pid, signal.SIGSTOP if new else signal.SIGKILL, init)
            time.sleep(0 if new else 0.02)
    raise FleetError("not_killed", f"{len(left)} processes of an exec can't be ended.",
                     "They wait for a device, or this is not root of the engine's host.")


@contextlib.contextmanager
def _hurry() -> t.Iterator[None]:
    """Before everybody else: who begets processes without end also takes all time of the processors."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, before)


def _inside(init: int) -> set[int]:
    """All processes of the container; none when it has ended."""
    try:
        file = _group(init) / "cgroup.procs"
        return {int(pid) for pid in file.read_text().split()} - {0, init}
    except (OSError, StopIteration):
        return set()


def _group(pid: int) -> pathlib.Path:
    """The control group of a process, in the hierarchy that every engine uses."""
    lines = [line.split(":", 2) for line in (PROC / str(pid) / "cgroup").read_text().splitlines()]
    paths = {names: path.lstrip("/") for _number, names, path in lines}
    if (CGROUPS / "cgroup.procs").exists():
        return CGROUPS / paths[""]
    return CGROUPS / "pids" / next(path for names, path in paths.items() if "pids" in names.split(","))


def _marked(pid: int, mark: str) -> bool:
    try:
        limits = (PROC / str(pid) / "limits").read_text()
        if any(line.startswith("Max file locks") and mark in line.split() for line in limits.splitlines()):
            return True
        return f"{MARK}={mark}".encode() in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _lives(pid: int) -> bool:
    """Not one that only waits to be buried."""
    try:
        # The name in parentheses may hold anything.
        return (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (OSError, IndexError):
        return False


def _send(pid: int, what: signal.Signals, init: int) -> None:
    """Only to a process of the container, even if the number was given to another one by now."""
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            if _same_group(pid, init):
                signal.pidfd_send_signal(handle, what)
        finally:
            os.close(handle)


def _same_group(pid: int, init: int) -> bool:
    return (PROC / str(pid) / "cgroup").read_text() == (PROC / str(init) / "cgroup").read_text()
