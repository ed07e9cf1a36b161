# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host program clawops-space: its verbs, its installation, and the image that it works with."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils import _audit
from ansible_collections.clawops.fleet.plugins.module_utils._docker import cli, program, sandbox_image, worker
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished


@pytest.fixture
def log(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("CLAWOPS_ACTOR", "CLAWOPS_JOB"):
        monkeypatch.setenv(name, "")
    path = str(tmp_path / "audit.jsonl")
    real = _audit.event
    monkeypatch.setattr(_audit, "event", lambda *args, **fields: real(*args[:3], path, **fields))
    return path


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "connect", lambda timeout: contextlib.nullcontext("engine"))


def test_exec_hands_everything_through_and_is_audited(engine: None, log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[t.Any] = []

    def stream(*args: t.Any, **options: t.Any) -> int:
        seen.append((args, options))
        return 42

    monkeypatch.setattr(cli.programs, "stream", stream)
    argv = ["--actor", "anna", "--job", "7", "exec", "scratch", "--timeout", "5", "--", "sh", "-c", "exit 42"]
    assert cli.main(argv) == 42
    ((args, options),) = seen
    assert args == ("engine", "scratch", ["sh", "-c", "exit 42"])
    assert (options["timeout"], options["tty"], options["env"]) == (5.0, False, {})
    (entry,) = _audit.read(log)
    assert (entry["actor"], entry["job"], entry["rc"], entry["argv"][0]) == ("anna", "7", 42, "sh")


def test_variables_come_by_standard_input_and_stay_out_of_the_log(engine: None, log: str,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[t.Any] = []

    def stream(*_args: t.Any, env: dict[str, str], **_options: t.Any) -> int:
        got.extend([env, os.read(0, 100)])
        return 0

    monkeypatch.setattr(cli.programs, "stream", stream)
    into, out = os.pipe()
    os.write(out, b'{"TOKEN": "hush"}\nthe rest')
    os.close(out)
    before = os.dup(0)
    os.dup2(into, 0)
    try:
        assert cli.main(["exec", "scratch", "--env-stdin", "--", "env"]) == 0
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(into)
    assert got == [{"TOKEN": "hush"}, b"the rest"]
    assert "hush" not in pathlib.Path(log).read_text()


def test_files_are_audited_by_their_sum(engine: None, log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.files, "put_stream", lambda *args: {"size": 3, "sha256": "abc", "changed": True})
    assert cli.main(["put", "scratch", "notes/a", "--mode", "0600"]) == 0
    (entry,) = _audit.read(log)
    assert {key: entry[key] for key in ("event", "action", "path", "size", "sha256")} == {
        "event": "space.file", "action": "put", "path": "notes/a", "size": 3, "sha256": "abc"}


def test_a_failure_of_ours_is_told_from_one_of_a_program(monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(timeout: float) -> t.Any:
        raise FleetError("engine_unreachable", "No engine.", "Start it.")

    monkeypatch.setattr(cli, "connect", refuse)
    assert cli.main(["list"]) == cli.FAILED
    assert capsys.readouterr().err == "clawops-space: No engine. Start it.\n"


def test_a_failed_pass_ends_with_an_error(engine: None, monkeypatch: pytest.MonkeyPatch,
                                          tmp_path: pathlib.Path) -> None:
    settings = tmp_path / "spaces.json"
    settings.write_text('{"cpu": 0.5, "engine_timeout": 3, "unknown": 1}')
    assert worker.Settings.load(str(settings)) == worker.Settings(0.5, 64, 3)
    monkeypatch.setattr(cli.sleep.Worker, "run", lambda self: self.settings.cpu != 0.5)
    assert cli.main(["--settings", str(settings), "sleep"]) == cli.FAILED


@pytest.mark.parametrize(("options", "found"), [
    ([], [0, 1, 2, 3]), (["--space", "a"], [0, 2]), (["--event", "space."], [0, 1, 2]), (["--limit", "1"], [3]),
    (["--event", "space.exec", "--actor", "bob"], [1]), (["--since", "2023-11-14T22:13:21Z"], [1, 2, 3]),
    (["--outcome", "failed"], [2]), (["--since", "1h"], []), (["--limit", "0"], [0, 1, 2, 3]),
])
def test_the_log_is_searched(options: list[str], found: list[int], log: str,
                             capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("space.exec", "a", "anna", "ok"), ("space.exec", "b", "bob", "ok"), ("space.pause", "a", "bob", "failed"),
            ("other", "c", "anna", "ok")]
    _audit.append([_audit.line(event, subject, _audit.Origin(actor), 1_700_000_000 + number, outcome=outcome, n=number)
                   for number, (event, subject, actor, outcome) in enumerate(rows)], log)
    assert cli.main(["audit", "--log", log, "--json", *options]) == 0
    assert [json.loads(line)["n"] for line in capsys.readouterr().out.splitlines()] == found


def test_what_is_shown_steers_no_terminal(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    _audit.append([_audit.line("x", "a\x1b[2J", _audit.Origin("b\x9b"), 0, command="rm\x1b\nls")], log)
    assert cli.main(["audit", "--log", log]) == 0
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    assert shown.rstrip("\n").isprintable()


def test_the_program_is_made_of_what_it_needs_and_runs_without_ansible(tmp_path: pathlib.Path) -> None:
    # In a process of its own: others may have imported more here.
    code = ("import json, conftest; from ansible_collections.clawops.fleet.plugins.modules import sandbox_program;"
            "print(json.dumps(sandbox_program.program.sources()))")
    done = subprocess.run([sys.executable, "-c", code], cwd=pathlib.Path(__file__).parent, check=True,
                          capture_output=True)
    texts = json.loads(done.stdout)
    assert {"__init__.py", "_audit.py", "_docker/__init__.py", "_docker/cli.py"} <= set(texts)
    assert all(text for path, text in texts.items() if not path.endswith("__init__.py"))
    assert not [path for path in texts if path.startswith(("_kubernetes", "_firewall", "_backup", "_openclaw"))]
    installed = program.Program(texts, tmp_path / "lib", tmp_path / "sbin/clawops-space")
    installed.apply(installed.plan())
    run = "import sys; sys.path.insert(0, sys.argv.pop(1)); from fleet._docker.cli import main; sys.exit(main())"
    library = str((tmp_path / "lib/fleet").resolve().parent)
    shown = subprocess.run([sys.executable, "-I", "-S", "-c", run, library, "--help"], check=True, capture_output=True,
                           text=True)
    assert "clawops-space" in shown.stdout


def test_an_update_keeps_what_runs_and_removes_what_is_older(tmp_path: pathlib.Path) -> None:
    def at(text: str) -> program.Program:
        return program.Program({"a.py": text, "_docker/b.py": ""}, tmp_path / "lib", tmp_path / "clawops-space")

    for text in ("1", "2", "3"):
        one = at(text)
        assert one.plan().changed
        one.apply(one.plan())
        assert not at(text).plan().changed
    kept = {path.name for path in (tmp_path / "lib").iterdir()}
    assert kept == {"fleet", at("2").version, at("3").version}
    assert (tmp_path / "lib/fleet/a.py").read_text() == "3"
    (tmp_path / "lib/fleet/a.py").write_text("altered")
    assert at("3").plan().diff()["before"] == {str(tmp_path / "lib/fleet"): "damaged"}
    at("3").apply(at("3").plan())
    assert not at("3").plan().changed


class Engine:
    """docker(1), with images by tag."""

    def __init__(self, **images: str) -> None:
        self.images, self.answers, self.used = images, True, ""
        self.said: list[str] = []

    def __call__(self, argv: t.Sequence[str], **_options: t.Any) -> Finished:
        self.said.append(" ".join(argv[:2]))
        if argv[1] == "version":
            return Finished(0 if self.answers else 1, "", "")
        if argv[1:3] == ["image", "inspect"]:
            found = self.images.get(argv[-1])
            return Finished(0, found, "") if found else Finished(1, "", "No such image")
        if argv[1] == "build":
            self.images[argv[argv.index("--tag") + 1]] = "built"
        if argv[1:3] == ["image", "ls"]:
            return Finished(0, "\n".join(tag for tag in self.images if tag.startswith(f"{argv[-1]}:")), "")
        if argv[1] == "ps":
            return Finished(0, "3f4e8d1a9b0c\n" if argv[-1] == f"ancestor={self.used}" else "", "")
        if argv[1:3] == ["image", "rm"]:
            del self.images[argv[3]]
        if argv[1] == "import":
            self.images[argv[-1]] = "base"
        if argv[1] == "tag":
            self.images[argv[3]] = self.images[argv[2]]
        return Finished(0, "", "")


def test_the_image_is_made_once_and_named(tmp_path: pathlib.Path) -> None:
    engine = Engine()
    image = sandbox_image.SandboxImage(engine, "trixie", None, [], [], "", tmp_path)
    assert [change.action for change in image.plan().changes] == ["create", "create"]
    image.apply(image.plan())
    assert not image.plan().changed
    engine.images[sandbox_image.LATEST] = "other"
    assert [(change.subject, change.action) for change in image.plan().changes] == [
        ("image clawops-sandbox:latest", "update")]
    engine.said.clear()
    image.apply(image.plan())
    assert "docker build" not in engine.said
    engine.answers = False
    assert not image.plan().complete


def test_former_images_go_when_another_is_made(tmp_path: pathlib.Path) -> None:
    engine = Engine()

    def made(serial: str) -> sandbox_image.SandboxImage:
        image = sandbox_image.SandboxImage(engine, "trixie", None, [], [], serial, tmp_path)
        image.apply(image.plan())
        return image

    first = made("1")
    engine.images["clawops-bench:1"] = "foreign"
    engine.used = first.tag
    second = made("2")
    assert {first.tag, second.tag, second.base.tag} <= set(engine.images)
    assert first.base.tag not in engine.images and not second.plan().changed
    engine.used = ""
    third = made("3")
    assert set(engine.images) == {third.tag, third.base.tag, sandbox_image.LATEST, "clawops-bench:1"}


def test_the_image_trusts_what_its_host_trusts(tmp_path: pathlib.Path) -> None:
    one, two = (f"-----BEGIN CERTIFICATE-----\nTUlJ{word}\n-----END CERTIFICATE-----\n" for word in ("Q0Ew", "Q0Ex"))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/ca.crt").write_text(one)

    def image(*more: str) -> sandbox_image.SandboxImage:
        return sandbox_image.SandboxImage(Engine(), "trixie", None, [], more, "", tmp_path)

    assert image(one).certificates == [one]
    assert image(two).certificates == [one, two]
    assert image(one).tag == image().tag != image(two).tag
