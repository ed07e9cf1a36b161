# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Disks of guests into a bucket and back, by real libvirt and restic.

Nothing boots: what a system would write is written through QEMU. test_zap.py has the whole story.
"""

from __future__ import annotations

import json
import time

import pytest
from bed import cache
from guests_bed import STATE, Oak
from managed import Managed

NAME, KIB = "kept-a", 1024
BITMAP = 64 * KIB  # what QEMU notes changes by
GUEST = {"name": NAME, "state": "running", "disks": [{"name": "data", "size": "1Gi"}]}
INSTALL = """export DEBIAN_FRONTEND=noninteractive
command -v restic >/dev/null || apt-get -qy install --no-install-recommends restic python3-boto3 >/dev/null"""


class Bucket:
    """A VM host with a running guest whose disks go into a bucket."""

    def __init__(self, host: Oak) -> None:
        self.host = host
        keys = json.loads((cache.folder("minio") / "credentials.json").read_text())
        self.common = {"endpoint": "http://10.213.0.5:9000", "bucket": "clawops-guests", "fleet": "faults",
                       "access_key": keys["access_key"], "secret_key": keys["secret_key"], "password": "of-the-tests"}
        host.inside(INSTALL)

    def call(self, module, death=None, vm=None, **more):
        arguments = {**self.common, "vms": [{"name": NAME, **(vm or {})}], **more}
        result = self.host.start(module, arguments, **(death or {}))
        assert self.common["password"] not in json.dumps(result.get("invocation", ""))
        return result

    def snapshot(self, **more):
        result = self.call("vm_snapshot", **more)
        assert not result.get("failed"), result
        return result["snapshots"][0]

    def restore(self, **more):
        result = self.call("vm_restore", **more)
        assert not result.get("failed"), result
        return result

    def write(self, disk, pattern, start, length):
        """What the guest would write."""
        device = f"/machine/peripheral/ua-clawops-disk-{disk}/virtio-backend"
        self.host.inside(f"virsh qemu-monitor-command {NAME} --hmp "
                         f"'qemu-io -d {device} \"write -P {pattern} {start} {length}\"'")

    def files(self):
        return self.host.files(NAME)

    def remove(self):
        assert not self.host.fleet({**GUEST, "state": "absent"}).get("failed")
        assert self.files() == []

    def contents(self):
        """The digest of each disk as the guest sees it."""
        return self.host.inside(f"cd {STATE}/{NAME}; for disk in *.qcow2; do "
                                "qemu-img convert -U -O raw $disk /tmp/raw; "
                                "echo $disk $(sha256sum < /tmp/raw); rm /tmp/raw; done")

    def checkpoints(self):
        return self.host.inside(f"virsh checkpoint-list {NAME} --name").split()

    def job(self):
        return self.host.inside(f"virsh domjobinfo {NAME}").split()[2]


@pytest.fixture(scope="module")
def store(oak):
    Managed.bed("up", "minio")
    made = Bucket(oak)
    made.call("backup_repository")
    return made


@pytest.fixture
def bucket(store):
    store.remove()
    made = store.host.fleet(GUEST)
    assert not made.get("failed"), made
    yield store
    store.remove()


def test_a_snapshot_reads_what_changed_and_brings_back_all(bucket):
    bucket.write("root", 0x11, 0, 3 * BITMAP)
    bucket.write("data", 0x22, 512 * KIB * KIB, BITMAP)
    first = bucket.snapshot()
    assert (first["mode"], first["consistency"], first["bytes_read"]) == ("full", "crash", 4 * BITMAP)
    assert "agent" in first["reason"]
    bucket.write("data", 0x33, 700 * KIB * KIB, BITMAP)
    second = bucket.snapshot()
    assert (second["mode"], second["bytes_read"]) == ("incremental", BITMAP)
    assert len(bucket.checkpoints()) == 1 and bucket.job() == "None"
    wanted = bucket.contents()
    key = bucket.host.inside(f"cat /etc/clawops/credentials/vm-{NAME}-host-ed25519")
    record = bucket.host.inside(f"cat {STATE}/{NAME}/spec.json")
    bucket.remove()
    assert bucket.restore()["restored"][0]["snapshot"] == second["snapshot"]
    assert bucket.contents() == wanted
    assert bucket.host.inside(f"cat /etc/clawops/credentials/vm-{NAME}-host-ed25519") == key
    assert bucket.host.inside(f"cat {STATE}/{NAME}/spec.json") == record
    assert not bucket.restore()["changed"]
    # The guest comes up with the disks that are there, without being set up anew.
    bucket.host.fleet(GUEST)
    bucket.host.settled(GUEST)
    assert bucket.contents() == wanted
    assert bucket.snapshot()["mode"] == "full"


def test_what_is_lost_is_answered_by_a_full_copy(bucket):
    bucket.snapshot()
    bucket.host.inside(f"kill -9 $(pgrep -f '[g]uest={NAME},')")
    bucket.host.fleet(GUEST)
    killed = bucket.snapshot()
    assert killed["mode"] == "full" and "broken bitmap" in killed["reason"]
    bucket.host.inside(f"virsh checkpoint-delete {NAME} {bucket.checkpoints()[0]}")
    assert bucket.snapshot()["mode"] == "full"
    bucket.host.inside(f"rm -r {STATE}/{NAME}/mirror")
    assert bucket.snapshot()["mode"] == "full"
    assert bucket.snapshot()["mode"] == "incremental"
    assert len(bucket.checkpoints()) == 1


def test_a_guest_that_is_shut_off_is_read_once(bucket):
    bucket.write("root", 0x44, 0, BITMAP)
    bucket.host.inside(f"virsh destroy {NAME}")
    first, second = bucket.snapshot(), bucket.snapshot()
    assert (first["mode"], first["consistency"]) == ("full", "stopped")
    assert (second["mode"], second["bytes_read"]) == ("unchanged", 0)
    refused = bucket.call("vm_restore")
    assert refused["failure"]["code"] == "target_not_empty"
    wanted = bucket.contents()
    assert bucket.restore(vm={"overwrite": True})["changed"]
    assert bucket.contents() == wanted


def test_a_guest_that_runs_is_not_restored(bucket):
    bucket.snapshot()
    assert bucket.call("vm_restore", vm={"overwrite": True})["failure"]["code"] == "vm_running"


@pytest.mark.parametrize(("wrong", "code"), [
    ({"password": "not-it"}, "wrong_password"), ({"endpoint": "http://10.213.0.5:9001"}, "unreachable"),
    ({"secret_key": "not-this-one"}, "wrong_key")])
def test_each_refusal_has_its_name_and_leaves_the_guest_running(bucket, wrong, code):
    assert bucket.call("vm_snapshot", **wrong)["failure"]["code"] == code
    assert bucket.job() == "None" and "running" in bucket.host.inside(f"virsh domstate {NAME}")
    assert bucket.snapshot()["snapshot"]


def test_a_host_without_room_says_so(bucket):
    bucket.write("root", 0x55, 0, 64 * BITMAP)
    mirror = f"{STATE}/{NAME}/mirror"
    bucket.host.inside(f"mkdir -p {mirror}; mount -t tmpfs -o size=1M tmpfs {mirror}")
    try:
        assert bucket.call("vm_snapshot")["failure"]["code"] == "disk_full"
    finally:
        bucket.host.inside(f"umount {mirror}")
    assert bucket.job() == "None" and bucket.snapshot()["mode"] == "full"


def _deaths(steps, word, most):
    """Some steps of a run, from the first one that has to do with this."""
    first = next(number for number, step in enumerate(steps, 1) if word in step)
    rest = list(range(first, len(steps) + 1))
    return rest[::max(1, len(rest) // most)]


@pytest.mark.full
def test_a_snapshot_that_is_killed_leaves_no_job(bucket):
    bucket.snapshot()
    bucket.write("root", 0x66, 0, BITMAP)
    steps = bucket.call("vm_snapshot")["steps"]
    for number in _deaths(steps, "systemd-run", 6):
        bucket.write("root", number, BITMAP, BITMAP)
        assert bucket.call("vm_snapshot", {"die_at": number}).get("killed")
        end = time.monotonic() + 20
        while bucket.job() != "None":
            assert time.monotonic() < end, steps[number - 1]
            time.sleep(0.5)
    wanted = bucket.contents()
    assert bucket.snapshot()["snapshot"]
    bucket.remove()
    bucket.restore()
    assert bucket.contents() == wanted
    assert bucket.host.inside(f"ls {STATE}/.backup/staging") == ""


@pytest.mark.full
def test_a_restore_that_is_killed_is_repeated(bucket):
    bucket.write("root", 0x77, 0, BITMAP)
    bucket.snapshot()
    wanted = bucket.contents()
    bucket.remove()
    steps = bucket.call("vm_restore")["steps"]
    for number in _deaths(steps, "backup-vm-", 7):
        bucket.host.inside(f"rm -rf {STATE}/{NAME}")
        assert bucket.call("vm_restore", {"die_at": number}).get("killed")
        # The folder is not there, or whole.
        there = bucket.files()
        assert there == [] or bucket.contents() == wanted, steps[number - 1]
        bucket.restore()
        assert bucket.contents() == wanted
    assert bucket.host.inside(f"ls -A {STATE} | grep restore || true") == ""
