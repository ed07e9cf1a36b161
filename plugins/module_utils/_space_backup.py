# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Volumes of spaces as sources and targets of backups: where the engine and restic meet."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from ._backup.host import HostSource, HostTarget, Place, Tree
from ._backup.model import Manifest, Scratch, Staged
from ._docker import lock, names
from ._docker.client import Engine
from ._errors import FleetError
from ._ownership import FLEET, guard

SUBSTRATE, ROLE = "docker_host", "volume"
# Beside the directories of spaces, whose names can't meet it.
STATE = str(names.STATE / ".backup")


def volume_of(engine: Engine, name: str, fleet: str) -> str:
    """The directory of the host that is a space's volume."""
    title = names.volume(name)
    found = engine.volume(title)
    if found is None:
        raise FleetError("path_missing", f"Space {name} has no volume on this host.",
                         "Make the space first, or name the host that has it.", space=name)
    marks = found.get("Labels") or {}
    guard(f"Volume {title}", marks, "space", name)
    if marks.get(FLEET) != fleet:
        raise FleetError("foreign_object", f"Volume {title} belongs to fleet {marks.get(FLEET)}.", space=name)
    if found.get("Driver", "local") != "local" or found.get("Options"):
        raise FleetError("volume_elsewhere", f"Volume {title} is not a plain directory of this host.",
                         "Back it up where it is.", space=name)
    return str(found["Mountpoint"])


class SpaceSource(HostSource):
    """The volume of one space. While it is read nobody changes the space or puts it to sleep."""

    def __init__(self, engine: Engine, name: str, fleet: str, host: str, exclude: t.Sequence[str], timeout: float
                 ) -> None:
        self.engine, self.exclude = engine, tuple(exclude)
        super().__init__(name, fleet, host, [Tree(ROLE, "/workspace")], SUBSTRATE, state=STATE, timeout=timeout)

    def observe(self) -> dict[str, t.Any]:
        self.trees = (Tree(ROLE, volume_of(self.engine, self.bot, self.fleet), self.exclude),)
        return super().observe()

    @contextlib.contextmanager
    def open(self) -> t.Iterator[Staged]:
        with lock.hold(self.bot, shared=True), super().open() as staged:
            yield staged


@dataclasses.dataclass(frozen=True)
class Volume(Place):
    """The directory that is a volume: what comes into it belongs to whom it belonged to."""

    def ids(self) -> tuple[int, int]:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            raise FleetError("path_missing", f"{self.path} is not there.", "Make the space first.") from None
        return found.st_uid, found.st_gid


class SpaceTarget(HostTarget):
    """The volume of one space that does not run. Nobody starts or changes it meanwhile."""

    def __init__(self, engine: Engine, name: str, fleet: str, stop: bool, keep_previous: bool) -> None:
        self.engine, self.fleet = engine, fleet
        super().__init__(name, [Volume(ROLE, "/workspace", "")], (), stop, keep_previous, STATE)

    def places(self) -> dict[str, str]:
        self._places = (Volume(ROLE, volume_of(self.engine, self.bot, self.fleet), ""),)
        return super().places()

    def occupied(self) -> list[str]:
        self.places()
        return super().occupied()

    @contextlib.contextmanager
    def open(self, manifest: Manifest) -> t.Iterator[list[Scratch]]:
        with lock.hold(self.bot), super().open(manifest) as scratches:
            yield scratches

    def _running(self) -> list[str]:
        found = self.engine.inspect(names.container(self.bot))
        return [names.container(self.bot)] if found and found["State"].get("Running") else []

    def _stop(self) -> None:
        running = self._running()
        if running and not self.stop:
            raise FleetError("bot_running", f"Space {self.bot} was started during its restore.",
                             "Stop it, or set stop: true.", space=self.bot)
        for container in running:
            with self.engine.doing(f"stop {container}"):
                # One that is paused hears nothing until it goes on.
                if (self.engine.inspect(container) or {"State": {}})["State"].get("Paused"):
                    self.engine.api.unpause(container)
                self.engine.api.stop(container, timeout=10)
