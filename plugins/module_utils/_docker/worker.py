# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What the passes over all spaces of a host have in common: settings, the list, one pass at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import typing as t

from .._files import read_json
from .._ownership import MANAGED
from .client import Engine
from .names import SPACE

SETTINGS = "/etc/clawops/spaces.json"
Found = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Settings:
    """cpu: processors, network: bytes per second; what uses less than both is idle. engine_timeout: seconds."""

    cpu: float = 0.01
    network: int = 64
    engine_timeout: int = 20

    @classmethod
    def load(cls, path: str = SETTINGS) -> Settings:
        values = read_json(path)
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in (values or {}).items() if key in known})


def spaces(engine: Engine, everything: bool = True) -> list[tuple[str, Found]]:
    """Name and summary of each space of this host, or of those that run."""
    filters: dict[str, t.Any] = {"label": [f"{MANAGED}=true", SPACE]}
    if not everything:
        filters["status"] = ["running"]
    with engine.doing("list the spaces"):
        listed = engine.api.containers(all=everything, filters=filters)
    return sorted((found["Labels"][SPACE], found) for found in listed)


@contextlib.contextmanager
def alone(what: str, state: pathlib.Path) -> t.Iterator[bool]:
    """Whether this is the only pass of its kind."""
    state.mkdir(parents=True, exist_ok=True)
    handle = os.open(state / f".{what}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
