# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The audit log: one line per event, whatever happens, and none lost to a rotation."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import pathlib
import stat

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils import _audit
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError

ME = _audit.Origin("anna", "7")


@pytest.fixture
def log(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "log/audit.jsonl")


def lines(path: str) -> list[dict]:
    return [json.loads(text) for text in pathlib.Path(path).read_text().splitlines()]


def test_what_was_done_is_one_line(log: str) -> None:
    with _audit.event("space.exec", "scratch", ME, log, argv=["ls"]) as entry:
        entry["rc"] = 3
    (line,) = lines(log)
    assert line.pop("duration_ms") >= 0
    assert line.pop("time").endswith("Z")
    assert line == {"event": "space.exec", "subject": "scratch", "actor": "anna", "job": "7", "outcome": "ok",
                    "argv": ["ls"], "rc": 3}
    assert stat.S_IMODE(os.stat(log).st_mode) == 0o640


@pytest.mark.parametrize(("error", "outcome"), [
    (FleetError("busy", "It is in use."), {"outcome": "failed", "error": "busy", "reason": "It is in use."}),
    (ValueError("secret"), {"outcome": "failed", "error": "ValueError"}),
    (KeyboardInterrupt(), {"outcome": "interrupted"}),
])
def test_what_failed_is_one_line(log: str, error: BaseException, outcome: dict) -> None:
    with pytest.raises(type(error)), _audit.event("space.exec", "scratch", ME, log):
        raise error
    (line,) = lines(log)
    assert {key: line[key] for key in outcome} == outcome
    assert "secret" not in json.dumps(line)


def test_nothing_is_done_when_it_cannot_be_recorded(tmp_path: pathlib.Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    done = []
    with pytest.raises(FleetError) as failed, \
            _audit.event("space.exec", "scratch", ME, str(tmp_path / "audit.jsonl")):
        done.append(1)
    assert (failed.value.code, done) == ("audit_failed", [])


def test_a_link_in_place_of_the_log_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "other")
    with pytest.raises(FleetError):
        _audit.append([{}], str(tmp_path / "audit.jsonl"))
    assert not (tmp_path / "other").exists()


def test_values_are_capped_and_plain(log: str) -> None:
    _audit.append([_audit.line("x", "s", ME, 0, text="é\x1b" + "a" * 5000, many=list(range(500)), raw=b"\xff")], log)
    raw = pathlib.Path(log).read_bytes()
    assert max(raw[:-1]) < 127
    assert min(raw[:-1]) >= 32
    (line,) = lines(log)
    assert len(line["text"]) < 4200
    assert len(line["many"]) == 129
    assert line["raw"] == "\\xff"


def test_a_full_disk_leaves_no_half_line(log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _audit.append([{"n": 1}], log)
    real = os.write

    def full(handle: int, data: bytes) -> int:
        if len(data) < 5:
            raise OSError(28, "No space left on device")
        return real(handle, data[:-3])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(FleetError):
        _audit.append([{"n": 2}], log)
    monkeypatch.undo()
    assert lines(log) == [{"n": 1}]


def test_a_torn_line_spoils_only_itself(log: str) -> None:
    _audit.append([{"n": 1}], log)
    with open(log, "a") as file:
        file.write('{"n": 2, "half')
    _audit.append([{"n": 3}], log)
    assert [entry["n"] for entry in _audit.read(log)] == [1, 3]


def test_rotated_files_are_read_oldest_first(log: str) -> None:
    for number in (1, 2, 3):
        _audit.append([{"n": number}], log)
        if number == 1:
            with gzip.open(f"{log}.2.gz", "wb") as packed:
                packed.write(pathlib.Path(log).read_bytes())
            os.unlink(log)
        if number == 2:
            os.rename(log, f"{log}.1")
    pathlib.Path(f"{log}.old").write_text('{"n": 0}\n')
    assert [entry["n"] for entry in _audit.read(log)] == [1, 2, 3]
    os.utime(f"{log}.2.gz", (1, 1))
    assert [entry["n"] for entry in _audit.read(log, 1000)] == [2, 3]


def _writer(log: str, who: int) -> None:
    for number in range(150):
        with _audit.event("x", f"{who}.{number}", ME, log):
            pass


def test_writers_and_rotations_at_once_lose_nothing(log: str) -> None:
    writers = [multiprocessing.get_context("fork").Process(target=_writer, args=(log, who)) for who in range(4)]
    for writer in writers:
        writer.start()
    rotated = 0
    while any(writer.is_alive() for writer in writers):
        if os.path.exists(log) and os.path.getsize(log) > 1000:
            for number in range(rotated, 0, -1):
                os.rename(f"{log}.{number}", f"{log}.{number + 1}")
            os.rename(log, f"{log}.1")
            rotated += 1
    seen = [entry["subject"] for entry in _audit.read(log)]
    assert rotated > 1
    assert sorted(seen) == sorted(f"{who}.{number}" for who in range(4) for number in range(150))


@pytest.mark.parametrize(("environment", "actor", "job"), [
    ({"CLAWOPS_ACTOR": "bot:alpha", "CLAWOPS_JOB": "9", "SUDO_USER": "anna"}, "bot:alpha", "9"),
    ({"SUDO_USER": "anna"}, "anna", ""),
])
def test_who_acts(environment: dict, actor: str, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLAWOPS_ACTOR", "CLAWOPS_JOB", "SUDO_USER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _audit.Origin.of() == _audit.Origin(actor, job)
    assert _audit.Origin.of("me", "1") == _audit.Origin("me", "1")
