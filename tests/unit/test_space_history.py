# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Shell histories: each command once, whatever the space does to the file and whenever the worker dies."""

from __future__ import annotations

import contextlib
import os
import pathlib
import typing as t

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils import _audit
from ansible_collections.clawops.fleet.plugins.module_utils._docker import history, names

NOW = 1_700_100_000


class Host:
    """A host with one space."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.state, self.log, self.work = folder / "state", str(folder / "audit.jsonl"), folder / "work"
        self.work.mkdir()
        self.file = self.work / ".bash_history"
        self.time = NOW
        self.said: list[str] = []

    @contextlib.contextmanager
    def doing(self, what: str) -> t.Iterator[None]:
        yield

    def containers(self, **_unused: t.Any) -> list[dict[str, t.Any]]:
        mounts = [{"Destination": "/run/secrets", "Source": "/nowhere"},
                  {"Destination": "/workspace", "Source": str(self.work)}]
        return [{"Id": "1", "Labels": {names.SPACE: "scratch"}, "Mounts": mounts}]

    @property
    def api(self) -> Host:
        return self

    def ingest(self) -> int:
        return history.Ingest(self, self.said.append, self.state, self.log, lambda: self.time).run()  # type: ignore[arg-type]

    def add(self, *commands: tuple[int, str]) -> None:
        with self.file.open("a") as file:
            file.writelines(f"#{NOW - 1000 + when}\n{text}\n" for when, text in commands)

    def seen(self) -> list[str]:
        return [entry["command"] for entry in _audit.read(self.log) if "command" in entry]


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    return Host(tmp_path)


def test_each_command_is_recorded_once_with_its_time(host: Host) -> None:
    assert host.ingest() == 0
    host.add((1, "ls"), (2, "for i in 1 2\ndo echo $i\ndone"))
    assert host.ingest() == 2
    assert host.ingest() == 0
    host.add((2, "ls"))
    assert host.ingest() == 1
    entries = list(_audit.read(host.log))
    assert [entry["command"] for entry in entries] == ["ls", "for i in 1 2\ndo echo $i\ndone", "ls"]
    assert entries[0]["time"] == _audit.stamp(NOW - 999)
    assert {(e["event"], e["subject"], e["actor"]) for e in entries} == {("space.shell", "scratch", "space:scratch")}


def test_a_line_that_is_being_written_waits(host: Host) -> None:
    host.add((1, "ls"))
    with host.file.open("a") as file:
        file.write(f"#{NOW}\nmake")
    host.ingest()
    with host.file.open("a") as file:
        file.write(" test\n")
    host.ingest()
    assert [text for text in host.seen() if text.strip()] == ["ls", "make test"]


@pytest.mark.parametrize("kept", [0, 1, 3, 4])
def test_a_shortened_file_repeats_nothing(host: Host, kept: int) -> None:
    host.add(*((number, f"command {number}") for number in range(4)))
    host.ingest()
    text = host.file.read_text().splitlines(keepends=True)
    host.file.write_text("".join(text[len(text) - 2 * kept:]))
    host.ingest()
    host.add((10, "new"))
    host.ingest()
    assert host.seen() == [*(f"command {number}" for number in range(4)), "new"]


def test_a_long_file_that_bash_shortens_repeats_and_misses_nothing(host: Host) -> None:
    wanted = []
    for number in range(300):
        host.add((number, f"command {number}"))
        wanted.append(f"command {number}")
        if number % 50 == 20:
            host.ingest()
        if number % 70 == 60:
            text = host.file.read_text().splitlines(keepends=True)
            host.file.unlink()
            host.file.write_text("".join(text[-120:]))
    host.ingest()
    assert host.seen() == wanted


def test_a_file_written_anew_with_other_commands_is_read(host: Host) -> None:
    host.add((1, "ls"), (5, "pwd"))
    host.ingest()
    host.file.unlink()
    host.add((5, "pwd"), (5, "id"), (6, "date"))
    host.ingest()
    assert host.seen() == ["ls", "pwd", "id", "date"]


def test_the_same_file_brought_back_repeats_nothing(host: Host) -> None:
    host.add((1, "ls"), (5, "pwd"))
    text = host.file.read_text()
    host.ingest()
    host.file.write_text("")
    host.ingest()
    host.file.write_text(text)
    host.ingest()
    assert host.seen() == ["ls", "pwd"]


def test_without_stamps_the_time_is_that_of_the_file(host: Host) -> None:
    host.file.write_text("ls\npwd\n")
    os.utime(host.file, (NOW - 50, NOW - 50))
    host.ingest()
    host.ingest()
    assert [entry["time"] for entry in _audit.read(host.log)] == [_audit.stamp(NOW - 50)] * 2


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "folder link"])
def test_what_is_no_file_is_not_opened(host: Host, kind: str) -> None:
    secret = host.work.parent / "secret"
    secret.write_text("hush\n")
    if kind == "link":
        host.file.symlink_to(secret)
    elif kind == "pipe":
        os.mkfifo(host.file)
    elif kind == "folder":
        host.file.mkdir()
    else:
        host.work.rename(host.work.parent / "elsewhere")
        (host.work.parent / "elsewhere/.bash_history").write_text("hush\n")
        host.work.symlink_to("elsewhere")
    assert host.ingest() == 0
    assert host.seen() == []


def test_garbage_is_recorded_plain(host: Host) -> None:
    host.file.write_bytes(b"\xff\x00\x1b[2J\n#99999999999\n\n#12\n")
    host.ingest()
    assert host.seen() == ["\\xff\x00\x1b[2J", "#12"]
    assert b"\x1b" not in pathlib.Path(host.log).read_bytes()
    assert all(entry["time"] <= _audit.stamp(NOW) for entry in _audit.read(host.log))


def test_much_is_read_in_pieces_and_all_of_it(host: Host) -> None:
    host.add(*((number // 10, f"command {number}") for number in range(2500)))
    assert [host.ingest() for _pass in range(4)] == [1000, 1000, 500, 0]
    assert host.seen() == [f"command {number}" for number in range(2500)]


def test_long_commands_are_not_cut_between_pieces(host: Host) -> None:
    texts = [f"{number} {'x' * 3000}" for number in range(200)]
    host.add(*((number, text) for number, text in enumerate(texts)))
    while host.ingest():
        pass
    assert host.seen() == texts


def test_a_flood_is_passed_over_and_said(host: Host) -> None:
    host.file.write_bytes(b"x\n" * 3_000_000)
    host.ingest()
    assert len(host.seen()) == 1000
    assert [e["bytes"] for e in _audit.read(host.log) if e["outcome"] == "dropped"] == [6_000_000 - history.CHUNK + 2]


def test_one_endless_line_is_passed_over(host: Host) -> None:
    host.file.write_bytes(b"x" * 1_000_000)
    for _pass in range(5):
        host.ingest()
    host.add((1, "ls"))
    host.ingest()
    host.ingest()
    assert host.seen()[-1] == "ls"
    assert len(host.seen()) <= 2


def test_a_day_has_its_limit(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "DAY", 1000)
    host.add(*((number, f"command {number}") for number in range(10)))
    host.ingest()
    assert len(host.seen()) == 4
    host.time += 86400
    host.add((500, "tomorrow"))
    host.ingest()
    assert host.seen()[-1] == "tomorrow"


class Killed(BaseException):
    """The worker's end."""


@pytest.mark.parametrize("written", [None, 0, 1, 2.5, 4])
def test_a_worker_that_dies_repeats_and_misses_nothing(host: Host, monkeypatch: pytest.MonkeyPatch,
                                                       written: float | None) -> None:
    host.add(*((number, f"command {number}") for number in range(4)))
    real = _audit.append

    def append(entries: list[dict[str, t.Any]], path: str) -> None:
        whole = int(written or 0)
        real(entries[:whole], path)
        if written and written != whole:
            with open(path, "a") as file:
                file.write(_audit.dumps(entries[whole])[:20])
        raise Killed

    def die(*_args: t.Any) -> None:
        raise Killed

    if written is None:
        monkeypatch.setattr(history, "write", die)
    else:
        monkeypatch.setattr(_audit, "append", append)
    with pytest.raises(Killed):
        host.ingest()
    monkeypatch.undo()
    host.file.write_text("")  # and the space hides its traces meanwhile
    if written is None:
        host.add(*((number, f"command {number}") for number in range(4)))
    host.add((9, "last"))
    host.ingest()
    host.ingest()
    assert host.seen() == [*(f"command {number}" for number in range(4)), "last"]


def test_two_workers_at_once_do_not_repeat(host: Host) -> None:
    host.add((1, "ls"))
    with history.alone("history", host.state):
        assert host.ingest() == 0
    assert host.ingest() == 1


def test_what_is_known_of_a_workspace_goes_with_it(host: Host) -> None:
    host.add((1, "ls"))
    host.ingest()
    host.file.unlink()
    host.work.rmdir()
    host.containers = lambda **_unused: []  # type: ignore[method-assign]
    host.ingest()
    assert str(host.work) not in (host.state / "history.json").read_text()
