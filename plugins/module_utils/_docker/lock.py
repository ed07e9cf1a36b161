# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""One lock for each space of a host: shared while somebody works in it, exclusive to change it or put it to sleep.

The file's time is that of the last work.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import typing as t

from .. import _lock
from .._ownership import check_name
from . import names


def path(name: str) -> pathlib.Path:
    return names.LOCKS / f"{check_name('space', name)}.lock"


def hold(name: str, shared: bool = False, timeout: float = 60.0) -> t.ContextManager[None]:
    """Holds the lock of a space; FleetError busy after timeout seconds, with 0 at once."""
    return _lock.hold(path(name), f"Space {name}", shared, timeout)


def touch(name: str) -> None:
    """Says that there is work in the space now."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(path(name))
