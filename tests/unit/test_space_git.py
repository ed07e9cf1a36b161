# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""git in spaces: with a real git, and a server that wants a token which only the program in between has."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
import typing as t

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils import _audit
from ansible_collections.clawops.fleet.plugins.module_utils._docker import files, git, git_task, inside_git
from ansible_collections.clawops.fleet.plugins.module_utils._docker.exec import Result
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError

TOKEN = "tok-planted"
BACKEND = "/usr/lib/git-core/git-http-backend"
CONTAINER = {"Config": {"User": "1001:1001"}, "HostConfig": {"ReadonlyRootfs": True}}


class Server(http.server.BaseHTTPRequestHandler):
    """Repositories below root; those in /priv want the token, /moved sends elsewhere."""

    protocol_version = "HTTP/1.1"
    root: str
    asked: t.ClassVar[list[tuple[str, bool]]] = []

    def log_message(self, *_words: t.Any) -> None: ...

    def _do(self) -> None:
        self.close_connection = True
        word = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
        given = self.headers.get("Authorization") == f"Basic {word}"
        self.asked.append((self.path, given))
        body = self._body()
        if self.path.startswith("/moved/"):
            self._answer(301, [("Location", "http://elsewhere.invalid/")], b"")
        elif self.path.startswith("/priv/") and not given:
            self._answer(401, [("WWW-Authenticate", "Basic realm=x")], b"")
        else:
            self._backend(body)

    do_GET = do_POST = _do

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        whole = b""
        while True:
            size = int(self.rfile.readline(), 16)
            whole += self.rfile.read(size)
            self.rfile.readline()
            if not size:
                return whole

    def _backend(self, body: bytes) -> None:
        path, _gap, query = self.path.partition("?")
        env = {**os.environ, "GIT_PROJECT_ROOT": self.root, "GIT_HTTP_EXPORT_ALL": "1", "REQUEST_METHOD": self.command,
               "PATH_INFO": path, "QUERY_STRING": query, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
               "CONTENT_LENGTH": str(len(body)), "REMOTE_USER": "x",
               "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
               "GIT_PROTOCOL": self.headers.get("Git-Protocol", "")}
        out = subprocess.run([BACKEND], input=body, env=env, capture_output=True, check=False).stdout
        head, _gap, rest = out.partition(b"\r\n\r\n")
        fields = [t.cast("tuple[str, str]", tuple(line.split(": ", 1))) for line in head.decode().split("\r\n")]
        status = next((int(value.split()[0]) for name, value in fields if name == "Status"), 200)
        self._answer(status, [field for field in fields if field[0] != "Status"], rest)

    def _answer(self, status: int, fields: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in [*fields, ("Content-Length", str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Between:
    """inside_git.py as a process of ours."""

    def __init__(self, settings: dict[str, t.Any]) -> None:
        self.process = subprocess.Popen([sys.executable, "-I", "-S", inside_git.__file__], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.said: list[dict[str, t.Any]] = []
        self._write(json.dumps(settings) + "\n")
        self.port = json.loads(t.cast(t.IO[str], self.process.stdout).readline())["port"]
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _write(self, text: str) -> None:
        stdin = t.cast(t.IO[str], self.process.stdin)
        stdin.write(text)
        stdin.flush()

    def _read(self) -> None:
        self.said += [json.loads(line) for line in t.cast(t.IO[str], self.process.stdout)]

    def told(self, key: str) -> list[str]:
        self.end()
        return [str(note[key]) for note in self.said if key in note]

    def end(self) -> None:
        with contextlib.suppress(ValueError, OSError):
            t.cast(t.IO[str], self.process.stdin).close()
        self.process.wait()
        self.reader.join()


class Space(t.NamedTuple):
    """A workspace of our own, the address of the server, and every argument vector and environment of git."""

    root: pathlib.Path
    url: str
    calls: list[str]

    def git(self, dest: str = "proj") -> git.Git:
        return git.Git(t.cast(t.Any, None), CONTAINER, dest)

    def call(self, check_mode: bool = False, **params: t.Any) -> dict[str, t.Any]:
        module = Module(check_mode, {"dest": "proj", "url": f"{self.url}/priv/proj.git", "token": TOKEN, **params})
        with pytest.raises(SystemExit):
            git_task.manage_git(module)
        return module.result


class Module:
    def __init__(self, check_mode: bool, params: dict[str, t.Any]) -> None:
        defaults = {name: option.get("default") for name, option in git_task.GIT_OPTIONS.items()}
        self.params, self.check_mode = {**defaults, "space": "scratch", **params}, check_mode
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def exit_json(self, **values: t.Any) -> None:
        self.result = {"failed": False, "warned": self.warnings, **values}
        raise SystemExit(0)

    def fail_json(self, **values: t.Any) -> None:
        self.result = {"failed": True, **values}
        raise SystemExit(1)


@pytest.fixture
def space(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Space]:
    root, calls = tmp_path / "workspace", t.cast("list[str]", [])
    root.mkdir()
    _repositories(tmp_path / "served")
    Server.root, Server.asked = str(tmp_path / "served"), []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def run_in(_engine: t.Any, _container: t.Any, argv: list[str], stdin: bytes = b"", env: t.Any = None,
               **_options: t.Any) -> Result:
        whole = {"PATH": os.environ["PATH"], "HOME": str(root), **(env or {})}
        calls.append(f"{argv} {whole}")
        done = subprocess.run(argv, input=stdin, env=whole, cwd=root, capture_output=True, check=False)
        return Result(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def between(_engine: t.Any, _container: t.Any, settings: dict[str, t.Any]) -> t.Iterator[Between]:
        program = Between(settings)
        try:
            yield program
        finally:
            program.end()

    for module in (files, git):
        monkeypatch.setattr(module, "WORKSPACE", str(root))
    monkeypatch.setattr(files, "ROOTS", (str(root),))
    monkeypatch.setattr(git, "run_in", run_in)
    monkeypatch.setattr(git, "between", between)
    monkeypatch.setattr(git_task, "entered", lambda *_words: contextlib.nullcontext(CONTAINER))
    monkeypatch.setattr(git_task, "connect", lambda _url: contextlib.nullcontext())
    monkeypatch.setattr(_audit.event.__wrapped__, "__defaults__", (str(tmp_path / "audit.jsonl"),))
    yield Space(root, f"http://127.0.0.1:{server.server_address[1]}", calls)
    server.shutdown()
    server.server_close()


def _repositories(served: pathlib.Path) -> None:
    work = served / "work"
    work.mkdir(parents=True)
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    (work / "README").write_text("one")
    for words in (["init", "-q", "-b", "main"], ["add", "."], [*name, "commit", "-qm", "one"]):
        subprocess.run(["git", *words], cwd=work, check=True)
    for path in ("priv/proj.git", "pub.git"):
        subprocess.run(["git", "clone", "-q", "--bare", str(work), str(served / path)], check=True)
    subprocess.run(["git", "config", "http.receivepack", "true"], cwd=served / "priv/proj.git", check=True)


def test_clone_commit_push_and_again(space: Space, tmp_path: pathlib.Path) -> None:
    assert space.call(True)["changed"] and not (space.root / "proj").exists()
    first = space.call()
    assert first["changed"] and first["status"]["branch"] == "main" and first["status"]["clean"]
    assert "http" in first["warned"][0]
    assert not space.call()["changed"]
    (space.root / "proj/new").write_bytes(os.urandom(2000000))
    wanted = {"commit_message": "work", "branch": "side", "push": True}
    planned = space.call(True, **wanted)
    done = space.call(**wanted)
    assert planned["actions"] == done["actions"]
    assert [action["subject"] for action in done["actions"]] == ["branch", "commit", "side on the server"]
    assert done["status"]["upstream"] == "origin/side" and done["status"]["ahead"] == 0
    assert not space.call(**wanted)["changed"]
    served = subprocess.run(["git", "for-each-ref"], cwd=tmp_path / "served/priv/proj.git", capture_output=True,
                            text=True, check=True).stdout
    assert f"{done['status']['head']} commit\trefs/heads/side" in served
    assert TOKEN not in str(space.calls) + str(done) + (tmp_path / "audit.jsonl").read_text()
    kept = [path for path in space.root.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert kept == []


def test_no_configuration_and_no_hook_gets_at_a_push(space: Space) -> None:
    space.call()
    there, stolen = space.root / "proj", space.root / "stolen"
    for words in (["url.http://127.0.0.1:1/.insteadOf", f"{space.url}/"], ["remote.origin.pushurl", "http://127.0.0.1:1/"],
                  ["url.http://127.0.0.1:1/.pushInsteadOf", f"{space.url}/"], ["http.proxy", "http://127.0.0.1:1"],
                  ["credential.helper", f"!f() {{ cat >> {stolen}; }}; f"], ["core.fsmonitor", f"env >> {stolen};"]):
        subprocess.run(["git", "config", *words], cwd=there, check=True)
    for hook in ("pre-push", "pre-commit", "post-commit", "post-checkout", "reference-transaction"):
        (there / ".git/hooks" / hook).write_text(f"#!/bin/sh\nenv >> {stolen}\n")
        (there / ".git/hooks" / hook).chmod(0o755)
    (there / "new").write_text("x")
    assert space.call(commit_message="work", push=True)["status"]["clean"]
    assert not stolen.exists()


def test_a_push_that_goes_elsewhere_is_no_success(space: Space, tmp_path: pathlib.Path) -> None:
    space.call()
    other = tmp_path / "other.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(tmp_path / "served/pub.git"), str(other)], check=True)
    subprocess.run(["git", "config", f"url.{other}.insteadOf", "http://127.0.0.1"], cwd=space.root / "proj", check=True)
    (space.root / "proj/new").write_text("x")
    assert space.call(commit_message="work", push=True)["failed"]
    assert TOKEN not in (tmp_path / "audit.jsonl").read_text()


@pytest.mark.parametrize(("params", "words"), [
    ({"token": "wrong"}, "refuses the token"), ({"url": "/moved/x.git"}, "redirects to"),
    ({"url": "/priv/none.git"}, "no such repository"), ({"branch": "none"}, "none")])
def test_what_the_server_refuses_is_said(space: Space, params: dict[str, str], words: str) -> None:
    if "url" in params:
        params = {"url": f"{space.url}{params['url']}"}
    result = space.call(**params)
    assert result["failed"] and words in result["msg"] and "wrong" not in result["msg"]
    assert not (space.root / "proj").exists()


def test_without_a_token_git_goes_by_itself(space: Space) -> None:
    assert space.call(url=f"{space.url}/pub.git", token=None)["changed"]
    assert space.call(url=f"{space.url}/priv/proj.git", token=None, dest="other")["failed"]


def test_a_killed_clone_is_done_again(space: Space) -> None:
    half = space.root / ".clawops-clone-proj"
    (half / ".git").mkdir(parents=True)
    (space.root / "proj").mkdir()
    assert space.call()["changed"] and not half.exists()


def test_other_things_in_the_way_are_refused(space: Space) -> None:
    (space.root / "proj").mkdir()
    (space.root / "proj/x").touch()
    assert space.call()["failure"]["code"] == "not_a_repository"
    space.call(dest="other")
    result = space.call(dest="other", url=f"{space.url}/pub.git", token=None)
    assert result["failure"]["code"] == "other_repository"
    assert space.call(dest="none", url=None, token=None)["failure"]["code"] == "not_found"


def test_the_state_is_returned_without_any_change(space: Space) -> None:
    space.call()
    (space.root / "proj/a b").write_text("x")
    (space.root / "proj/README").write_text("two")
    found = space.call(url=None, token=None)
    assert not found["changed"] and found["status"]["changes"] == [
        {"path": "README", "status": ".M"}, {"path": "a b", "status": "??"}]


def test_the_program_in_between_lets_nothing_else_through(space: Space) -> None:
    remote = git.Remote(f"{space.url}/priv/proj.git", TOKEN)
    program = Between(remote.settings([git.RECEIVE], ["refs/heads/side"]))
    other = space.root / "clone"
    local = f"http://127.0.0.1:{program.port}"
    subprocess.run(["git", "clone", "-q", f"{Server.root}/pub.git", str(other)], check=True)

    def push(*refs: str) -> int:
        env = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
        return subprocess.run(["git", "push", "-q", f"{local}/priv/proj.git", *refs], cwd=other, env=env,
                              capture_output=True, check=False).returncode

    assert push("HEAD:refs/heads/main2") and push(":refs/heads/main")
    assert push("HEAD:refs/heads/side", "HEAD:refs/tags/x")
    assert subprocess.run(["git", "ls-remote", f"{local}/priv/proj.git"], capture_output=True, check=False).returncode
    assert subprocess.run(["git", "ls-remote", f"{local}/pub.git"], capture_output=True, check=False).returncode
    assert push("HEAD:refs/heads/side") == 0
    refused = program.told("problem")
    assert all(any(part in words for words in refused) for part in ("refs/heads/main2", "no declared step"))


def command(new: bytes, ref: bytes) -> bytes:
    line = b"0" * 40 + b" " + new + b" " + ref + b"\0report-status\n"
    return b"%04x" % (len(line) + 4) + line


def test_commands_of_a_push_are_read_across_pieces() -> None:
    body = command(b"1" * 40, b"refs/heads/side") + b"0000PACK" + b"x" * 100
    pieces = iter([body[:3], body[3:50], body[50:]])
    assert b"".join(inside_git.checked(pieces, ["refs/heads/side"])) == body
    assert b"".join(inside_git.checked(iter([b"0000"]), [])) == b"0000"


@pytest.mark.parametrize("body", [
    command(b"1" * 40, b"refs/heads/main") + b"0000", command(b"0" * 40, b"refs/heads/side") + b"0000", b"zzzz", b"00",
    b"", b"0008PUSH0000", b"ffff" + b"x" * 10, b"0005\n0000"])
def test_a_push_of_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(inside_git.Refused):
        b"".join(inside_git.checked(iter([body]), ["refs/heads/side"]))


@pytest.mark.parametrize(("url", "token"), [
    ("ext::sh -c id", None), ("-x", None), ("/workspace/x", None), ("https://me:pw@example.org/x", None),
    ("git@example.org:x/y.git", TOKEN), ("ssh://git@example.org/x", TOKEN), ("https://example.org/x?y", TOKEN),
    ("https://example.org/x", "a\nb")])
def test_bad_addresses_are_refused(url: str, token: str | None) -> None:
    with pytest.raises(FleetError) as caught:
        git.Remote(url, token)
    assert caught.value.code == "bad_value" and "pw" not in str(caught.value) and TOKEN not in str(caught.value)


def test_a_token_is_not_shown() -> None:
    assert TOKEN not in repr(git.Remote("https://example.org/x", TOKEN))


@pytest.mark.parametrize("branch", ["-x", "a..b", "a b", "", "x.lock", "x/"])
def test_bad_branches_are_refused(branch: str) -> None:
    with pytest.raises(FleetError):
        git.check_branch(branch)


@pytest.mark.parametrize("dest", ["/etc", "../x", "/workspace", "", "/tmp/x"])  # noqa: S108
def test_bad_places_are_refused(dest: str) -> None:
    with pytest.raises(FleetError):
        git.place(dest)


def test_a_space_that_can_replace_its_programs_gets_no_token() -> None:
    for user in ("", "0:0", "root"):
        container = {"Config": {"User": user}, "HostConfig": {"ReadonlyRootfs": False}}
        with pytest.raises(FleetError) as caught, git.between(t.cast(t.Any, None), container, {}):
            pass
        assert caught.value.code == "unsafe_space"


def test_the_state_is_read() -> None:
    text = ("# branch.oid (initial)\0# branch.head main\0? new file\0"
            "2 R. N... 100644 100644 100644 a b R100 to\0from\0u UU N... 1 2 3 4 a b c both\0")
    status = git.parse_status(text)
    assert (status.head, status.branch, status.upstream) == (None, "main", None)
    assert [(change["path"], change["status"]) for change in status.changes] == [
        ("new file", "??"), ("to", "R."), ("both", "UU")]
    ab = git.parse_status("# branch.oid abc\0# branch.head (detached)\0# branch.upstream o/m\0# branch.ab +2 -3\0")
    assert (ab.head, ab.branch, ab.ahead, ab.behind, ab.changes) == ("abc", None, 2, 3, [])
