# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whose disks are backed up, and how each guest is rebuilt. Roles are played."""

from __future__ import annotations

import shutil

import pytest
from test_vm_playbook import DEAD, ROOT, Play

ON = "all: {children: {vms: {hosts: {zap: {vm_backup: {enabled: true, password: own}}}}}}"
ROLES = {"vm_backup": "vm_backup_guests", "vm_restore": "vm_restore_guests", "restore": "restore_bots",
         "openclaw_user": "openclaw_user_bots"}
TOLD = """
import json, os
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        with open(os.environ["CALLS"], "a") as calls:
            calls.write(json.dumps([task_vars["inventory_hostname"], self._task.args]) + "\\n")
        snapshot = {"snapshot": "1", "bytes": 1, "bytes_added": 1, "duration": 1.0}
        return {"snapshots": [{"vm": one["name"], **snapshot} for one in self._task.args["names"] if "name" in one]}
"""
#: A module of backups that fails for those in BAD, and serves the others.
STORED = """
import json, os
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        kind = next(kind for kind in ("bots", "vms", "spaces") if self._task.args.get(kind))
        names = [one["name"] for one in self._task.args[kind]]
        with open(os.environ["CALLS"], "a") as calls:
            calls.write(json.dumps([self._task.action.rpartition(".")[2], kind, names]) + "\\n")
        bad = [name for name in names if name in os.environ["BAD"].split()]
        good = [name for name in names if name not in bad]
        taken = [{kind[:-1]: name, "snapshot": "1", "bytes": 2048, "bytes_added": 1, "duration": 2.0} for name in good]
        if not bad:
            return {"changed": True, "snapshots": taken}
        failed = [{kind[:-1]: name, "code": "wrong_key", "message": f"{name} is locked out."} for name in bad]
        details = {"failed": failed, "done": good, "snapshots": taken}
        message = f"{len(bad)} of {len(names)} {kind} failed: " + " ".join(one["message"] for one in failed)
        return {"failed": True, "msg": message, "failure": {"code": "wrong_key", "details": details}}
"""
STORE = {"fleet_backup": {"endpoint": "http://192.0.2.1", "bucket": "backups"}, "fleet_backup_access_key": "a",
         "fleet_backup_secret_key": "s", "fleet_backup_password": "p"}


@pytest.fixture
def play(tmp_path):
    made = Play(tmp_path)
    fleet = made.tasks.parents[1]
    for role, variable in ROLES.items():
        (fleet / f"roles/{role}/tasks").mkdir(parents=True, exist_ok=True)
        (fleet / f"roles/{role}/tasks/main.yml").write_text(
            f"- clawops.fleet.told: {{role: {role}, names: \"{{{{ {variable} }}}}\"}}\n  register: {role}_result\n")
    (fleet / "plugins/action/told.py").write_text(TOLD)
    (fleet / "plugins/modules/told.py").write_text("")
    for verb in ("install", "customize"):
        (fleet / f"playbooks/{verb}.yml").write_text("- {hosts: localhost, gather_facts: false}\n")
    return made


def really(play, role):
    """Lets a role be what it is. Its modules are played."""
    fleet = play.tasks.parents[1]
    shutil.rmtree(fleet / f"roles/{role}/tasks")
    (fleet / f"roles/{role}/tasks").symlink_to(ROOT / f"roles/{role}/tasks")
    (fleet / "roles/backup/tasks/install.yml").write_text("[]\n")
    for name in ("backup_repository", "vm_snapshot"):
        (fleet / f"plugins/action/{name}.py").write_text(STORED)


def told(play, verb, **options):
    play.calls.unlink(missing_ok=True)
    code, calls, said = play.run(verb, **options)
    assert code == 0, said
    return [(host, call["role"], [one if isinstance(one, str) else one["name"] for one in call["names"]])
            for host, call in (call for call in calls if len(call) > 1 and isinstance(call[1], dict)) if "role" in call]


def test_disks_are_backed_up_where_the_inventory_says_so_or_somebody_asks(play):
    assert told(play, "backup_vm", hosts=ON) == [("oak", "vm_backup", ["zap"])]
    assert told(play, "backup_vm", hosts=ON, fleet_only=["zoo"]) == [("ash", "vm_backup", ["zoo"])]
    assert told(play, "backup_vm") == []


@pytest.mark.parametrize(("bad", "served"), [("zap", ["zip"]), ("zap zip", [])])
def test_a_guest_without_a_repository_keeps_no_other_from_its_snapshot(play, monkeypatch, bad, served):
    really(play, "vm_backup")
    monkeypatch.setenv("BAD", bad)
    code, calls, said = play.run("backup_vm", fleet_only=["zap", "zip", "zoo"], **STORE)
    assert code != 0, said
    taken = [names for module, _kind, names in (call for call in calls if len(call) == 3) if module == "vm_snapshot"]
    assert taken == [["zap", "zip"], ["zoo"]][0 if served else 1:], calls
    table = " ".join(said.split())
    assert "VM zap oak FAILED" in table and "VM zap (oak): zap is locked out." in table, said
    assert "VM zoo ash ok 2 KiB" in table and ("VM zip oak ok" in table) == bool(served), said
    assert f"No snapshot of {', '.join(f'VM {name}' for name in bad.split())}: see the table." in table


def test_a_vm_host_that_does_not_answer_keeps_no_other_from_its_snapshots(play, monkeypatch):
    really(play, "vm_backup")
    monkeypatch.setenv("BAD", "")
    more = f"vm_hosts: {{hosts: {{oak: {{{DEAD}}}}}}}"
    code, _calls, said = play.run("backup_vm", hosts=more, fleet_only=["zap", "zoo"], **STORE)
    table = " ".join(said.split())
    assert code != 0 and "VM zap oak FAILED" in table and "VM zoo ash ok" in table, said


def test_a_guest_gets_its_disks_or_is_made_anew_with_the_state_of_its_bots(play):
    only = {"hosts": ON, "fleet_only": ["zap"]}
    assert told(play, "restore_vm", **only) == [("oak", "vm_restore", ["zap"])]
    anew = [("zap", "openclaw_user", ["robot"]), ("zap", "restore", ["robot"])]
    assert told(play, "restore_vm", **only, fleet_restore="redeploy") == anew
    assert told(play, "restore_vm", fleet_only=["zap"]) == anew


def test_a_guest_whose_disks_are_elsewhere_is_not_restored(play):
    play.record("ash", "zap")
    code, calls, said = play.run("restore_vm", hosts=ON, fleet_only=["zap"])
    assert code != 0 and "vm_on: oak is refused for zap" in said
    assert not any(isinstance(call[1], dict) and call[1].get("role") for call in calls if len(call) > 1)


@pytest.mark.parametrize("wrong", [{"fleet_only": ["nobody"]}, {"fleet_only": "zap"}, {"fleet_restore": "half"}])
def test_what_nobody_can_mean_is_refused(play, wrong):
    code, _calls, said = play.run("restore_vm", hosts=ON, **wrong)
    assert code != 0 and "fleet_only is a list of guests" in said
