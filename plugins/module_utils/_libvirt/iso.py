# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""A CD of a few small files, as bytes: no program to install, and nothing secret in a file beside it.

Plain ISO 9660 without extensions: Linux shows its names in lower case.
"""

from __future__ import annotations

import struct
import typing as t

SECTOR = 2048
_VOLUME, _END, _TABLE_LITTLE, _TABLE_BIG, _ROOT, _FIRST = 16, 17, 18, 19, 20, 21
_DIRECTORY = 2
_NO_DATE, _NO_TIME = bytes(7), b"0" * 16 + b"\0"


def image(label: str, contents: t.Mapping[str, bytes]) -> bytes:
    """The same bytes for the same contents."""
    at, records, data = _FIRST, [], []
    for name in sorted(contents):
        blocks = _padded(contents[name])
        records.append(_record(name.upper().encode("ascii") + b";1", at, len(contents[name])))
        data.append(blocks)
        at += len(blocks) // SECTOR
    itself, parent = (_record(name, _ROOT, SECTOR, _DIRECTORY) for name in (b"\0", b"\1"))
    root = b"".join([itself, parent, *records])
    if len(root) > SECTOR:
        raise ValueError("too many files for one directory block")
    little, big = (struct.pack(f"{order}BBIH", 1, 0, _ROOT, 1) + b"\0\0" for order in "<>")
    volume = _volume(label, at, len(little), itself)
    end = b"\xffCD001\1"
    return bytes(_VOLUME * SECTOR) + b"".join(map(_padded, (volume, end, little, big, root))) + b"".join(data)


def _volume(label: str, sectors: int, table: int, root: bytes) -> bytes:
    return b"".join([
        b"\1CD001\1\0", _text("", 32), _text(label, 32), bytes(8), _both32(sectors), bytes(32),
        _both16(1), _both16(1), _both16(SECTOR), _both32(table),
        struct.pack("<II", _TABLE_LITTLE, 0), struct.pack(">II", _TABLE_BIG, 0), root,
        _text("", 4 * 128), _text("", 3 * 37), _NO_TIME * 4, b"\1\0"])


def _record(name: bytes, at: int, size: int, flags: int = 0) -> bytes:
    body = b"".join([b"\0", _both32(at), _both32(size), _NO_DATE, bytes([flags, 0, 0]), _both16(1), bytes([len(name)]),
                     name, b"" if len(name) % 2 else b"\0"])
    return bytes([len(body) + 1]) + body


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % SECTOR)


def _text(text: str, width: int) -> bytes:
    return text.encode("ascii").ljust(width)


def _both16(number: int) -> bytes:
    return struct.pack("<H", number) + struct.pack(">H", number)


def _both32(number: int) -> bytes:
    return struct.pack("<I", number) + struct.pack(">I", number)
