# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The protocol line by line, and what a bot may and may not do with it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import pathlib
import typing as t

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._docker import agent, mcp, reconcile
from ansible_collections.clawops.fleet.plugins.module_utils._docker.exec import Result
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError

POLICY = {"fleet": "home", "spaces": ["scratch", "alpha-*"], "templates": ["default", "own", "bound"],
          "definitions": {"own": {"resources": {"memory": "1Gi"}},
                          "bound": {"workspace": {"strategy": "bind", "path": "/srv"}}},
          "limits": {"seconds": 9, "output": 100, "file": 10, "spaces": 2}}
MODERN = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientCapabilities": {}}}
INITIALIZE = {"capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}


class World:
    """A host whose spaces are a mapping of names to states; what is done with them is written down."""

    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log, self.done, self.spaces = folder / "audit.jsonl", [], {"scratch": "running", "secret": "running"}
        self.files: dict[str, bytes] = {}
        self.guard: str | None = None
        monkeypatch.setattr(agent, "awake", self.awake)
        monkeypatch.setattr(agent.programs, "run_in", self.run_in)
        monkeypatch.setattr(agent.programs, "environment", lambda name: {"OF": name})
        monkeypatch.setattr(agent.files, "get", self.get)
        monkeypatch.setattr(agent.files, "put", self.put)
        monkeypatch.setattr(agent.files, "entries", lambda _e, _c, path: ([{"path": f"{path}/a"}], True))
        monkeypatch.setattr(agent.worker, "spaces", lambda _engine: sorted(
            (name, {"State": state}) for name, state in self.spaces.items()))
        monkeypatch.setattr(agent.names, "LOCKS", folder)
        monkeypatch.setattr(agent, "Record", lambda name: type("R", (), {"spec": lambda _self: {"template": "own"}})())
        monkeypatch.setattr(reconcile, "check_guard", lambda _spaces: self.guard)
        monkeypatch.setattr(reconcile, "Spaces", self.converge)
        self.tools = agent.Agent(None, "alpha", agent.Policy.of(POLICY), str(self.log))

    @contextlib.contextmanager
    def awake(self, _engine: t.Any, name: str, origin: t.Any) -> t.Iterator[str]:
        assert origin.actor == "bot:alpha"
        if name not in self.spaces:
            raise FleetError("not_found", f"There is no space {name} on this host.")
        yield name

    def run_in(self, _engine: t.Any, container: str, argv: list[str], stdin: bytes, env: t.Any, workdir: t.Any,
               timeout: int, limit: int) -> Result:
        self.done.append((container, argv, stdin, workdir, timeout, limit))
        return Result(3, b"out\xff", b"err", timed_out="sleep" in argv[-1])

    def get(self, _engine: t.Any, _container: str, path: str, target: t.Callable[[bytes], object]) -> dict[str, t.Any]:
        target(self.files[path])
        return {"size": len(self.files[path]), "mode": "0644", "sha256": "-"}

    def put(self, _engine: t.Any, _container: str, path: str, source: t.Iterable[bytes], mode: int) -> t.Any:
        self.files[path] = b"".join(source)
        return {"size": len(self.files[path]), "mode": mode}

    def converge(self, _engine: t.Any, spaces: list[t.Any], settings: t.Any, origin: t.Any) -> t.Any:
        assert (settings.fleet, origin.actor, settings.allowed_paths) == ("home", "bot:alpha", ())
        self.done += spaces
        return type("Work", (), {"plan": lambda _self: None, "apply": lambda _self, _plan: None})()

    def speak(self, *messages: t.Any) -> list[dict[str, t.Any]]:
        """Answers to messages; what is bytes goes as it is."""
        lines = [one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in messages]
        out = io.BytesIO()
        assert mcp.Server(self.tools, out).run(io.BytesIO(b"".join(lines))) == 0
        answers = [json.loads(line) for line in out.getvalue().splitlines()]
        assert all(answer["jsonrpc"] == "2.0" for answer in answers)
        return answers

    def ask(self, method: str, **params: t.Any) -> dict[str, t.Any]:
        return self.speak({"jsonrpc": "2.0", "id": 7, "method": method, "params": params})[0]

    def call(self, tool: str, **arguments: t.Any) -> tuple[bool, t.Any]:
        """Whether it failed, and what it said."""
        result = self.ask("tools/call", name=tool, arguments=arguments)["result"]
        text = result["content"][0]["text"]
        return result["isError"], text if result["isError"] else json.loads(text)

    def refused(self, tool: str, word: str, **arguments: t.Any) -> None:
        failed, text = self.call(tool, **arguments)
        assert failed and word in text

    def audit(self) -> list[dict[str, t.Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def world(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


# -- protocol ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("wanted, given", [("2025-11-25", "2025-11-25"), ("2025-06-18", "2025-06-18"),
                                           ("2024-11-05", "2024-11-05"), ("2099-01-01", "2025-11-25"),
                                           (["x"], "2025-11-25"), (None, "2025-11-25")])
def test_the_handshake_agrees_on_a_revision(world: World, wanted: t.Any, given: str) -> None:
    result = world.ask("initialize", protocolVersion=wanted, **INITIALIZE)["result"]
    assert result["protocolVersion"] == given and result["capabilities"] == {"tools": {}}
    assert result["serverInfo"]["name"] == "clawops-spaces" and "resultType" not in result


def test_a_session_of_the_old_kind(world: World) -> None:
    answers = world.speak({"jsonrpc": "2.0", "id": 0, "method": "initialize",
                           "params": {"protocolVersion": "2025-06-18", **INITIALIZE}},
                          {"jsonrpc": "2.0", "method": "notifications/initialized"},
                          {"jsonrpc": "2.0", "id": "p", "method": "ping"},
                          {"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
    assert [answer["id"] for answer in answers] == [0, "p", 2]
    assert answers[1]["result"] == {}
    tools = answers[2]["result"]["tools"]
    assert [tool["name"] for tool in tools] == list(agent.TOOLS)
    assert all(tool["inputSchema"]["additionalProperties"] is False for tool in tools)


def test_requests_of_the_new_kind_need_no_handshake(world: World) -> None:
    found = world.ask("server/discover", **MODERN)["result"]
    assert found["supportedVersions"] == ["2026-07-28"] and found["resultType"] == "complete"
    assert found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "clawops-spaces"
    assert (found["ttlMs"], found["cacheScope"]) == (0, "private")
    assert world.ask("tools/list", **MODERN)["result"]["cacheScope"] == "private"
    called = world.ask("tools/call", name="list", arguments={}, **MODERN)["result"]
    assert called["resultType"] == "complete" and called["isError"] is False


def test_an_unknown_revision_names_the_known_ones(world: World) -> None:
    meta = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2030-01-01"}}
    error = world.ask("tools/list", **meta)["error"]
    assert error["code"] == -32022 and error["data"] == {"supported": ["2026-07-28"], "requested": "2030-01-01"}
    meta["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2026-07-28"
    assert world.ask("tools/list", **meta)["error"]["code"] == -32602


@pytest.mark.parametrize("line, code, found", [
    (b"{", -32700, None), (b"\xff\xfe\x00", -32700, None), (b"[" * 100000, -32700, None),
    (b"[]", -32600, None), (b"1", -32600, None), (b"{}", -32600, None),
    (b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}', -32600, None),
    (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}', -32600, None),
    (b'{"jsonrpc": "2.0", "id": true, "method": "ping"}', -32600, None),
    (b'{"jsonrpc": "2.0", "id": {"a": 1}, "method": "ping"}', -32600, None),
    (b'{"jsonrpc": "2.0", "id": 5, "method": 6}', -32600, 5),
    (b'{"jsonrpc": "2.0", "id": 5, "method": "ping", "params": [1]}', -32602, 5),
    (b'{"jsonrpc": "2.0", "id": 5, "method": "ping", "params": {"_meta": 1}}', -32602, 5),
    (b'{"jsonrpc": "2.0", "id": 5, "method": "resources/list"}', -32601, 5),
    (b'{"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "rm"}}', -32602, 5),
    (b'{"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": ["x"]}}', -32602, 5),
    (b'{"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "__init__"}}', -32602, 5),
    (b'{"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "list", "arguments": [1]}}', -32602, 5),
])
def test_what_is_malformed_is_an_error_and_the_session_goes_on(world: World, line: bytes, code: int,
                                                               found: t.Any) -> None:
    answers = world.speak(line + b"\n", b"\n", {"jsonrpc": "2.0", "id": 9, "method": "ping"})
    answers.sort(key=lambda answer: answer["id"] == 9)
    assert (answers[0]["error"]["code"], answers[0]["id"]) == (code, found)
    assert answers[1]["result"] == {}


def test_a_line_without_end_is_refused_and_not_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp, "LINE", 100)
    answers = world.speak(b"x" * 1000 + b"\n", {"jsonrpc": "2.0", "id": 1, "method": "ping"}, b"y" * 500)
    assert [answer.get("error", {}).get("code") for answer in answers] == [-32600, None, -32600]


def test_nobody_is_answered_who_did_not_ask(world: World) -> None:
    assert world.speak({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "exec"}},
                       {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}},
                       {"jsonrpc": "2.0", "id": 3, "result": {}}, {"jsonrpc": "2.0", "id": 3, "error": {}}) == []
    assert world.done == []


def test_an_error_of_ours_tells_nothing_and_the_next_call_works(world: World,
                                                                capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_unused: t.Any, **_more: t.Any) -> t.Any:
        raise RuntimeError("inside")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent.programs, "run_in", broken)
        answer = world.ask("tools/call", name="exec", arguments={"space": "scratch", "command": "x"})
    assert answer["error"] == {"code": -32603, "message": "Internal error"}
    said = capsys.readouterr()
    assert said.out == "" and "RuntimeError" in said.err
    assert world.call("exec", space="scratch", command="x")[0] is False


def test_when_the_client_is_gone_what_is_queued_is_not_done(world: World) -> None:
    class Gone(io.BytesIO):
        def write(self, _data: t.Any) -> int:
            raise BrokenPipeError

    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "exec", "arguments": {"space": "scratch", "command": "x"}}}
    mcp.Server(world.tools, Gone()).run(io.BytesIO(b"".join(json.dumps(call).encode() + b"\n" for _n in range(9))))
    assert len(world.done) == 1


# -- tools -------------------------------------------------------------------------------------------------------------

def test_a_bot_sees_its_own_spaces_only(world: World) -> None:
    world.spaces |= {"alpha-1": "paused", "alphabet": "running", "alpha-2": "exited"}
    assert [(one["space"], one["state"]) for one in world.call("list")[1]] == [
        ("alpha-1", "paused"), ("alpha-2", "stopped"), ("scratch", "started")]


def test_templates_are_told_with_what_they_give(world: World) -> None:
    found = {one["template"]: one for one in world.call("templates")[1]}
    assert sorted(found) == ["bound", "default", "own"]
    assert (found["own"]["memory"], found["default"]["network"]) == (1024**3, "internet")


@pytest.mark.parametrize("name", ["secret", "alphabet", "alpha", "ALPHA-1", "scratch2", "../scratch", "*", "alpha-*\n"])
def test_another_space_is_refused_in_every_tool_and_recorded(world: World, name: str) -> None:
    calls = {"exec": {"command": "id"}, "file_get": {"path": "a"}, "file_put": {"path": "a", "content": "x"},
             "file_list": {"path": "."}, "create": {"template": "default"}}
    for tool, more in calls.items():
        if name.startswith("alpha-") and tool != "create":
            continue  # its own pattern, and no space has such a name
        world.refused(tool, "" if name.startswith("alpha-") else "not one of your spaces", space=name, **more)
    assert world.done == [] and world.files == {}
    assert {(entry["actor"], entry["outcome"]) for entry in world.audit()} == {("bot:alpha", "failed")}


def test_exec_is_capped_and_recorded(world: World) -> None:
    assert world.call("exec", space="scratch", command="echo $A", stdin="in", timeout=5)[1] == {
        "rc": 3, "stdout": "out\ufffd", "stderr": "err", "truncated": False, "timed_out": False}
    world.call("exec", space="scratch", argv=["a b", "'"], workdir="/tmp", timeout=1000)  # noqa: S108
    assert world.done == [("scratch", ["/bin/sh", "-c", "echo $A"], b"in", None, 5, 100),
                          ("scratch", ["a b", "'"], b"", "/tmp", 9, 100)]  # noqa: S108
    entry = world.audit()[1]
    assert (entry["event"], entry["subject"], entry["actor"], entry["argv"], entry["rc"]) == (
        "space.exec", "scratch", "bot:alpha", ["a b", "'"], 3)
    assert world.call("exec", space="scratch", command="sleep 99")[1]["timed_out"] is True
    assert world.audit()[2]["outcome"] == "timeout"


@pytest.mark.parametrize("arguments", [
    {}, {"space": 1, "command": "x"}, {"space": "scratch"}, {"space": "scratch", "command": "x", "argv": ["x"]},
    {"space": "scratch", "argv": []}, {"space": "scratch", "argv": "ls"}, {"space": "scratch", "argv": [1]},
    {"space": "scratch", "command": "x", "timeout": 0}, {"space": "scratch", "command": "x", "timeout": True},
    {"space": "scratch", "command": "x", "user": "root"}, {"space": "scratch", "command": "x\0"},
    {"space": "scratch", "command": "x", "privileged": True}, {"space": "scratch", "command": "\ud800"},
    {"space": "scratch", "command": "x", "env": {"A": "b"}},
])
def test_arguments_that_do_not_fit_are_refused_before_anything_is_done(world: World, arguments: t.Any) -> None:
    assert world.call("exec", **arguments)[0] is True
    assert world.done == []


def test_files_both_ways_text_and_bytes(world: World) -> None:
    assert world.call("file_put", space="scratch", path="a", content="gr\u00fc\u00df", mode="0755")[1]["mode"] == 0o755
    assert world.call("file_get", space="scratch", path="a")[1]["content"] == "gr\u00fc\u00df"
    data = base64.b64encode(b"\0\xff").decode()
    world.call("file_put", space="scratch", path="b", content=data, encoding="base64")
    assert world.files["b"] == b"\0\xff"
    assert world.call("file_get", space="scratch", path="b", encoding="base64")[1]["content"] == data
    world.refused("file_get", "base64", space="scratch", path="b")
    world.refused("file_put", "base64", space="scratch", path="b", content="?", encoding="base64")
    assert world.call("file_list", space="scratch", path=".")[1]["complete"] is True
    assert [entry["action"] for entry in world.audit()] == ["put", "get", "put", "get", "get", "put", "list"]
    assert "gr\u00fc" not in world.log.read_text()


def test_files_have_a_largest_size(world: World) -> None:
    world.refused("file_put", "10 bytes", space="scratch", path="a", content="x" * 11)
    world.files["big"] = b"x" * 11
    world.refused("file_get", "10 bytes", space="scratch", path="big")
    assert "a" not in world.files
    world.refused("file_put", "mode", space="scratch", path="a", content="", mode="4755")


def test_a_space_is_created_from_a_template_alone(world: World) -> None:
    assert world.call("create", space="alpha-1", template="own")[1] == {"space": "alpha-1", "created": True}
    made = world.done[0]
    assert (made.name, made.template, made.memory, made.network) == ("alpha-1", "own", 1024**3, "internet")
    assert world.call("create", space="scratch", template="default")[1]["created"] is False
    assert len(world.done) == 1


def test_nothing_widens_what_a_template_gives(world: World) -> None:
    world.refused("create", "not one of your templates", space="alpha-1", template="lan")
    world.refused("create", "directory of the host", space="alpha-1", template="bound")
    world.refused("create", "no argument", space="alpha-1", template="own", network={"mode": "lan"})
    world.refused("create", "accepted", space="alpha-_", template="own")
    world.guard = "This host has no table inet clawops"
    world.refused("create", "no table", space="alpha-1", template="own")
    world.guard, world.spaces["alpha-9"] = None, "running"
    world.refused("create", "which is your limit", space="alpha-1", template="own")
    assert world.done == []


def test_what_cannot_be_recorded_is_not_done(world: World) -> None:
    world.log.mkdir()
    world.refused("exec", "audit log", space="scratch", command="x")
    assert world.done == []


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"seconds": "9"}, {"hours": 1}, {"file": 2**23}, {"output": True}])
def test_limits_of_the_settings_are_checked(limits: dict[str, t.Any]) -> None:
    with pytest.raises(FleetError, match=r"limits\."):
        agent.Policy.of({**POLICY, "limits": limits})
