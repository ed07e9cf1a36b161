# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Guests of a real libvirt: what is defined, compared, changed while it runs, deleted, and what goes wrong.

But for the story at the end nothing boots: an empty image lets a guest run without any system in it.
"""

from __future__ import annotations

import concurrent.futures
import json
import time

import pytest
from bed import cloudimage
from guests_bed import BIGGER, EMPTY, FIXED, GATEWAY, IMAGES, SECRET, STATE, actions


@pytest.fixture
def host(oak):
    yield oak
    oak.clear()


# -- defined and compared ---------------------------------------------------------------------------------------------


def test_guests_of_all_kinds_are_what_they_are_said_to_be(host):
    kinds = [
        {"name": "fault-a"},
        {"name": "fault-b", "firmware": "uefi"},
        {"name": "fault-c", "shares": [{"path": "/srv/shared/files", "read_only": True}]},
        {"name": "fault-d", "networks": [{}, {"address": FIXED}], "disks": [{"name": "data", "size": "1Gi"}]},
        {"name": "fault-e", "firmware": "uefi", "secure_boot": True, "tpm": True, "cpus_max": 4, "memory_max": "128Mi"},
        {"name": "fault-f", "disk_mode": "full", "cpu": {"disable": []}, "machine": "pc",
         "devices": host.inside("ls /sys/bus/pci/devices | head -n 1").split()},
    ]
    assert len([action for action in host.made(*kinds) if action.startswith("create guest")]) == 6
    found = {one["name"]: one for one in host.module("vm_instance_info", fleet="faults")["vms"]}
    assert sorted(found) == [kind["name"] for kind in kinds]
    assert [disk["size"] for disk in found["fault-d"]["disks"]] == [64 * 1024**2, 1024**3]
    secure = host.xml("fault-e")
    assert secure.find("os/firmware/feature[@name='secure-boot']").get("enabled") == "yes"
    assert secure.find("devices/tpm/backend").get("version") == "2.0"
    assert host.xml("fault-c").find("memoryBacking/access").get("mode") == "shared"
    if kinds[5]["devices"]:
        assert host.xml("fault-f").find("devices/hostdev/source/address") is not None
    assert "backing" not in host.inside(f"qemu-img info {STATE}/fault-f/root.qcow2")


@pytest.mark.parametrize(("vm", "change"), [
    ({"memory": "128Mi"}, "update memory of fault-a"),
    ({"cpus": 2}, "update processors of fault-a"),
    ({"firmware": "uefi"}, "update firmware of fault-a"),
    ({"networks": [{}, {}]}, "create network 1 of fault-a"),
    ({"disks": [{"name": "data", "size": "1Gi"}]}, "create disk data of fault-a"),
    ({"disk": "1Gi"}, "update disk root of fault-a"),
    ({"shares": [{"path": "/srv/shared/files"}]}, "create share files of fault-a"),
    ({"cpu": {"disable": ["avx"]}}, "update processor of fault-a"),
    ({"tpm": True}, "create tpm of fault-a"),
    ({"user_data": {"timezone": "UTC"}}, "update seed of fault-a"),
])
def test_a_single_change_is_a_single_difference(oak, vm, change):
    oak.fleet({})
    assert oak.made(vm) == [change]
    if "disk" in vm:
        oak.clear()


def test_what_somebody_else_attached_stays(host):
    host.fleet({})
    host.inside("qemu-img create -q -f qcow2 /srv/guests/theirs.qcow2 1M; virsh attach-disk fault-a "
                "/srv/guests/theirs.qcow2 vdb --config --subdriver qcow2")
    host.settled({})
    assert host.made({"disks": [{"name": "data", "size": "1Gi"}], "memory": "128Mi"})
    targets = {disk.find("source").get("file"): disk.find("target").get("dev")
               for disk in host.xml().findall("devices/disk")}
    assert targets["/srv/guests/theirs.qcow2"] == "vdb"
    assert targets[f"{STATE}/fault-a/disk-data.qcow2"] == "vdc"


def test_nothing_secret_is_in_a_definition_or_readable_by_others(host):
    made = host.fleet({"user_data": {"chpasswd": {"list": f"root:{SECRET}"}}})
    assert SECRET not in json.dumps({key: value for key, value in made.items() if key != "invocation"})
    assert SECRET not in json.dumps(made["invocation"])
    assert SECRET not in host.inside("virsh dumpxml fault-a --security-info")
    search = f"grep -lr {SECRET} {STATE} /etc/libvirt /var/log/libvirt /var/log/clawops /run/libvirt"
    assert host.inside(search, check=False).split() == [f"{STATE}/fault-a/seed.iso"]
    assert host.inside(f"stat -c '%a %U' {STATE}/fault-a/seed.iso /etc/clawops/credentials/vm-fault-a-host-ed25519"
                       ).split() == ["600", "root"] * 2


# -- while it runs ----------------------------------------------------------------------------------------------------


def test_what_can_be_changed_while_it_runs_is(host):
    room = {"state": "running", "memory_max": "128Mi"}
    assert "start power of fault-a" in host.made(room)
    before = host.inside("virsh domid fault-a")
    for vm in ({"memory": "96Mi"}, {"disks": [{"name": "data", "size": "1Gi"}]},
               {"disks": [{"name": "data", "size": "2Gi"}], "disk": "1Gi"}):
        assert host.made({**room, **vm})
        assert not host.fleet({**room, **vm})["restart_required"]
    assert host.made({**room, **vm, "networks": [{}, {}]}) == ["create network 1 of fault-a"]
    live = host.xml(live=True)
    assert [disk.find("target").get("dev") for disk in live.findall("devices/disk")] == ["vda", "vdb", "sda"]
    assert len(live.findall("devices/interface")) == 2
    sizes = [json.loads(host.inside(f"qemu-img info -U --output=json {STATE}/fault-a/{disk}.qcow2"))["virtual-size"]
             for disk in ("root", "disk-data")]
    assert sizes == [1024**3, 2 * 1024**3]
    assert host.inside("virsh domid fault-a") == before


def test_what_takes_a_power_cycle_waits_for_leave(host):
    vm = {"state": "running"}
    host.fleet(vm)
    before = host.inside("virsh domid fault-a")
    waiting = host.fleet({**vm, "memory": "128Mi", "firmware": "uefi"})
    assert (waiting["changed"], waiting["restart_required"]) == (True, True)
    again = host.fleet({**vm, "memory": "128Mi", "firmware": "uefi"})
    assert (again["changed"], again["restart_required"]) == (False, True)
    assert host.inside("virsh domid fault-a") == before
    cycled = host.fleet({**vm, "memory": "128Mi", "firmware": "uefi", "restart": True})
    assert (actions(cycled), cycled["restart_required"]) == (["restart power of fault-a"], False)
    host.settled({**vm, "memory": "128Mi", "firmware": "uefi", "restart": True})
    assert "nvram.fd" in host.files()


def test_states(host):
    for state, shown in (("running", "running"), ("paused", "paused"), ("running", "running"), ("stopped", "shut off")):
        host.made({"state": state})
        assert host.inside("virsh domstate fault-a").strip() == shown
    assert actions(host.fleet({"state": "restarted"}))
    assert actions(host.fleet({"state": "restarted"})) == ["restart power of fault-a"]


# -- deleted ----------------------------------------------------------------------------------------------------------


def test_deleting_takes_all_of_ours_and_nothing_else(host):
    uefi = {"firmware": "uefi", "state": "running"}
    host.fleet(uefi, {"name": "fault-b"})
    host.inside("virsh checkpoint-create-as fault-a mark")
    host.inside(f"echo theirs >{STATE}/fault-a/notes.txt")
    sha256 = host.fleet({"name": "fault-b"})["vms"][0]["image"]
    assert host.made({"state": "absent"}, purge_data=False) == ["delete guest fault-a"]
    assert {"root.qcow2", "nvram.fd", "spec.json"} <= set(host.files())
    assert host.made({"state": "absent"}) == ["delete disks of fault-a"]
    assert host.files() == ["notes.txt"]
    host.inside(f"rm -r {STATE}/fault-a")
    assert host.inside(f"ls {IMAGES}/{sha256}.qcow2")
    host.inside(f"qemu-img create -q -f qcow2 -b {IMAGES}/{sha256}.qcow2 -F qcow2 {STATE}/other.qcow2")
    host.made({"name": "fault-b", "state": "absent"})
    assert host.inside(f"ls {IMAGES}/{sha256}.qcow2")
    host.inside(f"rm {STATE}/other.qcow2")
    host.fleet({})
    host.made({"state": "absent"})
    assert f"{sha256}.qcow2" not in host.inside(f"ls {IMAGES}")


def test_what_is_not_ours_is_refused_and_left_alone(host):
    host.inside("virt=$(mktemp); echo \"<domain type='qemu'><name>fault-x</name><memory>65536</memory><os>"
                "<type machine='q35'>hvm</type></os></domain>\" >$virt; virsh define $virt; rm $virt")
    before = host.inside("virsh dumpxml fault-x --inactive")
    for vm in ({}, {"state": "absent"}, {"state": "restarted"}):
        refused = host.fleet({"name": "fault-x", **vm})
        assert (refused["failure"]["code"], "fault-x" in refused["msg"]) == ("foreign_object", True)
    assert host.inside("virsh dumpxml fault-x --inactive") == before
    assert host.files("fault-x") == []
    assert host.inside("virsh undefine fault-x")
    host.inside(f"mkdir {STATE}/fault-x; cp {EMPTY} {STATE}/fault-x/root.qcow2")
    for vm in ({}, {"state": "absent"}):
        assert host.fleet({"name": "fault-x", **vm})["failure"]["code"] == "foreign_object"
    assert host.files("fault-x") == ["root.qcow2"]


# -- bad input --------------------------------------------------------------------------------------------------------

BAD = [
    ({"memory": "0"}, "vm_memory"),
    ({"image": {"path": "/srv/guests/none.qcow2"}}, "no such file"),
    ({"image": {"path": "/etc/passwd"}}, "qcow2"),
    ({"image": {"path": EMPTY, "sha256": "0" * 64}}, "SHA-256"),
    ({"image": {"url": f"{cloudimage.url()}", "sha256": "0" * 64}}, "SHA-256"),
    ({"image": {"url": f"{cloudimage.url()}.none", "sha256": "0" * 64}}, "404"),
    ({"image": {"path": BIGGER}}, "vm_disk"),
    ({"networks": [{"network": "nowhere"}]}, "no such network"),
    ({"networks": [{"bridge": "nowhere0"}]}, "no such bridge"),
    ({"shares": [{"path": "/etc"}]}, "share_paths"),
    ({"shares": [{"path": "/srv/shared/out"}]}, "share_paths"),
    ({"devices": ["00ff:01:00.0"]}, "no such PCI device"),
    ({"machine": "vax"}, "vm_machine"),
]


def test_bad_input_is_one_error_and_leaves_nothing(host):
    host.inside("ln -sfn /etc /srv/shared/out")
    look = f"virsh list --all --name | grep fault; ls -A {STATE} | grep fault; ls -A {IMAGES}"
    before = host.inside(look, check=False)
    for vm, says in BAD:
        failed = host.fleet(vm)
        assert failed.get("failed"), vm
        assert (vm, says in failed["msg"]) == (vm, True), failed["msg"]
    assert host.inside(look, check=False) == before


def test_disks_never_shrink(host):
    host.fleet({"disk": "1Gi"})
    assert "never shrink" in host.fleet({"disk": "64Mi"})["msg"]
    host.settled({"disk": "1Gi"})


# -- faults -----------------------------------------------------------------------------------------------------------

WAYS = [{"state": "running", "disks": [{"name": "data", "size": "8Mi"}]},
        {"state": "running", "firmware": "uefi", "memory": "128Mi", "generation": 2, "restart": True},
        {"state": "absent"}]
#: What is in a guest's directory at the end of each way.
LEFT = [["disk-data.qcow2", "root.qcow2", "seed.iso", "serial.log", "spec.json"],
        ["nvram.fd", "root.qcow2", "seed.iso", "serial.log", "spec.json"], []]


def killed(host, names, deaths):
    """Dies on the way to guests, to other ones, and to none; then gets there, and leaves nothing behind."""
    kills = 0
    for number, death in enumerate(deaths):
        guests = [{**WAYS[number % len(WAYS)], "name": name} for name in names]
        kills += bool(host.start("vm_fleet", host.wanted(*guests), **death).get("killed"))
        result = host.fleet(*guests)
        assert not result.get("failed"), (death, result)
        host.settled(*guests)
        left = sorted({file for name in names for file in host.files(name)})
        assert left == LEFT[number % len(WAYS)], death
    return kills


def steps(host, names):
    """How many there are on each of the ways."""
    guests = [[{**way, "name": name} for name in names] for way in WAYS]
    return [len(host.start("vm_fleet", host.wanted(*each))["steps"]) for each in guests]


def test_killed_at_some_points_it_converges(host):
    pair = ["fault-a", "fault-b"]
    deaths = [{"die_at": count * part // 3} for part in (1, 2) for count in steps(host, pair)]
    assert killed(host, pair, deaths) >= 4


@pytest.mark.full
def test_killed_at_every_point_it_converges(host):
    """One guest: a second one would only have the same points again."""
    alone = ["fault-a"]
    counts = steps(host, alone)
    points = [{"die_at": min(at, count)} for at in range(1, max(counts) + 1) for count in counts]
    assert killed(host, alone, points) > len(points) / 2


def test_libvirt_restarted_in_the_middle(host):
    guests = [{"name": f"fault-{letter}", "state": "running"} for letter in "abc"]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        making = pool.submit(host.fleet, *guests)
        time.sleep(0.7)
        host.inside("systemctl restart libvirtd")
        assert actions(making.result())
    host.settled(*guests)


def test_two_at_once_end_as_one_of_them(host):
    both = [host.wanted({"memory": memory}) for memory in ("96Mi", "128Mi")]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda wanted: host.start("vm_fleet", wanted), both))
    assert any(not result.get("failed") for result in results), results
    left = [host.module("vm_fleet", check=True, **wanted)["actions"] for wanted in both]
    assert sorted(map(bool, left)) == [False, True], (results, left)


def test_a_guest_that_never_gets_an_address_ends_in_time(host):
    begun = time.monotonic()
    failed = host.fleet({"state": "running", "wait": {"until": "address", "timeout": 5}})
    assert failed["failed"]
    assert "address" in failed["msg"]
    assert time.monotonic() - begun < 30


# -- one that boots ---------------------------------------------------------------------------------------------------


@pytest.fixture
def key(oak):
    oak.inside("rm -f /root/.ssh/guests*; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/guests")
    return oak.inside("cat /root/.ssh/guests.pub").strip()


def story(key, **vm):
    return {"state": "running", "image": {"url": cloudimage.url(), "sha256": cloudimage.sha256()}, "disk": "3Gi",
            "memory": "768Mi", "cpus": 2, "user": {"authorized_keys": [key]}, "firmware": "uefi",
            "wait": {"until": "cloud_init", "timeout": 1500}, **vm}


def test_from_a_url_to_a_guest_that_answers_with_its_pinned_key(host, key):
    vm = story(key, shares=[{"path": "/srv/shared/files"}], disks=[{"name": "data", "size": "1Gi"}],
               networks=[{"address": FIXED, "gateway": GATEWAY, "nameservers": [GATEWAY]}],
               user_data={"write_files": [{"path": "/root/planted", "content": SECRET}]})
    host.inside("echo shared >/srv/shared/files/hello")
    made = host.fleet(vm, timeout=120)
    assert "start power of fault-a" in actions(made)
    host.settled(vm)
    (found,) = made["vms"]
    assert (found["address"], found["first_boot_over"]) == ("192.168.213.9", True)
    assert "seed.iso" not in host.files()
    host.inside(f"echo '{found['address']} {found['host_key']['public']}' >/root/.ssh/guests.known")
    ssh = "ssh -i /root/.ssh/guests -o UserKnownHostsFile=/root/.ssh/guests.known -o StrictHostKeyChecking=yes "
    said = host.inside(f"{ssh} clawops@{found['address']} 'cat /mnt/files/hello; sudo cat /root/planted; echo; "
                       "ls /dev/disk/by-id/virtio-data; ls -d /sys/firmware/efi; cloud-init status'")
    assert said.split() == ["shared", SECRET, "/dev/disk/by-id/virtio-data", "/sys/firmware/efi", "status:", "done"]
    assert SECRET not in host.inside("virsh dumpxml fault-a --security-info")
    # While it runs, also what a guest has to take part in.
    smaller = {**vm, "disks": [], "disk": "4Gi"}
    assert host.made(smaller, purge_data=False) == ["update disk root of fault-a", "delete disk data of fault-a"]
    assert host.inside(f"{ssh} clawops@{found['address']} 'lsblk -dnbo NAME,SIZE'").split() == ["vda", str(4 * 1024**3)]
    begun = time.monotonic()
    assert "stop power of fault-a" in actions(host.fleet({**smaller, "state": "stopped"}, timeout=300))
    assert time.monotonic() - begun < 290


@pytest.mark.full
def test_a_cloud_init_that_fails_is_told_with_its_log(host, key):
    vm = story(key, user_data={"runcmd": ["echo the pigeon is lost; exit 3"]})
    failed = host.fleet(vm)
    assert (failed["failure"]["code"], "the pigeon is lost" in failed["msg"]) == ("cloud_init_failed", True), failed
    mended = {**vm, "user_data": {}, "generation": 2, "restart": True}
    assert "restart power of fault-a" in actions(host.fleet(mended, timeout=300))
    host.settled(mended)
