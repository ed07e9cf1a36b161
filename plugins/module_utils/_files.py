# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Files that are either the old or the new one, whenever the process dies."""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
import typing as t


def read(path: str | pathlib.Path) -> str | None:
    """Text of a file; None when it is absent."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def read_json(path: str | pathlib.Path) -> t.Any:
    """Value of a JSON file; None when it is absent or not JSON."""
    text = read(path)
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return None


def write(path: str | pathlib.Path, text: str, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
    """Writes beside, syncs, renames; makes missing parent directories (0755)."""
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        os.fchmod(handle, mode)
        if os.geteuid() == 0:
            os.fchown(handle, uid, gid)
        with open(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        pathlib.Path(beside).replace(target)
    except BaseException:
        pathlib.Path(beside).unlink(missing_ok=True)
        raise


def pretty(value: t.Any) -> str:
    """JSON text as it lands in files: indented, in the order of the model."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
