# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What the header of a qcow2 file says: read without a program, also while QEMU has the file open."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import struct
import typing as t

from .._errors import FleetError

MAGIC = b"QFI\xfb"
_FIXED = struct.Struct(">4sIQIIQ")
_FEATURES = struct.Struct(">Q")
_FEATURES_AT, _EXTERNAL_DATA = 72, 1 << 2


@dataclasses.dataclass(frozen=True)
class Header:
    """virtual_size is in bytes; backing is as it stands in the file, None without one."""

    virtual_size: int
    backing: str | None
    external_data: bool = False


def read(path: str | os.PathLike[str]) -> Header | None:
    """None when there is no such file; raises for one that is not qcow2."""
    try:
        with open(path, "rb") as stream:
            found = _header(stream)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FleetError("unreadable_disk", f"{path} can't be read: {error.strerror}.") from None
    if found is None:
        raise FleetError("no_qcow2", f"{path} is no qcow2 image.",
                         "Convert it with qemu-img convert -O qcow2, or remove it.")
    return found


def backings(paths: t.Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """The backing file of each of these that has one; whatever is no qcow2 image has none."""
    found = {}
    for path in paths:
        with contextlib.suppress(FleetError):
            header = read(path)
            if header and header.backing:
                found[str(path)] = header.backing
    return found


def within(folder: str | os.PathLike[str]) -> t.Iterator[str]:
    """Every plain file below a folder."""
    for file in pathlib.Path(folder).rglob("*"):
        if file.is_file() and not file.is_symlink():
            yield str(file)


def _header(stream: t.BinaryIO) -> Header | None:
    fixed = stream.read(_FIXED.size)
    if len(fixed) < _FIXED.size:
        return None
    magic, version, backing_at, backing_size, _cluster_bits, virtual_size = _FIXED.unpack(fixed)
    if magic != MAGIC or version not in (2, 3):
        return None
    external = False
    if version == 3:
        stream.seek(_FEATURES_AT)
        features = stream.read(_FEATURES.size)
        external = len(features) == _FEATURES.size and bool(_FEATURES.unpack(features)[0] & _EXTERNAL_DATA)
    backing = None
    if backing_at:
        stream.seek(backing_at)
        backing = stream.read(min(backing_size, 1023)).decode("utf-8", "surrogateescape")
    return Header(virtual_size, backing, external)
