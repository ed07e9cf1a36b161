# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What takes one space from how it is to how it is wanted: an ordered list of steps, and nothing written.

The same decision is made twice: for the plan, and again under the space's lock, right before the steps are taken.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .. import _ownership as ownership
from .._errors import FleetError
from .._plan import HIDDEN
from . import compare, names, observe, payload, workspace
from .client import Engine, Json
from .observe import Parts
from .space import Space
from .state import Record

_NEVER_STARTED = "0001-01-01"
#: What of a description takes a new container.
_FIXED = ("image", "env", "secret_env", "tmp", "run", "network", "uid", "gid", "writable_root", "gpu", "workspace")
_WORKTREE = "worktree"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What one call says about all of its spaces."""

    fleet: str
    purge_data: bool = False
    adopt: bool = False
    allowed_paths: tuple[str, ...] = ()
    timeout: float = 60.0


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing to do. Without a title it belongs to another one, and no diff speaks of it."""

    verb: str
    title: str = ""
    action: str = "update"
    before: t.Any = None
    after: t.Any = None
    values: t.Any = None


@dataclasses.dataclass
class Decision:
    """The steps, and what is not as wanted but stays: it takes a new container, which nobody asked for."""

    steps: list[Step] = dataclasses.field(default_factory=list)
    pending: list[str] = dataclasses.field(default_factory=list)

    def add(self, verb: str, title: str = "", action: str = "update", before: t.Any = None, after: t.Any = None,
            values: t.Any = None) -> None:
        self.steps.append(Step(verb, title, action, before, after, values))


def volume_id(volume: Json | None) -> str:
    """A volume that was adopted has no id of its own."""
    return ((volume or {}).get("Labels") or {}).get(payload.VOLUME_ID) or "adopted"


def decide(space: Space, parts: Parts, record: Record, settings: Settings, engine: Engine,
           image: Json | None) -> Decision:
    """For one space of any state. Raises FleetError where it can't be done."""
    if space.state == "absent":
        return absent(space.name, parts, record, settings)
    return _Present(space, parts, record, settings, engine, image).decide()


def absent(name: str, parts: Parts, record: Record, settings: Settings) -> Decision:
    """Without the container and all that is made again from the description; data only when it is said."""
    decision, done = Decision(), record.done()
    owned = [("container", parts.container), ("container", parts.old), ("network", parts.network)]
    if settings.purge_data:
        owned.append(("volume", parts.volume))
    for kind, found in owned:
        _guard(name, kind, found, settings, done)
    container = parts.container or parts.old
    if container or parts.helper:
        decision.add("destroy", f"container {names.container(name)}", "delete", observe.status(container))
    if parts.network:
        decision.add("remove_network", f"network {names.network(name)}", "delete", names.bridge(name))
    if settings.purge_data:
        if parts.volume:
            decision.add("remove_volume", f"volume {names.volume(name)}", "delete", "present")
        if record.path.exists():
            decision.add("purge", f"directory {record.path}", "delete", "present")
    elif record.spec() is not None or record.secrets.exists():
        said = () if decision.steps else (f"description of space {name}", "delete", "present")
        decision.add("forget", *said)
    return decision


def _guard(name: str, kind: str, found: Json | None, settings: Settings, done: dict[str, Json]) -> None:
    """Refuses what isn't this fleet's space of this name, unless it is to be taken over."""
    if found is not None and not settings.adopt:
        _check_owner(name, kind, found, settings.fleet, done)


def _check_owner(name: str, kind: str, found: Json, fleet: str, done: dict[str, Json]) -> None:
    if is_adopted(kind, found, done):
        return
    marks = (found.get("Config") or found).get("Labels") or {}
    title = f"{kind} {str(found.get('Name')).lstrip('/')}"
    ownership.guard(f"The {title}", marks, "space", name)
    owner = marks.get(ownership.FLEET)
    if owner != fleet:
        raise FleetError("foreign_object", f"The {title} belongs to the fleet {owner}, and this is {fleet}.",
                         "Use another name, or take it over with adopt: true.")


def is_adopted(kind: str, found: Json, done: dict[str, Json]) -> bool:
    """A volume's labels can't be changed, so that it is written down where it is taken over."""
    return kind == "volume" and bool(done.get(volume_id(found), {}).get("adopted"))


def _is_owned(space: Space, kind: str, found: Json, fleet: str, done: dict[str, Json]) -> bool:
    try:
        _check_owner(space.name, kind, found, fleet, done)
    except FleetError:
        return False
    return True


class _Present:
    """The decision for a space that is to be there."""

    def __init__(self, space: Space, parts: Parts, record: Record, settings: Settings, engine: Engine,
                 image: Json | None) -> None:
        self.space, self.parts, self.record, self.settings = space, parts, record, settings
        self.engine, self.image = engine, image
        self.decision, self.done = Decision(), record.done()
        self.title = f"container {names.container(space.name)}"
        self.found = parts.container or parts.old
        self.real: str | None = None

    def decide(self) -> Decision:
        space, parts, add = self.space, self.parts, self.decision.add
        in_volume = space.workspace.in_volume
        owned = [("container", self.found), ("network", parts.network)]
        for kind, found in [*owned, *([("volume", parts.volume)] if in_volume else [])]:
            _guard(space.name, kind, found, self.settings, self.done)
        self._find_source()
        self.wanted = payload.container(self.settings.fleet, space,
                                        workspace.mounts(space, self.real, self.record))
        if parts.helper:
            add("remove_helper", f"container {names.helper(space.name)}", "delete", "left by a killed run")
        if parts.old and not parts.container:
            add("restore", self.title, "update", {"name": names.old_container(space.name)},
                {"name": names.container(space.name)})
        elif parts.old:
            add("remove_old", f"container {names.old_container(space.name)}", "delete", "left by a killed run")
        new = self._needs_new()
        if new or self.found is None:
            self._check_host()
        self._secrets()
        if in_volume:
            self._volume()
        elif space.workspace.strategy == _WORKTREE:
            self._worktree()
        self._container(new)
        if in_volume:
            self._fill(new)
        self._settings()
        self._state("created" if new or self.found is None else observe.status(self.found))
        if not space.secret_env and self.record.secrets.exists():
            add("forget_secrets", f"secrets of space {space.name}", "delete", HIDDEN)
        return self.decision

    # -- what is there --------------------------------------------------------------------------------------------

    def _find_source(self) -> None:
        if self.space.workspace.strategy == "snapshot" and not self._snapshot_is_due():
            return  # The directory may be gone by now: it was copied once.
        self.real = workspace.source(self.space, self.settings.allowed_paths)

    def _snapshot_is_due(self) -> bool:
        volume = self.parts.volume
        return self.space.workspace.strategy == "snapshot" and (
            volume is None or bool(self._done_for(volume).get("snapshot_due")))

    def _done_for(self, volume: Json | None) -> Json:
        return self.done.get(volume_id(volume), {}) if volume else {}

    def _needs_new(self) -> compare.Differences:
        """Why the container has to be replaced; refuses where something would be lost that nobody gave up."""
        space, found = self.space, self.found
        if found is None:
            return {}
        differs = compare.fixed(self.wanted, found)
        if "Labels" in differs:
            differs = self._described() or differs
        if observe.status(found) == "dead":
            differs["State"] = (found["State"].get("Status"), "created")
        self._compare_network(differs)
        moved = {}
        image = (self.image or {}).get("Id")
        if image and not {"image", "Image"} & set(differs) and found.get("Image") != image:
            moved = {"Image": (found.get("Image"), image)}
        if not (differs or moved):
            return {}
        if not space.recreate and self._loses(found):
            if differs:
                raise FleetError(
                    "needs_recreate",
                    f"The space {space.name} differs in {', '.join(sorted(differs))}, which takes a new container, "
                    f"and it is {observe.status(found)}.",
                    "Say recreate: true. What is in /workspace stays; processes and all else in it end. Or stop it.",
                    differences=dict(zip(("before", "after"), compare.shown(differs))))
            self.decision.pending.append(f"{space.image} is another image now; recreate: true takes the space to it")
            return {}
        return {**differs, **moved}

    def _described(self) -> compare.Differences:
        """In the words of the description, where that is what differs."""
        before, after = self.record.spec() or {}, self.space.shown()
        return {key: (before[key], after[key]) for key in _FIXED if key in before and before[key] != after[key]}

    @staticmethod
    def _loses(found: Json) -> bool:
        """Processes, and what was written outside of the workspace."""
        started = not str(found["State"].get("StartedAt", "")).startswith(_NEVER_STARTED)
        written = started and not found["HostConfig"].get("ReadonlyRootfs")
        return written or observe.status(found) in ("running", "paused")

    def _compare_network(self, differs: compare.Differences) -> None:
        """The bridge, and to what the container is connected beside it."""
        networks = (t.cast("Json", self.found).get("NetworkSettings") or {}).get("Networks") or {}
        wanted = names.network(self.space.name) if self.space.network != "none" else "none"
        others = sorted(set(networks) - {wanted})
        if others and not {"network", "NetworkMode"} & set(differs):
            differs["Networks"] = (sorted(networks), [wanted])
        if self.space.network == "none":
            return
        network = self.parts.network
        attached = (networks.get(wanted) or {}).get("NetworkID")
        if not self._network_fits(network) or (attached and network and attached != network["Id"]):
            differs["Network"] = (observe.bridge_of(network), names.bridge(self.space.name))

    def _network_fits(self, network: Json | None) -> bool:
        return network is not None and observe.bridge_of(network) == names.bridge(self.space.name) \
            and network.get("Driver") == "bridge" and not network.get("EnableIPv6") \
            and _is_owned(self.space, "network", network, self.settings.fleet, self.done)

    def _check_host(self) -> None:
        """What the engine would refuse only when the former container is gone already."""
        space = self.space
        if self.image is None:
            raise FleetError("no_image", f"The image {space.image} of the space {space.name} is not on this host.",
                             "Build it (role sandbox_host makes the default one), or name one by its digest, "
                             "name@sha256:..., which is pulled.")
        most = self.engine.info.get("NCPU") or space.cpus
        if space.cpus > most:
            raise FleetError("too_many_cpus", f"The space {space.name} asks for {space.cpus:g} processors, and this "
                                              f"host has {most}.", "Ask for less, or place it elsewhere.")
        if space.gpu:
            check_gpu(self.engine, space)

    # -- parts ----------------------------------------------------------------------------------------------------

    def _secrets(self) -> None:
        wanted = self.space.secret_env
        if not wanted:
            return
        owner = (self.space.uid, self.space.gid)
        if self.record.secret_env() != wanted or self.record.secrets_owner() != owner:
            old = f"{HIDDEN} old" if self.record.secrets.exists() else None
            self.decision.add("secrets", f"secrets of space {self.space.name}", "update" if old else "create", old,
                              f"{HIDDEN} new")

    def _volume(self) -> None:
        title, volume = f"volume {names.volume(self.space.name)}", self.parts.volume
        if volume is None:
            self.decision.add("create_volume", title, "create", None, "present")
        elif not _is_owned(self.space, "volume", volume, self.settings.fleet, self.done):
            self.decision.add("adopt_volume", title, "adopt", None, "adopted")

    def _worktree(self) -> None:
        made, where = self.done.get(_WORKTREE, {}).get("made"), f"{workspace.worktree(self.record)}"
        if made and made != self.real:
            raise FleetError("other_worktree", f"The space {self.space.name} has a worktree of {made}, and one of "
                                               f"{self.real} is wanted.", "Remove it with purge_data: true first.")
        if not made:
            branch = self.space.workspace.branch or f"space/{self.space.name}"
            self.decision.add("worktree", f"worktree {where}", "create", None,
                              {"repository": self.real, "branch": branch}, values=self.real)

    def _container(self, new: compare.Differences) -> None:
        add, space = self.decision.add, self.space
        network = self.parts.network
        if self.found is None or new:
            unfit = network is not None and not self._network_fits(network)
            if new:
                add("set_aside")
            if network and (unfit or space.network == "none"):
                add("remove_network", f"network {names.network(space.name)}", "delete", observe.bridge_of(network))
            if space.network != "none" and (network is None or unfit):
                add("create_network", f"network {names.network(space.name)}", "create", None,
                    names.bridge(space.name))
            before, after = compare.shown(new) if new else (None, _shown(self.wanted))
            add("create", self.title, "recreate" if new else "create", before, after, values=self.wanted)
            return
        if network and space.network == "none":
            add("remove_network", f"network {names.network(space.name)}", "delete", observe.bridge_of(network))
        limits = compare.live(self.wanted, self.found, lambda: bool(self.engine.info.get("SwapLimit")))
        if limits:
            add("update", f"limits of space {space.name}", "update", *compare.shown(limits),
                values=payload.limits(space))

    def _fill(self, new: compare.Differences) -> None:
        """What is done once for a volume, between the container's creation and its start."""
        space, volume = self.space, self.parts.volume
        done = self._done_for(volume)
        owner = f"{space.uid}:{space.gid}"
        fresh = volume is None or self.found is None or bool(new)
        if done.get("owner") != owner and (fresh or not {"owner", "adopted"} & done.keys()):
            self.decision.add("own")
        if self._snapshot_is_due():
            self.decision.add("snapshot", f"files of space {space.name}", "create", None,
                              {"snapshot of": self.real}, values=self.real)

    def _settings(self) -> None:
        wanted, found = self.space.shown(), self.record.spec()
        if found == wanted:
            return
        keys = [key for key in wanted if key not in (found or {}) or (found or {})[key] != wanted[key]]
        told = self.found is None or found is None or any(step.title for step in self.decision.steps)
        said = () if told else (f"settings of space {self.space.name}", "update",
                                {key: (found or {}).get(key) for key in keys}, {key: wanted[key] for key in keys})
        self.decision.add("describe", *said)

    # -- state ----------------------------------------------------------------------------------------------------

    def _clone_is_due(self) -> bool:
        if self.space.repository is None or self.space.state not in ("started", "paused"):
            return False
        return not self._done_for(self.parts.volume).get("cloned")

    def _state(self, now: str) -> None:
        space, cloning = self.space, self._clone_is_due()
        asleep = self.found is not None and now != "created" and self.record.asleep(self.found) is not None
        replaced = now == "created" and self.found is not None and observe.status(self.found) in ("running", "paused")
        if space.state == "started" or cloning:
            now = self._run(now) if cloning or not asleep else now
        elif space.state == "created" and replaced:
            now = self._run(now)
        if cloning:
            repository = t.cast("t.Any", space.repository)
            self.decision.add("clone", f"repository of space {space.name}", "create", None,
                              {"url": repository.url, "branch": repository.branch, "dest": repository.dest})
        if space.state == "paused":
            self._pause(now)
        elif space.state == "stopped" and now in ("running", "paused"):
            self._turn("unpause" if now == "paused" else "", now, "")
            self._turn("stop", now, "exited")

    def _run(self, now: str) -> str:
        if now == "paused":
            self._turn("unpause", now, "running")
        elif now != "running":
            self._turn("start", now, "running")
        return "running"

    def _pause(self, now: str) -> None:
        if now in ("created", "exited", "dead"):
            now = self._run(now)
        if now == "running":
            self._turn("pause", now, "paused")

    def _turn(self, verb: str, before: str, after: str) -> None:
        """A fresh container that starts is told of already."""
        if not verb:
            return
        quiet = not after or (verb == "start" and any(step.verb == "create" for step in self.decision.steps))
        self.decision.add(verb, *(() if quiet else (f"space {self.space.name}", verb, before, after)))


def check_gpu(engine: Engine, space: Space) -> None:
    from .host import capabilities

    gpu = capabilities(engine)["gpu"]
    if not gpu["ready"]:
        raise FleetError("no_gpu", f"The space {space.name} asks for a GPU, and this host's engine can't give one: "
                                   f"it has no nvidia runtime ({gpu['count']} GPUs are seen).",
                         "Install the vendor's driver and container toolkit, or place the space on a host with both.")
    if space.gpu > gpu["count"] > 0:
        raise FleetError("no_gpu", f"The space {space.name} asks for {space.gpu} GPUs, and this host has "
                                   f"{gpu['count']}.", "Ask for less, or place it elsewhere.")


def _shown(wanted: Json) -> Json:
    """What a diff says of a new container."""
    host = wanted["HostConfig"]
    return {"image": wanted["Image"], "user": wanted["User"], "network": host["NetworkMode"],
            "memory": host["Memory"], "cpus": host["NanoCpus"] / 1e9, "pids": host["PidsLimit"],
            "read_only_root": host["ReadonlyRootfs"], "gpu": bool(host["DeviceRequests"]),
            "mounts": [f"{mount['Source']}:{mount['Target']}" for mount in host["Mounts"]]}
