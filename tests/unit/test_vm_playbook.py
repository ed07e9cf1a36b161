# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which VM host gets which guests, how the run goes on into them, and where bots are looked for.

Modules are played by action plugins.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import typing as t

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOSTS = """---
all:
  vars:
    fleet_name: home
    ansible_connection: local
    ansible_become: false
    ansible_python_interpreter: /usr/bin/python3
    ansible_remote_tmp: "{{ lookup('env', 'HOME') }}/tmp"
    records: "{{ inventory_dir }}/records/{{ inventory_hostname }}"
    vm_image: {path: /srv/image.qcow2}
  children:
    docker_hosts: {hosts: {alder: {}}}
    vm_hosts: {hosts: {oak: {}, ash: {ansible_user: admin}}}
    vms: {hosts: {zap: {vm_on: oak}, zip: {vm_on: oak, vm_state: stopped}, zoo: {vm_on: ash, vm_user: {name: ann}}}}
    bots: {hosts: {robot: {bot_on: zap}}}
"""
#: What every module of guests says of a guest.
SEEN = """
import json, os
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

def seen(name):
    return {"name": name, "state": "running", "address": "192.0.2." + str(sum(map(ord, name)) % 250),
            "host_key": {"public": "ssh-ed25519 AAAA" + name}}

def told(name, *what):
    with open(os.environ["CALLS"], "a") as calls:
        calls.write(json.dumps([name, *what]) + "\\n")
"""
INFO = SEEN + """
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        host = self._task.delegate_to
        told(host, "asked")
        values = task_vars["hostvars"][host]
        if values.get("dead"):
            raise AnsibleConnectionFailure("dead")
        if values.get("broken"):
            return {"failed": True, "msg": "no libvirt"}
        guests = {name: task_vars["hostvars"][name] for name in values["groups"]["vms"]}
        return {"vms": [seen(name) for name, its in guests.items() if its["vm_on"] == host and not its.get("lost")]}
"""
FLEET = SEEN + """
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        told(task_vars["inventory_hostname"], self._task.args)
        return {"changed": False, "vms": [seen(vm["name"]) for vm in self._task.args["vms"]
                                          if vm["name"] in self._task.args["only"]]}
"""
#: Each host has a folder in place of /var/lib/clawops.
FOLDER = "{{ hostvars[item | default(inventory_hostname)].records }}"
ELSEWHERE = """---
- hosts: alder
  gather_facts: false
  tasks:
    - include_tasks: {tasks}/elsewhere.yml
      vars: {{elsewhere_bots: [{{name: robot}}]}}
"""
BOTS = """
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        return {"failed": True, "msg": "no answer"}
"""
DEAD = "ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1"
SHOW = """---
- import_playbook: clawops.fleet.{verb}
- hosts: "{{{{ query('clawops.fleet.machines', 'all') }}}}"
  gather_facts: false
  tasks:
    - copy:
        content: >-
          {{{{ {{'host': hostvars[inventory_hostname].ansible_host | default(''), 'user': ansible_user | default(''),
                'arguments': ansible_ssh_common_args | default('')}} | to_json }}}}
        dest: "{{{{ inventory_dir }}}}/way.{{{{ inventory_hostname }}}}"
      check_mode: false
"""


class Play:
    """The playbooks in a collection whose modules and roles are played."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.calls = folder, folder / "calls"
        fleet = folder / "tree/ansible_collections/clawops/fleet"
        roles = [role.name for role in (ROOT / "roles").iterdir() if role.name != "vm"]
        for path in ("plugins/action", "plugins/modules", "meta", *(f"roles/{role}/tasks" for role in roles)):
            (fleet / path).mkdir(parents=True)
        for role in roles:
            (fleet / f"roles/{role}/defaults").symlink_to(ROOT / f"roles/{role}/defaults")
        for path in ("galaxy.yml", "plugins/filter", "plugins/lookup", "plugins/module_utils", "roles/vm"):
            (fleet / path).symlink_to(ROOT / path)
        for path in (ROOT / "playbooks").rglob("*.yml"):
            copy = fleet / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(re.sub(r"/var/lib/clawops(/\w+)", rf'"{FOLDER}\1"', path.read_text()))
        (fleet / "meta/runtime.yml").symlink_to(ROOT / "meta/runtime.yml")
        for path in (ROOT / "plugins/modules").glob("*.py"):
            (fleet / "plugins/modules" / path.name).write_text("")
        for role in roles:
            (fleet / f"roles/{role}/tasks/main.yml").write_text(f"- debug: {{msg: role {role}}}\n")
        for name, code in (("vm_instance_info", INFO), ("vm_fleet", FLEET), ("bot_instance_info", BOTS)):
            (fleet / f"plugins/action/{name}.py").write_text(code)
        (folder / "hosts.yml").write_text(HOSTS)
        self.tasks = fleet / "playbooks/tasks"

    def record(self, host: str, guest: str) -> None:
        self.file(host, f"vms/{guest}/spec.json")

    def file(self, host: str, name: str) -> None:
        path = self.folder / "records" / host / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")

    def run(self, verb: str, *options: str, hosts: str = "", **extra: t.Any) -> tuple[int, list[list[t.Any]], str]:
        """How it ended, what the modules were told, and what was said."""
        (self.folder / "more.yml").write_text(hosts or "all: {}")
        show = ELSEWHERE.format(tasks=self.tasks) if verb == "elsewhere" else SHOW.format(verb=verb)
        (self.folder / "show.yml").write_text(show)
        environment = {**os.environ, "CALLS": str(self.calls), "HOME": str(self.folder), "USER": "ann",
                       "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "tree"), "ANSIBLE_GATHERING": "explicit"}
        sources = [f"--inventory={self.folder}/{name}.yml" for name in ("hosts", "more")]
        done = subprocess.run([sys.executable, "-m", "ansible", "playbook", *sources, "show.yml", *options,
                               f"--extra-vars={json.dumps(extra)}"],
                              env=environment, cwd=self.folder, capture_output=True, text=True, check=False)
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return done.returncode, sorted((json.loads(line) for line in lines), key=str), done.stdout + done.stderr

    def way(self, name: str) -> dict[str, str]:
        return t.cast("dict[str, str]", json.loads((self.folder / f"way.{name}").read_text()))


@pytest.fixture
def play(tmp_path: pathlib.Path) -> Play:
    return Play(tmp_path)


def given(calls: list[list[t.Any]]) -> dict[str, tuple[list[str], list[str]]]:
    """Names and only by host."""
    return {host: ([vm["name"] for vm in what["vms"]], what["only"]) for host, what in calls if what != "asked"}


def test_each_host_gets_its_guests_and_the_run_goes_on_into_them(play: Play) -> None:
    rc, calls, said = play.run("provision_vm", awx_job_id=7, purge_data=True)
    assert rc == 0, said
    assert given(calls) == {"oak": (["zap", "zip"], ["zap", "zip", "zoo"]), "ash": (["zoo"], ["zap", "zip", "zoo"])}
    arguments = next(what for host, what in calls if host == "ash")
    assert arguments["vms"] == [{"name": "zoo", "image": {"path": "/srv/image.qcow2"}, "user": {"name": "ann"}}]
    assert {"fleet": "home", "purge_data": True, "actor": "ann", "job": "7"}.items() <= arguments.items()
    assert "asked" not in [what for _host, what in calls]
    assert (play.way("zap")["user"], play.way("zoo")["user"]) == ("clawops", "ann")
    assert "KnownHostsCommand=/bin/echo zap ssh-ed25519 AAAAzap" in play.way("zap")["arguments"]
    assert not (play.folder / "way.zip").exists() and play.way("alder")["host"] == ""


def test_each_vm_host_is_asked_once_where_nothing_was_provisioned(play: Play) -> None:
    rc, calls, said = play.run("guests", hosts="vms: {hosts: {zag: {vm_on: oak}}}")
    assert rc == 0, said
    assert calls == [["ash", "asked"], ["oak", "asked"]]
    assert play.way("zag")["host"] == "192.0.2.72" and "AAAAzag" in play.way("zag")["arguments"]


def test_who_has_an_address_of_its_own_keeps_it_and_nobody_is_asked(play: Play) -> None:
    rc, calls, said = play.run("guests", "--limit=zoo", hosts="vms: {hosts: {zoo: {ansible_host: zoo.example.org}}}")
    assert (rc, calls) == (0, []), said
    assert play.way("zoo") == {"host": "zoo.example.org", "user": "", "arguments": ""}


@pytest.mark.parametrize(("trouble", "words"), [("dead", "zoo is not reachable. "),
                                                ("broken", "zoo is not reachable. no libvirt ")])
def test_a_silent_vm_host_ends_no_run_and_its_guests_are_named(play: Play, trouble: str, words: str) -> None:
    rc, _calls, said = play.run("guests", hosts=f"vm_hosts: {{hosts: {{ash: {{{trouble}: true}}}}}}")
    assert rc == 0, said
    assert words in said and "zap is not reachable" not in said
    assert play.way("zap")["host"] and play.way("alder")["host"] == ""


def test_a_guest_that_its_host_does_not_have_is_named(play: Play) -> None:
    rc, _calls, said = play.run("guests", hosts="vms: {hosts: {zoo: {lost: true}}}")
    assert rc == 0 and "zoo is not reachable. ash knows no address of it." in said


def test_check_mode_leaves_out_who_is_yet_to_be_made(play: Play) -> None:
    rc, _calls, said = play.run("guests", "--check", hosts="vms: {hosts: {zoo: {lost: true}}}")
    assert rc == 0 and "In check mode, what is in it is left out." in said
    assert not (play.folder / "way.zoo").exists() and (play.folder / "way.zap").exists()


def test_only_those_that_are_named_get_the_state_for_once(play: Play) -> None:
    rc, calls, said = play.run("provision_vm", fleet_only=["zap"], fleet_state="restarted")
    assert rc == 0, said
    assert given(calls) == {"oak": (["zap", "zip"], ["zap"])}
    oak = next(what for host, what in calls if host == "oak" and what != "asked")
    assert [vm.get("state") for vm in oak["vms"]] == ["restarted", "stopped"]


def test_a_bot_that_is_named_touches_no_guest(play: Play) -> None:
    rc, calls, said = play.run("provision_vm", fleet_only=["robot"])
    assert rc == 0 and given(calls) == {}, said


@pytest.mark.parametrize(("extra", "words"), [
    ({"fleet_state": "paused"}, "fleet_state needs it"),
    ({"fleet_only": ["nobody"]}, "fleet_only is a list"),
    ({"fleet_only": ["zap"], "fleet_state": "asleep"}, "zap: vm_state: 'asleep' is not accepted"),
])
def test_what_makes_no_sense_is_refused_before_anything_is_written(play: Play, extra: dict[str, t.Any],
                                                                   words: str) -> None:
    rc, calls, said = play.run("provision_vm", **extra)
    assert rc != 0 and given(calls) == {}
    assert words in said


def test_a_guest_without_a_vm_host_is_refused(play: Play) -> None:
    rc, _calls, said = play.run("guests", hosts="vms: {hosts: {zoo: {vm_on: elm}}}")
    assert rc != 0 and "vm_on: elm. Give zoo a host of group vm_hosts." in said


def test_a_guest_whose_vm_on_was_changed_is_refused_and_the_way_is_named(play: Play) -> None:
    play.record("ash", "zap")
    rc, calls, said = play.run("provision_vm")
    assert rc != 0 and "oak" not in given(calls)
    assert "vm_on: oak is refused for zap: the disks are on ash." in said and "restore_vm" in said
    assert given(calls) == {"ash": (["zoo"], ["zap", "zip", "zoo"])}


def test_a_guest_that_stands_where_it_is_to_be_is_looked_for_nowhere_else(play: Play) -> None:
    for guest in ("zap", "zip"):
        play.record("oak", guest)
    play.record("ash", "zap")
    play.record("ash", "zoo")
    assert play.run("provision_vm")[0] == 0


def test_a_target_that_nobody_is_stands_in_the_error(play: Play) -> None:
    rc, calls, said = play.run("provision_vm", fleet_target="zork")
    assert rc != 0 and calls == [] and "fleet_target: no host of the inventory is meant by 'zork'" in said


# -- what is brought into a guest -------------------------------------------------------------------------------------

@pytest.mark.parametrize(("runtime", "engine"), [("container", True), ("host", False)])
def test_a_guest_has_an_engine_and_its_guard_if_a_bot_needs_one(play: Play, runtime: str, engine: bool) -> None:
    rc, _calls, said = play.run("install", hosts=f"bots: {{hosts: {{robot: {{bot_runtime: {runtime}}}}}}}")
    assert rc == 0, said
    roles = re.findall(r'ok: \[zap\] => \{\s+"msg": "role (\w+)"', said)
    given = ["network_guard", "docker_host"] if engine else []
    # The guard goes before the engine, so that no container starts unguarded.
    assert [role for role in roles if role in ("network_guard", "docker_host")] == given
    assert roles[-3:] == ["openclaw_artifact", "nodejs", "openclaw"] and "host_firewall" in roles


# -- bots that stand elsewhere ------------------------------------------------------------------------------------

def test_a_bot_is_looked_for_on_hosts_and_in_guests(play: Play) -> None:
    play.file("zap", "bots/robot/openclaw.json")
    rc, _calls, said = play.run("elsewhere")
    assert rc != 0 and "bot_on: alder is refused for robot: the data are on zap." in said


def test_who_could_not_be_asked_is_named_and_nothing_is_refused(play: Play) -> None:
    more = f"""
all:
  children:
    docker_hosts: {{hosts: {{birch: {{}}, elm: {{{DEAD}}}}}}}
    vms: {{hosts: {{zoo: {{{DEAD}}}}}}}
    clusters: {{hosts: {{harbor: {{}}}}}}
"""
    rc, _calls, said = play.run("elsewhere", hosts=more)
    assert rc == 0, said
    # A guest that is stopped on purpose can't be asked, either.
    words = " ".join(said.split())
    assert "WARNING: robot: new on alder, and elm, harbor, zip, zoo could not be asked." in words, said


def test_where_all_have_answered_nobody_is_warned(play: Play) -> None:
    rc, _calls, said = play.run("elsewhere", hosts="vms: {hosts: {zip: {vm_state: running}}}")
    assert rc == 0 and "WARNING: robot" not in said, said


# -- all of it ---------------------------------------------------------------------------------------------------------

def test_site_goes_on_without_machines_that_do_not_answer_and_fails_for_them_at_the_end(play: Play) -> None:
    dead = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    more = {"vm_hosts": {"hosts": {"oak": dead, "ash": dead}}, "vms": {"hosts": {"zoo": dead}}}
    rc, calls, said = play.run("site", hosts=json.dumps({"all": {"children": more}}))
    assert rc != 0 and given(calls) == {}
    for name in ("oak", "ash", "zoo"):
        assert f"{name} did not answer, and nothing was done on it" in said
    assert "alder did not answer" not in said
    recap = dict(re.findall(r"^(\w+) +: ok=(\d+)", said, re.MULTILINE))
    assert int(recap["alder"]) > 3 + int(recap["oak"]), said


def test_site_leaves_nobody_out_where_all_answer(play: Play) -> None:
    rc, calls, said = play.run("site")
    assert rc == 0 and set(given(calls)) == {"oak", "ash"}, said
    assert "nothing was done on it" not in said
