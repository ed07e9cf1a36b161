# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The inventory plugin of guests: VM hosts asked at once, by a program that is sent to them."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time
import typing as t

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.utils.display import Display
from ansible.vars.manager import VariableManager
from ansible_collections.clawops.fleet.plugins.plugin_utils import _guests

HOSTS = """---
all:
  vars: {fleet_name: home, keys: /home/me/keys}
  children:
    vm_hosts:
      hosts:
        oak: {ansible_host: 192.0.2.14, ansible_user: root, ansible_ssh_private_key_file: "{{ keys }}/oak"}
        ash: {ansible_host: 192.0.2.15, ansible_user: root}
    bots: {hosts: {robot: {bot_on: zap}}}
    vms:
      hosts:
        zap: {vm_on: oak}
        zip: {vm_on: ash}
        zoo: {vm_on: ash, ansible_host: zoo.example.org}
"""
SOURCE = """---
plugin: clawops.fleet.vms
keyed_groups: [{key: fleet_observed.host, prefix: vms_on}]
groups: {asleep: fleet_observed.state | default('') == 'stopped'}
"""
#: A program that stands for ssh: it keeps what it was given, and answers as the file of the host says.
SSH = """#!/bin/sh
host=$(printf '%s\\n' "$@" | grep '^192\\.')
printf '%s\\n' "$@" > "$WORLD/$host.argv"
cat > "$WORLD/$host.stdin"
. "$WORLD/$host.answer"
"""


def guest(name: str, state: str = "running", **more: t.Any) -> dict[str, t.Any]:
    return {"name": name, "state": state, "address": "198.51.100.7" if state == "running" else None,
            "host_key": {"public": f"ssh-ed25519 AAAA{name}"}, **more}


class Bed:
    """An inventory directory, a program that stands for ssh, and the warnings."""

    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inventory_dir, self.world, programs = folder / "inventory", folder / "world", folder / "bin"
        for directory in (self.inventory_dir, self.world, programs):
            directory.mkdir()
        (programs / "ssh").write_text(SSH)
        (programs / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        monkeypatch.setenv("WORLD", str(self.world))
        monkeypatch.setenv("HOME", str(folder))
        (self.inventory_dir / "hosts.yml").write_text(HOSTS)
        self.source()
        self.warnings: list[str] = []
        monkeypatch.setattr(Display, "warning", lambda self_, text, *args, **more: self.warnings.append(text))
        self.has("192.0.2.14", guest("zap"))
        self.has("192.0.2.15", guest("zip", "stopped"), guest("zoo"))

    def source(self, more: str = "") -> None:
        (self.inventory_dir / "observed_vms.yml").write_text(SOURCE + more)

    def says(self, address: str, script: str) -> None:
        (self.world / f"{address}.answer").write_text(script)

    def has(self, address: str, *guests: dict[str, t.Any]) -> None:
        self.says(address, f"cat <<'END'\n{json.dumps({'vms': guests})}\nEND\n")

    def inventory(self) -> InventoryManager:
        return InventoryManager(loader=DataLoader(), sources=[str(self.inventory_dir)])

    def variables(self, name: str) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", self.inventory().hosts[name].get_vars())


@pytest.fixture
def bed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    return Bed(tmp_path, monkeypatch)


def test_what_is_sent_runs_without_ansible_and_without_libvirt(bed: Bed) -> None:
    bed.inventory()
    words = (bed.world / "192.0.2.14.argv").read_text()
    assert "timeout 10 python3 -c" in words and 'IdentityFile="/home/me/keys/oak"' in words.split("\n")
    program = (bed.world / "192.0.2.14.stdin").read_bytes()
    hidden = "import sys\nsys.modules['libvirt'] = None\n"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", hidden + _guests.LAUNCHER], input=program,
                          capture_output=True, check=False, cwd="/")
    assert done.returncode == 0 and json.loads(done.stdout) == {"vms": []}, done.stderr.decode()


def test_the_way_to_a_guest_is_evaluated_by_the_run_that_goes_it(bed: Bed) -> None:
    inventory = bed.inventory()
    values = inventory.hosts["zap"].get_vars()
    assert values["fleet_observed"] == {**guest("zap"), "host": "oak"}
    assert values["ansible_host"] == "{{ (hostvars['zap'] | clawops.fleet.vm_way(hostvars['oak'])).ansible_host }}"
    assert "keys" not in str({key: value for key, value in values.items() if key.startswith("ansible_")})


def test_the_run_finds_host_and_key(bed: Bed) -> None:
    from ansible.template import Templar
    from ansible.vars.hostvars import HostVars

    loader, inventory = DataLoader(), bed.inventory()
    manager = VariableManager(loader=loader, inventory=inventory)
    HostVars(inventory=inventory, variable_manager=manager, loader=loader)
    values = manager.get_vars(host=inventory.hosts["zap"])
    arguments = Templar(loader=loader, variables=values).template(values["ansible_ssh_common_args"])
    assert "/bin/echo zap ssh-ed25519 AAAAzap" in arguments and "-i /home/me/keys/oak -l root 192.0.2.14" in arguments


def test_who_has_an_address_of_its_own_keeps_it(bed: Bed) -> None:
    values = bed.variables("zoo")
    assert values["ansible_host"] == "zoo.example.org" and "ansible_ssh_common_args" not in values
    assert values["fleet_observed"]["state"] == "running"


def test_a_guest_without_an_address_has_no_way(bed: Bed) -> None:
    assert "ansible_host" not in bed.variables("zip") and bed.variables("zip")["fleet_observed"]["state"] == "stopped"


def test_groups_are_constructed(bed: Bed) -> None:
    groups = bed.inventory().groups
    assert [host.name for host in groups["vms_on_oak"].get_hosts()] == ["zap"]
    assert [host.name for host in groups["asleep"].get_hosts()] == ["zip"]


def test_a_dead_host_costs_one_timeout_and_its_guests_are_not_absent(bed: Bed) -> None:
    bed.source("timeout: 1\n")
    bed.says("192.0.2.15", "sleep 30")
    started = time.monotonic()
    hosts = bed.inventory().hosts
    assert time.monotonic() - started < 4
    assert [warning.split(" was")[0] for warning in bed.warnings] == ["VM host ash"]
    assert "fleet_observed" not in hosts["zip"].get_vars() and "fleet_observed" in hosts["zap"].get_vars()


@pytest.mark.parametrize(("script", "words"), [
    ("echo 'ssh: connect to host: No route to host' >&2; exit 255", "No route to host"),
    ("""echo '{"msg": "libvirt does not answer."}'""", "libvirt does not answer."), ("exit 3", "python3 ended with 3")])
def test_a_failure_is_a_warning_with_the_words_of_the_host(bed: Bed, script: str, words: str) -> None:
    bed.says("192.0.2.15", script)
    bed.inventory()
    (warning,) = bed.warnings
    assert warning.startswith("VM host ash was not asked for its vms: ") and warning.endswith(words)


def test_a_guest_that_is_nowhere_is_absent_and_only_if_all_have_answered(bed: Bed) -> None:
    bed.has("192.0.2.14")
    assert bed.variables("zap")["fleet_observed"] == {"name": "zap", "state": "absent"}
    bed.says("192.0.2.15", "exit 255")
    assert "fleet_observed" not in bed.variables("zap")


def test_a_guest_on_another_host_than_declared_is_found_and_a_twin_is_told(bed: Bed) -> None:
    bed.has("192.0.2.14")
    bed.has("192.0.2.15", guest("zap"))
    values = bed.variables("zap")
    assert values["fleet_observed"]["host"] == "ash" and "ansible_host" not in values
    bed.has("192.0.2.14", guest("zap"))
    assert bed.variables("zap")["fleet_observed"]["host"] == "oak"
    assert bed.warnings == ["Guest zap stands on ash, oak. Taken is the one on oak."]


def test_guests_that_nobody_declared_are_a_group_of_their_own(bed: Bed) -> None:
    bed.has("192.0.2.14", guest("zap"), guest("stray"), guest("robot"))
    inventory = bed.inventory()
    assert [host.name for host in inventory.groups["undeclared"].get_hosts()] == ["stray"]
    assert {"vm_on": "oak"}.items() <= inventory.hosts["stray"].get_vars().items()
    assert "ansible_host" in inventory.hosts["stray"].get_vars()
    assert bed.warnings == ["VM host oak has a guest robot, which the inventory has elsewhere."]


@pytest.mark.parametrize("name", ["localhost", "vm_hosts", "x'] | lookup('pipe', 'touch /tmp/x') | y['", "{{ x }}", ""])
def test_no_host_gives_the_inventory_names_that_mean_something_else(bed: Bed, name: str) -> None:
    bed.has("192.0.2.14", guest("zap"), guest(name), {**guest("x"), "name": 7})
    inventory = bed.inventory()
    assert set(inventory.hosts) == {"oak", "ash", "robot", "zap", "zip", "zoo"} and "undeclared" not in inventory.groups
    assert bed.warnings == [f"VM host oak has a guest {name!r}, which is no name for one."]


@pytest.mark.parametrize("fails", [False, True])
def test_answers_are_cached_and_failures_are_not(bed: Bed, fails: bool) -> None:
    bed.source(f"cache: true\ncache_plugin: ansible.builtin.jsonfile\ncache_connection: {bed.world}/cache\n")
    if fails:
        bed.says("192.0.2.15", "exit 255")
    bed.inventory()
    bed.has("192.0.2.14", guest("zap", "stopped"))
    bed.has("192.0.2.15")
    assert (bed.variables("zap")["fleet_observed"]["state"] == "stopped") is fails
