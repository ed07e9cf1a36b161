# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Pairs of NodePorts. The Service is the reservation, and what the API server says about it is the truth."""

from __future__ import annotations

import random
import threading
import time
import typing as t

from .._errors import FleetError
from .._ownership import PREFIX, is_ours
from .._ports import Band, choose_pairs
from .client import Cluster, Json
from .manifests import CHROME

BAND = Band(30100, 30199)
_BOT = f"{PREFIX}/bot"


def pair_of(service: t.Mapping[str, t.Any] | None) -> int | None:
    """The even port of a Service, None where it has no pair yet."""
    ports = (service or {}).get("spec", {}).get("ports") or []
    return next((port.get("nodePort") for port in ports if port.get("port") == CHROME), None)


def taken(services: t.Iterable[t.Mapping[str, t.Any]]) -> dict[int, str]:
    """Who has which NodePort: the bot's name, or the Service's own."""
    found = {}
    for service in services:
        metadata = service["metadata"]
        marks = metadata.get("labels") or {}
        holder = marks.get(_BOT) if is_ours(marks) else None
        ports = [port.get("nodePort") for port in service["spec"].get("ports") or []]
        for port in [*ports, service["spec"].get("healthCheckNodePort")]:
            if port:
                found[port] = holder or f"Service {metadata['namespace']}/{metadata['name']}"
    return found


class Pairs:
    """The pairs of one band. One for all threads of a run, so that they don't compete among themselves."""

    def __init__(self, cluster: Cluster, band: Band, namespace: str):
        self.cluster, self.band, self.namespace = cluster, band, namespace
        self.used: dict[int, str] = {}
        self._lock = threading.Lock()

    def look(self) -> list[Json]:
        """All Services that the account may see: of the cluster, or of the namespace."""
        try:
            services = self.cluster.list("Service")
        except FleetError as error:
            if error.code != "forbidden":
                raise
            services = self.cluster.list("Service", self.namespace)
        self.used |= taken(services)
        return services

    def choose(self, wanted: t.Mapping[str, int | None]) -> dict[str, int]:
        """Pairs for holders; the cluster is asked only when somebody needs a new one."""
        if None in wanted.values():
            self.look()
        chosen = choose_pairs(wanted, self.used, self.band)
        self.used |= {number: holder for holder, port in chosen.items() for number in (port, port + 1)}
        return chosen

    def create(self, holder: str, pair: int, service: t.Callable[[int], Json], fixed: bool = False) -> Json:
        """Creates the holder's Service; with the next free pair where somebody else was faster, unless it is fixed.

        The error already_exists says that another run has made it meanwhile.
        """
        tries = 0
        while True:
            try:
                return self.cluster.create(service(pair))
            except FleetError as error:
                if error.code != "port_taken" or fixed:
                    raise
            tries += 1
            time.sleep(random.uniform(0, 0.02 * min(tries, 10)))  # noqa: S311 jitter
            with self._lock:
                pair = self._next(holder, pair)

    def _next(self, holder: str, refused: int) -> int:
        self.look()
        for number in (refused, refused + 1):
            if self.used.get(number, holder) == holder:
                self.used[number] = "somebody whom this account can't see"
        chosen = choose_pairs({holder: None}, self.used, self.band)[holder]
        self.used |= {chosen: holder, chosen + 1: holder}
        return chosen
