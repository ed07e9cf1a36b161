# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""When a space is put to sleep, and when it is not."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import time
import typing as t

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils import _audit
from ansible_collections.clawops.fleet.plugins.module_utils._docker import lock, names, sleep
from ansible_collections.clawops.fleet.plugins.module_utils._docker.state import Record
from ansible_collections.clawops.fleet.plugins.module_utils._docker.worker import Settings
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError

START = time.time()


class Fake:
    """An engine with spaces that run; itself its low-level client."""

    def __init__(self) -> None:
        self.api = self
        self.found: dict[str, dict[str, t.Any]] = {}
        self.execs: dict[str, bool] = {}
        self.broken: list[FleetError] = []
        self.did: list[tuple[str, str]] = []
        self.on_pause = lambda: None

    def add(self, name: str) -> None:
        state = {"Running": True, "Paused": False, "StartedAt": "t1", "Pid": 5}
        self.found[name] = {"Id": name, "State": state, "ExecIDs": None, "Labels": {names.SPACE: name}}

    @contextlib.contextmanager
    def doing(self, what: str) -> t.Iterator[None]:
        if self.broken and what.startswith(("pause", "list")):
            raise self.broken[0]
        yield

    def containers(self, all: bool, filters: dict[str, t.Any]) -> list[dict[str, t.Any]]:
        return [one for one in self.found.values() if one["State"]["Running"]]

    def inspect_container(self, ident: str) -> dict[str, t.Any]:
        return json.loads(json.dumps(self.found[ident]))

    def exec_inspect(self, ident: str) -> dict[str, t.Any]:
        return {"Running": self.execs[ident]}

    def pause(self, ident: str) -> None:
        self.did.append(("pause", ident))
        self.on_pause()
        self.found[ident]["State"]["Paused"] = True

    def unpause(self, ident: str) -> None:
        self.did.append(("unpause", ident))
        self.found[ident]["State"]["Paused"] = False

    def stop(self, ident: str, timeout: int) -> None:
        self.did.append(("stop", ident))
        self.found[ident]["State"]["Running"] = False


class Host:
    """One host with a clock, counters and the fake engine."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.engine, self.folder, self.time = Fake(), folder, START
        self.cpu, self.network = 1.0, 1000
        self.said: list[str] = []
        self.add("scratch")

    def add(self, name: str, after: int = 600, action: str = "pause") -> None:
        self.engine.add(name)
        Record(name, self.folder).write_spec({"idle_after": after, "idle_action": action})

    def tick(self, seconds: float = 60) -> bool:
        self.time += seconds
        worker = sleep.Worker(self.engine, Settings(), _audit.Origin("worker"), self.said.append, self.folder,  # type: ignore[arg-type]
                              str(self.folder / "audit.jsonl"), lambda pid: sleep.Counters(self.cpu, self.network),
                              lambda: self.time)
        return worker.run()

    def ticks(self, number: int) -> list[tuple[str, str]]:
        for _pass in range(number):
            assert self.tick()
        return self.engine.did

    def touch(self) -> None:
        lock.path("scratch").parent.mkdir(parents=True, exist_ok=True)
        lock.path("scratch").touch()
        os.utime(lock.path("scratch"), (self.time + 30, self.time + 30))

    def audited(self) -> list[dict[str, t.Any]]:
        return list(_audit.read(str(self.folder / "audit.jsonl")))


@pytest.fixture
def host(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(names, "LOCKS", tmp_path / "locks")
    return Host(tmp_path / "state")


def test_an_idle_space_is_paused_once_and_the_reason_is_told(host: Host) -> None:
    assert host.ticks(10) == []
    assert host.ticks(1) == [("pause", "scratch")]
    assert host.ticks(20) == [("pause", "scratch")]
    (entry,) = host.audited()
    assert (entry["event"], entry["subject"], entry["actor"]) == ("space.pause", "scratch", "worker")
    assert entry["idle"] == 600
    assert host.said == ["scratch: awake: it was started or woken", "scratch: awake: idle from now on",
                         f"scratch: paused: {entry['reason']}"]
    assert Record("scratch", host.folder).asleep(host.engine.found["scratch"])


def test_it_may_be_stopped_instead(host: Host) -> None:
    host.add("scratch", 120, "stop")
    assert host.ticks(3) == [("stop", "scratch")]
    assert host.audited()[0]["event"] == "space.stop"


def test_never_is_never(host: Host) -> None:
    host.add("scratch", 0)
    assert host.ticks(50) == []


@pytest.mark.parametrize("use", ["exec", "cpu", "network", "lock"])
def test_a_space_in_use_stays_awake_and_the_time_begins_anew(host: Host, use: str) -> None:
    host.ticks(1)
    for _pass in range(20):
        if use == "exec":
            host.engine.found["scratch"]["ExecIDs"], host.engine.execs = ["e"], {"e": True}
        host.cpu += 5.0 if use == "cpu" else 0.1
        host.network += 90000 if use == "network" else 500
        if use == "lock":
            host.touch()
        assert host.ticks(1) == []
    host.engine.execs = {"e": False}
    assert host.ticks(9) == []
    assert host.ticks(1) == [("pause", "scratch")]


def test_an_exec_that_was_never_begun_keeps_nothing_awake(host: Host) -> None:
    host.engine.found["scratch"]["ExecIDs"], host.engine.execs = ["e"], {"e": False}
    assert host.ticks(11) == [("pause", "scratch")]


def test_use_is_not_averaged_away_over_a_long_gap(host: Host) -> None:
    host.ticks(1)
    host.cpu += 2.0
    assert host.tick(3600)
    assert host.engine.did == []


def test_a_new_worker_goes_on_and_a_new_start_begins_anew(host: Host) -> None:
    host.ticks(10)
    host.engine.found["scratch"]["State"]["StartedAt"] = "t2"
    host.cpu = 0.0
    assert host.ticks(10) == []
    assert host.ticks(1) == [("pause", "scratch")]


def test_a_space_that_was_woken_begins_anew(host: Host) -> None:
    host.ticks(11)
    host.engine.found["scratch"]["State"]["Paused"] = False
    host.engine.did.clear()
    assert host.ticks(10) == []
    assert host.ticks(1) == [("pause", "scratch")]


def test_a_clock_set_back_keeps_nothing_awake(host: Host) -> None:
    host.ticks(1)
    host.tick(-100000)
    host.engine.did.clear()
    assert host.ticks(10) == [("pause", "scratch")]


@pytest.mark.parametrize("damaged", ["{", "[]", '{"scratch": {"old": 1}}', '{"scratch": 3}'])
def test_damaged_state_means_to_begin_anew(host: Host, damaged: str) -> None:
    (host.folder / "idle.json").write_text(damaged)
    assert host.ticks(10) == []


def test_a_held_lock_keeps_it_awake(host: Host) -> None:
    host.ticks(10)
    with lock.hold("scratch", shared=True):
        os.utime(lock.path("scratch"), (START, START))  # an exec that began long ago
        host.tick()
    assert host.engine.did == []
    assert host.said[-1] == "scratch: awake: an exec or a change holds its lock"
    assert host.ticks(9) == []


def test_an_exec_that_came_in_between_is_let_go_on(host: Host) -> None:
    def begin() -> None:
        host.engine.found["scratch"]["ExecIDs"], host.engine.execs = ["e"], {"e": True}

    host.engine.on_pause = begin
    assert host.ticks(11) == [("pause", "scratch"), ("unpause", "scratch")]
    assert host.audited()[0]["outcome"] == "undone"
    assert Record("scratch", host.folder).asleep(host.engine.found["scratch"]) is None


def test_one_failure_does_not_hold_up_the_others(host: Host) -> None:
    host.add("other", 0)
    host.ticks(10)
    host.engine.broken = [FleetError("engine_refused", "The engine can't.")]
    host.engine.found["other"]["State"]["StartedAt"] = "t3"
    Record("other", host.folder).write_spec({"idle_after": 60})
    real = host.engine.doing

    @contextlib.contextmanager
    def doing(what: str) -> t.Iterator[None]:
        if not what.startswith("list"):
            with real(what):
                yield
        else:
            yield

    host.engine.doing = doing  # type: ignore[method-assign]
    assert host.tick() is False
    assert "other" in json.loads((host.folder / "idle.json").read_text())
    assert host.audited()[0]["outcome"] == "failed"
    assert not (host.folder / "scratch/asleep.json").exists()


def test_a_hung_engine_is_an_error(host: Host) -> None:
    host.engine.broken = [FleetError("engine_unreachable", "no answer in time.")]
    with pytest.raises(FleetError):
        host.tick()


def test_nothing_sleeps_that_cannot_be_recorded(host: Host) -> None:
    host.ticks(10)
    (host.folder / "audit.jsonl").mkdir()
    assert host.tick() is False
    assert host.engine.did == []


@pytest.mark.parametrize(("group", "file", "text"), [
    ("0::/docker/x\n", "sys/fs/cgroup/docker/x/cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
    ("4:cpu,cpuacct:/docker/x\n0::/\n", "sys/fs/cgroup/cpuacct/docker/x/cpuacct.usage", "2500000000\n"),
])
def test_counters_are_those_of_the_container(tmp_path: pathlib.Path, group: str, file: str, text: str) -> None:
    for path, words in ((file, text), ("proc/7/cgroup", group), ("proc/7/net/dev", """Inter-|   Receive
 face |bytes packets
    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0
  eth0: 100 1 0 0 0 0 0 0 23 1 0 0 0 0 0 0
""")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(words)
    assert sleep.read_counters(7, f"{tmp_path}/") == sleep.Counters(2.5, 123)
