# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Whoever dies during the backup of a guest leaves neither frozen file systems nor a job behind.

A unit of systemd waits for the end of our process, which the kernel tells by letting go of a lock, and cleans up.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import shlex
import types

from .._errors import FleetError
from .._process import Runner, must, run
from . import names

_LOOKS = 20


class Guard:
    """Watches this process while it works on one guest. Frozen file systems wait for patience seconds at most."""

    def __init__(self, uri: str, name: str, socket: str, runner: Runner = run, patience: float = 60) -> None:
        self.uri, self.name, self.socket, self.runner, self.patience = uri, name, socket, runner, patience
        self.unit = f"clawops-vm-backup-{name}"
        self.lock = names.LOCKS / f"{name}.backup"
        self._handle = -1

    @property
    def _mark(self) -> pathlib.Path:
        """There while the file systems may be frozen."""
        return names.LOCKS / f"{self.name}.frozen"

    def froze(self) -> bool:
        return self._mark.exists()

    def freezing(self, begun: bool) -> None:
        """Begins and ends the time in which somebody has to thaw."""
        if begun:
            self._mark.touch(0o600)
            self._start()
        else:
            self._mark.unlink(missing_ok=True)

    def __enter__(self) -> Guard:
        self.lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._handle = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            raise FleetError("busy", f"Another backup of VM {self.name} is running.", "Wait for it to end.") from None
        try:
            self._start()
        except BaseException:
            os.close(self._handle)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: types.TracebackType | None) -> None:
        if not self.froze():
            self._stop()
        os.close(self._handle)

    def _start(self) -> None:
        """A fresh unit: it counts its patience from now."""
        self._stop()
        argv = ["systemd-run", "--quiet", "--collect", f"--unit={self.unit}", "/bin/sh", "-c", self._script()]
        must(self.runner, argv, f"Watching the backup of VM {self.name}", timeout=30)

    def _stop(self) -> None:
        self.runner(["systemctl", "stop", f"{self.unit}.service"], timeout=30)

    def _script(self) -> str:
        """Free of $ and %, which systemd would expand."""
        virsh = f"virsh --connect {shlex.quote(self.uri)}"
        lock, mark, socket = (shlex.quote(str(path)) for path in (self.lock, self._mark, self.socket))
        thaw = f"if [ -e {mark} ]; then {virsh} domfsthaw {self.name} && rm -f {mark}; fi"
        end = f"{virsh} backup-dumpxml {self.name} | grep -qF {socket} && {virsh} domjobabort {self.name}"
        # What we had asked libvirt for when we died may begin only after that.
        more = " ".join(map(str, range(_LOOKS)))
        return (f"flock -w {self.patience:.0f} {lock} true; {thaw}; flock {lock} true; "
                f"for look in {more}; do {thaw}; {end}; sleep 1; done")
