# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Puts spaces to sleep that nobody uses: one pass over all that run.

In use is a space with a running exec (every terminal is one), with more CPU time or traffic since the last pass than
the floor, or whose lock was touched. What the last pass saw is in a file, so a worker that was restarted goes on; a
space that was restarted begins anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
import typing as t

from .. import _audit
from .._errors import FleetError
from .._files import pretty, read_json, write
from . import lock
from .client import Engine
from .names import STATE
from .state import Record
from .work import runs
from .worker import Found, Settings, alone, spaces

#: Seconds between passes that the floors are meant for: use before a longer gap must not be averaged away.
PASS = 60


class Counters(t.NamedTuple):
    """Seconds of CPU and bytes of traffic since the container was started."""

    cpu: float
    network: int


@dataclasses.dataclass
class Watch:
    """What a pass knows about one running space. active: when it was last seen in use, for the reason why."""

    started: str
    cpu: float
    network: int
    seen: float
    active: float
    why: str


class Worker:
    """One pass. say gets each decision; counters reads what the kernel knows of a process's container."""

    def __init__(self, engine: Engine, settings: Settings, origin: _audit.Origin, say: t.Callable[[str], None],
                 state: pathlib.Path = STATE, log: str = _audit.LOG,
                 counters: t.Callable[[int], Counters] | None = None, clock: t.Callable[[], float] = time.time):
        self.engine, self.settings, self.origin, self.say = engine, settings, origin, say
        self.state, self.log, self.counters, self.clock = state, log, counters or read_counters, clock

    def run(self) -> bool:
        """False when something failed; the other spaces were looked at all the same."""
        with alone("idle", self.state) as mine:
            if not mine:
                self.say("another pass is running")
                return True
            return self._pass()

    def _pass(self) -> bool:
        path = self.state / "idle.json"
        known, after, fine = _known(read_json(path)), {}, True
        for name, summary in spaces(self.engine, everything=False):
            try:
                watch = self._one(name, summary["Id"], known.get(name))
            except FleetError as error:
                if error.code == "not_found":
                    continue
                self.say(f"{name}: {error.message}")
                if error.code == "engine_unreachable":
                    raise
                watch, fine = known.get(name), False
            if watch:
                after[name] = dataclasses.asdict(watch)
        write(path, pretty(after), 0o600)
        return fine

    def _one(self, name: str, ident: str, last: Watch | None) -> Watch | None:
        """What to remember of a space; None when it sleeps now, or never does."""
        found = self._inspect(ident)
        limit, action = Record(name, self.state).idle()
        if not limit or not runs(found):
            return None
        watch = self._look(name, found, last)
        if watch is None:
            return None
        idle = self.clock() - watch.active
        if idle < limit:
            if last is None or last.why != watch.why:
                self.say(f"{name}: awake: {watch.why or 'idle from now on'}")
            return watch
        return self._sleep(name, found, watch, action, idle)

    def _look(self, name: str, found: Found, last: Watch | None) -> Watch | None:
        now, started = self.clock(), found["State"]["StartedAt"]
        try:
            cpu, network = self.counters(found["State"]["Pid"])
        except OSError:
            return None  # it ended just now
        if last is None or last.started != started:
            return Watch(started, cpu, network, now, now, "it was started or woken")
        why = self._use(name, found, last, Counters(cpu - last.cpu, network - last.network), now)
        # A clock that was set back must not keep it awake.
        active = now if why else min(max(last.active, self._touched(name)), now)
        return Watch(started, cpu, network, now, active, why)

    def _use(self, name: str, found: Found, last: Watch, used: Counters, now: float) -> str:
        """Why it is in use; empty when it isn't."""
        span = min(max(now - last.seen, 1.0), PASS)
        if self._execs(found):
            return "an exec or a terminal runs"
        if used.cpu > self.settings.cpu * span:
            return "it computes"
        if used.network > self.settings.network * span:
            return "it has traffic"
        return "it was used" if self._touched(name) > last.seen else ""

    def _execs(self, found: Found) -> bool:
        """Whether an exec runs: the engine also lists those that were made and never begun."""
        return any(self._running(ident) for ident in found.get("ExecIDs") or [])

    def _running(self, ident: str) -> bool:
        try:
            with self.engine.doing("inspect an exec"):
                return bool(self.engine.api.exec_inspect(ident)["Running"])
        except FleetError as error:
            if error.code == "not_found":
                return False
            raise

    def _touched(self, name: str) -> float:
        try:
            return lock.path(name).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _sleep(self, name: str, found: Found, watch: Watch, action: str, idle: float) -> Watch | None:
        touched = self._touched(name)
        try:
            with lock.hold(name, timeout=0.0):
                # An exec may have come and gone, or have begun without our lock.
                again = self._inspect(found["Id"])
                same = again["State"]["StartedAt"] == watch.started and touched in (0.0, self._touched(name))
                if not same or not runs(again) or self._execs(again):
                    return self._awake(name, watch, "it was used just now")
                return self._put(name, again, watch, action, round(idle))
        except FleetError as error:
            if error.code != "busy":
                raise
            return self._awake(name, watch, "an exec or a change holds its lock")

    def _awake(self, name: str, watch: Watch, why: str) -> Watch:
        self.say(f"{name}: awake: {why}")
        return dataclasses.replace(watch, active=self.clock(), why=why)

    def _put(self, name: str, found: Found, watch: Watch, action: str, idle: int) -> Watch | None:
        reason = f"idle for {idle} s: no exec, no terminal, CPU and traffic below the floors"
        record = Record(name, self.state)
        with _audit.event(f"space.{action}", name, self.origin, self.log, reason=reason, idle=idle) as entry:
            record.fall_asleep(found, since=_audit.stamp(self.clock()), reason=reason, action=action)
            try:
                undone = self._act(name, found["Id"], action)
            except FleetError:
                record.wake()
                raise
            if undone:
                record.wake()
                entry["outcome"] = "undone"
                return self._awake(name, watch, "an exec came in between")
        self.say(f"{name}: {'paused' if action == 'pause' else 'stopped'}: {reason}")
        return None

    def _act(self, name: str, ident: str, action: str) -> bool:
        """Whether it was taken back, for an exec of somebody who does not know our locks."""
        with self.engine.doing(f"{action} space {name}"):
            if action == "stop":
                self.engine.api.stop(ident, timeout=10)
                return False
            self.engine.api.pause(ident)
        if not self._execs(self._inspect(ident)):
            return False
        with self.engine.doing(f"wake space {name}"):
            self.engine.api.unpause(ident)
        return True

    def _inspect(self, ident: str) -> Found:
        with self.engine.doing("inspect a space"):
            return t.cast(Found, self.engine.api.inspect_container(ident))


def _known(values: t.Any) -> dict[str, Watch]:
    """A file from another version, or a damaged one, only means to begin anew."""
    known = {}
    for name, value in (values if isinstance(values, dict) else {}).items():
        with contextlib.suppress(TypeError):
            known[name] = Watch(**value)
    return known


def read_counters(pid: int, root: str = "/") -> Counters:
    """Of the container that the process is in: its control group and its network name space."""
    rows = [line.split(":", 1) for line in _lines(f"{root}proc/{pid}/net/dev") if ":" in line]
    devices = {name.strip(): values.split() for name, values in rows}
    traffic = sum(int(values[0]) + int(values[8]) for name, values in devices.items() if name != "lo")
    return Counters(_cpu(pid, root), traffic)


def _cpu(pid: int, root: str) -> float:
    groups = [line.split(":", 2) for line in _lines(f"{root}proc/{pid}/cgroup")]
    for _number, controllers, path in groups:
        if "cpuacct" in controllers.split(","):  # control groups of the first version
            return int(_lines(f"{root}sys/fs/cgroup/cpuacct{path}/cpuacct.usage")[0]) / 1e9
    unified = next((path for number, _none, path in groups if number == "0"), "/")
    used = dict(line.split() for line in _lines(f"{root}sys/fs/cgroup{unified}/cpu.stat"))
    return int(used["usage_usec"]) / 1e6


def _lines(path: str) -> list[str]:
    with open(path, encoding="ascii") as file:
        return file.read().splitlines()
