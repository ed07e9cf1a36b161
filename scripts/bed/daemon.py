# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server of the bed that outlives the command that starts it."""

from __future__ import annotations

import subprocess
import typing as t

from . import cache, machine
from .job import BedError, Job


class Daemon:
    """One process, known by its name, its version and what the kernel says about it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _mark(self) -> dict[str, t.Any]:
        mark: dict[str, t.Any] = cache.state().get(self.name, {})
        return mark

    def alive(self, version: str | None = None) -> bool:
        """Whether it runs, and is of this version."""
        mark = self._mark()
        same = bool(mark) and machine.identity(mark["pid"]) == mark["identity"]
        return same and version in (None, mark["version"])

    def start(self, job: Job, argv: t.Sequence[object], version: str, ready: t.Callable[[], bool],
              pass_fds: t.Collection[int] = ()) -> None:
        """A new process that is ready."""
        with job.log.open("ab") as log:
            child = subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                     cwd="/", pass_fds=pass_fds, start_new_session=True)
        job.wait(f"the server {self.name} (see {job.log})", lambda: ready() or child.poll() is not None)
        if child.poll() is not None:
            raise BedError(f"the server {self.name} ended; see {job.log}")
        mark = {"pid": child.pid, "identity": machine.identity(child.pid), "version": version}
        cache.remember(**{self.name: mark})

    def stop(self) -> None:
        """No such process."""
        if mark := self._mark():
            machine.stop(mark["pid"], mark["identity"], timeout=5)
        cache.remember(**{self.name: None})
