# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Disks over NBD, the way in which QEMU shows and takes them: what is dirty, what holds data, and the bytes."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import tempfile
import time
import typing as t

from .._errors import FleetError

ALLOCATION = "base:allocation"
_ZERO = 2  # flag of base:allocation
_DIRTY = 1
#: Servers answer with less when they like; the protocol has 32 bits for a length.
_ASKED = 1 << 30
Range = tuple[int, int]


class Export:
    """One disk of a server on a local socket."""

    def __init__(self, socket: str, name: str = "", bitmap: str | None = None) -> None:
        try:
            import nbd
        except ImportError:
            raise FleetError("missing_library", "The library python3-libnbd is not installed on this host.",
                             "The role clawops.fleet.vm_host installs it.") from None
        self.read_bytes = 0
        self.bitmap = f"qemu:dirty-bitmap:{bitmap}" if bitmap else None
        self._failure = nbd.Error
        self._handle = nbd.NBD()
        with self._named(f"Opening {socket}"):
            self._handle.set_export_name(name)
            for context in filter(None, (ALLOCATION, self.bitmap)):
                self._handle.add_meta_context(context)
            self._handle.connect_unix(socket)
            self.size = int(self._handle.get_size())
            if self.bitmap and not self._handle.can_meta_context(self.bitmap):
                raise FleetError("bitmap_lost", f"{socket} has no bitmap {bitmap}.")

    def close(self) -> None:
        with contextlib.suppress(self._failure):
            self._handle.shutdown()

    def dirty(self) -> t.Iterator[Range]:
        """What changed since the bitmap began; everything when there is none."""
        if self.bitmap is None:
            yield 0, self.size
            return
        for offset, length, flags in self._extents(self.bitmap, 0, self.size):
            if flags & _DIRTY:
                yield offset, length

    def pieces(self, offset: int, length: int) -> t.Iterator[tuple[int, int, bool]]:
        """Offset, length, and whether there are zeros only."""
        for start, size, flags in self._extents(ALLOCATION, offset, length):
            yield start, size, bool(flags & _ZERO)

    def read(self, offset: int, length: int) -> bytes:
        with self._named("Reading a disk"):
            data = bytes(self._handle.pread(length, offset))
        self.read_bytes += length
        return data

    def write(self, offset: int, data: bytes) -> None:
        with self._named("Writing a disk"):
            self._handle.pwrite(data, offset)

    def flush(self) -> None:
        with self._named("Writing a disk"):
            self._handle.flush()

    def _extents(self, context: str, offset: int, length: int) -> t.Iterator[tuple[int, int, int]]:
        end = offset + length
        while offset < end:
            found = self._asked(context, offset, min(end - offset, _ASKED))
            if not found:
                raise FleetError("nbd_failed", f"The server says nothing about {context}.")
            for size, flags in zip(found[::2], found[1::2]):
                size = min(size, end - offset)
                if size:
                    yield offset, size, flags
                    offset += size

    def _asked(self, context: str, offset: int, length: int) -> list[int]:
        """Size and flags of each extent, one after the other."""
        found: list[int] = []

        def note(name: str, _offset: int, entries: list[int], _error: int) -> int:
            if name == context:
                found.extend(entries)
            return 0

        with self._named("Asking for extents"):
            self._handle.block_status(length, offset, note)
        return found

    @contextlib.contextmanager
    def _named(self, doing: str) -> t.Iterator[None]:
        try:
            yield
        except self._failure as error:
            full = getattr(error, "errno", None) == "ENOSPC"
            raise FleetError("disk_full" if full else "nbd_failed", f"{doing} failed: {error}.",
                             "Make room on this host." if full else "") from None


@contextlib.contextmanager
def opened(socket: str, name: str = "", bitmap: str | None = None) -> t.Iterator[Export]:
    export = Export(socket, name, bitmap)
    try:
        yield export
    finally:
        export.close()


@contextlib.contextmanager
def served(path: pathlib.Path, writable: bool = False) -> t.Iterator[Export]:
    """A qcow2 image that nobody has open. Its server ends with its only client, however that ends."""
    with tempfile.TemporaryDirectory(prefix="clawops-nbd-") as folder:
        socket = os.path.join(folder, "socket")
        argv = ["qemu-nbd", *([] if writable else ["--read-only"]), "--cache=writeback", "--discard=unmap",
                "--format=qcow2", f"--socket={socket}", str(path)]
        with tempfile.TemporaryFile() as said, _started(argv, said) as server:
            _wait(server, socket, said, path)
            with opened(socket) as export:
                yield export
            # Whoever opens the image next needs it to be closed.
            server.wait(timeout=60)


@contextlib.contextmanager
def _started(argv: list[str], said: t.IO[bytes]) -> t.Iterator[subprocess.Popen[bytes]]:
    try:
        server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    except FileNotFoundError:
        raise FleetError("no_program", f"The program {argv[0]} is not installed on this host.",
                         "The role clawops.fleet.vm_host installs it.") from None
    try:
        yield server
    finally:
        if server.poll() is None:
            server.terminate()
            server.wait()


def _wait(server: subprocess.Popen[bytes], socket: str, said: t.IO[bytes], path: pathlib.Path) -> None:
    end = time.monotonic() + 30
    while not os.path.exists(socket):
        if server.poll() is not None or time.monotonic() > end:
            said.seek(0)
            words = said.read()[-500:].decode(errors="replace").strip()
            raise FleetError("disk_unreadable", f"{path} can't be opened: {words}",
                             "See whether another program has it open.")
        time.sleep(0.02)
