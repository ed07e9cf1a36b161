# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which snapshot is restored, what becomes of the data that are replaced, and restores beside what lives."""

from __future__ import annotations

import datetime
import os
import pathlib
import shutil
import stat
import types

import pytest
from ansible_collections.clawops.fleet.plugins.filter import backup as filters
from ansible_collections.clawops.fleet.plugins.module_utils import _bot_backup
from ansible_collections.clawops.fleet.plugins.module_utils._backup import (
    arguments,
    extract,
    host,
    model,
    restic,
    upkeep,
    verbs,
)
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._openclaw import places, render
from test_backup import ME, _count, go, world

__all__ = ["world"]  # the fixture of tests/unit/test_backup.py


def refused(work):
    with pytest.raises(FleetError) as caught:
        work()
    return caught.value


def at(text):
    return model.instant("time", text)


def restores(world, bot="alpha", until=None, safety=True, snapshot="latest", **options):
    places_ = [host.Place("state", str(world.top / "bots" / bot), ME)]
    target = host.HostTarget(bot, places_, state=world.state, **options)
    return verbs.Restores([verbs.Wish(world.access(bot), target, snapshot, True, until, safety)], False, host="h")


def extracts(world, *bots, until=None, check=False, **options):
    wishes = []
    for bot in bots or ("alpha",):
        given = {"into": str(world.top / "look" / bot), "roles": None, "owner": ME, "group": None, **options}
        wishes.append(verbs.Wish(world.access(bot), extract.ScratchTarget(bot, **given), until=until))
    return extract.Extracts(wishes, check)


# Points in time

def test_a_point_in_time_takes_the_newest_snapshot_until_then(world):
    for _day in range(3):
        go(world.snapshots())
    repository = world.access().repository
    ids = [snapshot.id for snapshot in repository.snapshots()]
    assert repository.choose("latest", at("2026-01-02T12:00:00Z")).id == ids[1]
    assert repository.choose("latest", at("2026-01-02T00:00:00.123456Z")).id == ids[1]
    assert repository.choose("latest", at("2026-01-02 01:00:00+01:00")).id == ids[0]
    assert repository.choose("latest", at("2099-01-01T00:00:00Z")).id == ids[2]
    error = refused(lambda: repository.choose("latest", at("2025-12-31T23:59:59Z")))
    assert error.code == "snapshot_missing" and "2026-01-01T00:00" in error.message and "2026-01-03T" in error.message


@pytest.mark.parametrize("text", ["2026-01-02T12:00:00", "2026-01-02", "yesterday", "latest", "12:00Z"])
def test_a_time_without_date_or_zone_is_refused(text):
    assert refused(lambda: at(text)).code == "bad_value"


def test_snapshots_are_in_the_order_of_time_whatever_zone_their_host_is_in(world):
    for _day in range(2):
        go(world.snapshots())
    world.restic.snapshots[0]["time"] = "2026-01-02T01:30:00.5+02:00"
    world.restic.snapshots[1]["time"] = "2026-01-02T00:00:00.25+00:00"
    assert [one.id[-1] for one in world.access().repository.snapshots()] == ["0", "1"]


def test_an_id_and_a_time_are_not_for_one_restore(world):
    entry = {"snapshot": "latest", "time": "latest", "overwrite": False}
    assert arguments.wish(world.access(), None, entry).until is None
    wish = arguments.wish(world.access(), None, {**entry, "time": "2026-01-01T00:00:00Z"}, safety=True)
    assert wish.until == datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc) and wish.safety
    wrong = {**entry, "time": "2026-01-01T00:00:00Z", "snapshot": "abc"}
    assert refused(lambda: arguments.wish(world.access(), None, wrong)).code == "bad_value"


# The safety snapshot

def test_what_is_replaced_goes_into_a_snapshot_that_only_its_id_chooses(world):
    go(world.snapshots())
    mine = world.top / "bots/alpha"
    (mine / "mine").write_text("mine")
    (mine / "cache").mkdir()
    (mine / "state/openclaw.sqlite").write_bytes(b"SQLite format 3\x00" + b"damaged" * 200)
    result = go(restores(world))[1]["restored"][0]
    repository = world.access().repository
    first, = repository.snapshots()
    assert result["snapshot"] == first.id and result["safety"] not in (None, first.id)
    assert repository.choose("latest").id == first.id and not (mine / "mine").exists()
    told = verbs.info([world.access()])["bots"][0]
    assert [one["safety"] for one in told["snapshots"]] == [False, True] and told["newest_age"] > 0
    # There and back again: a damaged database, too, is as it was.
    again = go(restores(world, snapshot=result["safety"]))[1]["restored"][0]
    assert again["snapshot"] == result["safety"] and (mine / "mine").read_text() == "mine"
    assert (mine / "state/openclaw.sqlite").read_bytes().startswith(b"SQLite format 3\x00damaged")
    assert not (mine / "cache").exists()


def test_where_nothing_is_there_is_nothing_to_save(world):
    go(world.snapshots())
    shutil.rmtree(world.top / "bots/alpha")
    assert go(restores(world))[1]["restored"][0]["safety"] is None
    assert go(restores(world, safety=False))[1]["restored"][0]["safety"] is None
    assert len(world.restic.snapshots) == 1


def test_without_the_safety_snapshot_nothing_is_replaced(world):
    go(world.snapshots())
    (world.top / "bots/alpha/mine").write_text("mine")
    world.restic.code = 1
    error = refused(lambda: go(restores(world)))
    assert error.code == "safety_failed" and "restore_safety: false" in error.hint
    assert (world.top / "bots/alpha/mine").exists()
    world.restic.code = 0
    assert go(restores(world))[1]["restored"][0]["safety"]


def test_the_bot_is_stopped_before_it_is_taken(world, monkeypatch):
    go(world.snapshots())
    seen = []

    def systemctl(*words):
        seen.append(words[0])
        return words[0] == "stop" or "stop" not in seen

    monkeypatch.setattr(host, "_systemctl", systemctl)
    take = restic.Repository.backup
    monkeypatch.setattr(restic.Repository, "backup", lambda *given: seen.append("backup") or take(*given))
    assert go(restores(world, units=["openclaw@alpha.service"], stop=True))[1]["restored"][0]["safety"]
    assert seen.index("stop") < seen.index("backup")


def test_an_unconfirmed_safety_snapshot_does_not_count(world):
    go(world.snapshots())
    world.restic.code = 130
    assert refused(lambda: go(restores(world))).code == "safety_failed"
    world.restic.code = 0
    run = model.Manifest.from_json((pathlib.Path(world.state) / "backup/staging/alpha/manifest.json").read_text()).run
    # It was in the bucket after all.
    world.restic.snapshots.append({**world.restic.snapshots[0], "id": "f" * 64, "tags": [
        "fleet=home", "bot=alpha", "safety=1", f"run={run}"]})
    go(world.snapshots())
    repository = world.access().repository
    assert refused(lambda: repository.choose("ffff")).code == "snapshot_missing"


def test_retention_keeps_safety_snapshots_apart(world):
    go(world.snapshots())
    for _again in range(3):
        go(restores(world))
    seen = []

    def forgettable(rules, tag=restic.WHOLE):
        seen.append((list(rules), tag))
        return []

    access = world.access()
    access.repository.forgettable = forgettable
    access.bucket().s3 = None
    verb = upkeep.Retentions([access], upkeep.Rules({"all": "7d"}), False)
    verb._forgettable(access, access.repository.all_snapshots())
    assert seen == [(["--keep-within=7d", "--keep-last=3"], "manifest=1"), (["--keep-within=7d"], "safety=1")]


# Room, tokens, tricks

def test_all_together_must_have_room(world):
    go(world.snapshots("alpha", "beta"))
    free = os.statvfs(world.top).f_bavail * os.statvfs(world.top).f_frsize
    for snapshot in world.restic.snapshots:
        snapshot["summary"] = {"total_bytes_processed": free * 2 // 3, "total_files_processed": 1}
    wishes = [wish for bot in ("alpha", "beta") for wish in restores(world, bot).wishes]
    error = refused(verbs.Restores(wishes, False).plan)
    assert error.code == "disk_full" and "alpha, beta" in error.message
    assert verbs.Restores(wishes[:1], False).plan().changed


def test_the_gateway_gets_a_new_token(world, monkeypatch):
    monkeypatch.setattr(places, "CREDENTIALS", str(world.top / "credentials"))
    path = world.top / "credentials/bot-alpha.env"
    path.parent.mkdir()
    path.write_text(render.env_text({render.TOKEN: "old", "KEY": "kept"}))
    go(world.snapshots())
    target = _bot_backup.BotTarget("alpha", [host.Place("state", str(world.top / "new"), ME)], state=world.state)
    go(verbs.Restores([verbs.Wish(world.access(), target)], False))
    found = render.parse_env(path.read_text())
    assert found["KEY"] == "kept" and found[render.TOKEN] != "old" and len(found[render.TOKEN]) > 30
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    target.stop = True
    go(verbs.Restores([verbs.Wish(world.access(), target, overwrite=True)], False))
    assert not path.exists()


def test_a_device_is_refused(world, monkeypatch):
    go(world.snapshots())
    facts = os.lstat

    def lstat(path, **more):
        found = facts(path, **more)
        if str(path).endswith("/note"):
            return types.SimpleNamespace(st_mode=stat.S_IFCHR | 0o666, st_uid=0, st_gid=0)
        return found

    monkeypatch.setattr(host.os, "lstat", lstat)
    assert refused(lambda: go(extracts(world))).code == "unsafe_snapshot"
    assert os.listdir(world.top / "look/alpha") == [".clawops"]


# Beside

def test_a_snapshot_is_taken_out_beside_what_lives(world):
    go(world.snapshots())
    assert extracts(world, check=True).plan().changed and not (world.top / "look").exists()
    plan, result = go(extracts(world))
    one, into = result["extracted"][0], world.top / "look/alpha"
    assert plan.changed and one["changed"] and one["into"] == str(into) and one["safety"] is None
    assert one["places"] == {"state": f"{into}/state"} and one["manifest"]["substrate"] == "docker"
    base, = one["databases"]
    assert base["path"] == f"{into}/state/state/openclaw.sqlite" and _count(base["path"]) == 10
    assert (into / "state/note").read_text() == "hello" and stat.S_IMODE(into.stat().st_mode) == 0o700
    assert sorted(os.listdir(into)) == [".clawops", "state"]
    assert not (pathlib.Path(world.state) / "restored").exists()
    plan, result = go(extracts(world))
    assert not plan.changed and result["extracted"][0]["databases"] == [base]


def test_a_folder_with_something_else_is_refused(world):
    go(world.snapshots())
    go(extracts(world))
    go(world.snapshots())
    assert refused(extracts(world).plan).code == "target_not_empty"
    assert not extracts(world, until=at("2026-01-01T12:00:00Z")).plan().changed
    assert refused(extracts(world, until=at("2026-01-01T12:00:00Z"), roles=["config"]).plan).code == "target_not_empty"
    other = world.top / "other"
    other.mkdir()
    (other / "file").write_text("x")
    assert refused(extracts(world, into=str(other)).plan).code == "target_not_empty"
    assert refused(extracts(world, into=str(other / "file")).plan).code == "target_not_empty"


def test_a_killed_run_is_no_obstacle(world):
    go(world.snapshots())
    left = world.top / "look/alpha/.restore-alpha/half"
    left.mkdir(parents=True)
    assert go(extracts(world))[0].changed
    assert sorted(os.listdir(world.top / "look/alpha")) == [".clawops", "state"]


@pytest.mark.parametrize("change", [{"into": "look"}, {"into": "/a/../b"}, {"roles": []}])
def test_bad_wishes_for_a_folder(world, change):
    assert refused(lambda: extracts(world, **change)).code == "bad_value"


def test_folders_are_apart():
    extract.check_apart(["/a", "/b/a"])
    assert refused(lambda: extract.check_apart(["/a", "/a"])).code == "bad_value"
    assert refused(lambda: extract.check_apart(["/a", "/a/b"])).code == "bad_value"


def test_owners_may_be_numbers():
    assert extract.Owned("state", "/x", "4321").ids() == (4321, 4321)
    assert extract.Owned("state", "/x", "4321", "7").ids() == (4321, 7)
    assert extract.Owned("state", "/x", ME).ids() == host.Place("state", "/x", ME).ids()
    assert refused(extract.Owned("state", "/x", "4321", "staff").ids).code == "bad_value"


def test_targets_of_the_filters():
    bots = [{"name": "alpha", "password": "own", "exclude": ["x"]}]
    assert filters.extract_targets(bots, "/srv/look", time="2026-01-01T00:00:00Z") == [
        {"name": "alpha", "password": "own", "snapshot": "latest", "time": "2026-01-01T00:00:00Z",
         "into": "/srv/look/alpha"}]
    bot = {"name": "alpha", "user": "bot-alpha", "state_dir": "/s", "config_dir": "/c"}
    assert filters.restore_targets([bot], time="2026-01-01T00:00:00Z")[0]["time"] == "2026-01-01T00:00:00Z"
