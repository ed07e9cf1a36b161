# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the work of bot_fleet is done: in Ansible's own process, or by a module as ever."""

from __future__ import annotations

import datetime
import importlib.util
import os
import types

import pytest
from ansible_collections.clawops.fleet.plugins.action import bot_fleet

ARGUMENTS = {"fleet": "home", "bots": [{"name": "alpha", "version": "2026.9.6", "api_keys": {"KEY": "planted-5ecret"}}]}


@pytest.fixture
def done(monkeypatch):
    """What was called with what."""
    calls = []

    def manage(here, bots):
        calls.append(("here", here, bots, os.getcwd()))
        here.warn("a warning")
        here.exit_json(changed=False, bots=[{"name": "alpha", "said": "the key is planted-5ecret"}])

    def run(_self, _tmp, _variables):
        calls.append(("module",))
        return {"changed": True}

    monkeypatch.setattr(bot_fleet, "manage", manage)
    monkeypatch.setattr(bot_fleet.OrdinaryAction, "run", run)
    return calls


@pytest.fixture
def action(tmp_path):
    made = bot_fleet.ActionModule.__new__(bot_fleet.ActionModule)
    made._task = types.SimpleNamespace(args=ARGUMENTS, check_mode=True, diff=False, environment=[{}], async_val=0)
    made._connection = types.SimpleNamespace(transport="local", become=None)
    made._loader = types.SimpleNamespace(get_basedir=lambda: str(tmp_path))
    return made


def test_the_work_is_done_here_as_the_module_would_do_it(action, done, tmp_path, monkeypatch):
    monkeypatch.setenv("K8S_AUTH_CONTEXT", "harbor")
    before = os.getcwd()
    result = action.run(None, {})
    (_where, here, bots, folder), = done
    assert (folder, os.getcwd()) == (str(tmp_path), before)
    assert (here.check_mode, here._diff) == (True, False)
    assert (here.params["namespace"], here.params["context"], here.params["prune"]) == ("claworc", "harbor", False)
    assert bots[0]["profile"] == "gateway" and bots[0]["api_keys"] == {"KEY": "planted-5ecret"}
    assert result == {"changed": False, "warnings": ["a warning"],
                      "bots": [{"name": "alpha", "said": "the key is ********"}]}


def test_a_failure_is_one_without_secrets(action, monkeypatch):
    monkeypatch.setattr(bot_fleet, "manage", lambda here, bots: here.fail_json("no planted-5ecret", failure={}))
    assert action.run(None, {}) == {"failed": True, "msg": "no ********", "failure": {}}


@pytest.mark.parametrize("part, values", [
    ("_connection", {"transport": "ssh"}), ("_connection", {"become": "sudo"}), ("_task", {"async_val": 60}),
    ("_task", {"environment": [None, {"HTTPS_PROXY": "proxy"}]}), ("_task", {"args": {**ARGUMENTS, "bot": "alpha"}}),
    ("_task", {"args": {"bots": []}})],
    ids=["elsewhere", "another user", "in the background", "environment", "unknown option", "option missing"])
def test_everywhere_else_the_module_runs(action, done, part, values):
    vars(getattr(action, part)).update(values)
    assert action.run(None, {}) == {"changed": True}
    assert done == [("module",)]


def test_the_module_runs_where_ansible_lacks_a_library(action, done, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    action.run(None, {})
    assert done == [("module",)]


def test_arguments_are_plain_values():
    class Text:
        """Like an encrypted value, which is no str."""

        def __str__(self):
            return "decrypted"

    class Tagged(str):
        __slots__ = ("tags",)

    got = bot_fleet.plain({Tagged("a"): [Text(), Tagged("b"), 1, 1.5, True, None], "day": datetime.date(2026, 9, 6)})
    assert got == {"a": ["decrypted", "b", 1, 1.5, True, None], "day": "2026-09-06"}
    assert [type(one) for one in (*got, *got["a"][:2])] == [str] * 4
