# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which host spaces.yml gives which spaces, whoever is limited out or dead. Hosts are played by two action plugins."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOSTS = """---
all:
  vars: {fleet_name: home, ansible_connection: local, ansible_python_interpreter: /usr/bin/python3, where: play}
  children:
    docker_hosts: {hosts: {alder: {has: [one]}, birch: {free: 12}, cedar: {}}}
    bots: {hosts: {robot: {bot_on: alder}}}
    spaces: {hosts: {one: {}, two: {}, three: {space_on: cedar}}}
"""
INFO = """
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        values = task_vars["hostvars"][self._task.delegate_to or task_vars["inventory_hostname"]]
        if values.get("dead"):
            raise AnsibleConnectionFailure("dead")
        if values.get("broken"):
            return {"failed": True, "msg": "no engine"}
        facts = {"memory": 32 * 2**30, "cpus": 8, "free": {"memory": values.get("free", 10) * 2**30, "cpus": 8},
                 "gpu": {"count": 0, "ready": False}}
        return {"host": facts, "spaces": [{"name": name, "state": "started"} for name in values.get("has", [])]}
"""
FLEET = """
import json, os
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        with open(os.environ["CALLS"], "a") as calls:
            calls.write(json.dumps([task_vars["inventory_hostname"], self._task.args]) + "\\n")
        return {"changed": False}
"""


class Play:
    """The playbook in a collection whose modules and role are played."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.calls = folder, folder / "calls"
        fleet = folder / "tree/ansible_collections/clawops/fleet"
        roles = [f"roles/{role}/tasks" for role in ("network_guard", "sandbox_host")]
        for path in ("plugins/action", "plugins/modules", *roles, "meta"):
            (fleet / path).mkdir(parents=True)
        for path in ("galaxy.yml", "playbooks", "plugins/filter", "plugins/module_utils"):
            (fleet / path).symlink_to(ROOT / path)
        group = {"action_groups": {"spaces": ["sandbox_space_info", "sandbox_fleet"]}}
        (fleet / "meta/runtime.yml").write_text(yaml.safe_dump(group))
        for path in roles:
            (fleet / path / "main.yml").write_text(f"[ansible.builtin.debug: {{msg: {path}}}]\n")
        for name, code in (("sandbox_space_info", INFO), ("sandbox_fleet", FLEET)):
            (fleet / f"plugins/modules/{name}.py").write_text("")
            (fleet / f"plugins/action/{name}.py").write_text(code)
        (folder / "hosts.yml").write_text(HOSTS)

    def run(self, *options: str, hosts: str = "", **extra: t.Any) -> tuple[int, dict[str, dict[str, t.Any]], str]:
        """How it ended, what sandbox_fleet was given on each host, and what was said."""
        (self.folder / "more.yml").write_text(hosts or "all: {}")
        environment = {**os.environ, "CALLS": str(self.calls), "HOME": str(self.folder), "USER": "ann",
                       "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "tree"), "ANSIBLE_GATHERING": "explicit"}
        sources = [f"--inventory={self.folder}/{name}.yml" for name in ("hosts", "more")]
        done = subprocess.run([sys.executable, "-m", "ansible", "playbook", *sources, "clawops.fleet.spaces", *options,
                               f"--extra-vars={json.dumps(extra)}"],
                              env=environment, cwd=self.folder, capture_output=True, text=True, check=False)
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return done.returncode, dict(map(json.loads, lines)), done.stdout + done.stderr


def names(calls: dict[str, dict[str, t.Any]]) -> dict[str, list[str]]:
    return {host: [space["name"] for space in arguments["spaces"]] for host, arguments in sorted(calls.items())}


@pytest.fixture
def play(tmp_path: pathlib.Path) -> Play:
    return Play(tmp_path)


def test_each_host_gets_its_spaces_and_the_audit_an_actor(play: Play) -> None:
    rc, calls, said = play.run(awx_job_id=7, fleet_space_templates={"big": {}}, purge_data=True)
    assert rc == 0, said
    assert names(calls) == {"alder": ["one"], "birch": ["two"], "cedar": ["three"]}
    assert calls["cedar"] == {"fleet": "home", "spaces": [{"name": "three"}], "templates": {"big": {}},
                              "purge_data": True, "actor": "ann", "job": "7"}


def test_a_host_is_guarded_before_it_gets_spaces_but_once_in_a_run(play: Play) -> None:
    guarded = "docker_hosts: {hosts: {alder: {network_guard_state: {}}}}"
    said = play.run("--limit=alder,cedar", hosts=guarded)[2]
    assert said.count("roles/network_guard/tasks") == 1
    assert said.index("roles/network_guard/tasks") < said.index("roles/sandbox_host/tasks")
    assert "roles/network_guard/tasks" not in play.run("--tags=spaces")[2]


def test_a_limited_run_touches_no_other_host_and_places_as_a_whole_one_would(play: Play) -> None:
    rc, calls, said = play.run("--limit=alder,cedar")
    assert rc == 0, said
    assert names(calls) == {"alder": ["one"], "cedar": ["three"]}


def test_a_space_that_stands_on_a_limited_out_host_gets_no_twin(play: Play) -> None:
    rc, calls, said = play.run("--limit=cedar", hosts="docker_hosts: {hosts: {birch: {has: [three]}}}")
    assert rc != 0 and calls == {}
    assert "space_on: cedar is refused for three: it stands on birch." in said


@pytest.mark.parametrize(("options", "trouble"), [
    ([], "dead"), (["--limit=alder,cedar"], "dead"), (["--limit=alder,cedar"], "broken")])
def test_a_silent_host_keeps_back_what_it_may_have_and_nothing_else(play: Play, options: list[str],
                                                                    trouble: str) -> None:
    rc, calls, said = play.run(*options, hosts=f"docker_hosts: {{hosts: {{birch: {{{trouble}: true}}}}}}")
    assert rc != 0
    assert names(calls) == {"alder": ["one"], "cedar": ["three"]}
    assert "two: birch did not answer and may have it." in said


def test_nobody_is_asked_in_vain(play: Play) -> None:
    rc, calls, said = play.run("--limit=alder", hosts="docker_hosts: {hosts: {birch: {dead: true}}}",
                               fleet_only=["one", "robot"], fleet_state="paused")
    assert rc == 0, said
    assert calls["alder"]["spaces"] == [{"name": "one", "state": "paused"}]
    assert "UNREACHABLE" not in said


def test_only_hosts_for_spaces_are_taken_where_there_are_some(play: Play) -> None:
    rc, calls, said = play.run(hosts="space_hosts: {hosts: {alder: {}, cedar: {}}}")
    assert rc == 0, said
    assert names(calls) == {"alder": ["one", "two"], "cedar": ["three"]}


@pytest.mark.parametrize(("extra", "words"), [
    ({"fleet_state": "paused"}, "fleet_state needs it"),
    ({"fleet_only": ["nobody"]}, "fleet_only is a list"),
    ({"fleet_only": ["one"], "fleet_state": "asleep"}, "one: space_state: 'asleep' is not accepted"),
])
def test_what_makes_no_sense_is_refused_before_anything_is_asked(play: Play, extra: dict[str, t.Any],
                                                                 words: str) -> None:
    rc, calls, said = play.run(**extra)
    assert rc != 0 and calls == {}
    assert words in said and "Ask for the spaces" not in said


def test_a_fleet_without_spaces_has_nothing_to_do(play: Play) -> None:
    (play.folder / "hosts.yml").write_text("docker_hosts: {hosts: {alder: {ansible_connection: local}}}")
    assert play.run()[:2] == (0, {})
