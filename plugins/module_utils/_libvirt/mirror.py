# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""A copy of a guest's disk that restic reads: small files, so that what did not change is not read again.

{index // GROUP}/{index % GROUP} holds the SEGMENT bytes at index * SEGMENT; where there is no file the disk has zeros.
SHA256SUMS lists the files as sha256sum does. Every file is whole at any time: it is written beside and renamed.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import typing as t

from .. import _files
from .._errors import FleetError

SEGMENT = 4 * 1024**2
GROUP = 256
SUMS = "SHA256SUMS"
#: What must stay free on the file system: guests whose disks are full stand still.
RESERVE = 512 * 1024**2
_ZEROS = bytes(SEGMENT)
#: Where in a segment, and what; None are that many zeros.
Piece = tuple[int, int, t.Optional[bytes]]


class Mirror:
    """The copy of one disk."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.sums: dict[int, str] = {}
        for line in (_files.read(folder / SUMS) or "").splitlines():
            digest, _gap, name = line.partition("  ")
            self.sums[_index(name)] = digest

    def path(self, index: int) -> pathlib.Path:
        return self.folder / _name(index)

    def sound(self) -> bool:
        """Whether all listed files are there, each of full length.

        A copy that did not come to its end may have left more: what was dirty then is dirty for the next one, too.
        """
        found = {index: path.stat().st_size for index, path in self._files()}
        return all(found.get(index) == SEGMENT for index in self.sums)

    def used(self) -> int:
        """Bytes that it takes on the host."""
        return SEGMENT * sum(1 for _file in self._files())

    def update(self, index: int, pieces: t.Sequence[Piece], whole: bool) -> None:
        """Writes pieces into a segment; with whole=True there are zeros wherever they leave a gap."""
        path = self.path(index)
        found = path.read_bytes() if path.exists() else None
        if whole and all(data is None for _start, _length, data in pieces):
            new: bytes | bytearray = _ZEROS
        else:
            new = bytearray(_ZEROS if whole or found is None else found)
            for start, length, data in pieces:
                new[start:start + length] = _ZEROS[:length] if data is None else data
        if new == _ZEROS:
            path.unlink(missing_ok=True)
            self.sums.pop(index, None)
            return
        self.sums[index] = hashlib.sha256(new).hexdigest()
        if new != found:
            self._write(path, new)

    def _write(self, path: pathlib.Path, data: bytes | bytearray) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_room(self.folder, SEGMENT)
        beside = path.with_name(f".{path.name}")
        with open(beside, "wb", opener=_private) as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)

    def finish(self, size: int) -> str:
        """Lists the files of a disk of this size; returns the digest of the list, which stands for the disk."""
        end = -(-size // SEGMENT)
        for index, path in list(self._files()):
            if index >= end:
                path.unlink()
                self.sums.pop(index, None)
        text = "".join(f"{digest}  {_name(index)}\n" for index, digest in sorted(self.sums.items()))
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _files.write(self.folder / SUMS, text, 0o600)
        return hashlib.sha256(text.encode()).hexdigest()

    def segments(self) -> t.Iterator[tuple[int, bytes]]:
        """What is in the listed files, verified; each file is removed after its turn."""
        for index, digest in sorted(self.sums.items()):
            path = self.path(index)
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            if len(data) != SEGMENT or hashlib.sha256(data).hexdigest() != digest:
                raise FleetError("checksum", f"{self.folder.name}/{_name(index)} is not what the snapshot says.",
                                 "Choose another snapshot, and run restic check.")
            yield index, data
            path.unlink()

    def _files(self) -> t.Iterator[tuple[int, pathlib.Path]]:
        """The segments that are there; what a killed run left beside them is removed."""
        for path in self.folder.glob("*/*"):
            if path.name.startswith("."):
                path.unlink()
            else:
                yield _index(f"{path.parent.name}/{path.name}"), path


def digest(folder: pathlib.Path) -> str:
    """Stands for the disk: the digest of the list of its segments."""
    return hashlib.sha256((_files.read(folder / SUMS) or "").encode()).hexdigest()


def check_room(folder: pathlib.Path, needed: int) -> None:
    """Raises unless so much can be written here with something to spare."""
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed + RESERVE:
        raise FleetError("disk_full", f"{folder} needs {needed} bytes besides the {RESERVE} that are left alone; "
                                      f"{free} are free.", "Make room on this host.", needed=needed, free=free)


def _name(index: int) -> str:
    return f"{index // GROUP:06d}/{index % GROUP:03d}"


def _index(name: str) -> int:
    group, _slash, rest = name.partition("/")
    if not (group.isdigit() and rest.isdigit()):
        raise FleetError("mirror_damaged", f"There is a strange file in a mirror: {name!r}.",
                         "Remove the directory mirror of this guest; the next backup makes it anew.")
    return int(group) * GROUP + int(rest)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
