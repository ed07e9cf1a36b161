# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Takes the steps that were decided for one space, under its lock, and again when the engine went away meanwhile."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from .. import _audit
from .._errors import FleetError
from . import lock, names, observe, payload, workspace
from .client import Engine, Json
from .decide import _WORKTREE, Decision, Settings, Step, decide, volume_id
from .observe import Parts
from .space import Space
from .state import Record

_PASSES = 4
_STOP_SECONDS = 10
_EVENTS = {"create": "create", "start": "start", "stop": "stop", "pause": "pause", "unpause": "wake",
           "destroy": "destroy", "update": "update", "remove_volume": "purge", "remove_worktree": "purge"}
#: Steps of one locked stretch end before what works in the space, which takes the lock itself.
_UNLOCKED = "clone"


class Work:
    """One space on its way."""

    def __init__(self, engine: Engine, space: Space, settings: Settings, image: Json | None, origin: _audit.Origin,
                 record: Record) -> None:
        self.engine, self.space, self.settings, self.image = engine, space, settings, image
        self.origin, self.record = origin, record
        self.name = space.name
        self.parts = Parts()
        self.pending: list[str] = []
        self._aside: str | None = None

    # -- until it is as wanted ------------------------------------------------------------------------------------

    def converge(self) -> None:
        """Raises FleetError where it can't be reached. What was seen last is in parts."""
        for left in range(_PASSES - 1, -1, -1):
            try:
                if self._pass():
                    continue
                return
            except FleetError as error:
                if not left or not _may_pass(error):
                    raise
                time.sleep(0.3)
                self.engine.wait(self.settings.timeout)
        raise FleetError("not_converged", f"The space {self.name} is still not as wanted after {_PASSES} attempts.",
                         "Something else seems to change it: the engine's log tells what.")

    def _pass(self) -> bool:
        """True when there is more to do."""
        with lock.hold(self.name, timeout=self.settings.timeout):
            self.parts = observe.one(self.engine, self.name)
            decision = decide(self.space, self.parts, self.record, self.settings, self.engine, self.image)
            self.pending = decision.pending
            cloning = self._take_locked(decision)
            if decision.steps:
                self.parts = observe.one(self.engine, self.name)
        if cloning:
            self._clone()
        return cloning

    def _take_locked(self, decision: Decision) -> bool:
        """True when it stopped before a step that is not taken under the lock."""
        self._aside = None
        cloning = False
        try:
            for step in decision.steps:
                cloning = step.verb == _UNLOCKED
                if cloning:
                    break
                self._take(step)
        except FleetError:
            self._put_back()
            raise
        if self._aside:
            self._remove(names.old_container(self.name))
        return cloning

    def _clone(self) -> None:
        from . import git

        repository = t.cast("t.Any", self.space.repository)
        git.clone(self.engine, self.name, repository.url, repository.branch, repository.dest,
                  self.space.repository_token, origin=self.origin)
        self.record.remember(self._volume_id(), cloned=repository.url)

    # -- one step -------------------------------------------------------------------------------------------------

    def _take(self, step: Step) -> None:
        do = t.cast("t.Callable[[Step], None]", getattr(self, f"_do_{step.verb}"))
        event = _EVENTS.get(step.verb)
        if event == "start" and self.record.asleep(self.parts.container or {}):
            event = "wake"
        doing = step.verb.replace("_", " ")
        with contextlib.ExitStack() as stack:
            if event:
                stack.enter_context(_audit.event(f"space.{event}", self.name, self.origin, **self._told(step)))
            stack.enter_context(self.engine.doing(f"{doing} for the space {self.name}"))
            do(step)

    def _told(self, step: Step) -> Json:
        if step.verb == "create":
            return {"image": self.space.image, "template": self.space.template, "again": bool(self._aside)}
        return {"limits": step.values} if step.verb == "update" else {}

    @property
    def _container(self) -> str:
        return names.container(self.name)

    def _do_create(self, step: Step) -> None:
        self.engine.api.create_container_from_config(step.values, self._container)

    def _do_start(self, _step: Step) -> None:
        self.engine.api.start(self._container)
        self.record.wake()

    def _do_unpause(self, _step: Step) -> None:
        self.engine.api.unpause(self._container)
        self.record.wake()

    def _do_pause(self, _step: Step) -> None:
        self.engine.api.pause(self._container)

    def _do_stop(self, _step: Step) -> None:
        self.engine.api.stop(self._container, timeout=_STOP_SECONDS)

    def _do_update(self, step: Step) -> None:
        self.engine.post(f"/containers/{self._container}/update", step.values)

    def _do_set_aside(self, _step: Step) -> None:
        """The former container keeps its files until the new one has started."""
        found = t.cast("Json", self.parts.container or self.parts.old)
        state = observe.status(found)
        if state == "paused":
            self.engine.api.unpause(self._container)
        if state in ("running", "paused"):
            self.engine.api.stop(self._container, timeout=_STOP_SECONDS)
        self.engine.api.rename(self._container, names.old_container(self.name))
        self._aside = state

    def _put_back(self) -> None:
        if self._aside is None:
            return
        state, self._aside = self._aside, None
        with contextlib.suppress(FleetError), self.engine.doing(f"put back the space {self.name}"):
            self._remove(self._container)
            self.engine.api.rename(names.old_container(self.name), self._container)
            if state in ("running", "paused"):
                self.engine.api.start(self._container)

    def _do_restore(self, _step: Step) -> None:
        self.engine.api.rename(names.old_container(self.name), self._container)

    def _do_remove_old(self, _step: Step) -> None:
        self._remove(names.old_container(self.name))

    def _do_remove_helper(self, _step: Step) -> None:
        self._remove(names.helper(self.name))

    def _do_destroy(self, _step: Step) -> None:
        there = {self._container: self.parts.container, names.old_container(self.name): self.parts.old,
                 names.helper(self.name): self.parts.helper}
        for name, found in there.items():
            if found:
                self._remove(name)

    def _remove(self, container: str) -> None:
        with self._missing_is_fine(), self.engine.doing(f"remove the container {container}"):
            # v: volumes without a name, which an image may declare.
            self.engine.api.remove_container(container, v=True, force=True)

    @staticmethod
    @contextlib.contextmanager
    def _missing_is_fine() -> t.Iterator[None]:
        try:
            yield
        except FleetError as error:
            if error.code != "not_found":
                raise

    def _do_create_network(self, _step: Step) -> None:
        self.engine.post("/networks/create", payload.network(self.settings.fleet, self.name))

    def _do_remove_network(self, _step: Step) -> None:
        with self._missing_is_fine():
            try:
                self._remove_network()
            except FleetError as error:
                # What is set aside, or was torn from an engine, may still be connected.
                if error.code != "engine_refused" or not self._disconnect():
                    raise
                self._remove_network()

    def _remove_network(self) -> None:
        name = names.network(self.name)
        with self.engine.doing(f"remove the network {name}"):
            self.engine.api.remove_network(name)

    def _disconnect(self) -> bool:
        """Takes what is ours off the network; False where nothing of ours is there."""
        name = names.network(self.name)
        ends = ((self.engine.network(name) or {}).get("Containers") or {}).values()
        ours = [end["Name"] for end in ends if end.get("Name") in (self._container, names.old_container(self.name))]
        for container in ours:
            self.engine.api.disconnect_container_from_network(container, name, force=True)
        return bool(ours)

    # -- files ----------------------------------------------------------------------------------------------------

    def _volume_id(self) -> str:
        return volume_id(self.engine.volume(names.volume(self.name)))

    def _do_create_volume(self, _step: Step) -> None:
        ident = os.urandom(8).hex()
        marks = {**payload.labels(self.settings.fleet, self.space), payload.VOLUME_ID: ident}
        if self.space.workspace.strategy == "snapshot":
            self.record.remember(ident, snapshot_due=True)
        self.engine.api.create_volume(names.volume(self.name), labels=marks)

    def _do_adopt_volume(self, _step: Step) -> None:
        self.record.remember(volume_id(self.parts.volume), adopted=True)

    def _do_remove_volume(self, _step: Step) -> None:
        with self._missing_is_fine(), self.engine.doing(f"remove the volume {names.volume(self.name)}"):
            self.engine.api.remove_volume(names.volume(self.name))

    def _do_own(self, _step: Step) -> None:
        """A new volume has the owner that the directory has in the image, which is right in our own."""
        volume = t.cast("Json", self.engine.volume(names.volume(self.name)))
        owner = (self.space.uid, self.space.gid)
        try:
            found = os.stat(volume.get("Mountpoint") or "")
            right = (found.st_uid, found.st_gid) == owner
        except OSError:
            right = False
        if not right:
            mount = {"Type": "volume", "Source": names.volume(self.name), "Target": names.WORKSPACE}
            self._help(["chown", "-R", "-h", f"{owner[0]}:{owner[1]}", names.WORKSPACE], [mount])
        self.record.remember(volume_id(volume), owner=f"{owner[0]}:{owner[1]}")

    def _help(self, argv: list[str], mounts: list[Json]) -> None:
        helper, api = names.helper(self.name), self.engine.api
        self._remove(helper)
        api.create_container_from_config(payload.helper(self.space, argv, mounts), helper)
        try:
            api.start(helper)
            code = api.wait(helper, timeout=self.settings.timeout * 10)["StatusCode"]
            words = api.logs(helper, tail=5).decode("utf-8", "replace").strip() if code else ""
        finally:
            self._remove(helper)
        if code:
            reason = words or f"{argv[0]} ended with {code}"
            raise FleetError("no_owner", f"The volume of the space {self.name} can't be given to "
                                         f"{self.space.uid}:{self.space.gid}: {reason}")

    def _do_snapshot(self, step: Step) -> None:
        content = workspace.snapshot(step.values, self.space.uid, self.space.gid)
        self.engine.api.put_archive(self._container, names.WORKSPACE, content)
        self.record.remember(self._volume_id(), snapshot_due=False)

    def _do_worktree(self, step: Step) -> None:
        tree = workspace.Worktree(self.name, step.values, self.record)
        tree.make(self.space.workspace.branch, self.space.uid, self.space.gid)
        self.record.remember(_WORKTREE, made=step.values)

    def _do_secrets(self, _step: Step) -> None:
        self.record.write_secret_env(self.space.secret_env, self.space.uid, self.space.gid)

    def _do_forget_secrets(self, _step: Step) -> None:
        self.record.forget_secrets()

    def _do_describe(self, _step: Step) -> None:
        self.record.write_spec(self.space.shown())

    def _do_forget(self, _step: Step) -> None:
        self.record.forget(everything=False)

    def _do_purge(self, _step: Step) -> None:
        made = self.record.done().get(_WORKTREE, {}).get("made")
        if made:
            workspace.Worktree(self.name, made, self.record).remove()
        self.record.forget(everything=True)


def _may_pass(error: FleetError) -> bool:
    """A restarting engine, or a name that was taken between look and act."""
    return error.code == "engine_unreachable" or error.details.get("status") == 409
