# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A guest from nothing to a bot that answers in it, by the verbs of an operator."""

from __future__ import annotations

import json
import pathlib
import subprocess
import typing as t

import pytest
from conftest import ROOT, Box
from managed import Managed

pytestmark = pytest.mark.full
TARGET = {"fleet_target": "oak,zap"}
VERBS = ("provision_vm", "customize")
SOURCE = "plugin: clawops.fleet.vms\n"


class Story:
    """The box with a VM host and its guest. Commands in the guest go the way that the inventory plugin finds."""

    def __init__(self, folder: pathlib.Path) -> None:
        Managed.bed("up", "cloudimage", "vmhost:oak", "model")
        self.box, self.oak = Box(), Managed("oak")
        (folder / "observed_vms.yml").write_text(SOURCE)
        declared = f"{ROOT}/inventory/local,{ROOT}/tests/integration/guests/zap.yml"
        self.box.env["ANSIBLE_INVENTORY"] = declared
        self.observed = {**self.box.env, "ANSIBLE_INVENTORY": f"{declared},{folder}/observed_vms.yml"}
        self.oak.inside("mkdir -p /srv/share && echo from-the-host > /srv/share/word")

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        argv = ["ansible", "zap", "--one-line", *options]
        return subprocess.run(argv, env=self.observed, capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL)

    def inside(self, script: str) -> str:
        done = self.run("--become", "-m", "ansible.builtin.shell", "-a", script)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.partition("(stdout) ")[2].strip().replace("\\n", "\n")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Story]:
    made = Story(tmp_path_factory.mktemp("zap"))
    for verb in VERBS:
        made.box.play(verb, **TARGET)
    yield made
    made.box.play("provision_vm", **TARGET, fleet_only=["zap"], fleet_state="absent", purge_data=True)
    assert "zap" not in made.oak.inside("virsh list --all --name; ls /var/lib/clawops/vms")


def test_the_guest_has_what_was_asked_for(story):
    assert "done" in story.inside("cloud-init status")
    assert story.inside("sysctl -n vm.swappiness") == "10"
    assert story.inside("cat /mnt/share/word") == "from-the-host"
    assert "nofail" in story.inside("grep ' /mnt/share virtiofs ' /etc/fstab")
    assert story.inside("ls /var/lib/systemd/linger") == "bot-zulu"
    assert story.inside("date +%Z") in ("CET", "CEST")
    assert story.inside("systemctl is-active chrony") == "active"
    assert story.inside("apt-config dump APT::Periodic::Unattended-Upgrade").endswith('"1";')


def test_what_the_guest_writes_is_on_the_host(story):
    story.inside("echo from-the-guest > /mnt/share/answer")
    assert story.oak.inside("cat /srv/share/answer") == "from-the-guest\n"


def test_a_second_run_changes_nothing(story):
    assert {verb: story.box.changed(verb, **TARGET) for verb in VERBS} == dict.fromkeys(VERBS, 0)


def test_the_bot_is_ready(story):
    """OpenClaw gives a thread of its own five seconds to start. A busy emulated processor misses that."""
    story.box.play("install", **TARGET)
    port = json.loads(story.inside("cat /var/lib/clawops/instances/zulu.json"))["port"]
    assert '"ready":true' in story.inside(f"curl -sf http://127.0.0.1:{port}/readyz").replace(" ", "")
    assert story.inside("command -v docker || echo none") == "none"
    assert story.box.changed("install", **TARGET) == 0


def test_another_host_key_is_not_taken(story):
    seen = json.loads(subprocess.run(["ansible-inventory", "--host", "zap"], env=story.observed, capture_output=True,
                                     text=True, check=True).stdout)["fleet_observed"]
    other = {**seen, "host_key": {"public": f"ssh-ed25519 {'A' * 68}"}}
    assert "Host key verification failed" in story.run("-m", "ping", "-e", json.dumps({"fleet_observed": other})).stdout


def test_what_was_changed_by_hand_comes_back(story):
    story.inside("sysctl -w vm.swappiness=60; umount /mnt/share")
    assert story.box.changed("customize", **TARGET) > 0
    assert story.inside("sysctl -n vm.swappiness; cat /mnt/share/word") == "10\nfrom-the-host"


def test_a_guest_whose_vm_on_was_changed_gets_no_twin(story, tmp_path, monkeypatch):
    Managed.bed("up", "vmhost:maple")
    more = {"vm_hosts": {"hosts": {"maple": {"ansible_host": "10.213.0.15"}}},
            "vms": {"hosts": {"zap": {"vm_on": "maple"}}}}
    (tmp_path / "more.json").write_text(json.dumps(more))
    known = story.box.env["ANSIBLE_INVENTORY"]
    monkeypatch.setitem(story.box.env, "ANSIBLE_INVENTORY", f"{known},{tmp_path}/more.json")
    with pytest.raises(AssertionError, match="vm_on: maple is refused for zap: the disks are on oak"):
        story.box.play("provision_vm", fleet_target="maple")
