# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import types
import xml.etree.ElementTree as ET

import fake_libvirt
import pytest
from ansible_collections.clawops.fleet.plugins.module_utils import _audit
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._libvirt import (
    agent,
    apply,
    arguments,
    check,
    definition,
    disks,
    facts,
    hostkeys,
    images,
    names,
    observe,
    spec,
    wait,
)
from ansible_collections.clawops.fleet.plugins.module_utils._libvirt.client import Host, Platform
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished

GIB = 1024**3
SHA = "a" * 64
BASE = images.BaseImage("/images/base.qcow2", SHA, 2 * GIB)
IMAGE = {"url": "https://images.example.org/debian.qcow2", "sha256": SHA}
KEY = hostkeys.HostKey("private", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==")
TCG, KVM = (Platform(kvm, frozenset({"q35", "pc-q35-10.0"}), 11003000) for kvm in (False, True))


class Bed:
    """One VM host: a libvirt, a file system, and what takes programs, played."""

    def __init__(self, tmp_path, monkeypatch) -> None:
        self.connection = fake_libvirt.Connection()
        self.events: list[str] = []
        self.waits: list[str] = []
        self.wait_error: FleetError | None = None
        self.fetched: list[str] = []
        self.dropped: list[str] = []
        self.keys: dict[str, hostkeys.HostKey] = {}
        monkeypatch.setitem(sys.modules, "libvirt", fake_libvirt.module(self.connection))
        for name, folder in (("STATE", "vms"), ("IMAGES", "images"), ("LOCKS", "locks"), ("CREDENTIALS", "keys")):
            (tmp_path / folder).mkdir()
            monkeypatch.setattr(names, name, tmp_path / folder)
        self.shared = tmp_path / "shared"
        self.shared.mkdir()
        self.devices = tmp_path / "devices"
        (self.devices / "0000:01:00.0").mkdir(parents=True)
        monkeypatch.setattr(check, "_DEVICES", self.devices)
        monkeypatch.setattr(images, "check", lambda image: BASE.virtual_size)
        monkeypatch.setattr(images, "find", lambda image: BASE if image.source in self.fetched else None)
        monkeypatch.setattr(images, "ensure", self._ensure)
        monkeypatch.setattr(images, "remove", lambda sha256, others: self.dropped.append(sha256))
        monkeypatch.setattr(disks, "create", lambda path, size, *_more: fake_libvirt.write_disk(path, size))
        monkeypatch.setattr(disks, "grow", self._grow)
        monkeypatch.setattr(hostkeys, "ensure", lambda name: self.keys.setdefault(name, KEY))
        monkeypatch.setattr(hostkeys, "find", self.keys.get)
        monkeypatch.setattr(hostkeys, "remove", lambda name: self.keys.pop(name, None))
        monkeypatch.setattr(wait, "until", self._until)
        monkeypatch.setattr(wait, "addresses", lambda domain, macs: ["192.168.213.130"])
        monkeypatch.setattr(agent, "run", lambda domain, argv, timeout: Finished(1, "", ""))
        monkeypatch.setattr(apply, "_PAUSE", 0.001)
        monkeypatch.setattr(_audit, "event", self._event)

    def _ensure(self, image):
        self.fetched.append(image.source)
        return BASE

    @staticmethod
    def _grow(path, size, domain):
        if domain is not None and domain.isActive():
            domain.blockResize(str(path), size, 1)
        else:
            fake_libvirt.write_disk(path, size)

    def _until(self, find, target, what, timeout):
        self.waits.append(f"{target.name} {what}")
        assert find().isActive()
        if self.wait_error:
            fake_libvirt.fail(self.wait_error)

    @contextlib.contextmanager
    def _event(self, name, subject, origin):
        self.events.append(f"{name} {subject}")
        yield {}

    def run(self, *vms, check=False, **options):
        """What the module vm_fleet returns."""
        module = Module({"fleet": "home", "vms": [_defaults(one) for one in vms], "only": None, "prune": False,
                         "purge_data": False, "share_paths": [str(self.shared)], "timeout": 1, "parallel": 2,
                         "boots": 1, "libvirt_uri": None, "actor": None, "job": None, **options}, check)
        arguments.manage(module, module.params["vms"])
        return module.result

    def one(self, check=False, purge_data=False, **vm):
        return self.run(vm, check=check, purge_data=purge_data)

    def domain(self, name="zap"):
        return self.connection.domains[name]

    def done(self, *skipped):
        """The calls since the last time."""
        calls, self.connection.calls = self.connection.calls, []
        return [" ".join(str(word) for word in (call[0], *call[2:])) for call in calls if call[0] not in skipped]


class Module:
    def __init__(self, params, check_mode):
        self.params, self.check_mode, self.warnings, self.result = params, check_mode, [], {}

    def warn(self, warning):
        self.warnings.append(warning)

    def exit_json(self, **result):
        self.result = {**result, "warnings": self.warnings}

    def fail_json(self, msg, **result):
        self.result = {**result, "msg": msg, "failed": True}


def _defaults(vm):
    return {"name": "zap", "image": IMAGE, "state": "running", "restart": False, **vm}


@pytest.fixture
def bed(tmp_path, monkeypatch):
    return Bed(tmp_path, monkeypatch)


def actions(result):
    assert not result.get("failed"), result
    return [f"{one['action']} {one['subject']}" for one in result["actions"]]


def settled(bed, **vm):
    """The changes of this description: check mode foretells them, and afterwards there are none."""
    foretold = actions(bed.one(check=True, **vm))
    before = [call for call in bed.connection.calls if call[0] == "define"]
    made = actions(bed.one(**vm))
    assert foretold == made
    assert len(before) <= len([call for call in bed.connection.calls if call[0] == "define"])
    for again in (bed.one(**vm), bed.one(check=True, **vm)):
        assert (again["changed"], again["actions"]) == (False, [])
    return made


# -- descriptions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "says"), [
    ({"name": "Zap"}, "vm name"),
    ({"memory": "0"}, "vm_memory"),
    ({"memory": "1Mi"}, "64Mi"),
    ({"cpus": 0}, "vm_cpus"),
    ({"memory": "2Gi", "memory_max": "1Gi"}, "vm_memory_max"),
    ({"cpus": 4, "cpus_max": 2}, "vm_cpus_max"),
    ({"image": {}}, "vm_image"),
    ({"image": {"path": "/a", "url": "http://b", "sha256": SHA}}, "vm_image"),
    ({"image": {"url": "http://b"}}, "vm_image.sha256"),
    ({"image": {"url": "http://me:word@b", "sha256": SHA}}, "vm_image.url"),
    ({"image": {"path": "/a/../b"}}, "vm_image.path"),
    ({"secure_boot": True}, "uefi"),
    ({"networks": [{"network": "a", "bridge": "b"}]}, "vm_networks"),
    ({"networks": [{"address": "192.0.2.7"}]}, "vm_networks.address"),
    ({"networks": [{"gateway": "192.0.2.1"}]}, "vm_networks.gateway"),
    ({"networks": [{"address": "192.0.2.7/24", "gateway": "198.51.100.1"}]}, "vm_networks.gateway"),
    ({"disks": [{"name": "root", "size": "1Gi"}]}, "vm_disks.name"),
    ({"disks": [{"name": "a", "size": "1Gi"}, {"name": "a", "size": "2Gi"}]}, "vm_disks"),
    ({"shares": [{"path": "/srv/a/tag"}, {"path": "/srv/b/tag"}]}, "vm_shares"),
    ({"shares": [{"path": "relative"}]}, "vm_shares.path"),
    ({"devices": ["eth0"]}, "vm_devices"),
    ({"user": {"name": "root"}}, "vm_user.name"),
    ({"user": {"authorized_keys": ["no key"]}}, "vm_user.authorized_keys"),
    ({"user_data": {"ssh_keys": {}}}, "ssh_keys"),
    ({"wait": {"until": "dawn"}}, "vm_wait.until"),
    ({"colour": "red"}, "colour"),
    ({"state": "started"}, "vm_state"),
])
def test_bad_descriptions_are_named(values, says):
    with pytest.raises(FleetError) as caught:
        spec.parse({"name": "zap", "image": IMAGE, **values})
    assert says in caught.value.result()["msg"]


def test_a_description_has_defaults():
    guest = spec.parse({"name": "zap", "image": IMAGE, "networks": [{}, {"bridge": "br0"}], "devices": ["01:00.0"]})
    assert (guest.memory_max, guest.cpus_max, guest.disk) == (2 * GIB, 2, 10 * GIB)
    assert [network.network for network in guest.networks] == ["clawops", None]
    assert guest.devices == ("0000:01:00.0",)
    assert guest.macs == (names.mac("zap"), names.mac("zap", 1))
    assert guest.instance_id == "zap-1"
    assert spec.parse({"name": "gone", "state": "absent"}).image == spec.Image()


def test_nothing_secret_is_shown():
    guest = spec.parse({"name": "zap", "image": IMAGE, "user_data": {"chpasswd": "hunter2hunter2"}})
    assert "hunter2" not in json.dumps(guest.shown()) + repr(guest)
    assert guest.shown()["user_data"] == ["chpasswd"]


def test_names_are_unique():
    with pytest.raises(FleetError):
        spec.parse_all([{"name": "zap", "image": IMAGE}] * 2)


# -- definitions ------------------------------------------------------------------------------------------------------


def guest_of(**vm):
    return spec.parse({"name": "zap", "image": IMAGE, **vm})


def test_a_definition_is_what_it_was_made_of():
    guest = guest_of(firmware="uefi", secure_boot=True, tpm=True, devices=["0000:01:00.0"], cpus_max=4,
                     shares=[{"path": "/srv/shared/a", "read_only": True}], disks=[{"name": "data", "size": "1Gi"}],
                     networks=[{}, {"bridge": "br0"}])
    root = definition.build(guest, "home", KVM, seeded=True)
    seen = definition.view(root, "q35")
    assert seen["firmware"] == {"type": "uefi", "secure_boot": True, "nvram": str(names.nvram("zap"))}
    assert seen["cpu"] == {"mode": "host-model", "disable": []}
    assert (seen["cpus"], seen["cpus_max"], seen["shared_memory"], seen["accelerator"]) == (2, 4, True, "kvm")
    assert seen["device 0000:01:00.0"] == {"address": "0000:01:00.0"}
    assert seen["tpm"] == {"model": "tpm-crb", "version": "2.0"}
    assert seen["share a"] == {"path": "/srv/shared/a", "tag": "a", "read_only": True}
    assert seen["network 1"] == {"mac": names.mac("zap", 1), "model": "virtio", "bridge": "br0"}
    assert seen["seed"]["read_only"]
    assert root.find("features/smm") is not None
    assert definition.target(root, "data") == "vdb"
    ports = root.findall("devices/controller[@model='pcie-root-port']")
    assert len(ports) == 14


def test_without_kvm_it_is_emulated_without_what_kernels_die_of():
    root = definition.build(guest_of(), "home", TCG)
    assert definition.view(root)["cpu"] == {"mode": "maximum", "disable": ["cx16"]}
    assert definition.view(definition.build(guest_of(cpu={"disable": []}), "home", TCG))["cpu"]["disable"] == []


def test_every_device_has_the_alias_that_its_name_stands_for():
    guest = guest_of(tpm=True, devices=["0000:01:00.0"], shares=[{"path": "/srv/shared/a-b"}],
                     disks=[{"name": "big-data", "size": "1Gi"}])
    found = definition.owned(definition.build(guest, "home", TCG, seeded=True))
    for key, device in found.items():
        alias = device.find("alias")
        assert alias is None or alias.get("name") == definition.alias(key)
    assert {"disk root", "disk big-data", "seed", "share a-b", "device 0000:01:00.0", "tpm"} <= set(found)


def test_a_running_domain_with_the_model_of_its_host_is_no_difference():
    root = definition.build(guest_of(cpu={"disable": ["rtm"]}), "home", KVM)
    wanted = definition.view(root)
    root.find("cpu").set("mode", "custom")
    assert definition.view(root) == wanted


def test_a_merge_keeps_what_is_not_ours():
    wanted = definition.build(guest_of(memory="4Gi", disks=[{"name": "data", "size": "1Gi"}]), "home", TCG)
    existing = definition.build(guest_of(), "home", TCG)
    existing.find("os/type").set("machine", "pc-q35-9.2")
    ET.SubElement(existing.find("metadata"), "{urn:other}note").text = "kept"
    theirs = ET.SubElement(existing.find("devices"), "disk", type="file", device="disk")
    ET.SubElement(theirs, "target", dev="vdb", bus="virtio")
    changed = definition.differences(definition.view(wanted, "q35"), definition.view(existing, "q35"))
    assert set(changed) == {"memory", "memory_max", "disk data"}
    merged = definition.merge(existing, wanted, list(changed), "home")
    assert merged.findtext("metadata/{urn:other}note") == "kept"
    assert definition.target(merged, "data") == "vdc"
    assert merged.find("os/type").get("machine") == "pc-q35-9.2"
    assert definition.view(merged, "q35") == definition.view(wanted, "q35")
    assert existing.find("devices").findall("disk")[-1] is theirs


def test_a_machine_of_another_kind_gives_all_devices_new_places():
    existing = definition.build(guest_of(), "home", TCG)
    for device in existing.find("devices"):
        ET.SubElement(device, "address", type="pci", bus="0x01")
    merged = definition.merge(existing, definition.build(guest_of(machine="pc"), "home", TCG), ["machine"], "home")
    assert not merged.findall("devices/*/address[@type='pci']")
    assert not merged.findall("devices/controller[@type='pci']")


# -- one guest --------------------------------------------------------------------------------------------------------


def test_from_nothing_to_a_running_guest(bed):
    assert settled(bed, disks=[{"name": "data", "size": "1Gi"}]) == [
        f"fetch image {IMAGE['url']}", "create disk root of zap", "create disk data of zap", "create guest zap",
        "start power of zap"]
    assert bed.waits == ["zap cloud_init"]
    assert bed.done() == ["define", "autostart 1", "create", "detach ua-clawops-seed", "detach ua-clawops-seed"]
    assert not names.seed("zap").exists()
    record = observe.Record("zap").read()
    assert (record["fleet"], record["first_boot_over"], record["image"]) == ("home", True, SHA)
    result = bed.one(disks=[{"name": "data", "size": "1Gi"}])["vms"][0]
    assert (result["state"], result["address"], result["restart_required"]) == ("running", "192.168.213.130", False)
    assert result["host_key"] == {"fingerprint": KEY.fingerprint, "public": KEY.public}
    assert [(disk["name"], disk["target"], disk["size"]) for disk in result["disks"]] == [
        ("root", "vda", 10 * GIB), ("data", "vdb", GIB)]
    assert bed.events == ["vm.define zap", "vm.start zap"]


@pytest.mark.parametrize("vm", [
    {}, {"firmware": "uefi"}, {"networks": [{}, {"network": "lan"}]}, {"disks": [{"name": "data", "size": "1Gi"}]},
    {"shares": True}, {"firmware": "uefi", "secure_boot": True, "tpm": True}, {"devices": ["01:00.0"]},
    {"machine": "pc-q35-9.2"}, {"cpus_max": 8, "memory_max": "8Gi"},
])
@pytest.mark.parametrize("state", ["running", "stopped"])
def test_a_second_run_and_check_mode_change_nothing(bed, vm, state):
    vm = {**vm, "shares": [{"path": str(bed.shared)}]} if "shares" in vm else vm
    assert settled(bed, state=state, **vm)


@pytest.mark.parametrize(("vm", "changes"), [
    ({"memory": "4Gi"}, ["update memory of zap"]),
    ({"memory_max": "4Gi"}, ["update most memory of zap"]),
    ({"cpus": 4}, ["update processors of zap"]),
    ({"cpus_max": 4}, ["update most processors of zap"]),
    ({"firmware": "uefi"}, ["update firmware of zap"]),
    ({"tpm": True}, ["create tpm of zap"]),
    ({"machine": "pc-q35-9.2"}, ["update machine of zap"]),
    ({"cpu": {"disable": ["avx"]}}, ["update processor of zap"]),
    ({"networks": [{"network": "lan"}]}, ["update network 0 of zap"]),
    ({"networks": [{}, {}]}, ["create network 1 of zap"]),
    ({"networks": []}, ["delete network 0 of zap"]),
    ({"disks": [{"name": "data", "size": "1Gi"}]}, ["create disk data of zap"]),
    ({"disk": "20Gi"}, ["update disk root of zap"]),
    ({"shares": True}, ["create share shared of zap"]),
    ({"devices": ["01:00.0"]}, ["create device 0000:01:00.0 of zap"]),
    ({"autostart": False}, ["update autostart of zap"]),
    ({"generation": 2}, ["update instance of zap"]),
    ({"disk_mode": "full"}, ["update description of zap"]),
    ({"state": "paused"}, ["pause power of zap"]),
    ({"state": "stopped"}, ["update autostart of zap", "stop power of zap"]),
])
def test_a_single_change_is_a_single_difference(bed, vm, changes):
    bed.one()
    vm = {**vm, "shares": [{"path": str(bed.shared)}]} if "shares" in vm else vm
    assert settled(bed, **vm) == changes


def test_what_can_be_changed_while_it_runs_is(bed):
    bed.connection.kvm = True
    room = {"memory_max": "8Gi", "cpus_max": 8}
    bed.one(**room)
    bed.done()
    for vm, calls in [
        ({"memory": "4Gi"}, ["memory 4194304 1", "define"]),
        ({"memory": "1Gi"}, ["memory 1048576 1", "define"]),
        ({"memory": "1Gi", "cpus": 4}, ["define", "vcpus 4 1"]),
        ({"cpus": 4, "disks": [{"name": "data", "size": "1Gi"}]}, [
            "memory 2097152 1", "define", "attach ua-clawops-disk-data"]),
        ({"cpus": 4, "disks": [{"name": "data", "size": "2Gi"}]}, [f"resize disk-data.qcow2 {2 * GIB}"]),
        ({"cpus": 4}, ["define", "detach ua-clawops-disk-data"]),
        ({"cpus": 4, "networks": [{}, {}]}, ["define", "attach ua-clawops-net-1"]),
        ({"cpus": 4, "networks": [{}, {"network": "lan"}]}, ["define", "update ua-clawops-net-1"]),
        ({"cpus": 4}, ["define", "detach ua-clawops-net-1"]),
    ]:
        assert settled(bed, **room, **vm)
        assert (vm, bed.done()) == (vm, calls)
        assert not bed.one(**room, **vm)["restart_required"]
    assert names.disk("zap", "data").exists()
    assert actions(bed.one(purge_data=True, **room, cpus=4)) == ["delete disk data of zap"]
    assert not names.disk("zap", "data").exists()


@pytest.mark.parametrize(("vm", "pending"), [
    ({"memory": "4Gi"}, "memory: 2Gi -> 4Gi"),
    ({"memory_max": "4Gi"}, "most memory: 2Gi -> 4Gi"),
    ({"cpus": 4}, "processors: 2 -> 4"),
    ({"cpus": 1}, "processors: 2 -> 1"),
    ({"cpus": 3, "cpus_max": 4}, "processors: 2 -> 3"),
    ({"generation": 2}, "instance: ds=nocloud;i=zap-1;h=zap -> ds=nocloud;i=zap-2;h=zap"),
    ({"tpm": True}, "tpm: added"),
    ({"cpu": {"disable": []}}, "processor: disable ['cx16'] -> []"),
])
def test_what_takes_a_power_cycle_waits_for_leave(bed, vm, pending):
    bed.one(**{key: value for key, value in vm.items() if key == "cpus_max"})
    changed = bed.one(**vm)
    assert (changed["changed"], changed["restart_required"], changed["vms"][0]["pending"]) == (True, True, [pending])
    assert any("waits for a restart" in warning for warning in changed["warnings"])
    again = bed.one(**vm)
    assert (again["changed"], again["restart_required"]) == (False, True)
    bed.done()
    assert actions(bed.one(restart=True, **vm)) == ["restart power of zap"]
    assert [call for call in bed.done() if call in ("shutdown", "create")] == ["shutdown", "create"]
    last = bed.one(restart=True, **vm)
    assert (last["changed"], last["restart_required"]) == (False, False)


def test_less_memory_is_given_back_without_a_restart(bed):
    bed.one(memory="4Gi")
    assert settled(bed, memory="2Gi") == ["update memory of zap"]
    assert not bed.one(memory="2Gi")["restart_required"]


def test_a_restart_is_a_verb(bed):
    bed.one()
    for _time in range(2):
        assert actions(bed.one(state="restarted")) == ["restart power of zap"]
    assert bed.domain().isActive()
    bed.one(state="stopped")
    assert actions(bed.one(state="restarted")) == ["update autostart of zap", "start power of zap"]


def test_a_guest_that_does_not_listen_loses_its_power(bed):
    bed.one()
    bed.domain().holds.add("shutdown")
    bed.done()
    assert actions(bed.one(state="stopped"))
    assert bed.done() == ["shutdown", "destroy", "autostart 0"]


def test_a_device_that_the_guest_holds_on_to_is_an_error(bed, monkeypatch):
    monkeypatch.setattr(apply, "_DETACH_SECONDS", 0.01)
    disk = {"disks": [{"name": "data", "size": "1Gi"}]}
    bed.one(**disk)
    bed.domain().holds.add("ua-clawops-disk-data")
    failed = bed.one()
    assert failed["failure"]["code"] == "device_in_use"
    bed.domain().holds.clear()
    assert actions(bed.one()) == ["update disk data of the running zap"]
    assert actions(bed.one()) == []


def test_states(bed):
    assert "start power of zap" in settled(bed, state="paused")
    assert bed.domain().code == 3
    assert settled(bed) == ["resume power of zap"]
    assert settled(bed, state="paused") == ["pause power of zap"]
    assert settled(bed, state="stopped") == ["update autostart of zap", "stop power of zap"]
    assert bed.one(state="stopped")["vms"][0]["state"] == "stopped"


def test_absent_keeps_the_disks_unless_they_are_to_go(bed):
    bed.one()
    bed.done()
    assert settled(bed, state="absent") == ["delete guest zap"]
    assert bed.done() == ["shutdown", f"undefine {apply._UNDEFINE | apply._KEEP}"]
    assert names.disk("zap").exists()
    # It comes back as it was, without another first boot.
    bed.waits.clear()
    assert "create disk root of zap" not in settled(bed)
    assert not names.seed("zap").exists()
    bed.done()
    (names.folder("zap") / "mine.txt").write_text("somebody's")
    gone = bed.one(state="absent", purge_data=True)
    assert actions(gone) == ["delete guest zap", "delete disks of zap"]
    assert bed.done() == ["destroy", f"undefine {apply._UNDEFINE | apply._PURGE}"]
    assert os.listdir(names.folder("zap")) == ["mine.txt"]
    assert (bed.keys, bed.dropped) == ({}, [SHA])
    assert not bed.one(state="absent", purge_data=True)["changed"]


def test_an_image_that_is_still_wanted_stays(bed):
    bed.run({"name": "a"}, {"name": "b"})
    bed.run({"name": "a", "state": "absent"}, {"name": "c"}, purge_data=True)
    assert bed.dropped == []


# -- whose it is ------------------------------------------------------------------------------------------------------


def test_a_foreign_domain_is_refused_and_named(bed):
    bed.connection.foreign("zap")
    for state in ("running", "absent"):
        failed = bed.one(state=state, purge_data=True)
        assert failed["failure"]["code"] == "foreign_object"
        assert "The domain zap" in failed["msg"]
    assert bed.done() == []
    assert not names.folder("zap").exists()


def test_the_guest_of_another_fleet_is_refused(bed):
    bed.one()
    failed = bed.run({}, fleet="work")
    assert (failed["failure"]["code"], "fleet home" in failed["msg"]) == ("foreign_object", True)
    bed.one(state="absent")
    assert bed.run({}, fleet="work")["failure"]["code"] == "foreign_object"
    assert bed.run({"state": "absent"}, fleet="work", purge_data=True)["failure"]["code"] == "foreign_object"
    assert names.disk("zap").exists()


def test_disks_that_nobody_recorded_are_not_ours(bed):
    names.folder("zap").mkdir()
    fake_libvirt.write_disk(names.disk("zap"), 10 * GIB)
    assert bed.one()["failure"]["code"] == "foreign_object"
    assert bed.one(state="absent", purge_data=True)["failure"]["code"] == "foreign_object"
    assert names.disk("zap").exists()


# -- what a host has not ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("vm", "says"), [
    ({"networks": [{"network": "nope"}]}, "no such network"),
    ({"networks": [{"network": "down"}]}, "not active"),
    ({"networks": [{"bridge": "nope0"}]}, "no such bridge"),
    ({"shares": [{"path": "/etc"}]}, "share_paths"),
    ({"devices": ["02:00.0"]}, "no such PCI device"),
    ({"machine": "vax"}, "q35"),
    ({"cpu": {"mode": "host-passthrough"}}, "no KVM"),
])
def test_what_a_host_has_not_is_said_before_anything_is_written(bed, vm, says):
    failed = bed.one(**vm)
    assert says in failed["msg"]
    assert bed.done() == []
    assert os.listdir(names.STATE) == []


def test_a_link_out_of_the_shared_paths_is_seen_through(bed):
    (bed.shared / "out").symlink_to("/etc")
    assert "share_paths" in bed.one(shares=[{"path": str(bed.shared / "out")}])["msg"]
    assert "no such directory" in bed.one(shares=[{"path": str(bed.shared / "none")}])["msg"]


def test_nobody_writes_around_what_another_guest_has(bed):
    (bed.shared / "inner").mkdir()
    outer, inner = {"path": str(bed.shared)}, {"path": str(bed.shared / "inner")}
    for one, other in ((outer, inner), (inner, outer)):
        refused = bed.run({"name": "zap", "shares": [one]}, {"name": "zip", "shares": [other]})
        assert f"{bed.shared}, which z" in refused["msg"] and "may write to, lies around" in refused["msg"]
    assert not bed.one(name="zap", shares=[outer], state="stopped").get("failed")
    assert "which zap may write to" in bed.one(name="zip", shares=[inner])["msg"]
    assert not bed.one(name="zap", shares=[{**outer, "read_only": True}], state="stopped").get("failed")
    assert not bed.one(name="zip", shares=[inner], state="stopped").get("failed")


def test_shares_to_read_only_take_a_release_that_can(bed):
    bed.connection.version = 9000000
    failed = bed.one(shares=[{"path": str(bed.shared), "read_only": True}])
    assert "libvirt 11.0" in failed["msg"]


def test_disks_never_shrink_and_hold_their_image(bed):
    assert "needs" in bed.one(disk="1Gi")["msg"]
    assert os.listdir(names.STATE) == []
    bed.one(disks=[{"name": "data", "size": "2Gi"}])
    assert "never shrink" in bed.one(disk="8Gi")["msg"]
    assert "vm_disks.data.size" in bed.one(disks=[{"name": "data", "size": "1Gi"}])["msg"]


def test_a_generation_never_goes_back(bed):
    bed.one(generation=3)
    assert "has generation 3" in bed.one(generation=2)["msg"]


def test_a_running_guest_without_its_disk_is_not_made_anew(bed):
    bed.one()
    names.disk("zap").unlink()
    assert bed.one()["failure"]["code"] == "lost_disk"
    bed.one(state="absent")
    assert "create disk root of zap" in settled(bed)
    assert bed.waits == ["zap cloud_init"] * 2


# -- first boots ------------------------------------------------------------------------------------------------------


def test_a_first_boot_that_failed_is_waited_for_again(bed):
    bed.wait_error = FleetError("cloud_init_failed", "cloud-init failed in zap.")
    assert bed.one()["failure"]["code"] == "cloud_init_failed"
    assert names.seed("zap").exists()
    assert bed.one()["failure"]["code"] == "cloud_init_failed"
    bed.wait_error = None
    assert actions(bed.one()) == ["finish first boot of zap"]
    assert not names.seed("zap").exists()
    assert actions(bed.one()) == []


def test_a_mended_seed_takes_a_restart_or_a_generation(bed):
    bed.wait_error = FleetError("cloud_init_failed", "cloud-init failed in zap.")
    bed.one()
    bed.wait_error = None
    mended = {"user_data": {"packages": ["good"]}}
    waiting = bed.one(**mended)
    assert waiting["vms"][0]["pending"] == ["first boot: begun with another seed -> begun anew"]
    assert "restart power of zap" in actions(bed.one(restart=True, generation=2, **mended))
    assert observe.Record("zap").read()["first_boot_over"]
    assert actions(bed.one(restart=True, generation=2, **mended)) == []


def test_a_seed_that_changes_after_the_first_boot_is_told_of(bed):
    bed.one()
    later = bed.one(user_data={"packages": ["more"]})
    assert actions(later) == ["update description of zap"]
    assert any("higher vm_generation" in warning for warning in later["warnings"])
    assert not names.seed("zap").exists()


def test_without_waiting_the_seed_goes_in_a_later_run(bed, monkeypatch):
    vm = {"wait": {"until": "none"}}
    bed.one(**vm)
    assert bed.waits == []
    assert actions(bed.one(**vm)) == []
    assert names.seed("zap").exists()
    channel = bed.domain().live.find("devices/channel/target")
    channel.set("state", "connected")
    monkeypatch.setattr(agent, "run", lambda domain, argv, timeout: Finished(0, "", ""))
    assert actions(bed.one(**vm)) == ["finish first boot of zap"]
    assert not names.seed("zap").exists()
    assert actions(bed.one(**vm)) == []


def test_a_generation_that_waits_does_not_end_with_the_former_one(bed):
    bed.one()
    bed.one(generation=2)
    assert names.seed("zap").exists()
    assert not observe.Record("zap").read()["first_boot_over"]
    assert actions(bed.one(generation=2)) == []
    assert "restart power of zap" in actions(bed.one(generation=2, restart=True))
    assert not names.seed("zap").exists()


def test_a_kept_host_key_is_needed_for_waits_only(bed):
    bed.one()
    bed.keys.clear()
    assert actions(bed.one()) == []
    assert bed.one(state="restarted")["failure"]["code"] == "no_host_key"


# -- when libvirt goes away -------------------------------------------------------------------------------------------


def test_a_restart_of_libvirt_is_waited_out(bed):
    gone = [fake_libvirt.LibvirtError("Cannot write data: Broken pipe", 38)]
    for call in ("define", "create"):
        bed.connection.failures[call] = list(gone)
    assert actions(bed.one())
    assert bed.domain().isActive()
    assert actions(bed.one()) == []


def test_a_restart_is_made_once_even_so(bed):
    bed.one()
    bed.connection.failures["detach"] = [fake_libvirt.LibvirtError("client socket is closed", 1)]
    bed.done()
    actions(bed.one(state="restarted", generation=2))
    assert bed.done("detach").count("create") == 1


def test_a_refusal_is_told_in_the_words_of_libvirt(bed):
    bed.connection.failures["define"] = [fake_libvirt.LibvirtError("unsupported configuration: no such thing", 67)]
    failed = bed.one()
    assert failed["failure"]["code"] == "libvirt_refused"
    assert "libvirt can't define the guest zap: unsupported configuration" in failed["msg"]


def test_check_mode_on_a_host_without_libvirt(bed, monkeypatch):
    monkeypatch.setitem(sys.modules, "libvirt", None)
    result = bed.one(check=True)
    assert (result["changed"], result["plan_complete"]) == (True, False)
    assert bed.one()["failure"]["code"] == "missing_library"


def test_a_start_that_a_dead_run_has_begun_is_waited_out(bed, monkeypatch):
    bed.one()
    states = [[3, 11], [3, 11], [1, 1]]
    monkeypatch.setattr(observe, "_PAUSE", 0.001)
    monkeypatch.setattr(bed.domain(), "state", lambda: states.pop(0) if len(states) > 1 else states[0])
    assert actions(bed.one()) == []
    assert states == [[1, 1]]


# -- many -------------------------------------------------------------------------------------------------------------


def test_one_bad_guest_stops_all_before_anything_is_written(bed):
    failed = bed.run({"name": "a"}, {"name": "b", "networks": [{"network": "nope"}]})
    assert "1 of 2 guests failed" in failed["msg"]
    assert [one["failed"] for one in failed["failure"]["details"]["vms"]] == [False, True]
    assert bed.done() == []


def test_one_that_fails_later_leaves_the_others(bed):
    bed.connection.failures["create"] = [fake_libvirt.LibvirtError("no memory", 1)]
    failed = bed.run({"name": "a"}, {"name": "b"}, parallel=1)
    assert "1 of 2 guests failed" in failed["msg"]
    assert bed.domain("b").isActive()
    assert not bed.run({"name": "a"}, {"name": "b"}).get("failed")


def test_few_boot_at_a_time(bed, monkeypatch):
    now, most, lock = [0], [0], threading.Lock()

    def until(find, target, what, timeout):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.02)
        with lock:
            now[0] -= 1

    monkeypatch.setattr(wait, "until", until)
    vms = [{"name": f"g{number}"} for number in range(6)]
    assert len(bed.run(*vms, parallel=6, boots=2)["vms"]) == 6
    assert most[0] == 2
    assert bed.fetched == [IMAGE["url"]] * 7


def test_only_and_prune(bed):
    bed.run({"name": "a"}, {"name": "b"}, {"name": "c"})
    bed.connection.foreign("theirs")
    assert actions(bed.run({"name": "a"}, only=["b"], prune=True)) == ["delete guest b"]
    assert actions(bed.run({"name": "a"}, prune=True)) == ["delete guest c"]
    assert sorted(bed.connection.domains) == ["a", "theirs"]
    assert actions(bed.run({"name": "a"}, {"name": "d"}, only=["a"])) == []


def test_bad_options_are_named(bed):
    for options in ({"boots": 0}, {"parallel": 0}, {"timeout": 0}, {"share_paths": ["relative"]}, {"only": ["Bad"]}):
        assert next(iter(options)) in bed.run({}, **options)["msg"]


# -- facts ------------------------------------------------------------------------------------------------------------


def test_what_is_on_a_host(bed):
    bed.run({"name": "a", "networks": [{"address": "192.168.213.7/24"}]}, {"name": "b"})
    bed.run({"name": "b", "state": "absent"})
    bed.connection.foreign("theirs")
    host = Host()
    found = facts.listing(host)
    assert [(one["name"], one["state"], one["fleet"]) for one in found] == [
        ("a", "running", "home"), ("b", "absent", "home")]
    assert found[0]["addresses"] == ["192.168.213.7", "192.168.213.130"]
    assert found[1]["spec"]["memory"] == 2 * GIB
    assert facts.listing(host, "work") == []
    assert [one["name"] for one in facts.listing(host, "home", ["b"])] == ["b"]
    module = Module({"libvirt_uri": None, "fleet": None, "names": ["a"]}, False)
    arguments.inform(module)
    assert [one["name"] for one in module.result["vms"]] == ["a"]
    assert module.result["host"] == {"kvm": False, "libvirt": 11003000}


def test_one_broken_guest_hides_no_other(bed):
    bed.run({"name": "a"}, {"name": "b"})
    names.disk("a").write_text("no disk")
    found = facts.listing(Host())
    assert [(one["name"], one["state"], bool(one["problem"])) for one in found] == [
        ("a", "unknown", True), ("b", "running", False)]


def test_a_host_without_libvirt_that_never_had_a_guest_has_none(bed, monkeypatch):
    bed.connection.failures["open"] = [fake_libvirt.LibvirtError("no socket", 38)] * 2
    module = Module({"libvirt_uri": None, "fleet": None, "names": None}, False)
    arguments.inform(module)
    assert module.result["failure"]["code"] == "libvirt_unreachable"
    names.STATE.rmdir()
    arguments.inform(module)
    assert module.result["vms"] == []


def test_only_what_was_said_is_handed_on():
    given = arguments._given({"name": "zap", "memory": None, "networks": [{"network": None}],
                              "user_data": {"keep": None}})
    assert given == {"name": "zap", "networks": [{}], "user_data": {"keep": None}}


def test_nothing_of_user_data_is_returned_or_masks_what_is(monkeypatch):
    from ansible.module_utils import basic
    from ansible_collections.clawops.fleet.plugins.module_utils._module import DiscreetModule

    said = []
    monkeypatch.setattr(basic.AnsibleModule, "__init__", lambda self: None)
    monkeypatch.setattr(basic.AnsibleModule, "exit_json", lambda self, **kwargs: said.append(types.SimpleNamespace(
        params=self.params, masked=set(self.no_log_values))))
    monkeypatch.setattr(basic.AnsibleModule, "fail_json", lambda self, msg, **kwargs: said.append(types.SimpleNamespace(
        params=self.params, masked=set(self.no_log_values))))
    for end in (lambda module: module.exit_json(), lambda module: module.fail_json("no")):
        module = DiscreetModule()
        module.params = {"vms": [{"name": "zap", "user_data": {"word": "hunter2hunter2"}}], "user_data": None}
        module.no_log_values = {"hunter2hunter2", "1"}
        end(module)
    assert [one.params["vms"][0]["user_data"] for one in said] == ["(hidden)"] * 2
    assert [one.masked for one in said] == [set(), {"hunter2hunter2"}]
