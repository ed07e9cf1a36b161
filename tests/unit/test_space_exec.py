# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs in spaces: streams, caps, time, the end of everything, and what the module makes of it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import struct
import subprocess
import threading
import time
import typing as t

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils import _audit
from ansible_collections.clawops.fleet.plugins.module_utils._docker import exec as programs
from ansible_collections.clawops.fleet.plugins.module_utils._docker import processes, tasks
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError

CONTAINER = {"Id": "id", "State": {"Running": True, "Pid": 1, "Paused": False}}


class Stream:
    """What the library hands out: our end, and bytes that came with its answer."""

    def __init__(self, ours: socket.socket) -> None:
        self._sock = ours

    def close(self) -> None:
        self._sock.close()


class Api:
    """An engine whose programs are functions of what they read."""

    def __init__(self, program: t.Callable[[bytes, t.Callable[[int, bytes], None]], int]) -> None:
        self.program, self.made = program, t.cast("dict[str, t.Any]", {})
        self.state: dict[str, t.Any] = {"Running": True, "ExitCode": None}

    def exec_create(self, container: str, argv: list[str], **options: t.Any) -> dict[str, str]:
        self.made = {"container": container, "argv": argv, **options}
        return {"Id": "exec"}

    def exec_start(self, _ident: str, tty: bool, socket: bool) -> Stream:
        ours, theirs = globals()["socket"].socketpair()
        threading.Thread(target=self._play, args=(theirs,), daemon=True).start()
        return Stream(ours)

    def _play(self, theirs: socket.socket) -> None:
        read = b"".join(iter(lambda: theirs.recv(65536), b""))

        def write(stream: int, data: bytes) -> None:
            theirs.sendall(struct.pack(">BxxxL", stream, len(data)) + data)

        code = self.program(read, write)
        self.state = {"Running": False, "ExitCode": code}
        theirs.close()

    def exec_inspect(self, _ident: str) -> dict[str, t.Any]:
        return {**self.state, "Pid": 0}


class Engine:
    def __init__(self, program: t.Callable[[bytes, t.Callable[[int, bytes], None]], int]) -> None:
        self.api = Api(program)

    @contextlib.contextmanager
    def doing(self, _what: str) -> t.Iterator[None]:
        yield


def run(program: t.Callable[[bytes, t.Callable[[int, bytes], None]], int], **options: t.Any) -> programs.Result:
    return programs.run_in(t.cast(t.Any, Engine(program)), CONTAINER, ["x"], **options)


def echo(read: bytes, write: t.Callable[[int, bytes], None]) -> int:
    write(1, read)
    write(2, b"err")
    return 3


def test_streams_and_code() -> None:
    done = run(echo, stdin=b"\0\xff")
    assert (done.rc, done.out, done.err, done.truncated, done.timed_out) == (3, b"\0\xff", b"err", False, False)


def test_input_may_come_in_pieces() -> None:
    assert run(echo, stdin=(b"a" * 70000 for _time in range(3))).out == b"a" * 210000


def test_what_is_too_much_is_dropped_and_said() -> None:
    def much(_read: bytes, write: t.Callable[[int, bytes], None]) -> int:
        for _time in range(50):
            write(1, b"x" * 1000)
        return 0

    done = run(much, limit=1500)
    assert (len(done.out), done.truncated, done.rc) == (1500, True, 0)
    assert not run(much, limit=50000).truncated


def test_a_piece_may_be_torn_anywhere() -> None:
    got: list[tuple[int, bytes]] = []
    frames = programs._Frames(lambda stream, data: got.append((stream, data)))
    raw = struct.pack(">BxxxL", 1, 3) + b"abc" + struct.pack(">BxxxL", 2, 2) + b"de"
    for byte in raw:
        frames(bytes([byte]))
    assert got == [(1, b"abc"), (2, b"de")]


def test_the_environment_is_not_in_the_arguments() -> None:
    engine = Engine(echo)
    programs.run_in(t.cast(t.Any, engine), CONTAINER, ["x", "y z"], env={"KEY": "s3cret"})
    made = engine.api.made
    assert made["argv"][-2:] == ["x", "y z"] and "s3cret" not in str(made["argv"])
    assert made["environment"]["KEY"] == "s3cret" and made["environment"][processes.MARK] in made["argv"]
    assert "privileged" not in made


@pytest.mark.parametrize(("argv", "env"), [([], {}), ("ls -l", {}), (["a\0b"], {}), ([""], {}), (["x"], {"A B": "1"}),
                                           (["x"], {"A": "\0"})])
def test_bad_calls_are_refused_before_the_engine_is_asked(argv: t.Any, env: dict[str, str]) -> None:
    engine = Engine(echo)
    with pytest.raises(FleetError) as caught:
        programs.run_in(t.cast(t.Any, engine), CONTAINER, argv, env=env)
    assert caught.value.code == "bad_value" and engine.api.made == {}


def test_what_the_engine_cannot_begin_is_said() -> None:
    def refuse(_read: bytes, write: t.Callable[[int, bytes], None]) -> int:
        write(1, b"OCI runtime exec failed: chdir to cwd failed")
        return 126

    with pytest.raises(FleetError) as caught:
        run(refuse)
    assert caught.value.code == "not_begun"


def test_the_end_of_the_time_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    over, calls = threading.Event(), []

    def forever(_read: bytes, write: t.Callable[[int, bytes], None]) -> int:
        write(1, b"begun")
        over.wait(10)
        return 137

    def kill(init: int, mark: str, _main: int) -> int:
        calls.append((init, mark.isdigit()))
        over.set()
        return 2

    monkeypatch.setattr(processes, "kill", kill)
    done = run(forever, timeout=0.2)
    assert (done.rc, done.out, done.timed_out, done.killed) == (137, b"begun", True, 2)
    assert calls == [(1, True)]


def test_a_failure_of_ours_kills_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(processes, "kill", lambda *_words: calls.append(1) or 0)

    def sink(_stream: int, _data: bytes) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        run(echo, sink=sink)
    assert calls == [1]


def tree(mark: str) -> subprocess.Popen[bytes]:
    """A program that leaves a daemon with a clean environment, and one with a limit of its own."""
    script = 'env -i /bin/sh -c "setsid sleep 300 & sleep 301 & wait" & (setsid sleep 302 &) ; exec sleep 303'
    env = {**os.environ, processes.MARK: mark}
    return subprocess.Popen(["/bin/sh", "-c", programs.LAUNCH, "sh", mark, "/bin/sh", "-c", script], env=env)


def test_everything_that_was_begun_is_found_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = "".join(str(byte % 10) for byte in os.urandom(17)).lstrip("0") or "7"
    child = tree(mark)
    monkeypatch.setattr(processes, "_inside", lambda _init: running() - {os.getpid()})
    monkeypatch.setattr(processes, "_same_group", lambda *_words: True)
    try:
        end = time.monotonic() + 10
        while time.monotonic() < end and len(found(mark)) < 5:
            time.sleep(0.05)
        assert len(found(mark)) == 5
        assert processes.kill(os.getpid(), mark, child.pid) == 5
        assert found(mark) == set()
    finally:
        child.kill()
        child.wait()


def running() -> set[int]:
    return {int(one.name) for one in processes.PROC.iterdir() if one.name.isdigit()}


def found(mark: str) -> set[int]:
    return {pid for pid in running() if processes._marked(pid, mark) and processes._lives(pid)}


def test_both_kinds_of_control_groups_are_read(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PROC", tmp_path / "proc")
    monkeypatch.setattr(processes, "CGROUPS", tmp_path / "cgroup")
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/cgroup").write_text("9:pids:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n")
    (tmp_path / "cgroup/pids/docker/abc").mkdir(parents=True)
    (tmp_path / "cgroup/pids/docker/abc/cgroup.procs").write_text("7\n8\n9\n")
    assert processes._inside(7) == {8, 9}
    (tmp_path / "proc/7/cgroup").write_text("0::/system.slice/docker-abc.scope\n")
    (tmp_path / "cgroup/cgroup.procs").touch()
    (tmp_path / "cgroup/system.slice/docker-abc.scope").mkdir(parents=True)
    (tmp_path / "cgroup/system.slice/docker-abc.scope/cgroup.procs").write_text("7\n5\n")
    assert processes._inside(7) == {5}
    assert processes._inside(99) == set()


Called = tuple[dict[str, t.Any], list[list[str]]]


class Module:
    def __init__(self, check_mode: bool = False, **params: t.Any) -> None:
        defaults = {name: option.get("default") for name, option in tasks.EXEC_OPTIONS.items()}
        self.params, self.check_mode, self.warnings = {**defaults, "space": "scratch", **params}, check_mode, []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def exit_json(self, **values: t.Any) -> None:
        self.result = {"failed": False, **values}
        raise SystemExit(0)

    def fail_json(self, **values: t.Any) -> None:
        self.result = {"failed": True, **values}
        raise SystemExit(1)


def call(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, there: bool = False,
         done: programs.Result | None = None, asleep: bool = False, **params: t.Any) -> Called:
    ran: list[list[str]] = []

    def run_in(_engine: t.Any, _space: t.Any, argv: list[str], *_rest: t.Any, **_options: t.Any) -> programs.Result:
        if argv[2:3] and "test -e" in argv[2]:
            return programs.Result(0 if there else 1, b"", b"")
        ran.append(argv)
        return done or programs.Result(0, b"out\n", b"")

    @contextlib.contextmanager
    def entered(*_words: t.Any) -> t.Iterator[dict[str, t.Any]]:
        if asleep:
            raise FleetError("asleep", "It sleeps.")
        yield CONTAINER

    monkeypatch.setattr(tasks, "run_in", run_in)
    monkeypatch.setattr(tasks, "entered", entered)
    monkeypatch.setattr(tasks, "connect", lambda _url: contextlib.nullcontext())
    monkeypatch.setattr(_audit.event.__wrapped__, "__defaults__", (str(tmp_path / "audit.jsonl"),))
    module = Module(**params)
    with pytest.raises(SystemExit):
        tasks.manage_exec(module)
    return module.result, ran


def test_module_runs_and_records(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    result, ran = call(monkeypatch, tmp_path, argv=["ls"], env={"A": "s3cret"}, stdin="s3cret", actor="me", job="9")
    assert (result["changed"], result["rc"], result["stdout"], ran) == (True, 0, "out", [["ls"]])
    (entry,) = list(_audit.read(str(tmp_path / "audit.jsonl")))
    wanted = {"event": "space.exec", "subject": "scratch", "actor": "me", "job": "9", "outcome": "ok",
              "argv": ["ls"], "rc": 0}
    assert {key: entry[key] for key in wanted} == wanted
    assert "s3cret" not in (tmp_path / "audit.jsonl").read_text()


def test_module_fails_as_the_program_does(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    result, _ran = call(monkeypatch, tmp_path, **{"shell": "false"},
                        done=programs.Result(1, b"", b"no"))
    assert (result["failed"], result["changed"], result["rc"], result["stderr"]) == (True, True, 1, "no")
    (entry,) = list(_audit.read(str(tmp_path / "audit.jsonl")))
    assert entry["outcome"] == "failed" and entry["argv"] == ["/bin/sh", "-c", "false"]


def test_module_says_that_the_time_was_over(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    over = programs.Result(137, b"", b"", timed_out=True, killed=4)
    result, _ran = call(monkeypatch, tmp_path, argv=["x"], timeout=2, done=over)
    assert result["failed"] and result["timed_out"] and result["killed"] == 4 and "2 seconds" in result["msg"]


@pytest.mark.parametrize(("params", "there", "runs"), [
    ({"creates": "/x"}, True, False), ({"creates": "/x"}, False, True),
    ({"removes": "/x"}, True, True), ({"removes": "/x"}, False, False)])
def test_module_runs_only_if_needed(params: dict[str, str], there: bool, runs: bool, monkeypatch: pytest.MonkeyPatch,
                                    tmp_path: pathlib.Path) -> None:
    result, ran = call(monkeypatch, tmp_path, there, argv=["x"], **params)
    assert (result["changed"], bool(ran)) == (runs, runs)
    result, ran = call(monkeypatch, tmp_path, there, argv=["x"], check_mode=True, **params)
    assert (result["changed"], ran) == (runs, [])


def test_check_mode_runs_nothing_and_wakes_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    result, ran = call(monkeypatch, tmp_path, argv=["x"], check_mode=True)
    assert (result["skipped"], result["changed"], ran) == (True, False, [])
    result, ran = call(monkeypatch, tmp_path, argv=["x"], creates="/x", check_mode=True, asleep=True)
    assert (result["failed"], result["changed"], result["plan_complete"], ran) == (False, True, False, [])


@pytest.mark.parametrize("params", [{"timeout": 0}, {"timeout": -1}, {"output_limit": -1}])
def test_bad_options_are_refused(params: dict[str, int], monkeypatch: pytest.MonkeyPatch,
                                 tmp_path: pathlib.Path) -> None:
    result, ran = call(monkeypatch, tmp_path, argv=["x"], **params)
    assert result["failure"]["code"] == "bad_value" and ran == []
