# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What takes one guest from how it is to how it is wanted: an ordered list of steps, and nothing written.

The same decision is made twice: for the plan, and again under the guest's lock, right before the steps are taken.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .. import _ownership as ownership
from .._errors import FleetError, bad_value
from .._plan import Change
from . import definition, names, seed
from .client import Platform
from .definition import View
from .observe import Parts
from .spec import Guest

_SIZES = {"memory", "memory_max"}
_TITLES = {"cpu": "processor", "cpus": "processors", "cpus_max": "most processors", "memory_max": "most memory",
           "shared_memory": "shared memory"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What one call says about all of its guests."""

    fleet: str
    purge_data: bool = False
    share_paths: tuple[str, ...] = ()
    timeout: float = 120.0


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing to do."""

    verb: str
    values: t.Any = None


@dataclasses.dataclass
class Decision:
    """The steps, the changes that they are to a reader, and what is not as wanted but takes a power cycle."""

    steps: list[Step] = dataclasses.field(default_factory=list)
    changes: list[Change] = dataclasses.field(default_factory=list)
    pending: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def do(self, verb: str, values: t.Any = None) -> None:
        self.steps.append(Step(verb, values))

    def say(self, subject: str, action: str, before: t.Any = None, after: t.Any = None) -> None:
        self.changes.append(Change(subject, action, before, after))


def decide(guest: Guest, parts: Parts, settings: Settings, platform: Platform) -> Decision:
    """For one guest of any state. Raises FleetError where it can't be done."""
    guard(guest.name, parts, settings.fleet)
    if guest.state == "absent":
        return _absent(guest.name, parts, settings)
    return _Present(guest, parts, settings, platform).decide()


def guard(name: str, parts: Parts, fleet: str) -> None:
    """Refuses what isn't this fleet's guest of this name."""
    if parts.inactive is not None:
        marks = definition.marks_of(parts.inactive)
        ownership.guard(f"The domain {name}", marks, "vm", name)
        check_fleet(f"The domain {name}", marks.get(ownership.FLEET), fleet)
    if parts.record:
        check_fleet(f"The directory {names.folder(name)}", parts.record.get("fleet"), fleet)
    elif parts.disks and parts.inactive is None:
        raise FleetError("foreign_object", f"{names.folder(name)} has disks, and no record of this collection's.",
                         "Use another name, or move them away.")


def check_fleet(what: str, found: str | None, fleet: str) -> None:
    """Two fleets may have guests of the same name, and not on the same host."""
    if found != fleet:
        raise FleetError("foreign_object", f"{what} belongs to the fleet {found}, and this is {fleet}.",
                         "Use another name.")


def _absent(name: str, parts: Parts, settings: Settings) -> Decision:
    """Without the domain and all that is made again from the description; data only when it is said."""
    decision = Decision()
    if parts.domain is not None:
        decision.say(f"guest {name}", "delete", parts.state)
        if parts.active:
            decision.do("cut" if settings.purge_data else "stop")
        decision.do("undefine")
    if settings.purge_data:
        if parts.record:
            decision.say(f"disks of {name}", "delete", sorted(parts.disks))
            decision.do("purge")
    elif parts.seed:
        if not decision.changes:
            decision.say(f"seed of {name}", "delete", "present")
        decision.do("discard_seed")
    return decision


class _Present:
    """One decision on its way."""

    def __init__(self, guest: Guest, parts: Parts, settings: Settings, platform: Platform) -> None:
        self.guest, self.parts, self.settings, self.platform = guest, parts, settings, platform
        self.name = guest.name
        self.decision = Decision()
        generation = int(parts.record.get("generation") or 0)
        if guest.generation < generation:
            raise bad_value("vm_generation", guest.generation, f"The guest {self.name} has generation {generation}.")
        #: A new root disk begins a new installation; so does a higher generation on the same one.
        self.is_new = names.ROOT not in parts.disks
        self.seeded = self.is_new or not parts.record.get("first_boot_over") or guest.generation > generation
        self.tree = definition.build(guest, settings.fleet, platform, self.seeded)
        self.wanted = definition.view(self.tree, guest.machine)
        self.found = self._view(parts.inactive)
        self.live = self._view(parts.live)
        self.changed = definition.differences(self.wanted, self.found) if parts.inactive is not None else {}
        self.hot: list[tuple[str, str]] = []
        self.cold: dict[str, tuple[t.Any, t.Any]] = {}

    def _view(self, tree: t.Any) -> View:
        return {} if tree is None else definition.view(tree, self.guest.machine)

    def decide(self) -> Decision:
        if self.is_new and self.parts.active:
            raise FleetError("lost_disk", f"The guest {self.name} runs, and {names.disk(self.name)} is not there.",
                             "Stop it first; with its next start it is installed anew.")
        if self.parts.active:
            self._compare_live()
        waits_for_seed = self._seed_waits()
        down = self._goes_down()
        if not self.parts.record or (self.seeded and self.parts.record.get("first_boot_over")):
            self.decision.do("remember", {"fleet": self.settings.fleet, "first_boot_over": False})
        if down:
            self.decision.do("stop")
        self._disks()
        if self.seeded and not (waits_for_seed and not down):
            self._seed()
        self._define(live=self.parts.active and not down)
        self._autostart()
        self._power(down)
        self._drop_disks()
        self._remember()
        return self.decision

    # -- the running domain ---------------------------------------------------------------------------------------

    def _compare_live(self) -> None:
        """What of the differences can be made while it runs, and what takes a power cycle."""
        for key, (found, wanted) in definition.differences(self.wanted, self.live).items():
            verb = self._live_verb(key, found, wanted)
            if verb == "cold":
                self.cold[key] = (found, wanted)
            elif verb:
                self.hot.append((verb, key))

    def _live_verb(self, key: str, found: t.Any, wanted: t.Any) -> str | None:
        """The verb, cold, or None where there is nothing to do."""
        kind = key.split(" ")[0]
        if key in ("memory_max", "cpus_max"):
            # Room that is left over does no harm.
            return "cold" if wanted > found else None
        if key == "memory":
            # What the guest gives back, and when, is its own affair: it is asked once, before that is written down.
            return None if wanted > self.live["memory_max"] else "balloon" if "memory" in self.changed else None
        if key == "cpus":
            # Without KVM Linux doesn't know that it is a guest, and takes no more than it has started with.
            has_room = self.platform.kvm and found < wanted <= self.live["cpus_max"]
            return "plug_cpus" if has_room else "cold"
        if key == definition.SEED:
            # Where it is missing, its end has begun; with another instance that one's start brings it.
            return "detach" if wanted is None else None
        if kind in ("disk", "network") and (found is None or wanted is None):
            return "attach" if found is None else "detach"
        if kind == "network" and found["mac"] == wanted["mac"]:
            return "change"
        return "cold"

    @property
    def _same_instance(self) -> bool:
        return bool(self.live.get("instance") == self.wanted["instance"])

    def _seed_waits(self) -> bool:
        """Whether a running guest was started with another seed of this instance."""
        if not (self.seeded and self.parts.active and self._same_instance and self.parts.record.get("seed")):
            return False
        waits = bool(self._digest() != self.parts.record["seed"])
        if waits:
            self.cold["first boot"] = ("begun with another seed", "begun anew")
        return waits

    def _goes_down(self) -> bool:
        """Whether the guest is shut down first. Notes what waits for that otherwise."""
        if not self.parts.active:
            return False
        if self.guest.state == "stopped":
            return True
        wanted = self.guest.state == "restarted" or (bool(self.cold) and self.guest.restart)
        if self.cold and not wanted:
            told = (_shown_change(self._title(key), key, *values) for key, values in self.cold.items()
                    if not self._is_implied(key, self.cold))
            self.decision.pending = list(dict.fromkeys(told))
        return wanted

    # -- parts ----------------------------------------------------------------------------------------------------

    def _disks(self) -> None:
        for disk in self.guest.all_disks:
            size = self.parts.disks.get(disk.name)
            option = "vm_disk" if disk.name == names.ROOT else f"vm_disks.{disk.name}.size"
            title = f"disk {disk.name} of {self.name}"
            if size is None:
                self.decision.say(title, "create", None, _size(disk.size))
                self.decision.do("create_disk", disk)
            elif size > disk.size:
                raise bad_value(option, _size(disk.size),
                                f"The disk has {_size(size)}, and disks never shrink: give that or more.")
            elif size < disk.size:
                self.decision.say(title, "update", _size(size), _size(disk.size))
                self.decision.do("grow_disk", disk)

    def _drop_disks(self) -> None:
        """What the list no longer has stays a file, but for purge_data."""
        known = {disk.name for disk in self.guest.all_disks}
        for name in sorted(set(self.parts.disks) - known) if self.settings.purge_data else ():
            if f"disk {name}" not in self.changed:
                self.decision.say(f"disk {name} of {self.name}", "delete", _size(self.parts.disks[name]))
            self.decision.do("delete_disk", name)

    def _digest(self) -> str | None:
        """That of the seed; None as long as the guest has no host key."""
        return seed.digest(self.guest, self.parts.host_key) if self.parts.host_key else None

    def _seed(self) -> None:
        digest, record = self._digest(), self.parts.record
        if (self.parts.seed and digest is not None and record.get("seed") == digest
                and record.get("generation") == self.guest.generation):
            return
        self.decision.do("seed")

    def _define(self, live: bool) -> None:
        hot = self.hot if live else []
        if ("balloon", "memory") in hot:
            self.decision.do("balloon")
        if self.parts.inactive is None:
            self.decision.say(f"guest {self.name}", "create", None, _summary(self.wanted))
            self.decision.do("define", (self.tree, None))
        elif self.changed:
            for key, (found, wanted) in self.changed.items():
                if not self._is_implied(key, self.changed):
                    self.decision.say(f"{self._title(key)} of {self.name}", _action(found, wanted),
                                      _shown(key, found), _shown(key, wanted))
            self.decision.do("define", (self.tree, list(self.changed)))
        for verb, key in hot:
            if verb != "balloon":
                if key not in self.changed:
                    self.decision.say(f"{self._title(key)} of the running {self.name}", "update",
                                      _shown(key, self.live.get(key)), _shown(key, self.wanted.get(key)))
                self.decision.do(verb, key)
        if "firmware" in {*self.changed, *self.cold} and self.parts.nvram and not live:
            # Its variables are those of the former firmware.
            self.decision.do("reset_nvram")

    def _autostart(self) -> None:
        wanted = self.guest.autostart and self.guest.state != "stopped"
        if wanted != self.parts.autostart:
            if self.parts.inactive is not None:
                self.decision.say(f"autostart of {self.name}", "update", self.parts.autostart, wanted)
            self.decision.do("autostart", wanted)

    def _is_implied(self, key: str, changed: t.Mapping[str, t.Any]) -> bool:
        """Whether it is but a part of another change."""
        return (key == definition.SEED
                or (key.startswith("disk ") and self.parts.disks.get(key[len("disk "):]) is None and key in self.wanted)
                or (key == "shared_memory" and any(other.startswith("share ") for other in changed))
                or (key in ("memory_max", "cpus_max") and key[:-4] in changed and self._has_no_room(key)))

    def _has_no_room(self, key: str) -> bool:
        """Nothing but what the guest has is what it can have at most."""
        return bool(self.wanted[key] == self.wanted[key[:-4]])

    def _title(self, key: str) -> str:
        follows = key in ("memory_max", "cpus_max") and self._has_no_room(key)
        return _TITLES.get(key[:-4], key[:-4]) if follows else _TITLES.get(key, key)

    # -- power ----------------------------------------------------------------------------------------------------

    def _power(self, down: bool) -> None:
        state, now = self.guest.state, self.parts.state
        if state == "stopped":
            if down:
                self.decision.say(f"power of {self.name}", "stop", now, "stopped")
            return
        if down or now not in ("running", "paused"):
            self.decision.say(f"power of {self.name}", "restart" if down else "start", now,
                              "restarted" if down else "running")
            self.decision.do("start")
        elif now == "paused" and state != "paused":
            self.decision.say(f"power of {self.name}", "resume", now, "running")
            self.decision.do("resume")
            self._finish()
        elif now == "running":
            self._finish()
        if state == "paused" and (down or now != "paused"):
            if now == "running" and not down:
                self.decision.say(f"power of {self.name}", "pause", now, "paused")
            self.decision.do("pause")

    def _finish(self) -> None:
        """A first boot that an earlier run has begun: its end is waited for, or was seen."""
        if not self.seeded or not self._same_instance or "first boot" in self.cold:
            return
        if self.guest.wait.until == "cloud_init" or self.parts.booted:
            self.decision.say(f"first boot of {self.name}", "finish", "begun", "over")
            self.decision.do("finish")

    def _remember(self) -> None:
        """What was applied last. Alone it is a change, too: the next run reads it."""
        record, shown = self.parts.record, self.guest.shown()
        if not self.seeded and self._digest() not in (None, record.get("seed")):
            self.decision.notes.append(f"{self.name} was set up from another seed: what changed since in vm_user, "
                                       "vm_user_data, addresses or shares takes a higher vm_generation")
        sha256 = self.guest.image.sha256
        if not self.is_new and sha256 and record.get("image") not in (None, sha256):
            self.decision.notes.append(f"{self.name} was made of another image; it takes a new root disk")
        if self.decision.steps and not self.decision.changes:
            # Nothing else is left that could differ.
            self.decision.say(f"seed of {self.name}", "update", None, self.guest.instance_id)
        if record.get("spec") == shown:
            return
        if not self.decision.changes:
            former = record.get("spec") or {}
            keys = sorted(key for key in shown if shown[key] != former.get(key))
            self.decision.say(f"description of {self.name}", "update", {key: former.get(key) for key in keys},
                              {key: shown[key] for key in keys})
        self.decision.do("remember", {"spec": shown})


# -- for readers -----------------------------------------------------------------------------------------------------


def _size(size: int) -> str:
    """As people write it."""
    for unit, factor in (("Ti", 1024**4), ("Gi", 1024**3), ("Mi", 1024**2), ("Ki", 1024)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _shown(key: str, value: t.Any) -> t.Any:
    return _size(value) if key in _SIZES and value is not None else value


def _shown_change(title: str, key: str, found: t.Any, wanted: t.Any) -> str:
    if found is None or wanted is None:
        return f"{title}: {'removed' if wanted is None else 'added'}"
    if isinstance(found, dict) and isinstance(wanted, dict):
        parts = (f"{part} {found.get(part)} -> {wanted[part]}" for part in wanted if found.get(part) != wanted[part])
        return f"{title}: {', '.join(parts)}"
    return f"{title}: {_shown(key, found)} -> {_shown(key, wanted)}"


def _action(found: t.Any, wanted: t.Any) -> str:
    return "create" if found is None else "delete" if wanted is None else "update"


def _summary(wanted: View) -> View:
    return {key: _shown(key, value) for key, value in wanted.items() if key != definition.SEED}
