# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The managed machine as the firewall code sees it: programs by name and small text files by path."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
import time
import typing as t

from .. import _files, _process
from .._errors import FleetError
from .._plan import Plan

LOCK_SECONDS = 60
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


class File(t.NamedTuple):
    mode: int
    text: str

    def shown(self) -> dict[str, t.Any]:
        return {"mode": f"{self.mode:04o}", "lines": self.text.splitlines()}


def _which(program: str) -> str | None:
    return shutil.which(program, path=_PATH)


class Host:
    """Tests give a root directory and programs of their own."""

    def __init__(self, runner: _process.Runner = _process.run, which: t.Callable[[str], str | None] = _which,
                 root: str | pathlib.Path = "/") -> None:
        self._runner = runner
        self._which = which
        self._root = pathlib.Path(root)

    def has(self, program: str) -> bool:
        return self._which(program) is not None

    def succeeds(self, *argv: str) -> bool:
        return self._runner(self._resolve(argv)).rc == 0

    def run(self, *argv: str, stdin: str | None = None) -> str:
        return _process.must(self._runner, self._resolve(argv), " ".join(argv), stdin=stdin)

    def complaint(self, *argv: str, stdin: str | None = None) -> str | None:
        """What the program says when it fails."""
        done = self._runner(self._resolve(argv), stdin=stdin)
        return (done.last_words or f"{argv[0]} ended with {done.rc}") if done.rc else None

    def _resolve(self, argv: t.Sequence[str]) -> list[str]:
        return [self._which(argv[0]) or argv[0], *argv[1:]]

    def path(self, path: str) -> pathlib.Path:
        return self._root / path.lstrip("/")

    def read(self, path: str) -> File | None:
        try:
            with self.path(path).open(encoding="utf-8") as stream:
                return File(os.fstat(stream.fileno()).st_mode & 0o7777, stream.read())
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as error:
            raise FleetError("foreign_object", f"{path} is not UTF-8 text: {error}.", "Convert it.") from error

    def leftovers(self, path: str) -> list[str]:
        """What killed writes of this file left beside it."""
        target = self.path(path)
        return sorted(str(pathlib.PurePosixPath(path).with_name(found.name))
                      for found in target.parent.glob(f".{target.name}.????????"))

    def write(self, path: str, file: File) -> None:
        _files.write(self.path(path), file.text, file.mode)

    def remove(self, path: str) -> None:
        """Removes the file, and its directory when that is left empty."""
        target = self.path(path)
        target.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            target.parent.rmdir()

    @contextlib.contextmanager
    def locked(self, directory: str) -> t.Iterator[None]:
        """Holds the lock that flock(1) takes on this directory; one that is still empty then goes again."""
        place = self.path(directory)
        descriptor = _lock(place)
        try:
            yield
        finally:
            for path in (place, place.parent):
                with contextlib.suppress(OSError):
                    path.rmdir()
            os.close(descriptor)


def _lock(place: pathlib.Path) -> int:
    """Whoever can open the directory can hold its lock, so it is its owner's alone."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        os.fchmod(descriptor, 0o700)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), place.stat()):
                return descriptor
        except (BlockingIOError, FileNotFoundError):  # held, or removed by who held it
            pass
        os.close(descriptor)
        if time.monotonic() > deadline:
            raise FleetError("busy", f"Another run has held the lock on {place} for {LOCK_SECONDS} seconds.",
                             "Run it again when that one has ended.")
        time.sleep(0.05)


def plan_files(plan: Plan, host: Host, desired: t.Mapping[str, File | None]) -> dict[str, File | None]:
    """Compares files, None for one that is to go, and adds what killed runs left beside them."""
    leftovers = [leftover for path in desired for leftover in host.leftovers(path)]
    for leftover in leftovers:
        plan.compare(leftover, None, "of a run that was killed")
    for path, file in desired.items():
        found = host.read(path)
        plan.compare(path, file and file.shown(), found and found.shown())
    return {**dict.fromkeys(leftovers), **desired}
