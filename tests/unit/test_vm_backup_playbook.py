# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whose disks are backed up, and how each guest is rebuilt. Roles are played."""

from __future__ import annotations

import pytest
from test_vm_playbook import Play

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
        return {}
"""


@pytest.fixture
def play(tmp_path):
    made = Play(tmp_path)
    fleet = made.tasks.parents[1]
    for role, variable in ROLES.items():
        (fleet / f"roles/{role}/tasks").mkdir(parents=True, exist_ok=True)
        (fleet / f"roles/{role}/tasks/main.yml").write_text(
            f"- clawops.fleet.told: {{role: {role}, names: \"{{{{ {variable} }}}}\"}}\n")
    (fleet / "plugins/action/told.py").write_text(TOLD)
    (fleet / "plugins/modules/told.py").write_text("")
    for verb in ("install", "customize"):
        (fleet / f"playbooks/{verb}.yml").write_text("- {hosts: localhost, gather_facts: false}\n")
    return made


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
