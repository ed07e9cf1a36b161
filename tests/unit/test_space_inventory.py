# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The inventory plugin of spaces: Docker hosts asked at once, by connections that a play would use."""

from __future__ import annotations

import json
import os
import pathlib
import time
import typing as t

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.utils.display import Display
from ansible_collections.clawops.fleet.plugins.plugin_utils import _remote

HOSTS = """---
all:
  vars: {fleet_name: home, keys: /home/me/keys, ansible_ssh_private_key_file: "{{ keys }}/{{ inventory_hostname }}"}
  children:
    docker_hosts:
      hosts:
        alder: {ansible_host: 192.0.2.11, ansible_port: 2222, ansible_user: admin}
        birch: {ansible_host: 192.0.2.12, ansible_user: root, ansible_ssh_extra_args: -o Foo=yes}
    bots: {hosts: {robot: {bot_on: alder}}}
    spaces:
      hosts:
        one: {}
        two: {space_on: birch}
        three: {}
"""
SOURCE = """---
plugin: clawops.fleet.spaces
keyed_groups: [{key: fleet_observed.host, prefix: spaces_on}]
groups: {asleep: fleet_observed.state | default('') == 'paused'}
"""
#: A program that stands for ssh: it writes down how it was called and answers as the file of the host says.
SSH = """#!/bin/sh
host=$(printf '%s\\n' "$@" | grep '^192\\.')
printf '%s\\n' "$@" > "$WORLD/$host.argv"
key=$(sed -n 's/.*-\\(SUCCESS-[a-z]*\\).*/BECOME-\\1/p' "$WORLD/$host.argv")
if grep -q 'sudo.*password' "$WORLD/$host.argv"; then
    sed -n 's/.*-p "\\([^"]*\\)".*/\\1/p' "$WORLD/$host.argv" >&2
    head -n 1 > "$WORLD/$host.stdin"
fi
echo "$key" >&2
. "$WORLD/$host.answer"
"""
TAILSCALE = """#!/bin/sh
echo "$*" >> "$WORLD/tailscale.argv"
cat "$WORLD/tailscale.json"
"""


def space(name: str, state: str = "started", **more: t.Any) -> dict[str, t.Any]:
    return {"name": name, "state": state, "template": "default", **more}


class Bed:
    """An inventory directory, programs that stand for ssh and tailscale, and the warnings."""

    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inventory_dir, self.world, programs = folder / "inventory", folder / "world", folder / "bin"
        for directory in (self.inventory_dir, self.world, programs):
            directory.mkdir()
        for name, text in (("ssh", SSH), ("tailscale", TAILSCALE)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        monkeypatch.setenv("WORLD", str(self.world))
        monkeypatch.setenv("HOME", str(folder))
        (self.inventory_dir / "hosts.yml").write_text(HOSTS)
        self.source()
        self.warnings: list[str] = []
        monkeypatch.setattr(Display, "warning", lambda self_, text, *args, **more: self.warnings.append(text))
        self.has("192.0.2.11", space("one"))
        self.has("192.0.2.12", space("two", "paused"))

    def source(self, more: str = "") -> None:
        (self.inventory_dir / "observed_spaces.yml").write_text(SOURCE + more)

    def says(self, address: str, script: str) -> None:
        (self.world / f"{address}.answer").write_text(script)

    def has(self, address: str, *spaces: dict[str, t.Any]) -> None:
        answer = json.dumps({"host": {}, "spaces": spaces})
        self.says(address, f"cat <<'END'\n{answer}\nEND\n")

    def tailnet(self, *machines: dict[str, t.Any]) -> None:
        status = {"Self": {"DNSName": "me.tail.example.", "TailscaleIPs": ["100.64.0.1"], "Online": True},
                  "Peer": {str(number): machine for number, machine in enumerate(machines)}}
        (self.world / "tailscale.json").write_text(json.dumps(status))

    def called(self, name: str) -> str:
        path = self.world / f"{name}.argv"
        return path.read_text() if path.exists() else ""

    def inventory(self) -> InventoryManager:
        return InventoryManager(loader=DataLoader(), sources=[str(self.inventory_dir)])

    def variables(self, name: str) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", self.inventory().hosts[name].get_vars())


@pytest.fixture
def bed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    return Bed(tmp_path, monkeypatch)


# -- who is asked, and how ----------------------------------------------------------------------------------------

def test_a_host_is_reached_by_its_own_variables(bed: Bed) -> None:
    bed.inventory()
    words = bed.called("192.0.2.12").split("\n")
    assert "Foo=yes" in words and 'User="root"' in words
    assert 'IdentityFile="/home/me/keys/birch"' in words and "ConnectTimeout=5" in words
    assert any("timeout 5 /usr/local/sbin/clawops-space info --json" in word for word in words)
    assert "sudo" not in bed.called("192.0.2.12")


def test_groups_that_stand_beside_all_have_its_variables_too(bed: Bed) -> None:
    tree = yaml.safe_load(HOSTS)
    groups = tree["all"].pop("children")
    (bed.inventory_dir / "hosts.yml").write_text(yaml.safe_dump({**groups, **tree}))
    assert bed.variables("one")["fleet_observed"]["state"] == "started"
    assert 'IdentityFile="/home/me/keys/birch"' in bed.called("192.0.2.12").split("\n")


@pytest.mark.parametrize("password", [None, "secret"])
def test_who_is_not_root_becomes_it_and_no_password_is_an_argument(bed: Bed, password: str | None) -> None:
    if password:
        text = HOSTS.replace("ansible_user: admin", f"ansible_user: admin, ansible_become_password: {password}")
        (bed.inventory_dir / "hosts.yml").write_text(text)
    values = bed.variables("one")
    assert values["fleet_observed"]["state"] == "started"
    words = bed.called("192.0.2.11")
    assert f"sudo -H -S {'-p' if password else '-n'}" in words and "-u root" in words and "Port=2222" in words
    assert "secret" not in words and "secret" not in json.dumps(values)
    if password:
        assert (bed.world / "192.0.2.11.stdin").read_text() == "secret\n"


def test_all_hosts_are_asked_at_once_and_a_dead_one_costs_one_timeout(bed: Bed) -> None:
    bed.source("timeout: 1\n")
    bed.says("192.0.2.11", "sleep 30")
    bed.says("192.0.2.12", "sleep 30")
    started = time.monotonic()
    hosts = bed.inventory().hosts
    assert time.monotonic() - started < 4
    assert [warning.split(" was")[0] for warning in bed.warnings] == ["Docker host alder", "Docker host birch"]
    assert "fleet_observed" not in hosts["one"].get_vars()


@pytest.mark.parametrize(("script", "words"), [
    ("echo 'ssh: connect to host: No route to host' >&2; exit 255", "No route to host"),
    ("echo 'Cannot connect to the Docker daemon.' >&2; exit 1", "Cannot connect to the Docker daemon."),
    ("exit 3", "clawops-space ended with 3"),
    ("echo rubbish", "Expecting value"),
])
def test_a_failure_is_a_warning_with_the_words_of_the_host(bed: Bed, script: str, words: str) -> None:
    bed.says("192.0.2.12", script)
    values = bed.variables("two")
    assert "fleet_observed" not in values and values["ansible_connection"] == "clawops.fleet.space"
    assert bed.variables("one")["fleet_observed"]["state"] == "started"
    warning = bed.warnings[0]
    assert warning.startswith("Docker host birch was not asked for its spaces:") and words in warning


def test_a_host_that_was_never_prepared_has_no_spaces(bed: Bed) -> None:
    bed.says("192.0.2.12", "exit 127")
    assert bed.variables("two")["fleet_observed"] == {"name": "two", "state": "absent"}
    assert bed.warnings == []


def test_a_connection_that_does_not_exist_is_a_warning(bed: Bed) -> None:
    text = HOSTS.replace("birch: {", "birch: {ansible_connection: carrier_pigeon, ")
    (bed.inventory_dir / "hosts.yml").write_text(text)
    bed.inventory()
    assert bed.warnings == [
        "Docker host birch was not asked for its spaces: there is no connection plugin carrier_pigeon"]


# -- what becomes of it -------------------------------------------------------------------------------------------

def test_a_space_is_connected_to_through_its_host_and_no_secret_is_copied(bed: Bed) -> None:
    values = bed.variables("one")
    assert values["fleet_observed"] == {**space("one"), "host": "alder"}
    assert values["ansible_connection"] == "clawops.fleet.space"
    assert values["ansible_host"] == "{{ hostvars['alder']['ansible_host'] }}"
    assert values["ansible_ssh_private_key_file"] == "{{ hostvars['alder']['ansible_ssh_private_key_file'] }}"


def test_in_a_space_nobody_becomes_root_because_hosts_need_it(bed: Bed) -> None:
    assert "ansible_become" not in bed.variables("one")
    assert bed.variables("one")["ansible_remote_tmp"] == "/tmp/.ansible"  # noqa: S108
    text = HOSTS.replace("fleet_name: home,", "fleet_name: home, ansible_become: true, ansible_remote_tmp: /workspace,")
    (bed.inventory_dir / "hosts.yml").write_text(text)
    assert "ansible_remote_tmp" not in bed.variables("one")
    assert bed.variables("one")["ansible_become"] is False


def test_a_space_of_a_host_that_does_not_answer_is_connected_to_by_what_was_declared(bed: Bed) -> None:
    bed.says("192.0.2.12", "exit 255")
    values = bed.variables("two")
    assert values["ansible_host"] == "{{ hostvars['birch']['ansible_host'] }}" and "fleet_observed" not in values


def test_a_space_that_is_nowhere_is_absent_and_only_if_all_have_answered(bed: Bed) -> None:
    assert bed.variables("three") == {**bed.variables("three"),
                                      "fleet_observed": {"name": "three", "state": "absent"}}
    assert "ansible_connection" not in bed.variables("three")
    bed.says("192.0.2.12", "exit 255")
    assert "fleet_observed" not in bed.variables("three")


def test_a_twin_is_told_and_the_declared_one_is_taken(bed: Bed) -> None:
    bed.has("192.0.2.11", space("one"), space("two"))
    assert bed.variables("two")["fleet_observed"]["host"] == "birch"
    assert bed.warnings == ["Space two stands on alder, birch. Taken is the one on birch."]


def test_a_host_that_claims_the_space_of_another_one_is_not_followed(bed: Bed) -> None:
    bed.has("192.0.2.11", space("one"), space("two"), space("localhost"))
    bed.says("192.0.2.12", "exit 255")
    values = bed.variables("two")
    assert values["fleet_observed"]["host"] == "alder"
    assert values["ansible_host"] == "{{ hostvars['birch']['ansible_host'] }}"
    assert "Docker host alder has a space 'localhost', which is no name for one." in bed.warnings


def test_spaces_that_nobody_declared_are_a_group_of_their_own(bed: Bed) -> None:
    bed.has("192.0.2.11", space("one"), space("stray"), space("robot"), space("other", fleet="work"))
    inventory = bed.inventory()
    assert [host.name for host in inventory.groups["undeclared"].get_hosts()] == ["stray"]
    assert "stray" not in [host.name for host in inventory.groups["spaces"].get_hosts()]
    assert inventory.hosts["stray"].get_vars()["space_on"] == "alder"
    assert bed.warnings == ["Docker host alder has a space robot, which the inventory has elsewhere."]


def test_groups_are_constructed(bed: Bed) -> None:
    groups = bed.inventory().groups
    assert [host.name for host in groups["spaces_on_alder"].get_hosts()] == ["one"]
    assert [host.name for host in groups["asleep"].get_hosts()] == ["two"]


@pytest.mark.parametrize("fails", [False, True])
def test_answers_are_cached_and_failures_are_not(bed: Bed, fails: bool) -> None:
    bed.source(f"cache: true\ncache_plugin: ansible.builtin.jsonfile\ncache_connection: {bed.inventory_dir}/.cache\n")
    if fails:
        bed.says("192.0.2.12", "exit 255")
    bed.inventory()
    (bed.world / "192.0.2.11.argv").unlink()
    bed.has("192.0.2.12", space("two"))
    assert bed.variables("two")["fleet_observed"]["state"] == ("started" if fails else "paused")
    assert bool(bed.called("192.0.2.11")) is fails


# -- machines of the tailnet --------------------------------------------------------------------------------------

def machine(name: str, address: str, **more: t.Any) -> dict[str, t.Any]:
    return {"HostName": "debian", "DNSName": f"{name}.tail.example.", "TailscaleIPs": [address, "fd7a::1"],
            "Online": True, **more}


def test_nobody_is_taken_from_the_tailnet_unless_asked_for(bed: Bed) -> None:
    bed.tailnet(machine("cedar", "192.0.2.13", Tags=["tag:docker"]))
    assert "cedar" not in bed.inventory().hosts
    assert bed.called("tailscale") == ""


@pytest.mark.parametrize("wanted", ["tailscale_tags: ['tag:docker']\n", "tailscale_names: ['ced*']\n"])
def test_machines_of_the_tailnet_are_docker_hosts_and_asked(bed: Bed, wanted: str) -> None:
    bed.source(wanted)
    bed.tailnet(machine("cedar", "192.0.2.13", Tags=["tag:docker"]), machine("phone", "192.0.2.99"),
                machine("alder", "192.0.2.98", Tags=["tag:docker"]))
    bed.has("192.0.2.13", space("three"))
    inventory = bed.inventory()
    assert [host.name for host in inventory.groups["docker_hosts"].get_hosts()] == ["alder", "birch", "cedar"]
    assert inventory.hosts["alder"].get_vars()["ansible_host"] == "192.0.2.11"
    assert inventory.hosts["three"].get_vars()["fleet_observed"]["host"] == "cedar"
    assert bed.called("tailscale") == "status --json\n"


def test_a_machine_that_is_offline_is_a_host_and_is_not_asked(bed: Bed) -> None:
    bed.source("tailscale_tags: ['tag:docker']\n")
    bed.tailnet(machine("cedar", "192.0.2.13", Tags=["tag:docker"], Online=False))
    inventory = bed.inventory()
    assert inventory.hosts["cedar"].get_vars()["ansible_host"] == "192.0.2.13"
    assert "fleet_observed" not in inventory.hosts["three"].get_vars()
    assert bed.called("192.0.2.13") == ""
    assert bed.warnings == ["Docker host cedar was not asked for its spaces: Tailscale says that it is offline"]


def test_the_tailnet_is_cached_with_the_answers(bed: Bed) -> None:
    bed.source("tailscale_tags: ['tag:docker']\ncache: true\ncache_plugin: ansible.builtin.jsonfile\n"
               f"cache_connection: {bed.inventory_dir}/.cache\n")
    bed.tailnet(machine("cedar", "192.0.2.13", Tags=["tag:docker"]))
    bed.has("192.0.2.13", space("three"))
    bed.inventory()
    assert bed.variables("three")["fleet_observed"]["host"] == "cedar"
    assert bed.called("tailscale") == "status --json\n"


@pytest.mark.parametrize("words", ["", "not JSON"])
def test_a_tailnet_that_says_nothing_is_a_warning(bed: Bed, words: str) -> None:
    bed.source("tailscale_tags: ['tag:docker']\n")
    if words:
        (bed.world / "tailscale.json").write_text(words)
    assert bed.variables("one")["fleet_observed"]["host"] == "alder"
    assert bed.warnings[0].startswith("No Docker host was taken from Tailscale:")


# -- threads ------------------------------------------------------------------------------------------------------

def test_questions_run_side_by_side_and_late_ones_are_errors() -> None:
    def slow() -> str:
        time.sleep(5)
        return "never"

    def bad() -> str:
        raise AnsibleError("no")

    started = time.monotonic()
    answers = _remote.at_once({"a": lambda: "yes", "b": slow, "c": bad}, 0.3)
    assert time.monotonic() - started < 2
    assert answers["a"] == "yes"
    assert [str(answers[name]) for name in "bc"] == ["there was no answer in time", "no"]
