# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Locks of spaces, and waking one for as long as there is work in it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import threading
import typing as t

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils import _audit, _lock
from ansible_collections.clawops.fleet.plugins.module_utils._docker import lock, names, work
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError

LABELS = {"clawops.fleet/managed": "true", "clawops.fleet/space": "scratch"}


@pytest.fixture(autouse=True)
def places(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr(names, "LOCKS", tmp_path / "locks")
    monkeypatch.setattr(names, "STATE", tmp_path / "state")
    monkeypatch.setattr(_audit.event.__wrapped__, "__defaults__", (str(tmp_path / "audit.jsonl"),))
    return tmp_path


class Api:
    """An engine with one container."""

    def __init__(self, status: str = "running", labels: dict[str, str] | None = None) -> None:
        self.status, self.labels, self.calls = status, LABELS if labels is None else labels, t.cast("list[str]", [])

    def inspect(self, name: str) -> dict[str, t.Any] | None:
        if name != "clawdspace-scratch":
            return None
        state = {"Running": self.status in ("running", "paused"), "Paused": self.status == "paused",
                 "Status": self.status, "StartedAt": "then", "Pid": 1}
        return {"Id": "id", "Config": {"Labels": self.labels}, "State": state}

    def unpause(self, _ident: str) -> None:
        self.calls.append("unpause")
        self.status = "running"

    def start(self, _ident: str) -> None:
        self.calls.append("start")
        self.status = "running"


class Engine:
    def __init__(self, api: Api) -> None:
        self.api, self.inspect = api, api.inspect

    @contextlib.contextmanager
    def doing(self, _what: str) -> t.Iterator[None]:
        yield


def enter(api: Api, name: str = "scratch", timeout: float = 1.0) -> t.Any:
    return work.awake(t.cast(t.Any, Engine(api)), name, timeout)


def test_shared_locks_go_together_and_exclude_the_other_kind() -> None:
    with lock.hold("scratch", shared=True), lock.hold("scratch", shared=True, timeout=0):
        with pytest.raises(FleetError) as caught, lock.hold("scratch", timeout=0):
            pass
        assert caught.value.code == "busy"
    with lock.hold("scratch", timeout=0):
        pass


def test_a_busy_lock_names_its_holder() -> None:
    with lock.hold("scratch"), pytest.raises(FleetError) as caught, lock.hold("scratch", shared=True, timeout=0):
        pass
    holders = caught.value.details["holders"]
    assert not holders or any(str(os.getpid()) in holder for holder in holders)


def test_holders_are_read_from_the_kernels_list(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "x.lock"
    file.touch()
    found = file.stat()
    where = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    rows = [f"1: FLOCK  ADVISORY  WRITE 77 {where} 0 EOF", f"2: POSIX  ADVISORY  READ 78 {where} 0 9"]
    (tmp_path / "locks").write_text("\n".join(rows))
    (tmp_path / "77").mkdir()
    (tmp_path / "77/comm").write_text("clawops-space\n")
    assert _lock.holders(found, tmp_path) == ["process 77 (clawops-space)"]


def test_a_lock_waits_for_its_turn() -> None:
    begun, seen = threading.Event(), []

    def other() -> None:
        with lock.hold("scratch"):
            begun.set()
            threading.Event().wait(0.2)
            seen.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait()
    with lock.hold("scratch", shared=True, timeout=5):
        seen.append("we")
    thread.join()
    assert seen == ["other", "we"]


def test_holding_a_lock_is_no_work_but_touching_it_is() -> None:
    with lock.hold("scratch"):
        pass
    os.utime(lock.path("scratch"), (1, 1))
    with lock.hold("scratch"):
        pass
    assert lock.path("scratch").stat().st_mtime == 1
    lock.touch("scratch")
    assert lock.path("scratch").stat().st_mtime > 1
    lock.touch("never-seen")


@pytest.mark.parametrize("name", ["../x", "A", "", "a" * 29])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(FleetError), lock.hold(name):
        pass


def test_work_in_a_running_space_touches_its_lock_at_both_ends() -> None:
    api = Api()
    with enter(api) as found:
        assert found["Id"] == "id"
        os.utime(lock.path("scratch"), (1, 1))
    assert lock.path("scratch").stat().st_mtime > 1
    assert api.calls == []


@pytest.mark.parametrize(("status", "call"), [("paused", "unpause"), ("exited", "start"), ("created", "start")])
def test_a_sleeper_is_woken_and_that_is_recorded(status: str, call: str, places: pathlib.Path) -> None:
    api = Api(status)
    with enter(api), pytest.raises(FleetError), lock.hold("scratch", timeout=0):
        pass
    assert api.calls == [call]
    (entry,) = list(_audit.read(str(places / "audit.jsonl")))
    assert (entry["event"], entry["subject"], entry["was"]) == ("space.wake", "scratch", status)


def test_a_space_that_ends_at_once_is_not_woken_for_ever() -> None:
    api = Api("exited")
    api.start = lambda _ident: api.calls.append("start")  # type: ignore[method-assign]
    with pytest.raises(FleetError) as caught, enter(api):
        pass
    assert caught.value.code == "not_awake" and len(api.calls) == work.ROUNDS


def test_a_change_in_progress_is_waited_for_and_then_reported() -> None:
    with lock.hold("scratch"), pytest.raises(FleetError) as caught, enter(Api(), timeout=0.1):
        pass
    assert caught.value.code == "busy"


@pytest.mark.parametrize("labels", [{}, {**LABELS, "clawops.fleet/space": "other"}])
def test_a_foreign_container_is_refused(labels: dict[str, str]) -> None:
    with pytest.raises(FleetError) as caught, enter(Api("paused", labels)):
        pass
    assert caught.value.code == "foreign_object"


def test_a_space_that_is_not_there_is_said() -> None:
    with pytest.raises(FleetError) as caught, enter(Api(), "other"):
        pass
    assert caught.value.code == "not_found"


def test_an_error_in_the_work_is_passed_on_and_lets_go() -> None:
    with pytest.raises(KeyError), enter(Api()):
        raise KeyError
    with lock.hold("scratch", timeout=0):
        pass
