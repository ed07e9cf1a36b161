# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The port registry of a host: sticky per name, safe under concurrency, one SQLite file."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import typing as t

from ._errors import FleetError

REGISTRY = "/var/lib/clawops/ports.sqlite"
_SCHEMA = "CREATE TABLE IF NOT EXISTS port (port INTEGER PRIMARY KEY, holder TEXT NOT NULL UNIQUE)"


class Band(t.NamedTuple):
    """First and last port of a range, both included."""

    first: int
    last: int


@contextlib.contextmanager
def _transaction(registry: str) -> t.Iterator[sqlite3.Connection]:
    pathlib.Path(registry).parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(registry, timeout=30, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_SCHEMA)
        yield connection
        connection.execute("COMMIT")
    finally:
        connection.close()


def held(registry: str = REGISTRY) -> dict[str, int]:
    """Holder -> port, without creating the registry."""
    if not pathlib.Path(registry).exists():
        return {}
    connection = sqlite3.connect(f"file:{registry}?mode=ro", uri=True, timeout=30)
    try:
        return dict(connection.execute("SELECT holder, port FROM port").fetchall())
    except sqlite3.OperationalError:
        return {}
    finally:
        connection.close()


def choose(wanted: t.Mapping[str, int | None], taken: t.Mapping[str, int], band: Band) -> dict[str, int]:
    """Port for each holder: the one it has, the one it asks for, else the lowest free one of the band."""
    result: dict[str, int] = {}
    others = {port: holder for holder, port in taken.items() if holder not in wanted}
    for holder, port in wanted.items():
        keep = port or taken.get(holder)
        if keep is None:
            continue
        rival = others.get(keep) or next((name for name, used in result.items() if used == keep), None)
        if rival:
            raise FleetError("port_taken", f"Port {keep} is wanted by {holder}, but {rival} holds it.",
                             "Choose another bot_port, or leave it out.")
        result[holder] = keep
    for holder in wanted:
        if holder not in result:
            used = set(others) | set(result.values())
            free = next((p for p in range(band.first, band.last + 1) if p not in used), None)
            if free is None:
                names = ", ".join(sorted([*others.values(), *result]))
                raise FleetError("band_full", f"No free port in {band.first}-{band.last}, held by: {names}.",
                                 "Remove a bot, or widen the band.")
            result[holder] = free
    return result


def reserve(wanted: t.Mapping[str, int | None], band: Band, registry: str = REGISTRY) -> dict[str, int]:
    """Chooses and records in one transaction."""
    with _transaction(registry) as connection:
        taken = dict(connection.execute("SELECT holder, port FROM port").fetchall())
        chosen = choose(wanted, taken, band)
        connection.executemany("DELETE FROM port WHERE holder = ?", [(holder,) for holder in chosen])
        connection.executemany("INSERT INTO port (holder, port) VALUES (?, ?)", list(chosen.items()))
    return chosen


def release(holders: t.Iterable[str], registry: str = REGISTRY) -> None:
    with _transaction(registry) as connection:
        connection.executemany("DELETE FROM port WHERE holder = ?", [(holder,) for holder in holders])
