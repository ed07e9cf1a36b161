# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbook that moves bots, from end to end: modules and roles are played on places that are a file."""

from __future__ import annotations

import json
import os
import pathlib
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
  children:
    docker_hosts: {hosts: {alder: {}}}
    vm_hosts: {hosts: {oak: {}}}
    vms: {hosts: {zap: {vm_on: oak, ansible_host: 192.0.2.9}}}
    clusters: {hosts: {harbor: {cluster_gateway_image: image}}}
    bots:
      hosts:
        alpha: {bot_on: "{{ where }}"}
        bravo: {bot_on: "{{ where }}"}
"""
#: What every module does, on places that are a file: who stands where, whether it runs, and what was said to it.
PLAYED = '''
import fcntl, json, os
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

RELEASE = "{release}"

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        with open(os.environ["WORLD"] + ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return self.play(task_vars)

    def play(self, task_vars):
        place, name = self._task.delegate_to or task_vars["inventory_hostname"], self._task.action.rpartition(".")[2]
        with open(os.environ["WORLD"]) as file:
            self.world = json.load(file)
        here, args = self.world["places"].setdefault(place, {{}}), self._task.args
        bot = args.get("bot") or args.get("name") or ""
        step = f"{{args.get('state', name)}} {{bot}} {{place}}".replace("  ", " ")
        self.world["log"].append(step)
        trouble = self.world["trouble"].get(step)
        try:
            if trouble == "silent" or self.world["trouble"].get(place) == "silent":
                self.world["trouble"][place] = "silent"
                raise AnsibleConnectionFailure(f"{{place}} is dead")
            if trouble:
                return {{"failed": True, "msg": trouble}}
            return {{"changed": True, **getattr(self, name)(here, bot, args, place)}}
        finally:
            assert sum(bot.get("runs", False) for one in self.world["places"].values()
                       for key, bot in one.items() if key == "alpha") < 2, "it runs twice"
            with open(os.environ["WORLD"], "w") as file:
                json.dump(self.world, file)

    def ping(self, here, bot, args, place):
        return {{}}

    def bot_service_info(self, here, bot, args, place):
        return {{"bots": [{{"name": name, "version": RELEASE, "move": one["move"], "has_data": True,
                           "state": "started" if one["runs"] else one.get("state", "stopped"),
                           "active": one["runs"]}}
                          for name, one in here.items() if name in args["names"]]}}

    bot_instance_info = bot_service_info

    def bot_handover(self, here, bot, args, place):
        one = here.setdefault(bot, {{"runs": False, "move": None, "said": None}})
        ends = {{"source": args["source"], "target": args["target"], "since": 5.0}}
        if args["state"] == "expected":
            one["move"] = {{"role": "arriving", **ends}}
        elif args["state"] == "held":
            one["move"] = one["move"] or {{"role": "departing", "ran": one["runs"], **ends}}
            one["runs"] = False
        elif args["state"] == "free":
            one["move"] = None
        elif args["state"] == "returned":
            one["runs"] = one["runs"] or bool(one["move"] and one["move"]["ran"])
            one["move"] = None
        elif args["state"] == "gone":
            self.world["kept"] += [] if args["purge_data"] else [one["said"]]
            del here[bot]
        return {{"move": one["move"], "conversations": {{"sessions": 1, "records": 2}}}}

    pod_handover = bot_handover

    def backup_snapshot(self, here, bot, args, place):
        assert args["snapshots"] or here[bot]["runs"]
        self.world["bucket"][bot] = here[bot]["said"]
        return {{"snapshots": [{{"snapshot": "s1"}}]}}

    def backup_restore(self, here, bot, args, place):
        assert not here[bot]["runs"] and here[bot]["move"]["role"] == "arriving"
        if not self._task.check_mode:
            assert args["snapshot"] == "s1" and args["safety"]
            if here[bot]["said"] and not args["overwrite"]:
                return {{"failed": True, "msg": "it holds data"}}
            here[bot]["said"] = self.world["bucket"][bot]
        return {{"restored": [{{"bot": bot}}]}}

    def bot_service(self, here, bot, args, place):
        one = here.setdefault(bot, {{"runs": False, "move": None, "said": self.world["volume"]}})
        if args["run"] != "stopped":
            assert one["move"] is None and one["said"]
            one["runs"] = True
        return {{"bots": [{{"name": bot}}]}}

    bot_fleet = bot_service
'''
MODULES = ("bot_service_info", "bot_instance_info", "bot_handover", "pod_handover", "backup_snapshot", "backup_restore",
           "bot_service", "bot_fleet")
ROLES = {
    "backup": """
- set_fact: {backup_repositories: {repositories: [1]}}
- clawops.fleet.backup_snapshot: {bot: "{{ backup_bots[0].name }}", snapshots: "{{ backup_snapshots }}"}
  register: backup_result
""",
    "restore": """
- clawops.fleet.backup_restore:
    bot: "{{ restore_bots[0].name }}"
    snapshot: "{{ restore_snapshot }}"
    overwrite: "{{ restore_overwrite }}"
    safety: "{{ restore_safety }}"
  register: restore_result
""",
    "openclaw": """
- clawops.fleet.bot_service: {bot: "{{ openclaw_bots[0].name }}", run: "{{ openclaw_bots[0].state }}"}
  register: openclaw_result
""",
    "bots": """
- clawops.fleet.bot_fleet: {bot: "{{ bots_only[0] }}", run: "{{ bots_list[0].state }}"}
  register: bots_state
"""}


class World:
    """alpha and bravo run on alder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.file = folder, folder / "world.json"
        fleet = folder / "tree/ansible_collections/clawops/fleet"
        roles = [role.name for role in (ROOT / "roles").iterdir()]
        for path in ("plugins/action", "plugins/modules", *(f"roles/{role}/tasks" for role in roles)):
            (fleet / path).mkdir(parents=True)
        for role in roles:
            (fleet / f"roles/{role}/defaults").symlink_to(ROOT / f"roles/{role}/defaults")
            (fleet / f"roles/{role}/tasks/main.yml").write_text(ROLES.get(role, "[]\n"))
        (fleet / "roles/backup/tasks/install.yml").write_text("[]\n")
        for path in ("galaxy.yml", "playbooks", "plugins/filter", "plugins/lookup", "plugins/module_utils"):
            (fleet / path).symlink_to(ROOT / path)
        from ansible_collections.clawops.fleet.plugins.module_utils._bot import RELEASE

        (fleet / "meta").symlink_to(ROOT / "meta")
        for path in (ROOT / "plugins/modules").glob("*.py"):
            (fleet / "plugins/modules" / path.name).write_text("")
        for name in MODULES:
            (fleet / f"plugins/action/{name}.py").write_text(PLAYED.format(release=RELEASE))
        (folder / "hosts.yml").write_text(HOSTS)
        bots = {name: {"runs": True, "move": None, "said": "words"} for name in ("alpha", "bravo")}
        self.write({"places": {"alder": bots}, "bucket": {}, "log": [], "trouble": {}, "kept": [], "volume": None})

    def write(self, world: dict[str, t.Any]) -> None:
        self.file.write_text(json.dumps(world))

    @property
    def now(self) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", json.loads(self.file.read_text()))

    def running(self) -> dict[str, list[str]]:
        return {name: [place for place, bots in self.now["places"].items() if bots.get(name, {}).get("runs")]
                for name in ("alpha", "bravo")}

    def migrate(self, where: str, *options: str, trouble: dict[str, str] | None = None, **extra: t.Any
                ) -> tuple[int, list[str], str]:
        """How it ended, what was done, and what was said."""
        self.write({**self.now, "log": [], "trouble": trouble or {}})
        return self.play("clawops.fleet.migrate", *options, where=where, **{"fleet_only": ["alpha"], **extra})

    def play(self, book: str, *options: str, **variables: t.Any) -> tuple[int, list[str], str]:
        environment = {**os.environ, "HOME": str(self.folder), "WORLD": str(self.file), "ANSIBLE_NOCOLOR": "1",
                       "ANSIBLE_REMOTE_TMP": str(self.folder / "tmp"),
                       "ANSIBLE_COLLECTIONS_PATH": str(self.folder / "tree")}
        done = subprocess.run([sys.executable, "-m", "ansible", "playbook", "--inventory=hosts.yml", *options, book,
                               f"--extra-vars={json.dumps(variables)}"],
                              env=environment, cwd=self.folder, capture_output=True, text=True, check=False)
        return done.returncode, self.now["log"], done.stdout + done.stderr


ELSEWHERE = """---
- hosts: alder
  gather_facts: false
  tasks:
    - include_tasks: {tasks}/elsewhere.yml
      vars: {{elsewhere_bots: [{{name: alpha}}]}}
"""


@pytest.fixture
def world(tmp_path: pathlib.Path) -> World:
    return World(tmp_path)


def test_a_bot_goes_step_by_step_and_only_it(world):
    code, log, said = world.migrate("harbor", "--check")
    assert code == 0, said
    assert "alpha goes from alder to harbor" in said
    assert {step.split()[0] for step in log} == {"bot_service_info", "bot_instance_info"}
    code, log, said = world.migrate("harbor")
    assert code == 0, said
    assert [step for step in log if "_info" not in step] == [
        "bot_fleet alpha harbor", "expected alpha harbor", "backup_snapshot alpha alder", "backup_restore alpha harbor",
        "held alpha alder", "backup_snapshot alpha alder", "backup_restore alpha harbor", "free alpha harbor",
        "bot_fleet alpha harbor", "arrived alpha harbor", "gone alpha alder"]
    assert world.running() == {"alpha": ["harbor"], "bravo": ["alder"]} and "moved" in said
    code, _log, said = world.migrate("zap", fleet_only=["alpha", "bravo"], migrate_live_snapshot="no")
    assert code == 0 and world.running() == {"alpha": ["zap"], "bravo": ["zap"]}, said
    assert world.now["places"]["zap"]["alpha"] == {"runs": True, "move": None, "said": "words"}


@pytest.mark.parametrize("step", ["backup_restore alpha harbor", "arrived alpha harbor"])
def test_one_that_fails_is_back_and_the_others_go(world, step):
    code, _log, said = world.migrate("harbor", trouble={step: "what is the matter"}, fleet_only=["alpha", "bravo"])
    assert code != 0 and "what is the matter" in said
    assert world.running() == {"alpha": ["alder"], "bravo": ["harbor"]}, said
    assert world.now["places"]["alder"]["alpha"]["move"] is None and "alpha" not in world.now["places"]["harbor"]


def test_data_that_no_move_brought_are_neither_replaced_nor_deleted(world):
    world.write({**world.now, "volume": "somebody's"})
    code, _log, said = world.migrate("harbor")
    assert code != 0 and "it holds data" in said and "rolled back" in said, said
    assert world.now["kept"] == ["somebody's"] and world.running()["alpha"] == ["alder"]


def test_what_an_earlier_move_left_is_replaced_and_goes_where_the_bot_does_not_start(world):
    move = {"role": "arriving", "source": "alder", "target": "harbor", "since": 5.0, "ran": True}
    world.write({**world.now, "places": {**world.now["places"], "harbor": {
        "alpha": {"runs": False, "move": move, "said": "older words"}}}})
    code, _log, said = world.migrate("harbor", trouble={"arrived alpha harbor": "what is the matter"})
    assert code != 0 and world.now["kept"] == [] and world.running()["alpha"] == ["alder"], said
    assert world.migrate("harbor")[0] == 0 and world.running()["alpha"] == ["harbor"]


def test_one_whose_target_dies_stays_down_if_it_may_run_there(world):
    code, _log, said = world.migrate("harbor", trouble={"arrived alpha harbor": "silent"})
    assert code != 0 and "STOPPED" in said, said
    assert world.now["places"]["alder"]["alpha"]["move"]["role"] == "departing"
    assert world.running()["alpha"] == ["harbor"]
    code, _log, said = world.migrate("harbor")
    assert code == 0 and world.running()["alpha"] == ["harbor"] and "alpha" not in world.now["places"]["alder"], said


def test_one_whose_target_dies_before_is_back(world):
    code, _log, said = world.migrate("harbor", trouble={"backup_restore alpha harbor": "silent"})
    assert code != 0 and world.running()["alpha"] == ["alder"], said
    assert "not moved" in said
    code, _log, said = world.migrate("alder")
    assert code == 0 and "taken back" in said and "alpha" not in world.now["places"]["harbor"], said


def test_what_was_left_behind_is_no_bot(world):
    (world.folder / "elsewhere.yml").write_text(ELSEWHERE.format(tasks=ROOT / "playbooks/tasks"))
    for move, code in ((None, 2), ({"role": "departing"}, 2), ({"role": "left"}, 0)):
        one = {"runs": False, "said": None, "move": move, "state": "absent"}
        world.write({**world.now, "places": {"harbor": {"alpha": one, "bravo": {**one, "move": None}}}})
        ended, _log, said = world.play("elsewhere.yml", where="alder")
        assert ended == code and ("clawops.fleet.migrate" in said) == bool(code), said
