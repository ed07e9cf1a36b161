# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""One end of a bot's move, where that is a machine."""

from __future__ import annotations

import dataclasses
import datetime
import os
import pathlib
import shutil
import time
import typing as t

from .. import _files as files
from .. import _lock
from .._bot import RELEASE, parse
from .._errors import FleetError
from .._handover import DEPARTING, Mark, Wish, check_conversations, check_target, counted, counting, mark_of, shown
from .._ownership import FLEET, guard
from .._plan import Plan
from .._process import Runner, must
from . import health
from .host import Host, Settings, instances, marked
from .places import Places

_RUNNING = ("active", "activating", "reloading", "deactivating")


@dataclasses.dataclass(frozen=True)
class Stand:
    """What a bot has on this machine."""

    record: dict[str, t.Any] | None
    mark: Mark | None
    loaded: bool
    active: bool
    enabled: bool
    has_data: bool


def look(run: Runner, places: Places) -> Stand:
    unit = health.unit_state(run, places.unit)
    state = pathlib.Path(places.state)
    return Stand(files.read_json(places.instance), mark_of(files.read(places.move)),
                 unit.get("LoadState") == "loaded", unit.get("ActiveState") in _RUNNING,
                 unit.get("UnitFileState") == "enabled", state.is_dir() and any(state.iterdir()))


def conversations(run: Runner, places: Places) -> dict[str, int]:
    """What was said here, as the bot's own user sees it."""
    if not pathlib.Path(places.state).is_dir():
        return {"sessions": 0, "records": 0}
    return counted(places.name, run(counting(places.state, places.user), timeout=120))


def describe(run: Runner, fleet: str | None, names: t.Collection[str] | None) -> list[dict[str, t.Any]]:
    """The bots that stand on this machine, or those of these names, whatever of them is here."""
    found = []
    for name in sorted({*instances(), *marked()} if names is None else set(names)):
        places = Places(name)
        stand = look(run, places)
        record = stand.record or {}
        foreign = fleet not in (None, record.get("labels", {}).get(FLEET, fleet))
        if foreign or not (record or stand.mark or stand.has_data):
            continue
        state = "started" if stand.active or stand.enabled else "stopped" if stand.loaded else "absent"
        found.append({"name": name, "version": record.get("version"), "runtime": record.get("runtime"),
                      "port": record.get("port"), "unit": places.unit, "state": state, "active": stand.active,
                      "has_data": stand.has_data, "move": shown(stand.mark)})
    return found


class End:
    """This machine, as the source or the target of one bot's move."""

    def __init__(self, run: Runner, wish: Wish, clock: t.Callable[[], float] = time.time):
        self.run, self.wish, self.clock, self.places = run, wish, clock, Places(wish.name)
        self.stand = Stand(None, None, False, False, False, False)

    def plan(self) -> Plan:
        plan, self.stand = Plan(), look(self.run, self.places)
        self._check()
        verb = getattr(self, f"_plan_{self.wish.state}", None)
        if verb:
            verb(plan)
        return plan

    def apply(self, _plan: Plan) -> dict[str, t.Any]:
        getattr(self, f"_{self.wish.state}")()
        self.stand = look(self.run, self.places)
        return self.facts()

    def facts(self) -> dict[str, t.Any]:
        found = conversations(self.run, self.places)
        if self.wish.state == "arrived":
            check_conversations(self.wish.name, self.wish.conversations, found, ["sessions"])
        return {"move": shown(self.stand.mark), "conversations": found}

    def _check(self) -> None:
        record = self.stand.record
        if record is None and not self.stand.loaded:
            return
        marks = (record or {}).get("labels") or {}
        guard(f"{self.places.unit} on this host", marks, "bot", self.wish.name)
        if marks.get(FLEET) != self.wish.fleet:
            raise FleetError("foreign_object", f"{self.wish.name} on this host belongs to fleet {marks.get(FLEET)}.")

    def _mark(self) -> Mark:
        return self.wish.mark(self.clock(), self.stand.mark, self.stand.active or self.stand.enabled)

    def _compare_mark(self, plan: Plan, wanted: Mark | None) -> None:
        plan.compare(self.places.move, shown(wanted), shown(self.stand.mark))

    def _put_mark(self, mark: Mark | None) -> None:
        if mark is None:
            pathlib.Path(self.places.move).unlink(missing_ok=True)
        else:
            files.write(self.places.move, mark.to_json() + "\n", 0o600)

    # -- the target: expected, free, arrived -------------------------------------------------------------------------

    def _plan_expected(self, plan: Plan) -> None:
        taken = f"{self.places.state} holds data that no move brought" if self.stand.has_data else ""
        check_target(self.wish.name, self.stand.mark, taken)
        self._compare_mark(plan, self._mark())

    def _expected(self) -> None:
        self._put_mark(self._mark())

    def _plan_free(self, plan: Plan) -> None:
        check_conversations(self.wish.name, self.wish.conversations, conversations(self.run, self.places))
        self._compare_mark(plan, None)

    def _free(self) -> None:
        self._put_mark(None)

    # -- the source: held, returned ----------------------------------------------------------------------------------

    def _plan_held(self, plan: Plan) -> None:
        if not self.stand.has_data:
            raise FleetError("path_missing", f"{self.wish.name} has no data in {self.places.state}.")
        if os.path.ismount(self.places.state):
            raise FleetError("target_fixed", f"{self.places.state} is a mount point, and can't be put aside.",
                             "Mount the file system above it, or move the bot by backup, remove and restore.")
        self._compare_mark(plan, self._mark())
        if self.stand.active or self.stand.enabled:
            plan.add(self.places.unit, "stop", "started", "stopped")

    def _held(self) -> None:
        """The mark comes first: whoever else works on this host does not start it again."""
        self._put_mark(self._mark())
        if self.stand.loaded:
            must(self.run, ["systemctl", "disable", "--now", self.places.unit], f"Stopping {self.places.unit}",
                 timeout=self.wish.timeout + 60)
        if files.read(self.places.compose) is not None:
            must(self.run, ["docker", "compose", "--project-directory", self.places.project, "--file",
                            self.places.compose, "stop"], f"Stopping the container of {self.wish.name}", timeout=180)
        if look(self.run, self.places).active:
            raise FleetError("stop_failed", f"{self.places.unit} does not stop.",
                             f"See journalctl -u {self.places.unit}.")

    def _plan_returned(self, plan: Plan) -> None:
        self._compare_mark(plan, None)
        if self.stand.mark and self.stand.mark.ran and not (self.stand.active and self.stand.enabled):
            plan.add(self.places.unit, "start", "stopped", "started")

    def _returned(self) -> None:
        ran = self.stand.mark is not None and self.stand.mark.ran
        self._put_mark(None)
        if ran:
            self.run(["systemctl", "reset-failed", self.places.unit])
            must(self.run, ["systemctl", "enable", "--now", self.places.unit], f"Starting {self.places.unit}",
                 timeout=600)
            port = (self.stand.record or {}).get("port")
            health.wait_ready(self.run, self.places.unit, t.cast(int, port), self.wish.timeout)

    # -- either: gone ------------------------------------------------------------------------------------------------

    def _plan_gone(self, plan: Plan) -> None:
        self._compare_mark(plan, None)
        if self.stand.record is not None or self.stand.loaded:
            plan.add(self.places.unit, "delete", "present", None)
        if self.stand.has_data:
            guard(f"{self.places.state} on this host", (self.stand.record or {}).get("labels"), "bot", self.wish.name)
            plan.add(self.places.state, "delete" if self.wish.purge_data else "rename", "present", None)

    def _gone(self) -> None:
        """The mark goes last: until then the next run takes it up again."""
        bot = parse({"name": self.wish.name, "version": RELEASE, "state": "absent"}, "docker_host")
        # A restore that outlived its run would bring data into an empty place.
        with _lock.hold(pathlib.Path(self.places.backup_lock), f"The backup of {self.wish.name}", timeout=0):
            remover = Host(self.run, [bot], Settings(self.wish.fleet, {}))
            remover.apply(remover.plan())
            self._put_away(pathlib.Path(self.places.state))
            pathlib.Path(self.places.instance).unlink(missing_ok=True)
        self._put_mark(None)

    def _put_away(self, state: pathlib.Path) -> None:
        """Nothing of it is where a bot would be started from."""
        aside = f"{state.name}.moved-"
        departing = self.stand.mark is not None and self.stand.mark.role == DEPARTING
        if self.wish.purge_data:
            for path in (state, *state.parent.glob(f"{aside}*")) if departing else (state,):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
        elif state.is_dir() and any(state.iterdir()):
            now = datetime.datetime.fromtimestamp(self.clock(), datetime.timezone.utc)
            state.rename(state.with_name(f"{aside}{now:%Y%m%dT%H%M%SZ}"))
