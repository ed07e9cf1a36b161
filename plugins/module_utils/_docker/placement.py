# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""On which host a space is to be: the same for the same hosts and spaces, whoever asks.

A space stays where it stands, even if only its volume is left. Where it stands is written nowhere but there, so a
space that nobody has seen is put nowhere as long as a host has not answered: it might be there, and the new one
would be its empty twin.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._errors import FleetError
from .space import Space

#: What each host answered, as sandbox_space_info returns it: host (capabilities), spaces and volumes. Anything else is
#: no answer.
Answers = t.Mapping[str, t.Optional[t.Mapping[str, t.Any]]]


@dataclasses.dataclass(frozen=True)
class Placement:
    """Hosts by space; spaces that nobody can place as long as hosts are silent, with the reason."""

    hosts: dict[str, str]
    waiting: dict[str, str]


class Refused(Exception):
    """This space has no place."""


@dataclasses.dataclass
class Room:
    """What a host still has, and what of it is promised in this run."""

    name: str
    facts: t.Mapping[str, t.Any]
    memory: int
    cpus: float

    def objection(self, space: Space) -> str:
        """Why the space does not fit; nothing if it does. Processors are shared, memory is not."""
        return self.impossible(space) or (
            f"{_size(self.memory)} of memory are free" if space.memory > self.memory else "")

    def impossible(self, space: Space) -> str:
        """What no free room would change."""
        gpu = self.facts["gpu"]
        if space.gpu and not gpu["count"]:
            return "it has no GPU"
        if space.gpu > gpu["count"]:
            return f"it has {gpu['count']} GPU"
        if space.gpu and not gpu["ready"]:
            return "its engine has nothing that hands a GPU to a container"
        return f"it has {self.facts['cpus']} processors" if space.cpus > self.facts["cpus"] else ""

    def take(self, space: Space) -> None:
        self.memory -= space.memory
        self.cpus -= space.cpus


def place(spaces: t.Iterable[Space], answers: Answers, overcommit: float = 1.0) -> Placement:
    """A host for each space. overcommit is how much of its memory a host lends. Raises if one has no place."""
    heard = {name: answer for name, answer in answers.items() if answer and answer.get("host")}
    rooms = {name: _room(name, answer["host"], overcommit) for name, answer in heard.items()}
    standing = _standing(heard)
    silent = sorted(set(answers) - set(heard))
    placement = Placement({}, {})
    refused: list[str] = []

    def order(space: Space) -> tuple[bool, int, str]:
        # Those without a choice come first, then the largest, because they find room in the fewest places.
        return not (space.on or space.name in standing), -space.memory, space.name

    for space in sorted(spaces, key=order):
        found = standing.get(space.name, {})
        try:
            host = _named(space, answers, rooms, found) if space.on else _sticky(space, found)
            if host is None and silent:
                placement.waiting[space.name] = _waits(space, silent)
            elif host is None and space.state != "absent":
                host = _chosen(space, rooms)
        except Refused as refusal:
            refused.append(str(refusal))
            continue
        if host is not None:
            placement.hosts[space.name] = host
            if host in rooms and space.state != "absent" and found.get(host, "absent") == "absent":
                rooms[host].take(space)
    if refused:
        raise FleetError("no_place", " ".join(refused))
    return placement


def _room(name: str, facts: t.Mapping[str, t.Any], overcommit: float) -> Room:
    claimed = facts["memory"] - facts["free"]["memory"]
    return Room(name, facts, int(facts["memory"] * overcommit) - claimed, facts["free"]["cpus"])


def _standing(heard: t.Mapping[str, t.Mapping[str, t.Any]]) -> dict[str, dict[str, str]]:
    """For each space its state by host; absent is one of which only the volume is left."""
    found: dict[str, dict[str, str]] = {}
    for host in sorted(heard):
        states = {**dict.fromkeys(heard[host].get("volumes", ()), "absent"),
                  **{space["name"]: space["state"] for space in heard[host]["spaces"]}}
        for name, state in states.items():
            found.setdefault(name, {})[host] = state
    return found


def _named(space: Space, answers: Answers, rooms: t.Mapping[str, Room], found: t.Mapping[str, str]) -> str:
    host = t.cast(str, space.on)
    if host not in answers:
        raise Refused(f"space_on: {host} is refused for {space.name}: it is not one of {', '.join(sorted(answers))}.")
    if found and host not in found:
        raise Refused(
            f"space_on: {host} is refused for {space.name}: it stands on {', '.join(found)}. Put space_on back, or "
            f"leave it out. To begin anew on {host}, save what is in {space.name}, remove it where it stands with "
            "fleet_state: absent and purge_data: true, then change space_on.")
    reason = rooms[host].impossible(space) if host in rooms and space.state != "absent" else ""
    if reason and not found:
        raise Refused(f"space_on: {host} is refused for {space.name}: {reason}.")
    return host


def _sticky(space: Space, found: t.Mapping[str, str]) -> str | None:
    if len(found) > 1:
        raise Refused(f"{space.name} stands on {', '.join(found)}: say with space_on which one is meant.")
    return next(iter(found), None)


def _waits(space: Space, silent: list[str]) -> str:
    hosts = ", ".join(silent)
    if space.state == "absent":
        return f"{hosts} did not answer, so nobody knows whether it is gone there."
    return (f"{hosts} did not answer and may have it. A new one elsewhere would be its empty twin. Bring the host "
            "back, take it out of the inventory, or say with space_on where the space is to be.")


def _chosen(space: Space, rooms: t.Mapping[str, Room]) -> str:
    if space.workspace.path:
        raise Refused(f"{space.name} works on {space.workspace.path} of a host: say with space_on of which one.")
    objections = {name: room.objection(space) for name, room in rooms.items()}
    fitting = [room for name, room in rooms.items() if not objections[name]]
    if not fitting:
        wanted = f"{_size(space.memory)} of memory, {space.cpus:g} processors"
        wanted += "" if not space.gpu else ", all GPUs" if space.gpu < 0 else f", {space.gpu} GPU"
        reasons = "; ".join(f"{name}: {objections[name]}" for name in sorted(objections)) or "there is no host"
        raise Refused(f"No host has room for {space.name} ({wanted}): {reasons}.")
    return min(fitting, key=lambda room: (-room.memory, -room.cpus, room.name)).name


def _size(size: int) -> str:
    return f"{size / 1024**3:.1f}Gi"
