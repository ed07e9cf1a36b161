# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The callback plugin: what the collection's modules changed, and nothing that is secret."""

from __future__ import annotations

import json
import pathlib
import types
import typing as t

import pytest
from ansible_collections.clawops.fleet.plugins.callback.audit import CallbackModule

CHANGED = {"changed": True, "actions": [{"subject": "bot alpha", "action": "create"}], "token": "hush"}


@pytest.fixture
def log(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def plugin(log: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> CallbackModule:
    plugin = CallbackModule()
    monkeypatch.setattr(plugin, "get_option", {"path": str(log), "actor": None, "job": None}.get)
    plugin.v2_playbook_on_start(types.SimpleNamespace(_file_name="site.yml"))
    manager = types.SimpleNamespace(extra_vars={"awx_user_name": "anna", "awx_job_id": 12})
    plugin.v2_playbook_on_play_start(types.SimpleNamespace(get_variable_manager=lambda: manager))
    return plugin


def result(values: dict[str, t.Any], module: str = "clawops.fleet.bot_fleet", **task: t.Any) -> types.SimpleNamespace:
    facts = {"resolved_action": module, "action": module, "check_mode": False, "no_log": False, "loop": None, **task}
    return types.SimpleNamespace(_result=values, _host=types.SimpleNamespace(get_name=lambda: "alder"),
                                 _task=types.SimpleNamespace(**facts, get_name=lambda: "Run the bots"))


def seen(log: pathlib.Path) -> list[dict[str, t.Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_a_change_is_one_line(plugin: CallbackModule, log: pathlib.Path) -> None:
    plugin.v2_runner_on_ok(result(CHANGED))
    (line,) = seen(log)
    del line["time"]
    assert line == {"event": "playbook.change", "subject": "clawops.fleet.bot_fleet", "actor": "anna", "job": "12",
                    "host": "alder", "playbook": "site.yml", "outcome": "ok", "task": "Run the bots",
                    "actions": CHANGED["actions"]}


def test_a_failure_is_one_line_without_its_words(plugin: CallbackModule, log: pathlib.Path) -> None:
    plugin.v2_runner_on_failed(result({"msg": "hush", "failure": {"code": "busy", "message": "hush"}}))
    (line,) = seen(log)
    assert (line["outcome"], line["error"]) == ("failed", "busy")
    assert "hush" not in log.read_text()


@pytest.mark.parametrize(("values", "task"), [
    ({"changed": False}, {}),
    (CHANGED, {"check_mode": True}),
    (CHANGED, {"module": "ansible.builtin.copy"}),
])
def test_the_rest_is_not_recorded(values: dict, task: dict, plugin: CallbackModule, log: pathlib.Path) -> None:
    plugin.v2_runner_on_ok(result(values, **task))
    assert seen(log) == []


@pytest.mark.parametrize(("values", "no_log"), [(CHANGED, True), ({**CHANGED, "_ansible_no_log": True}, False)])
def test_no_log_hides_all_but_the_fact(values: dict, no_log: bool, plugin: CallbackModule, log: pathlib.Path) -> None:
    plugin.v2_runner_on_ok(result(values, no_log=no_log))
    (line,) = seen(log)
    assert not {"task", "actions"} & set(line)


def test_a_loop_is_recorded_item_by_item(plugin: CallbackModule, log: pathlib.Path) -> None:
    for _item in range(2):
        plugin.v2_runner_item_on_ok(result(CHANGED, loop=["a", "b"]))
    plugin.v2_runner_on_ok(result({**CHANGED, "results": [CHANGED, CHANGED]}, loop=["a", "b"]))
    assert len(seen(log)) == 2
