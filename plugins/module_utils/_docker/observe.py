# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What there is of spaces on an engine: for many with one list for each kind, for one by its names."""

from __future__ import annotations

import dataclasses
import typing as t

from .._ownership import FLEET, is_ours
from . import names
from .client import Engine, Json


@dataclasses.dataclass
class Parts:
    """The objects that have the names of one space's objects, whosever they are."""

    container: Json | None = None
    old: Json | None = None
    helper: bool = False
    volume: Json | None = None
    network: Json | None = None


class Seen:
    """Parts by name of the space, images by reference."""

    def __init__(self) -> None:
        self.parts: dict[str, Parts] = {}
        self.images: dict[str, Json | None] = {}
        self.owners: dict[str, set[str]] = {}

    def of(self, name: str) -> Parts:
        return self.parts.setdefault(name, Parts())

    def named(self, fleet: str | None) -> list[str]:
        """Spaces of one fleet, or of any. A volume alone is no space: it is what an absent one leaves behind."""
        return sorted(name for name, fleets in self.owners.items() if fleets and (fleet is None or fleet in fleets))

    def _claim(self, marks: t.Mapping[str, str] | None, name: str) -> None:
        if is_ours(marks) and (marks or {}).get(names.SPACE) == name:
            self.owners.setdefault(name, set()).add((marks or {}).get(FLEET, ""))


def everything(engine: Engine, wanted: t.Callable[[str], bool] = lambda name: True) -> Seen:
    """One list of containers, one of volumes, one of networks, and an inspection of each wanted container."""
    seen = Seen()
    with engine.doing("list containers, volumes and networks"):
        containers = engine.containers(f"^/?{names.STEM}")
        volumes = engine.volumes(names.VOLUME_STEM)
        networks = engine.networks(names.STEM)
    for entry in containers:
        name, kind = _space_of(entry)
        if not wanted(name):
            continue
        found = engine.inspect(entry["Id"])
        if found is not None:
            _place(seen.of(name), kind, found)
            if kind != "helper":
                seen._claim(entry.get("Labels"), name)
    for entry in networks:
        if entry["Name"].startswith(names.STEM):
            name = entry["Name"][len(names.STEM):]
            seen.of(name).network = entry
            seen._claim(entry.get("Labels"), name)
    for entry in volumes:
        if entry["Name"].startswith(names.VOLUME_STEM):
            seen.of(entry["Name"][len(names.VOLUME_STEM):]).volume = entry
    return seen


def one(engine: Engine, name: str) -> Parts:
    """One space as it is now."""
    return Parts(
        container=engine.inspect(names.container(name)), old=engine.inspect(names.old_container(name)),
        helper=engine.inspect(names.helper(name)) is not None,
        volume=engine.volume(names.volume(name)), network=engine.network(names.network(name)))


def _space_of(entry: Json) -> tuple[str, str]:
    title = next(title.lstrip("/") for title in entry["Names"] if title.lstrip("/").startswith(names.STEM))
    name, _dot, kind = title[len(names.STEM):].partition(".")
    return name, {"": "container", "old": "old", "prepare": "helper"}.get(kind, "other")


def _place(parts: Parts, kind: str, found: Json) -> None:
    if kind == "helper":
        parts.helper = True
    elif kind != "other":
        setattr(parts, kind, found)


def status(container: Json | None) -> str:
    """absent, created, running, paused or exited; what is neither is dead."""
    if container is None:
        return "absent"
    word = str(container["State"].get("Status"))
    word = {"restarting": "running", "stopped": "exited"}.get(word, word)
    return word if word in ("created", "running", "paused", "exited") else "dead"


def bridge_of(network: Json | None) -> str | None:
    return ((network or {}).get("Options") or {}).get("com.docker.network.bridge.name")
