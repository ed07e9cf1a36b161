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
import typing as t

from .. import _files, _process

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

    def write(self, path: str, file: File) -> None:
        _files.write(self.path(path), file.text, file.mode)

    def remove(self, path: str) -> None:
        """Removes the file, and its directory when that is left empty."""
        target = self.path(path)
        target.unlink()
        with contextlib.suppress(OSError):
            target.parent.rmdir()

    @contextlib.contextmanager
    def locked(self, directory: str) -> t.Iterator[None]:
        """Holds the lock that flock(1) takes on this directory."""
        place = self.path(directory)
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
