# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
import shutil
import sys
import types
import xml.etree.ElementTree as ET

import fake_libvirt
import pytest
from ansible_collections.clawops.fleet.plugins.filter import vm_backups
from ansible_collections.clawops.fleet.plugins.module_utils import _guest_backup
from ansible_collections.clawops.fleet.plugins.module_utils._backup import bucket, model, restic, verbs
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._libvirt import (
    backup,
    disks,
    guard,
    job,
    mirror,
    names,
    nbd,
    restore,
)
from ansible_collections.clawops.fleet.plugins.module_utils._libvirt.client import Host
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished
from test_backup import KEYS, S3, Restic, _code, go

STORE = model.Store("http://s3.example.org:9000", "backups", "home", kind="vm")
SEGMENT = 1024
BLOCK = 64
SIZE = 10 * SEGMENT + 100
NO_JOB = 104


class Disk:
    """A disk's content, and what was written to it since each bitmap began."""

    def __init__(self, size=SIZE):
        self.data, self.bitmaps, self.stopped = bytearray(size), {}, None

    def write(self, offset, data):
        self.data[offset:offset + len(data)] = data
        for dirty in self.bitmaps.values():
            dirty.update(range(offset // BLOCK, (offset + len(data) - 1) // BLOCK + 1))


class Export:
    """What nbd.Export is, for a disk as it was at one moment."""

    def __init__(self, data, dirty=None):
        self.data, self._dirty, self.size, self.read_bytes = data, dirty, len(data), 0

    def dirty(self):
        if self._dirty is None:
            yield 0, self.size
        for block in sorted(self._dirty or ()):
            yield block * BLOCK, min(BLOCK, self.size - block * BLOCK)

    def pieces(self, offset, length):
        for start in range(offset, offset + length, BLOCK):
            part = min(BLOCK, offset + length - start)
            yield start, part, not any(self.data[start:start + part])

    def read(self, offset, length):
        self.read_bytes += length
        return bytes(self.data[offset:offset + length])

    def write(self, offset, data):
        self.data[offset:offset + len(data)] = data

    def flush(self):
        pass


class Checkpoint:
    def __init__(self, domain, name):
        self.domain, self.name = domain, name

    def getName(self):
        return self.name

    def delete(self, flags):
        self.domain.checkpoints.remove(self)
        for disk in self.domain.disks.values():
            disk.bitmaps.pop(self.name, None)


class Domain:
    """As much of a libvirt domain as a backup needs."""

    def __init__(self, name, folder):
        self.name, self.active, self.agent, self.job, self.frozen = name, True, True, None, 0
        self.disks, self.fails, self.saved = {"vda": Disk(), "vdb": Disk()}, {}, False
        self.checkpoints, self.calls = [], []
        self.files = {"vda": folder / "root.qcow2", "vdb": folder / "disk-data.qcow2"}
        for target, file in self.files.items():
            fake_libvirt.write_disk(file, len(self.disks[target].data))

    def _did(self, what):
        self.calls.append(what)
        if what in self.fails:
            raise self.fails[what]

    def XMLDesc(self, flags):
        parts = [f"<disk device='disk'><source file='{self.files[target]}'/><target dev='{target}'/>"
                 f"<alias name='ua-clawops-disk-{name}'/></disk>"
                 for target, name in (("vda", "root"), ("vdb", "data"))]
        state = "connected" if self.agent and self.active else "disconnected"
        return (f"<domain><metadata><clawops:guest xmlns:clawops='{names.NAMESPACE}' managed='true' fleet='home' "
                f"vm='{self.name}'/></metadata><devices>{''.join(parts)}<disk device='disk'><source file='/seed.iso'/>"
                "<target dev='sda'/><alias name='ua-clawops-seed'/></disk><channel><target type='virtio' "
                f"name='org.qemu.guest_agent.0' state='{state}'/></channel></devices></domain>")

    def isActive(self):
        return int(self.active)

    def state(self):
        return [1, 0]

    def ID(self):
        return 7

    def agentSetResponseTimeout(self, seconds, flags):
        pass

    def fsFreeze(self):
        self.frozen += 1
        self._did("freeze")
        return 1

    def fsThaw(self):
        self._did("thaw")
        self.frozen = 0
        return 1

    def backupBegin(self, xml, checkpoint, flags):
        self._did("begin")
        self.job, self.began_frozen = xml, bool(self.frozen)
        name = ET.fromstring(checkpoint).findtext("name")  # noqa: S314
        wanted = {one.get("name"): one for one in ET.fromstring(xml).iterfind("disks/disk")}  # noqa: S314
        assert wanted["sda"].get("backup") == "no"
        self.shown = {}
        for target, disk in self.disks.items():
            since = wanted[target].get("incremental")
            if since and since not in disk.bitmaps:
                self.job = None
                raise fake_libvirt.LibvirtError(f"missing or broken bitmap {since!r}")
            self.shown[target] = (bytes(disk.data), set(disk.bitmaps[since]) if since else None)
        for disk in self.disks.values():
            disk.bitmaps[name] = set()
        self.checkpoints.append(Checkpoint(self, name))

    def backupGetXMLDesc(self, flags):
        if self.job is None:
            raise fake_libvirt.LibvirtError("no job", NO_JOB)
        return self.job

    def abortJob(self):
        self._did("abort")
        self.job = None

    def listAllCheckpoints(self, flags):
        return list(self.checkpoints)

    def hasManagedSaveImage(self, flags):
        return self.saved

    def managedSaveRemove(self, flags):
        self.saved = False


class World:
    """One VM host with one guest."""

    def __init__(self, top, monkeypatch):
        self.top, self.restic, self.units = top, Restic(top / "store"), []
        self.s3 = S3({"home/vms/zap/config"})
        for name, folder in (("STATE", "lib/vms"), ("LOCKS", "run"), ("CREDENTIALS", "keys")):
            (top / folder).mkdir(parents=True)
            monkeypatch.setattr(names, name, top / folder)
        names.folder("zap").mkdir()
        self.domain = Domain("zap", names.folder("zap"))
        names.record("zap").write_text('{"name": "zap", "generation": 3, "fleet": "home"}')
        names.nvram("zap").write_bytes(b"variables")
        names.host_key("zap").write_text("the-key")
        (top / "libvirt/domain-7-zap").mkdir(parents=True)
        monkeypatch.setattr(job, "LIBVIRT", top / "libvirt")
        monkeypatch.setattr(backup, "SEGMENT", SEGMENT)
        monkeypatch.setattr(restore, "SEGMENT", SEGMENT)
        monkeypatch.setattr(mirror, "SEGMENT", SEGMENT)
        monkeypatch.setattr(mirror, "_ZEROS", bytes(SEGMENT))
        monkeypatch.setitem(sys.modules, "libvirt", self._library())
        monkeypatch.setattr(nbd, "opened", self._opened)
        monkeypatch.setattr(nbd, "served", self._served)
        monkeypatch.setattr(disks, "create", self._create)
        self.made = {}

    def _library(self):
        fake = fake_libvirt.module(fake_libvirt.Connection())
        fake.VIR_ERR_NO_DOMAIN_BACKUP, fake.VIR_DOMAIN_RUNNING = NO_JOB, 1
        fake.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY = 2
        fake.open = lambda uri: types.SimpleNamespace(
            isAlive=lambda: 1, getLibVersion=lambda: 11003000, lookupByName=self._lookup)
        return fake

    def _lookup(self, name):
        if self.domain is None:
            raise fake_libvirt.LibvirtError("no domain", 42)
        return self.domain

    @contextlib.contextmanager
    def _opened(self, socket, name="", bitmap=None):
        assert bitmap in (None, f"backup-{name}")
        data, dirty = self.domain.shown[name]
        yield Export(data, dirty if bitmap else None)

    @contextlib.contextmanager
    def _served(self, path, writable=False):
        if writable:
            yield Export(self.made[path.name])
        else:
            (target,) = (target for target, file in self.domain.files.items() if file == path)
            yield Export(bytes(self.domain.disks[target].data))

    def _create(self, path, size, runner=None):
        self.made[path.name] = bytearray(size)
        fake_libvirt.write_disk(path, size)

    def run(self, argv, stdin=None, env=None, timeout=None):
        self.units.append(list(argv))
        return Finished(0, "", "")

    def copy(self, full=False):
        return backup.Copier(Host(), "zap", "home", runner=self.run).copy(full)

    def mirrored(self, part="disk-root"):
        held, data = mirror.Mirror(names.mirror("zap") / part), bytearray(SIZE)
        for index in held.sums:
            data[index * SEGMENT:(index + 1) * SEGMENT] = held.path(index).read_bytes()
        assert held.sound()
        return bytes(data[:SIZE])

    def access(self):
        return verbs.Access("zap", lambda: bucket.Bucket(STORE, self.s3),
                            restic.Repository(STORE, "zap", KEYS, self.restic))

    def snapshots(self):
        source = _guest_backup.GuestSource(Host(), "zap", "home", "oak")
        source.copier.runner = self.run
        return verbs.Snapshots([verbs.Job(self.access(), source)], "oak", False)

    def restores(self, **options):
        wish = {key: options.pop(key) for key in ("overwrite",) if key in options}
        target = _guest_backup.GuestTarget(Host(), "zap", "home", **options)
        return verbs.Restores([verbs.Wish(self.access(), target, **wish)], False)

    def lose(self):
        self.domain = None
        shutil.rmtree(names.folder("zap"))
        names.host_key("zap").unlink()


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


# Mirrors

def test_a_mirror_is_what_was_written(tmp_path):
    held = mirror.Mirror(tmp_path)
    held.update(300, [(5, 3, b"abc")], True)
    held.update(0, [(0, 4, b"head")], True)
    held.finish(400 * mirror.SEGMENT)
    again = mirror.Mirror(tmp_path)
    assert again.sound() and sorted(again.sums) == [0, 300]
    assert again.path(300) == tmp_path / "000001/044"
    again.update(300, [(6, 1, None)], False)
    assert again.path(300).read_bytes()[5:8] == b"a\0c"
    again.update(0, [(0, 4, None)], False)
    assert not again.path(0).exists() and 0 not in again.sums


def test_the_list_is_one_for_sha256sum(tmp_path):
    held = mirror.Mirror(tmp_path)
    held.update(1, [(0, 1, b"x")], True)
    digest = held.finish(2 * mirror.SEGMENT)
    text = (tmp_path / mirror.SUMS).read_text()
    assert text == f"{hashlib.sha256(held.path(1).read_bytes()).hexdigest()}  000000/001\n"
    assert digest == mirror.digest(tmp_path)


def test_files_of_a_killed_run_and_of_nobody(tmp_path):
    held = mirror.Mirror(tmp_path)
    held.update(1, [(0, 1, b"x")], True)
    held.finish(2 * mirror.SEGMENT)
    (tmp_path / "000000/.002").write_bytes(b"half")
    assert held.sound() and not (tmp_path / "000000/.002").exists()
    held.path(1).write_bytes(b"less")
    assert not held.sound()
    (tmp_path / "000000/note").write_text("x")
    assert _code(held.sound) == "mirror_damaged"


def test_a_changed_segment_is_refused(tmp_path):
    held = mirror.Mirror(tmp_path)
    held.update(0, [(0, 1, b"x")], True)
    held.path(0).write_bytes(b"y" * mirror.SEGMENT)
    assert _code(lambda: list(held.segments())) == "checksum"


def test_room_is_left_for_the_guests(tmp_path, monkeypatch):
    monkeypatch.setattr(mirror.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=mirror.RESERVE + 10))
    mirror.check_room(tmp_path / "not/there", 10)
    assert _code(lambda: mirror.check_room(tmp_path, 11)) == "disk_full"


# Copies

def test_the_first_copy_is_full_and_the_next_reads_what_changed(world):
    root = world.domain.disks["vda"]
    root.write(100, b"one")
    root.write(9 * SEGMENT, b"nine")
    first = world.copy()
    assert (first.mode, first.consistency) == ("full", "frozen") and "no earlier copy" in first.reason
    assert world.mirrored() == bytes(root.data)
    root.write(SEGMENT - 2, b"edge")
    root.write(9 * SEGMENT, bytes(4))
    root.write(SIZE - 3, b"end")
    second = world.copy()
    assert (second.mode, second.consistency, second.reason) == ("incremental", "frozen", "")
    assert second.read == 2 * BLOCK + SIZE % BLOCK
    assert world.mirrored() == bytes(root.data)
    assert world.mirrored("disk-data") == bytes(SIZE)
    assert len(world.domain.checkpoints) == 1 and world.domain.job is None and not world.domain.frozen
    assert world.domain.began_frozen


def test_everything_is_read_when_asked_for(world):
    world.copy()
    assert world.copy(full=True).reason == "asked for"


@pytest.mark.parametrize("lose", ["bitmap", "checkpoint", "segment", "state"])
def test_what_is_lost_is_answered_by_a_full_copy(world, lose):
    world.domain.disks["vda"].write(0, b"data")
    world.copy()
    if lose == "bitmap":
        world.domain.disks["vda"].bitmaps.clear()
    elif lose == "checkpoint":
        world.domain.checkpoints[0].delete(0)
    elif lose == "segment":
        mirror.Mirror(names.mirror("zap") / "disk-root").path(0).unlink()
    else:
        (names.mirror("zap") / "state.json").write_text("{}")
    world.domain.disks["vda"].write(50, b"more")
    moment = world.copy()
    assert moment.mode == "full" and moment.reason
    assert world.mirrored() == bytes(world.domain.disks["vda"].data)
    assert len(world.domain.checkpoints) == 1
    assert world.copy().mode == "incremental"


def test_checkpoints_of_others_stay(world):
    world.domain.checkpoints.append(Checkpoint(world.domain, "nightly"))
    world.copy()
    world.copy()
    assert [one.name[:8] for one in world.domain.checkpoints] == ["nightly", "clawops-"]


def test_a_copy_that_fails_in_the_middle_is_gone_on_with(world, monkeypatch):
    root = world.domain.disks["vda"]
    world.copy()
    root.write(0, b"first")
    root.write(5 * SEGMENT, b"second")
    update = mirror.Mirror.update

    def fail(self, index, *rest):
        if index == 5:
            raise OSError(28, "No space left on device")
        update(self, index, *rest)

    with monkeypatch.context() as failing:
        failing.setattr(mirror.Mirror, "update", fail)
        with pytest.raises(OSError, match="No space"):
            world.copy()
    assert world.domain.job is None and not world.domain.frozen
    root.write(5 * SEGMENT + 200, b"third")
    moment = world.copy()
    assert (moment.mode, moment.reason) == ("incremental", "")
    assert world.mirrored() == bytes(root.data) and len(world.domain.checkpoints) == 1


def test_without_an_agent_the_copy_says_so(world):
    world.domain.agent = False
    moment = world.copy()
    assert moment.consistency == "crash" and "agent does not run" in moment.reason
    assert "freeze" not in world.domain.calls


def test_an_agent_that_refuses_is_thawed_and_told_of(world):
    world.domain.fails["freeze"] = fake_libvirt.LibvirtError("busy")
    moment = world.copy()
    assert moment.consistency == "crash" and "can't freeze" in moment.reason
    assert world.domain.calls.index("thaw") < world.domain.calls.index("begin") and not world.domain.frozen


def test_a_job_that_does_not_begin_leaves_nothing_frozen(world):
    world.domain.fails["begin"] = fake_libvirt.LibvirtError("no")
    assert _code(world.copy) == "libvirt_refused"
    assert not world.domain.frozen and not list(names.LOCKS.glob("*.frozen"))


def test_file_systems_that_can_not_be_thawed_are_left_to_the_guard(world):
    world.domain.fails["thaw"] = fake_libvirt.LibvirtError("no")
    assert _code(world.copy) == "still_frozen"
    assert (names.LOCKS / "zap.frozen").exists()
    assert world.units[-1][0] == "systemd-run"
    del world.domain.fails["thaw"]
    world.copy()
    assert not world.domain.frozen and not (names.LOCKS / "zap.frozen").exists()


def test_what_a_killed_run_left_is_ended_first(world):
    world.copy()
    socket = world.top / "libvirt/domain-7-zap/clawops-backup.sock"
    world.domain.job = f"<domainbackup><server socket='{socket}'/></domainbackup>"
    (names.LOCKS / "zap.frozen").touch()
    world.domain.frozen = 1
    assert world.copy().mode == "incremental"
    assert not world.domain.frozen


def test_a_job_of_another_program_is_left_alone(world):
    world.domain.job = "<domainbackup><server socket='/elsewhere'/></domainbackup>"
    assert _code(world.copy) == "busy"
    assert world.domain.job


def test_a_domain_of_another_owner_is_refused(world):
    world.domain.name = "other"
    assert _code(world.copy) == "foreign_object"


def test_a_guest_that_is_shut_off_is_read_once(world):
    world.copy()
    world.domain.active = False
    world.domain.disks["vda"].write(7, b"last words")
    first = world.copy()
    assert (first.mode, first.consistency) == ("full", "stopped")
    assert world.mirrored() == bytes(world.domain.disks["vda"].data)
    second = world.copy()
    assert (second.mode, second.read) == ("unchanged", 0)
    world.domain.files["vda"].write_bytes(world.domain.files["vda"].read_bytes() + b"x")
    assert [copy.mode for copy in world.copy().copies] == ["full", "unchanged"]
    world.domain.active = True
    assert world.copy().mode == "full"
    assert world.copy().mode == "incremental"


def test_a_guest_whose_memory_was_saved_is_not_at_rest(world):
    world.domain.active, world.domain.saved = False, True
    moment = world.copy()
    assert moment.consistency == "crash" and "memory" in moment.reason


def test_disks_that_went_leave_the_mirror(world):
    world.copy()
    (names.mirror("zap") / "disk-old").mkdir()
    world.copy()
    parts = backup.Copier(Host(), "zap", "home").parts()
    assert sorted(path.name for path in parts) == ["disk-data", "disk-root", "guest"]


# The guard

def test_the_guard_is_told_nothing_that_systemd_expands(tmp_path, monkeypatch):
    monkeypatch.setattr(names, "LOCKS", tmp_path)
    calls = []

    def run(argv, stdin=None, env=None, timeout=None):
        calls.append(list(argv))
        return Finished(0, "", "")

    with guard.Guard("qemu+unix:///system?socket=/x y", "zap", "/s", run) as held:
        assert _code(lambda: guard.Guard("u", "zap", "/s", run).__enter__()) == "busy"
        held.freezing(True)
        assert held.froze()
        held.freezing(False)
    script = next(call[-1] for call in calls if call[0] == "systemd-run")
    assert "$" not in script and "%" not in script and "'qemu+unix:///system?socket=/x y'" in script
    assert calls[-1][:2] == ["systemctl", "stop"]
    assert script.index("-w 60") < script.index("domfsthaw") < script.index("domjobabort")


# Snapshots and restores

def test_a_guest_comes_back_from_its_snapshot_alone(world):
    root = world.domain.disks["vda"]
    root.write(3 * SEGMENT, b"dear")
    root.write(SIZE - 5, b"end")
    taken = go(world.snapshots())[1]["snapshots"][0]
    assert taken["vm"] == "zap" and taken["mode"] == "full" and taken["bytes_read"]
    tags = world.restic.snapshots[0]["tags"]
    assert "vm=zap" in tags and not any(tag.startswith("bot=") for tag in tags)
    world.lose()
    plan, result = go(world.restores())
    assert plan.changed and result["restored"][0]["vm"] == "zap"
    assert bytes(world.made["root.qcow2"]) == bytes(root.data)
    assert names.host_key("zap").read_text() == "the-key"
    assert names.host_key("zap").stat().st_mode & 0o777 == 0o600
    assert names.nvram("zap").read_bytes() == b"variables"
    assert json.loads(names.record("zap").read_text())["generation"] == 3
    assert sorted(path.name for path in names.STATE.iterdir()) == [".backup", "zap"]
    assert not go(world.restores())[0].changed


def test_disks_are_replaced_only_on_demand(world):
    go(world.snapshots())
    world.domain.active = False
    world.domain.saved = True
    assert _code(world.restores().plan) == "target_not_empty"
    names.folder("zap").joinpath("mine").touch()
    kept = go(world.restores(overwrite=True, keep_previous=True))[1]["restored"][0]["kept"]
    assert pathlib.Path(kept[0], "mine").exists() and not names.folder("zap").joinpath("mine").exists()
    # What libvirt knew of the old disks must not meet the new ones.
    assert not world.domain.saved and not world.domain.checkpoints


def test_a_guest_that_runs_is_not_restored(world):
    go(world.snapshots())
    assert _code(world.restores(overwrite=True).plan) == "vm_running"


def test_another_file_of_the_same_name_is_not_the_restored_one(world):
    go(world.snapshots())
    world.lose()
    go(world.restores())
    path = names.disk("zap")
    path.unlink()
    names.folder("zap").joinpath("filler").touch()
    fake_libvirt.write_disk(path, SIZE)
    assert _code(world.restores().plan) == "target_not_empty"


def test_a_restore_that_fails_leaves_the_old_disks(world):
    world.domain.disks["vda"].write(0, b"x")
    go(world.snapshots())
    world.domain.active = False
    before = names.disk("zap").stat().st_ino
    segment = next(world.restic.place.glob("*/**/mirror/disk-root/000000/*"))
    segment.write_bytes(b"y" * SEGMENT)
    assert _code(lambda: go(world.restores(overwrite=True))) == "checksum"
    assert names.disk("zap").stat().st_ino == before
    assert not (names.STATE / ".restore-zap").exists()


def test_a_tampered_description_is_refused(tmp_path):
    for facts in ({}, {"version": 2, "disks": []}, {"version": 1, "disks": [{"name": "../x", "size": 1}]},
                  {"version": 1, "disks": [{"name": "root", "size": -1}]}):
        (tmp_path / "guest.json").write_text(json.dumps(facts))
        assert _code(lambda: restore.read_facts(tmp_path)) == "manifest_damaged"


def test_folders_change_places_in_one_step(tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    restore.exchange(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old/new").exists() and (tmp_path / "new/old").exists()
    restore.exchange(tmp_path / "new", tmp_path / "nowhere")
    assert (tmp_path / "nowhere/old").exists() and not (tmp_path / "new").exists()


# NBD

def test_extents_come_in_as_many_answers_as_the_server_likes(monkeypatch):
    class Handle:
        def block_status(self, count, offset, note):
            assert count <= 100 - offset
            note("other", offset, [count, 0], 0)
            note(nbd.ALLOCATION, offset, [10, 0, 20, 3], 0)

    export = object.__new__(nbd.Export)
    export._handle, export._failure, export.size, export.bitmap = Handle(), RuntimeError, 100, None
    found = list(export.pieces(0, 100))
    assert sum(length for _start, length, _zero in found) == 100
    assert found[:2] == [(0, 10, False), (10, 20, True)] and found[-1] == (90, 10, False)
    assert list(export.dirty()) == [(0, 100)]


def test_a_server_without_an_answer(monkeypatch):
    export = object.__new__(nbd.Export)
    export._handle = types.SimpleNamespace(block_status=lambda *words: None)
    export._failure, export.size, export.bitmap = RuntimeError, 100, None
    assert _code(lambda: list(export.pieces(0, 100))) == "nbd_failed"


# The filter

def test_guests_whose_disks_are_backed_up():
    guests = [{"name": "zap"}, {"name": "yak", "backup": {"enabled": True, "password": "own"}},
              {"name": "emu", "backup": {"password": "own"}},
              {"name": "gone", "state": "absent", "backup": {"enabled": True}}]
    assert vm_backups.vm_backups(guests) == [{"name": "yak", "password": "own"}]
    assert vm_backups.vm_backups(guests, ["zap", "emu"]) == [{"name": "zap"}, {"name": "emu", "password": "own"}]
    with pytest.raises(Exception, match=r"vm_backup\.pasword"):
        vm_backups.vm_backups([{"name": "zap", "backup": {"pasword": "x"}}])


def test_a_manifest_of_a_guest_has_its_own_roles(world):
    go(world.snapshots())
    manifest = world.access().repository.manifest(world.access().repository.choose("latest"))
    assert [part.role for part in manifest.parts] == ["disk-data", "disk-root", "guest"]
    assert manifest.substrate == "vm_host"
    with pytest.raises(FleetError):
        model.Manifest.from_json(manifest.to_json().replace('"guest"', '"disk-../x"'))
