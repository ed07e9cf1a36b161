# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files of spaces: the program inside on a real directory, what may come back, and what the module makes of it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pathlib
import struct
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils import _audit
from ansible_collections.clawops.fleet.plugins.module_utils._docker import file_task, files, inside_files
from ansible_collections.clawops.fleet.plugins.module_utils._docker.exec import OUT, Result
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError

BIG = os.urandom(700001)


@pytest.fixture
def root(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A workspace, and programs in the space that run here."""
    base = tmp_path / "workspace"
    base.mkdir()
    (tmp_path / "outside").write_text("outside")
    monkeypatch.setattr(files, "WORKSPACE", str(base))
    monkeypatch.setattr(files, "ROOTS", (str(base),))
    monkeypatch.setattr(files, "run_in", run_in)
    monkeypatch.setattr(_audit.event.__wrapped__, "__defaults__", (str(tmp_path / "audit.jsonl"),))
    return base


def run_in(_engine: t.Any, _container: t.Any, argv: list[str], source: t.Any = (), sink: t.Any = None,
           **_options: t.Any) -> Result:
    done = subprocess.run([sys.executable, *argv[1:]], input=b"".join(source), capture_output=True, check=False)
    for start in range(0, len(done.stdout), 1000):
        sink(OUT, done.stdout[start:start + 1000])
    return Result(done.returncode, b"", done.stderr)


def put(path: str, data: bytes, mode: int = 0o644) -> dict[str, t.Any]:
    return files.put(t.cast(t.Any, None), {}, path, files.chunks(io.BytesIO(data)), mode)


def get(path: str) -> tuple[bytes, dict[str, t.Any]]:
    kept = io.BytesIO()
    found = files.get(t.cast(t.Any, None), {}, path, kept.write)
    return kept.getvalue(), found


def look(path: str, follow: bool = True) -> dict[str, t.Any]:
    return files.look(t.cast(t.Any, None), {}, path, follow)


def entries(path: str, recurse: bool = False) -> tuple[list[dict[str, t.Any]], bool]:
    return files.entries(t.cast(t.Any, None), {}, path, recurse)


@pytest.mark.parametrize("data", [b"", b"\0\xff\n", BIG], ids=["empty", "binary", "big"])
def test_there_and_back(data: bytes, root: pathlib.Path) -> None:
    assert put("a/b/c.bin", data, 0o600)["sha256"] == hashlib.sha256(data).hexdigest()
    assert get("a/b/c.bin") == (data, {"size": len(data), "mode": "0600", "sha256": hashlib.sha256(data).hexdigest()})
    assert [path.name for path in (root / "a/b").iterdir()] == ["c.bin"]


@pytest.mark.parametrize("link", ["../outside", "/etc/passwd", "loop", "up/outside", "sub/../../outside"])
@pytest.mark.parametrize("do", [get, look, entries], ids=["get", "look", "list"])
def test_no_link_leads_out(do: t.Callable[[str], t.Any], link: str, root: pathlib.Path) -> None:
    (root / "sub").mkdir()
    (root / "up").symlink_to("..")
    (root / "loop").symlink_to("loop")
    (root / "x").symlink_to(link)
    with pytest.raises(FleetError) as caught:
        do("x")
    assert caught.value.code == "refused" and caught.value.details["reason"] in ("escape", "ELOOP")


def test_nothing_is_written_through_a_link(root: pathlib.Path) -> None:
    (root / "x").symlink_to("../outside")
    (root / "up").symlink_to("..")
    with pytest.raises(FleetError):
        put("up/outside", b"changed")
    put("x", b"ours")
    assert (root.parent / "outside").read_text() == "outside"
    assert not (root / "x").is_symlink() and (root / "x").read_bytes() == b"ours"


def test_links_that_stay_inside_are_followed(root: pathlib.Path) -> None:
    put("data/set", b"1")
    (root / "relative").symlink_to("data/../data")
    (root / "absolute").symlink_to(root / "data")
    assert get("relative/set")[0] == get("absolute/set")[0] == b"1"
    put("absolute/other", b"2")
    assert (root / "data/other").read_bytes() == b"2"


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "", "a\0b", "/workspaces/x"])
def test_a_path_out_of_the_roots_is_refused(path: str) -> None:
    with pytest.raises(FleetError) as caught:
        files.place(path)
    assert caught.value.code == "bad_value"


def test_paths_are_below_the_workspace() -> None:
    assert files.place("a//b/./c") == files.place("/workspace/a/b/c") == ("/workspace", "a/b/c")
    assert files.place("/tmp/x") == ("/tmp", "x")  # noqa: S108
    assert files.place("/workspace") == ("/workspace", "")


def test_a_pipe_is_not_waited_for(root: pathlib.Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(FleetError):
        get("pipe")
    assert look("pipe")["kind"] == "other"


def test_half_of_a_file_never_gets_the_name(root: pathlib.Path) -> None:
    put("x", b"old")
    request = json.dumps(files.request("put", "x", mode=0o644))
    for torn in (b"", struct.pack(">L", 5) + b"abc", struct.pack(">L", 1) + b"a" + bytes(4) + bytes(32)):
        argv = [sys.executable, inside_files.__file__, request]
        done = subprocess.run(argv, input=torn, capture_output=True, check=True)
        assert json.loads(done.stdout)["refused"] in ("torn", "damaged")
    assert [path.name for path in root.iterdir()] == ["x"] and (root / "x").read_bytes() == b"old"


def test_a_directory_is_listed(root: pathlib.Path) -> None:
    put("a/b", b"12")
    (root / "l").symlink_to("/etc")
    found, complete = entries(str(root), recurse=True)
    assert complete and [(entry["path"], entry["kind"]) for entry in found] == [
        ("a", "directory"), ("a/b", "file"), ("l", "link")]
    assert found[2]["target"] == "/etc" and found[1]["size"] == 2
    assert len(entries(str(root))[0]) == 2


def test_a_long_list_ends(root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LISTED", 3)
    for number in range(5):
        put(str(number), b"")
    found, complete = entries(str(root))
    assert (len(found), complete) == (3, False)


def frames(*pieces: bytes) -> bytes:
    return b"".join(struct.pack(">L", len(piece)) + piece for piece in pieces) + bytes(4) + hashlib.sha256(
        b"".join(pieces)).digest()


@pytest.mark.parametrize("raw", [
    b"no json\n", b"[]\n", b'{"size": 1}\n' + frames(b"abc"), b'{"size": 9}\n' + b"\xff" * 8,
    b'{"size": 3}\n' + struct.pack(">L", 3) + b"abc" + bytes(36), b"x" * 70000])
def test_what_nobody_of_ours_answers_is_refused(raw: bytes) -> None:
    reply = files.Reply(lambda _data: None, most=65536)
    with pytest.raises(FleetError):
        reply(OUT, raw)


def test_pieces_that_nobody_asked_for_are_refused() -> None:
    with pytest.raises(FleetError):
        files.Reply()(OUT, b'{"size": 3}\n' + frames(b"abc"))


def test_an_answer_without_its_end_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(_engine: t.Any, _container: t.Any, _argv: t.Any, _source: t.Any, sink: t.Any) -> Result:
        sink(OUT, b'{"kind": "file", "size": 3}\n' + struct.pack(">L", 3) + b"abc")
        return Result(0, b"", b"")

    monkeypatch.setattr(files, "run_in", torn)
    with pytest.raises(FleetError) as caught:
        get("/workspace/x")
    assert caught.value.code == "torn"


@pytest.mark.parametrize(("mode", "number"), [("0644", 0o644), ("600", 0o600), (0o755, 0o755), (None, None)])
def test_modes(mode: t.Any, number: int | None) -> None:
    assert files.mode_of(mode) == number


@pytest.mark.parametrize("mode", ["u+x", "0888", "4755", True, -1])
def test_bad_modes(mode: t.Any) -> None:
    with pytest.raises(FleetError):
        files.mode_of(mode)


class Module:
    def __init__(self, check_mode: bool, params: dict[str, t.Any]) -> None:
        defaults = {name: option.get("default") for name, option in file_task.FILE_OPTIONS.items()}
        self.params, self.check_mode = {**defaults, "space": "scratch", **params}, check_mode

    def warn(self, _text: str) -> None: ...

    def exit_json(self, **values: t.Any) -> None:
        self.result = {"failed": False, **values}
        raise SystemExit(0)

    def fail_json(self, **values: t.Any) -> None:
        self.result = {"failed": True, **values}
        raise SystemExit(1)


@pytest.fixture
def call(root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., dict[str, t.Any]]:
    monkeypatch.setattr(file_task, "entered", lambda *_words: contextlib.nullcontext({}))
    monkeypatch.setattr(file_task, "connect", lambda _url: contextlib.nullcontext())

    def called(check_mode: bool = False, **params: t.Any) -> dict[str, t.Any]:
        module = Module(check_mode, params)
        with pytest.raises(SystemExit):
            file_task.manage_file(module)
        return module.result

    return called


def test_content_is_put_once(call: t.Callable[..., dict[str, t.Any]], root: pathlib.Path) -> None:
    assert call(True, path="x", content="s3cret")["changed"] and not (root / "x").exists()
    done = call(path="x", content="s3cret", mode="0600")
    assert done["changed"] and done["size"] == 6 and "s3cret" not in str(done)
    assert not call(path="x", content="s3cret")["changed"]
    assert not call(path="x", content="s3cret", mode="0600")["changed"]
    assert call(path="x", content="s3cret", mode="0640")["changed"]
    assert (root / "x").stat().st_mode & 0o777 == 0o640
    log = (root.parent / "audit.jsonl").read_text()
    assert log.count('"space.file"') == 2 and "s3cret" not in log


def test_a_file_of_the_host_is_put_and_fetched(call: t.Callable[..., dict[str, t.Any]], tmp_path: pathlib.Path) -> None:
    source, dest = tmp_path / "source", tmp_path / "dest"
    source.write_bytes(BIG)
    assert call(path="big", src=str(source))["changed"]
    assert call(True, path="big", state="fetched", dest=str(dest))["changed"] and not dest.exists()
    assert call(path="big", state="fetched", dest=str(dest))["changed"]
    assert dest.read_bytes() == BIG and dest.stat().st_mode & 0o777 == 0o600
    assert not call(path="big", state="fetched", dest=str(dest))["changed"]


def test_a_checksum_alone_says_whether_a_transfer_is_needed(call: t.Callable[..., dict[str, t.Any]]) -> None:
    known = hashlib.sha256(b"x").hexdigest()
    first = call(path="x", checksum=known)
    assert first["changed"] and first["transfer"]
    assert not call(True, path="x", checksum=known)["transfer"]
    call(path="x", content="x")
    assert not call(path="x", checksum=known)["changed"]
    assert call(path="x", state="fetched", checksum="none")["transfer"]
    assert not call(path="x", state="fetched", checksum=known)["changed"]


def test_absent_and_listed(call: t.Callable[..., dict[str, t.Any]], root: pathlib.Path) -> None:
    assert not call(path="x", state="absent")["changed"]
    call(path="x", content="x")
    assert call(path=str(root), state="listed")["entries"][0]["path"] == "x"
    assert call(path="x", state="absent")["changed"] and not (root / "x").exists()
    (root / "dir").mkdir()
    assert call(path="dir", state="absent")["failure"]["code"] == "not_a_file"


@pytest.mark.parametrize("params", [
    {"path": "x"}, {"path": "x", "state": "fetched"}, {"path": "../x", "content": "x"},
    {"path": "x", "content": "x", "mode": "rw"}, {"path": "x", "src": "/nowhere"}])
def test_bad_options_are_refused(call: t.Callable[..., dict[str, t.Any]], params: dict[str, str]) -> None:
    assert call(**params)["failure"]["code"] == "bad_value"


def test_a_host_without_room_is_said(call: t.Callable[..., dict[str, t.Any]], tmp_path: pathlib.Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    call(path="x", content="x" * 100)
    usage = file_task.shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(file_task.shutil, "disk_usage", lambda _path: usage)
    assert call(path="x", state="fetched", dest=str(tmp_path / "dest"))["failure"]["code"] == "no_room"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".dest")] == []
