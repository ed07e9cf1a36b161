# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The port registry of a host: sticky per name, safe under concurrency, one SQLite file."""

from __future__ import annotations

import contextlib
import errno
import pathlib
import socket
import sqlite3
import typing as t

from ._errors import FleetError, bad_value

REGISTRY = "/var/lib/clawops/ports.sqlite"
_SCHEMA = ("CREATE TABLE IF NOT EXISTS port (port INTEGER PRIMARY KEY, holder TEXT NOT NULL UNIQUE)",
           "CREATE TABLE IF NOT EXISTS pair (port INTEGER PRIMARY KEY, holder TEXT NOT NULL UNIQUE)")


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
        for table in _SCHEMA:
            connection.execute(table)
        yield connection
        connection.execute("COMMIT")
    finally:
        connection.close()


def held(registry: str = REGISTRY) -> dict[str, int]:
    """Holder -> port, without creating the registry."""
    return _read(registry, "SELECT holder, port FROM port")


def held_pairs(registry: str = REGISTRY) -> dict[str, int]:
    """Holder -> even port of its pair, without creating the registry."""
    return _read(registry, "SELECT holder, port FROM pair")


def _read(registry: str, query: str) -> dict[str, int]:
    if not pathlib.Path(registry).exists():
        return {}
    connection = sqlite3.connect(f"file:{registry}?mode=ro", uri=True, timeout=30)
    try:
        return dict(connection.execute(query).fetchall())
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


def pair_band(first: int, last: int) -> Band:
    """A band of pairs: an even port and the odd one after it."""
    if first % 2 or not last % 2 or not 1024 <= first < last <= 65535:
        raise bad_value("band", f"{first}-{last}", "Give an even first and an odd last port from 1024 to 65535.")
    return Band(first, last)


def choose_pairs(wanted: t.Mapping[str, int | None], taken: t.Mapping[int, str], band: Band) -> dict[str, int]:
    """The even port for each holder: the one it has or asks for, else the lowest of a pair that is free as a whole.

    taken says who has which port, foreign ports among them.
    """
    result = {holder: port for holder, port in wanted.items() if port is not None}
    used = dict(taken)
    for holder, port in result.items():
        rivals = {used.get(number, holder) for number in (port, port + 1)} - {holder}
        if rivals or port % 2:
            raise FleetError("port_taken", f"Ports {port} and {port + 1} are wanted by {holder}, "
                             + (f"but {sorted(rivals)[0]} holds them." if rivals else "which is no even/odd pair."),
                             "Choose another even port, or leave it out.")
        used |= {port: holder, port + 1: holder}
    for holder in wanted:
        if holder in result:
            continue
        free = next((p for p in range(band.first, band.last, 2) if p not in used and p + 1 not in used), None)
        if free is None:
            names = sorted({used[p] for p in range(band.first, band.last + 1) if p in used})
            raise FleetError("band_full", f"No free pair of ports in {band.first}-{band.last} for {holder}, "
                             f"held by: {', '.join(names)}.", "Remove a bot, or widen the band.")
        result[holder] = free
        used |= {free: holder, free + 1: holder}
    return result


def listening(port: int) -> bool:
    """Whether a program of this host has the port."""
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 bound for a moment
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
    return False


def plan_pairs(holders: t.Iterable[str], band: Band, registry: str = REGISTRY) -> dict[str, int]:
    """What reserve_pairs would choose now."""
    return _choose_pairs(holders, held_pairs(registry), held(registry), band)


def reserve_pairs(holders: t.Iterable[str], band: Band, registry: str = REGISTRY) -> dict[str, int]:
    """Chooses and records in one transaction."""
    with _transaction(registry) as connection:
        pairs, ports = (dict(connection.execute(f"SELECT holder, port FROM {table}").fetchall())  # noqa: S608
                        for table in ("pair", "port"))
        chosen = _choose_pairs(holders, pairs, ports, band)
        connection.executemany("INSERT OR IGNORE INTO pair (holder, port) VALUES (?, ?)", list(chosen.items()))
    return chosen


def _choose_pairs(holders: t.Iterable[str], pairs: t.Mapping[str, int], ports: t.Mapping[str, int], band: Band
                  ) -> dict[str, int]:
    wanted = {holder: pairs.get(holder) for holder in holders}
    taken = {port: holder for holder, port in ports.items()}
    taken |= {number: holder for holder, port in pairs.items() for number in (port, port + 1)}
    if None in wanted.values():
        free = (port for port in range(band.first, band.last + 1) if port not in taken)
        taken |= {port: "a program of this host" for port in free if listening(port)}
    return choose_pairs(wanted, taken, band)


def release_pairs(holders: t.Iterable[str], registry: str = REGISTRY) -> None:
    with _transaction(registry) as connection:
        connection.executemany("DELETE FROM pair WHERE holder = ?", [(holder,) for holder in holders])
