# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What holds whatever is asked for: nothing foreign is touched, nothing leads out, nobody gets more than needed."""

from __future__ import annotations

import contextlib
import os
import stat
import types

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils import _pod_backup as pods
from ansible_collections.clawops.fleet.plugins.module_utils import _space_backup as spaces
from ansible_collections.clawops.fleet.plugins.module_utils._backup import host, model
from ansible_collections.clawops.fleet.plugins.module_utils._docker import inside_files
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes import job
from ansible_collections.clawops.fleet.plugins.module_utils._libvirt import decide, observe, reconcile, restore
from ansible_collections.clawops.fleet.plugins.module_utils._libvirt.client import parse
from ansible_collections.clawops.fleet.plugins.module_utils._module import QuietModule
from ansible_collections.clawops.fleet.plugins.module_utils._openclaw import host as machine
from ansible_collections.clawops.fleet.plugins.module_utils._openclaw.places import Places
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished
from test_backup import S3, Restic, World

PREFIX = "clawops.fleet"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def labels(kind, name="golf", fleet="home", managed="true"):
    return {f"{PREFIX}/managed": managed, f"{PREFIX}/fleet": fleet, f"{PREFIX}/{kind}": name}


#: Each differs in one thing from what is ours.
STRANGERS = [{"managed": "false"}, {"name": "hotel"}, {"fleet": "other"}]


def _code(work):
    with pytest.raises(FleetError) as caught:
        work()
    return caught.value.code


# Whose it is

def domain(marks):
    found = " ".join(f"{key.partition('/')[2]}='{value}'" for key, value in marks.items())
    return (f"<domain><metadata><clawops:guest xmlns:clawops='urn:clawops:fleet:1' {found}/></metadata><devices/>"
            "</domain>")


@pytest.mark.parametrize("change", STRANGERS)
def test_a_guest_of_somebody_else_stays_as_it_is(change):
    decide.guard("golf", observe.Parts(inactive=parse(domain(labels("vm")))), "home")
    parts = observe.Parts(inactive=parse(domain(labels("vm", **change))))
    assert _code(lambda: decide.guard("golf", parts, "home")) == "foreign_object"


def test_pruning_takes_the_guests_of_this_fleet_alone(monkeypatch):
    found = {"golf": labels("vm"), "hotel": labels("vm", "hotel", fleet="other"), "india": labels("vm", "india")}
    monkeypatch.setattr(reconcile.observe, "owned", lambda _host: found)
    work = reconcile.Guests(None, [], decide.Settings("home"), None, prune=True)
    work.listed = {"india"}
    assert work._unwanted() == ["golf"]


@pytest.mark.parametrize("change", STRANGERS)
def test_no_restore_goes_over_the_disks_of_somebody_else(change):
    theirs = types.SimpleNamespace(XMLDesc=lambda _flags: domain(labels("vm", **change)), isActive=lambda: 0)
    libvirt = types.SimpleNamespace(domain=lambda _name: theirs, doing=lambda _what: contextlib.nullcontext())
    assert _code(lambda: restore.check_stopped(libvirt, "golf", "home")) == "foreign_object"


@pytest.mark.parametrize("change", STRANGERS)
def test_no_backup_is_taken_of_the_pod_of_somebody_else(change):
    store = model.Store("http://203.0.113.5:9000", "backups", "home")
    pod = pods.Pod(pods.Ways(None, store, (), None, 60.0), "golf", None, dict.fromkeys(pods._PASSED, ""))
    for kind in ("Deployment", "PersistentVolumeClaim"):
        found = {"kind": kind, "metadata": {"name": "bot-golf", "namespace": "n", "labels": labels("bot")}}
        pod._check(found)
        found["metadata"]["labels"] = labels("bot", **change)
        assert _code(lambda found=found: pod._check(found)) == "foreign_object"


@pytest.mark.parametrize("change", STRANGERS)
def test_no_backup_is_taken_of_the_volume_of_somebody_else(change):
    def engine(marks):
        return types.SimpleNamespace(volume=lambda _name: {"Labels": marks, "Mountpoint": "/v", "Driver": "local"})

    assert spaces.volume_of(engine(labels("space")), "golf", "home") == "/v"
    assert _code(lambda: spaces.volume_of(engine(labels("space", **change)), "golf", "home")) == "foreign_object"


def test_a_snapshot_of_another_bot_is_not_restored(tmp_path):
    world = World(tmp_path, Restic(tmp_path / "store"), S3({"home/bots/alpha/config"}))
    (tmp_path / "bots/alpha").mkdir(parents=True)
    verb = world.snapshots()
    verb.apply(verb.plan())
    (snapshot,) = world.access().repository.snapshots()
    assert world.access().repository.manifest(snapshot).bot == "alpha"
    assert _code(lambda: world.access("beta").repository.manifest(snapshot)) == "foreign_snapshot"


# What goes

@pytest.mark.parametrize("purge", [False, True])
def test_data_of_a_bot_go_only_when_it_is_said(monkeypatch, purge):
    gone = []
    monkeypatch.setattr(machine.files, "read", lambda _path: None)
    monkeypatch.setattr(machine.pathlib.Path, "unlink", lambda path, missing_ok=False: gone.append(str(path)))
    monkeypatch.setattr(machine.ports, "release", lambda _holders: None)
    monkeypatch.setattr(machine.Host, "_purge", lambda _self, state: gone.append(f"what is in {state}"))
    places = Places("nobody-s-bot")
    settings = machine.Settings("home", {}, purge_data=purge)
    machine.Host(lambda *_argv, **_options: Finished(0, "", ""), [], settings)._remove(places)
    assert (f"what is in {places.state}" in gone) is purge
    assert (places.instance in gone) is purge


# What leads out

def test_a_directory_that_becomes_a_link_while_it_is_entered(tmp_path, monkeypatch):
    root = tmp_path / "workspace"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    look = os.lstat

    def swapped(name, **more):
        found = look(name, **more)
        if name == "sub":
            (root / "sub").rename(root / "away")
            (root / "sub").symlink_to(tmp_path / "outside")
        return found

    monkeypatch.setattr(inside_files.os, "lstat", swapped)
    with pytest.raises(OSError, match="sub"):
        inside_files.enter(str(root), "sub/file", follow=True)


def _part(path="/x"):
    return model.Part("state", path, model.Owner("bot", 4321, "bot", 4321), 0o750)


def test_a_restored_tree_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "scratch/x").symlink_to(tmp_path / "elsewhere")
    me = os.geteuid(), os.getegid()
    assert _code(lambda: host.finish("golf", str(tmp_path / "scratch"), _part(), "/s", me)) == "unsafe_snapshot"


@root_only
@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
def test_a_restored_device_is_refused(tmp_path, kind):
    os.mknod(tmp_path / "zero", kind | 0o666, os.makedev(1, 5))
    assert _code(lambda: host._own(str(tmp_path), _part(), 4321, 4321)) == "unsafe_snapshot"


def test_a_restore_is_made_ready_where_nobody_else_moves_things(tmp_path):
    mount = tmp_path / "mount"
    theirs = mount / "roots" / "theirs"
    theirs.mkdir(parents=True)
    assert host._trusted(str(theirs), str(mount)) == str(theirs)
    theirs.chmod(0o777)
    assert host._trusted(str(theirs), str(mount)) == str(mount / "roots")
    (mount / "roots").chmod(0o770)
    assert host._trusted(str(theirs), str(mount)) == str(mount)


# Who gets what

def test_the_job_beside_a_bot_has_no_account_and_no_way_but_to_the_bucket():
    reach = job.Reach(("203.0.113.5",), 9000)
    bench = job.Bench("golf", "home", "claworc", "image:1", {"/v": "bot-golf-clawdbot"}, True, 1000, reach,
                      {"RESTIC_PASSWORD": "planted"})
    pod, policy = job._pod(bench, "r"), job._policy(bench, "r")
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"] and "ingress" not in policy["spec"]
    assert policy["spec"]["egress"] == [{"to": [{"ipBlock": {"cidr": "203.0.113.5/32"}}],
                                         "ports": [{"protocol": "TCP", "port": 9000}]}]
    assert "planted" not in str([pod, policy, job._job(bench, "r")])


def test_a_module_with_secrets_in_lists_logs_nothing_that_it_was_called_with(monkeypatch):
    said = []
    monkeypatch.setattr(QuietModule, "log", lambda _self, text, **_more: said.append(text))
    module = QuietModule.__new__(QuietModule)
    module.params = {"bots": [{"password": 'pla"nted'}]}
    module._log_invocation()
    assert said == ["Invoked"]
