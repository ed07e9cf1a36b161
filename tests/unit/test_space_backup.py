# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups of the volumes of spaces, and what a report and the fleet's manifest tell."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import types

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.clawops.fleet.plugins.filter import backup as filters
from ansible_collections.clawops.fleet.plugins.filter import spaces as space_filters
from ansible_collections.clawops.fleet.plugins.module_utils import _space_backup as spaces
from ansible_collections.clawops.fleet.plugins.module_utils._backup import bucket, fleet, model, restic, sqlite, verbs
from ansible_collections.clawops.fleet.plugins.module_utils._docker import lock, names
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._ownership import labels
from test_backup import S3, Restic

STORE = model.Store("http://s3.example.org:9000", "backups", "home", kind="space")
KEYS = model.Keys("the-access", "the-secret", "the-password")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Engine:
    """One space with a volume."""

    def __init__(self, top):
        self.place, self.running, self.calls = top / "volumes/v/_data", False, []
        self.found = {"Driver": "local", "Mountpoint": str(self.place), "Labels": labels("home", "space", "scratch", 1)}
        self.api = types.SimpleNamespace(stop=self._stop, unpause=lambda name: self.calls.append("unpause"))

    def volume(self, name):
        return self.found if name == "clawdspace-vol-scratch" else None

    def inspect(self, name):
        return {"State": {"Running": self.running, "Paused": self.running}}

    def doing(self, what):
        return lock.hold("doing")

    def _stop(self, name, timeout):
        self.calls.append("stop")
        self.running = False


class World:
    def __init__(self, top, monkeypatch):
        monkeypatch.setattr(names, "LOCKS", top / "locks")
        monkeypatch.setattr(spaces, "STATE", str(top / "state"))
        self.engine, self.restic, self.s3 = Engine(top), Restic(top / "snapshots"), S3(["home/spaces/scratch/config"])
        self.place = self.engine.place
        self.place.mkdir(parents=True)

    def access(self):
        def found():
            return bucket.Bucket(STORE, self.s3)

        return verbs.Access("scratch", found, restic.Repository(STORE, "scratch", KEYS, self.restic,
                                                                marks=bucket.Marks(found, "scratch")))

    def snapshot(self, fleet_name="home"):
        source = spaces.SpaceSource(self.engine, "scratch", fleet_name, "alder", ["cache"], 60)
        source.hidden = os.geteuid() == 0
        verb = verbs.Snapshots([verbs.Job(self.access(), source)], "alder", False)
        return verb.apply(verb.plan())["snapshots"][0]

    def restore(self, overwrite=False, stop=False, safety=False):
        target = spaces.SpaceTarget(self.engine, "scratch", "home", stop, False)
        verb = verbs.Restores([verbs.Wish(self.access(), target, "latest", overwrite, safety=safety)], False)
        plan = verb.plan()
        return verb.apply(plan)["restored"][0] if plan.changed else None


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


def fill(place):
    (place / "file").write_text("words")
    (place / "cache").mkdir()
    database = sqlite3.connect(place / "m.sqlite")
    database.execute("pragma journal_mode=wal")
    database.execute("create table t (x)")
    database.commit()
    return database


def test_a_volume_comes_back(world):
    live = fill(world.place)
    taken = world.snapshot()
    assert (taken["space"], taken["databases"]) == ("scratch", 1)
    assert {"space=scratch", "fleet=home"} <= set(world.restic.snapshots[0]["tags"])
    live.close()
    for name in ("file", "m.sqlite"):
        (world.place / name).unlink()
    (world.place / "cache").rmdir()
    restored = world.restore()
    assert restored["space"] == "scratch" and restored["places"] == {"volume": str(world.place)}
    assert (world.place / "file").read_text() == "words"
    assert sqlite3.connect(world.place / "m.sqlite").execute("select count(*) from t").fetchone() == (0,)
    assert world.restore() is None


def test_a_space_that_runs_is_stopped_only_when_asked(world):
    fill(world.place).close()
    world.snapshot()
    world.engine.running = True
    with pytest.raises(FleetError) as caught:
        world.restore(overwrite=True)
    assert caught.value.code == "bot_running" and world.engine.calls == []
    assert world.restore(overwrite=True, stop=True)["changed"]
    assert world.engine.calls == ["unpause", "stop"]


def test_what_is_replaced_goes_into_a_snapshot_first(world):
    fill(world.place).close()
    world.snapshot()
    (world.place / "later").write_text("x")
    restored = world.restore(overwrite=True, safety=True)
    saved = world.restic.place / restored["safety"] / str(world.place).lstrip("/")
    assert (saved / "later").exists() and not (world.place / "later").exists()


def test_nobody_changes_a_space_while_it_is_read(world, monkeypatch):
    fill(world.place).close()
    taken = restic.Repository.backup

    def backup(self, staged, host):
        with lock.hold("scratch", shared=True, timeout=0):
            pass
        with pytest.raises(FleetError), lock.hold("scratch", timeout=0):
            pass
        return taken(self, staged, host)

    monkeypatch.setattr(restic.Repository, "backup", backup)
    assert world.snapshot()


@pytest.mark.parametrize("change, code", [
    ({"Labels": {}}, "foreign_object"), ({"Labels": labels("other", "space", "scratch", 1)}, "foreign_object"),
    ({"Options": {"type": "nfs"}}, "volume_elsewhere")])
def test_a_volume_that_is_not_ours_or_not_here_is_refused(world, change, code):
    world.engine.found |= change
    with pytest.raises(FleetError) as caught:
        world.snapshot()
    assert caught.value.code == code
    world.engine.found = None
    with pytest.raises(FleetError) as caught:
        world.snapshot()
    assert caught.value.code == "path_missing"


@root_only
def test_databases_are_copied_for_owners_that_have_no_way_to_them(tmp_path):
    closed, staging = tmp_path / "closed", tmp_path / "staging"
    for folder in (closed / "volume", staging):
        folder.mkdir(parents=True)
    fill(closed / "volume").close()
    for path in ("volume", "volume/m.sqlite"):
        os.chown(closed / path, 4321, 4321)
    closed.chmod(0o700)
    staging.chmod(0o711)
    found = sqlite.find(str(closed / "volume"))
    with sqlite.Copying(str(staging), 60, [str(closed / "volume")]) as copying:
        copies = copying.copy(found)
    assert list(copies) == [str(closed / "volume/m.sqlite")]
    assert sqlite3.connect(staging / "sqlite/4321/0").execute("select count(*) from t").fetchone() == (0,)


# Filters

def test_spaces_with_a_volume_are_backed_up_unless_it_is_off():
    hostvars = [{"inventory_hostname": "one", "space_backup": {"password": "p", "exclude": ["x"]}},
                {"inventory_hostname": "two", "space_backup": {"enabled": False}},
                {"inventory_hostname": "three", "space_workspace": {"strategy": "bind", "path": "/srv/x"}},
                {"inventory_hostname": "four", "space_state": "absent"}, {"inventory_hostname": "five"}]
    assert space_filters.space_backups(hostvars) == [{"name": "one", "exclude": ["x"], "password": "p"},
                                                     {"name": "five"}]
    assert space_filters.space_backups(hostvars, None, ["five"]) == [{"name": "five"}]
    assert "backup" not in space_filters.space_descriptions(hostvars)[0]
    with pytest.raises(AnsibleFilterError, match="typo"):
        space_filters.space_backups([{"inventory_hostname": "one", "space_backup": {"typo": 1}}])


def test_bots_of_clusters_have_no_places():
    bots = [{"name": "golf", "backup": {"exclude": ["x"]}}, {"name": "hotel", "backup_password": "p"}]
    assert filters.backup_sources(bots) == [{"name": "golf", "exclude": ["x"]}, {"name": "hotel", "password": "p"}]
    assert filters.restore_targets(bots[:1], overwrite=True) == [
        {"name": "golf", "snapshot": "latest", "time": "latest", "overwrite": True}]


def test_a_report_tells_of_spaces():
    rows = filters.backup_rows(["scratch"], "alder", {"failed": True, "msg": "no route"}, kind="space")
    assert filters.backup_failures(rows) == ["space scratch"]
    assert filters.backup_table(rows)[1:] == ["space scratch  alder  FAILED  -     -      -",
                                              "space scratch (alder): no route"]


def test_the_manifest_of_a_fleet_has_no_secrets():
    bots = [{"inventory_hostname": "alpha", "bot_on": "alder", "bot_gateway_token": "s1", "bot_api_keys": {"X": "s2"},
             "bot_backup_password": "s3", "bot_backup": {"password": "s4"}, "bot_env": {"MY_TOKEN": "s5", "A": "b"},
             "bot_config": {"channels": [{"botToken": "s6"}], "apiKey": "${KEY}", "maxTokens": 4096, "mode": "local"}}]
    record = base64.b64encode(json.dumps({"version": "2026.9.6", "port": 19100, "labels": {}}).encode()).decode()
    seen = {"alder": {"bots": [{"content": record, "source": "/var/lib/clawops/instances/alpha.json"}],
                      "spaces": [{"name": "scratch", "volume": "v", "spec": {"env": {"PASSWORD": "s7"}, "cpus": 1}}]},
            "harbor": {"bots": [{"name": "alpha", "ports": {"chrome": 30100}, "node": None}]}}
    made = filters.fleet_manifest(bots, seen)
    assert not any(f"s{number}" in json.dumps(made).replace("alders", "") for number in range(1, 8))
    assert made["bots"]["alpha"]["described"]["config"] == {
        "channels": [{"botToken": "(hidden)"}], "apiKey": "${KEY}", "maxTokens": 4096, "mode": "local"}
    assert made["bots"]["alpha"]["seen"] == [{"host": "alder", "version": "2026.9.6", "port": 19100},
                                             {"host": "harbor", "ports": {"chrome": 30100}}]
    assert made["spaces"]["scratch"]["host"] == "alder"


def test_a_manifest_is_written_when_something_changed():
    s3 = S3()
    store = bucket.Bucket(STORE, s3)

    def write(content):
        verb = fleet.Written(store, content)
        plan = verb.plan()
        return plan.changed, (verb.apply(plan) if plan.changed else verb.facts())["key"]

    changed, key = write({"bots": {}})
    assert changed and key.startswith("home/manifest/") and {key, "home/manifest/latest.json"} == s3.keys
    assert write({"bots": {}}) == (False, key)
    assert fleet.Written(store, {"bots": {"a": 1}}).facts() == {"key": ""}
    assert write({"bots": {"a": 1}})[0]
