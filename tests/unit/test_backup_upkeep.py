# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keys and their rights, retention, checks, repairs and passwords, on a bucket and a restic that are played."""

from __future__ import annotations

import datetime
import hashlib
import io
import json

import pytest
from ansible_collections.clawops.fleet.plugins.filter import backup as filters
from ansible_collections.clawops.fleet.plugins.filter import spaces
from ansible_collections.clawops.fleet.plugins.module_utils._backup import (
    arguments,
    bucket,
    minio,
    model,
    restic,
    rights,
    upkeep,
    verbs,
)
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._plan import Plan
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished
from ansible_collections.clawops.fleet.plugins.modules import backup_password
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

STORE = model.Store("http://s3.example.org:9000", "backups", "home")
NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.timezone.utc)
HOUR, DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)
PACK, BLOB = "5" * 64, "9" * 64
REST = Finished(0, "", "")


class ClientError(Exception):
    def __init__(self, code):
        self.response = {"Error": {"Code": code}}


class S3:
    """Objects with their dates, and what is set on the bucket."""

    def __init__(self):
        self.objects, self.settings, self.code, self.calls = {}, {}, None, []

    def put(self, key, body=b"", when=NOW):
        self.objects[key] = (body, when)

    def list_objects_v2(self, Bucket, Prefix="", **_more):
        if self.code:
            raise ClientError(self.code)
        found = [{"Key": key, "Size": len(body), "LastModified": when} for key, (body, when) in self.objects.items()
                 if key.startswith(Prefix)]
        return {"Contents": found, "ResponseMetadata": {"HTTPHeaders": {"date": NOW.strftime("%a, %d %b %Y %T GMT")}}}

    def put_object(self, Bucket, Key, Body):
        self.calls.append(("put", Key))
        self.put(Key, Body)

    def get_object(self, Bucket, Key):
        if Key not in self.objects:
            raise ClientError("NoSuchKey")
        return {"Body": io.BytesIO(self.objects[Key][0])}

    def delete_object(self, Bucket, Key):
        self.calls.append(("delete", Key))
        self.objects.pop(Key, None)

    def get_bucket_versioning(self, Bucket):
        return self.settings.get("versioning", {})

    def put_bucket_versioning(self, Bucket, VersioningConfiguration):
        self.settings["versioning"] = VersioningConfiguration

    def get_bucket_lifecycle_configuration(self, Bucket):
        if "rules" not in self.settings:
            raise ClientError("NoSuchLifecycleConfiguration")
        return {"Rules": self.settings["rules"]}

    def put_bucket_lifecycle_configuration(self, Bucket, LifecycleConfiguration):
        self.settings["rules"] = LifecycleConfiguration["Rules"]

    def get_object_lock_configuration(self, Bucket):
        if "lock" not in self.settings:
            raise ClientError("ObjectLockConfigurationNotFoundError")
        return {"ObjectLockConfiguration": self.settings["lock"]}

    def put_object_lock_configuration(self, Bucket, ObjectLockConfiguration):
        if not self.settings.get("lockable"):
            raise ClientError("InvalidBucketState")
        self.settings["lock"] = ObjectLockConfiguration


class Restic:
    """Snapshots, keys, and prepared answers; what it was asked stands in calls."""

    def __init__(self, s3):
        self.s3, self.calls, self.snapshots, self.remove = s3, [], [], []
        self.keys = {"k1": "old"}
        self.answers = {}

    def add(self, number, when, stored=None, run="r"):
        one = f"{number:08x}" + "0" * 56
        tags = ["fleet=home", "bot=alpha", "manifest=1", f"run={run}"]
        self.snapshots.append({"id": one, "time": when.isoformat(), "tags": tags, "paths": [], "hostname": "h"})
        self.s3.put(f"home/bots/alpha/snapshots/{one}", b"x", stored or when)
        return one

    def run(self, argv, env, timeout):
        place = argv[2] if argv[0] == "env" else None
        words = argv[3:] if place else argv
        words = [word for word in words[1:] if word not in ("--json", "--no-lock", "--quiet", restic.RETRY)]
        while words[0] == "-o":
            words = words[2:]
        self.calls.append((words, dict(env), place))
        for start, answer in self.answers.items():
            if " ".join(words).startswith(start):
                if isinstance(answer, Exception):
                    raise answer
                return answer
        return getattr(self, "do_" + words[0])(words[1:], env)

    def asked(self, verb):
        return [words for words, _env, _place in self.calls if words[0] == verb and "--dry-run" not in words]

    def do_version(self, words, env):
        return Finished(0, "restic 0.18.0 x", "")

    def do_snapshots(self, words, env):
        return Finished(0, json.dumps(self.snapshots), "")

    def do_forget(self, words, env):
        if words[0] == "--dry-run":
            going = [one for one in self.snapshots if one["id"] in self.remove]
            return Finished(0, json.dumps([{"remove": going}]), "")
        self.snapshots = [one for one in self.snapshots if one["id"] not in words]
        return REST

    def do_prune(self, words, env):
        return REST

    def do_check(self, words, env):
        return Finished(0, '{"message_type": "summary", "num_errors": 0, "broken_packs": null}', "")

    def do_find(self, words, env):
        found = {BLOB: "/s/big", "8" * 64: "/s/b"}
        rows = [{"id": blob, "path": path, "snapshot": "1" * 64} for blob, path in found.items()]
        return Finished(0, json.dumps(rows), "")

    def do_repair(self, words, env):
        if words[0] == "snapshots":
            old = self.snapshots.pop()
            self.add(99, datetime.datetime.fromisoformat(old["time"]), stored=NOW)
        return Finished(0, "said\n", "")

    def do_key(self, words, env):
        mine = next((key for key, password in self.keys.items() if password == env["RESTIC_PASSWORD"]), None)
        if mine is None:
            return Finished(12, "", "")
        if words[0] == "list":
            return Finished(0, json.dumps([{"id": key, "current": key == mine} for key in self.keys]), "")
        if words[0] == "add":
            with open(words[1].split("=", 1)[1], encoding="utf-8") as file:
                self.keys["k2"] = file.read()
        else:
            del self.keys[words[1]]
        return REST


class World:
    def __init__(self):
        self.s3 = S3()
        self.restic = Restic(self.s3)
        self.s3.put("home/bots/alpha/config")

    def bucket(self):
        return bucket.Bucket(STORE, self.s3)

    def access(self, bot="alpha", word="old"):
        keys = model.Keys("a", "b", word)
        marks = bucket.Marks(self.bucket, bot)
        return verbs.Access(bot, self.bucket, restic.Repository(STORE, bot, keys, self.restic, marks=marks))

    def retention(self, *bots, check=False, **rules):
        given = upkeep.Rules({"all": "7d"}, **{"keep_last": 1, **rules}).check()
        return upkeep.Retentions([self.access(bot) for bot in bots or ("alpha",)], given, check)

    def passwords(self, new="new", old="old"):
        change = upkeep.Exchange(self.access(word=new), self.access(word=old) if old else None)
        return upkeep.Passwords([change])

    def record(self):
        return json.loads(self.s3.objects["home/admin/bots/alpha.json"][0])


@pytest.fixture
def world():
    return World()


def go(verb):
    plan = verb.plan()
    return plan, verb.apply(plan) if plan.changed else verb.facts()


def _code(work):
    with pytest.raises(FleetError) as caught:
        work()
    return caught.value.code


# Retention

@pytest.mark.parametrize(("keep", "more"), [({}, {}), ({"all": "7"}, {}), ({"all": "week"}, {}), ({"hour": "7d"}, {}),
                                            ({"all": "7d"}, {"keep_last": 0}), ({"all": "7d"}, {"forget": ("12",)}),
                                            ({"all": "7d"}, {"accept": ("",)})])
def test_bad_rules_are_refused(keep, more):
    assert _code(lambda: upkeep.Rules(keep, **more).check()) == "bad_value"


def test_rules_as_restic_takes_them():
    rules = upkeep.Rules({"daily": "1m", "all": "7d", "yearly": "2y6m"}, 3).check()
    assert rules.arguments() == ["--keep-within=7d", "--keep-within-daily=1m", "--keep-within-yearly=2y6m",
                                 "--keep-last=3"]


def test_what_the_rules_let_go_is_forgotten_and_pruned_once(world):
    old, new = world.restic.add(1, NOW - 40 * DAY), world.restic.add(2, NOW - DAY)
    world.restic.remove = [old]
    plan, result = go(world.retention())
    assert [(one.subject, one.before, one.after) for one in plan.changes] == [("snapshots of alpha", 2, 1)]
    assert result["bots"][0]["removed"] == [old] and result["bots"][0]["kept"] == 1
    assert world.restic.asked("forget") == [["forget", old]] and world.restic.asked("prune") == [["prune"]]
    assert world.record() == {"known": [new], "accepted": [], "pruned": True}
    plan, result = go(world.retention())
    assert not plan.changed and len(world.restic.asked("prune")) == 1


def test_check_mode_tells_and_does_nothing(world):
    world.restic.remove = [world.restic.add(1, NOW - 40 * DAY)]
    world.restic.add(2, NOW)
    verb = world.retention(check=True)
    assert verb.plan().changed and verb.facts()["bots"][0]["removed"] == world.restic.remove
    assert not world.restic.asked("forget") and not world.s3.calls


@pytest.mark.parametrize(("when", "stored"), [(NOW + 2 * HOUR, NOW), (NOW - 30 * DAY, NOW), (NOW - DAY, NOW - 9 * DAY)])
def test_a_snapshot_that_lies_about_its_date_stops_all(world, when, stored):
    world.restic.remove = [world.restic.add(1, NOW - 40 * DAY)]
    world.restic.add(2, NOW - DAY)
    world.restic.add(0xbad, when, stored)
    with pytest.raises(FleetError, match="00000bad is dated") as caught:
        go(world.retention())
    assert caught.value.code == "history_suspect" and not world.restic.asked("forget")


def test_a_suspect_is_forgotten_by_name_or_vouched_for(world):
    world.restic.add(1, NOW - HOUR)
    bad = world.restic.add(0xbad, NOW - 30 * DAY, stored=NOW)
    assert not go(world.retention(accept=("00000bad",)))[0].changed
    plan, result = go(world.retention(forget=("00000bad",)))
    assert plan.changed and result["bots"][0]["removed"] == [bad]


def test_what_a_person_vouched_for_is_remembered(world):
    world.restic.remove = [world.restic.add(1, NOW - 40 * DAY)]
    world.restic.add(0xbad, NOW - 30 * DAY, stored=NOW)
    go(world.retention(accept=("00000bad",)))
    assert not go(world.retention())[0].changed


def test_dates_count_for_nothing_in_a_bucket_that_was_copied(world):
    world.restic.add(1, NOW - 30 * DAY, stored=NOW)
    assert _code(lambda: go(world.retention())) == "history_suspect"
    assert not go(world.retention(trust_dates=True))[0].changed


def test_a_history_that_shrank_by_itself_is_not_pruned(world):
    world.restic.remove = [world.restic.add(1, NOW - 40 * DAY)]
    two = world.restic.add(2, NOW - 2 * DAY)
    world.restic.add(3, NOW)
    go(world.retention())
    world.restic.snapshots = [one for one in world.restic.snapshots if one["id"] != two]
    with pytest.raises(FleetError, match="00000002 is gone"):
        go(world.retention())
    assert not go(world.retention(accept=("00000002",)))[0].changed


def test_a_sound_snapshot_that_is_marked_later_is_not_pruned(world):
    world.restic.remove = [world.restic.add(1, NOW - 40 * DAY)]
    world.restic.add(2, NOW, run="two")
    go(world.retention())
    world.s3.put("home/bots/alpha/rejected/two")
    with pytest.raises(FleetError, match="00000002 counted before"):
        go(world.retention())


def test_incomplete_ones_go_first_and_the_rules_come_next_time(world):
    old, new = world.restic.add(1, NOW - 40 * DAY), world.restic.add(3, NOW)
    half = world.restic.add(2, NOW - HOUR, run="half")
    world.s3.put("home/bots/alpha/rejected/half")
    world.restic.remove = [old]
    assert go(world.retention())[1]["bots"][0]["removed"] == [half]
    assert "home/bots/alpha/rejected/half" not in world.s3.objects
    assert go(world.retention())[1]["bots"][0]["removed"] == [old]
    assert [one["id"] for one in world.restic.snapshots] == [new]


def test_a_restic_that_would_take_too_much_is_stopped(world):
    world.restic.remove = [world.restic.add(1, NOW), world.restic.add(2, NOW)]
    assert _code(lambda: go(world.retention())) == "too_much"


def test_a_prune_that_was_cut_short_is_taken_up_again(world):
    world.restic.remove = [world.restic.add(1, NOW - 40 * DAY)]
    world.restic.add(2, NOW)
    world.restic.answers["prune"] = Finished(1, "", "connection reset")
    assert _code(lambda: go(world.retention())) == "unreachable"
    assert world.record()["pruned"] is False
    world.restic.answers.clear()
    plan, _result = go(world.retention())
    assert plan.changed and len(world.restic.asked("forget")) == 1 and world.record()["pruned"]
    assert not go(world.retention())[0].changed


def test_a_forget_that_was_cut_short_is_no_tampering(world):
    world.restic.remove = [world.restic.add(1, NOW - 40 * DAY)]
    world.restic.add(2, NOW)
    world.restic.answers["forget 0"] = Finished(1, "", "connection reset")
    assert _code(lambda: go(world.retention())) == "unreachable"
    world.restic.answers.clear()
    assert go(world.retention())[1]["bots"][0]["removed"] == world.restic.remove


def test_the_trouble_of_one_bot_stops_no_other(world):
    world.s3.put("home/bots/bravo/config")
    world.restic.add(1, NOW + DAY)
    verb = world.retention("alpha", "bravo", "charlie")
    world.restic.do_snapshots = lambda words, env: Finished(0, json.dumps(
        world.restic.snapshots if "/alpha/" in env["RESTIC_REPOSITORY"] else []), "")
    with pytest.raises(FleetError) as caught:
        go(verb)
    assert caught.value.details["done"] == ["bravo", "charlie"]
    assert [one["exists"] for one in caught.value.details["bots"]] == [True, False]


# Checks

def test_a_sound_repository(world):
    result = upkeep.Checks([world.access(), world.access("bravo")], upkeep.Reading("all")).run()
    assert [(one["bot"], one["exists"], one["sound"]) for one in result["bots"]] == [
        ("alpha", True, True), ("bravo", False, True)]
    assert world.restic.asked("check") == [["check", "--read-data-subset=1/1"]]


def test_damage_is_named(world):
    words = {"message_type": "error", "message": f"pack {PACK} contains 1 errors: [blob {BLOB}: failed]"}
    world.restic.answers["check"] = Finished(1, json.dumps({"message_type": "summary", "broken_packs": [PACK]}),
                                             json.dumps(words))
    with pytest.raises(FleetError) as caught:
        upkeep.Checks([world.access()], upkeep.Reading("part")).run()
    error = caught.value
    assert error.code == "repository_damaged" and PACK in error.message
    assert error.details["packs"] == [PACK] and error.details["files"] == ["/s/big of snapshot 11111111"]
    assert error.details["bots"][0]["sound"] is False


@pytest.mark.parametrize(("rc", "code"), [(11, "repository_locked"), (12, "wrong_password"), (1, "restic_failed")])
def test_a_check_that_can_not_be_done_is_no_damage(world, rc, code):
    world.restic.answers["check"] = Finished(rc, "", "")
    assert _code(upkeep.Checks([world.access()], upkeep.Reading("none")).run) == code


def test_every_part_has_its_day():
    first = datetime.date(2026, 1, 30)
    parts = [upkeep.part_of_day(30, first + number * DAY) for number in range(30)]
    assert sorted(parts) == list(range(1, 31))


@pytest.mark.parametrize("given", [("part", 0, None), ("part", 300, None), ("part", 10, 11), ("part", 10, 0)])
def test_bad_parts_are_refused(given):
    assert _code(lambda: upkeep.Reading(*given).check()) == "bad_value"


# Repairs

def test_stale_locks_go_and_living_ones_stay(world):
    world.s3.put("home/bots/alpha/locks/dead", when=NOW - datetime.timedelta(minutes=31))
    world.s3.put("home/bots/alpha/locks/living", when=NOW - datetime.timedelta(minutes=29))
    verb = upkeep.Repairs([world.access(), world.access("bravo")], ["unlock"], [], "/place")
    plan, result = go(verb)
    assert [(one.subject, one.before) for one in plan.changes] == [("locks of alpha", ["dead"])]
    assert result["bots"][0]["removed_locks"] == ["dead"] and result["bots"][1]["exists"] is False
    assert world.s3.calls == [("delete", "home/bots/alpha/locks/dead")]
    assert [lock["stale"] for lock in result["bots"][0]["locks"]] == [False]
    assert not go(upkeep.Repairs([world.access()], ["unlock"], [], "/place"))[0].changed


def test_a_repaired_snapshot_is_no_tampering(world):
    world.restic.remove = [world.restic.add(1, NOW - 40 * DAY)]
    world.restic.add(2, NOW - 3 * DAY)
    go(world.retention())
    result = go(upkeep.Repairs([world.access()], ["index", "snapshots"], [], "/place"))[1]
    assert result["bots"][0]["repaired"] == [f"{99:08x}" + "0" * 56]
    assert not go(world.retention())[0].changed


def test_packs_are_repaired_where_their_copies_shall_lie(world, tmp_path):
    go(upkeep.Repairs([world.access()], ["packs"], [PACK], str(tmp_path)))
    assert world.restic.calls[-2][0] == ["repair", "packs", PACK] and world.restic.calls[-2][2] == f"{tmp_path}/alpha"
    assert (tmp_path / "alpha").stat().st_mode & 0o777 == 0o700


def _version(name, hours, etag="e", latest=False):
    """One version, or with no ETag the mark of a deletion, so many hours after the time to go back to."""
    entry = {"Key": f"home/bots/alpha/{name}", "VersionId": f"{name}@{hours}", "LastModified": NOW + hours * HOUR,
             "IsLatest": latest}
    return {**entry, "ETag": etag} if etag else entry


@pytest.mark.parametrize(("versions", "change"), [
    ([_version("data/1", -2)], None),
    ([_version("data/1", -2), _version("data/1", 1, "bad")], ("data/1", "data/1@-2")),
    ([_version("data/1", -2), _version("data/1", 1, None)], ("data/1", "data/1@-2")),
    ([_version("data/1", -2), _version("data/1", 1, None), _version("data/1", 2)], None),
    ([_version("data/1", 1)], ("data/1", None)),
    ([_version("data/1", 1), _version("data/1", 2, None)], None),
    ([_version("data/1", -3), _version("data/1", -2, None)], None),
    ([_version("data/1", -3), _version("data/1", -2, None), _version("data/1", 1)], ("data/1", None)),
    ([_version("data/1", -3), _version("data/1", -2, "new"), _version("data/1", 1, "bad")], ("data/1", "data/1@-2")),
    ([_version("locks/1", -3), _version("locks/1", 1, None)], None),
])
def test_an_object_becomes_what_it_was(world, versions, change):
    pages = [{"Versions": [one for one in versions if "ETag" in one], "IsTruncated": True, "NextKeyMarker": "k",
              "NextVersionIdMarker": "v"}, {"DeleteMarkers": [one for one in versions if "ETag" not in one]}]
    world.s3.list_object_versions = lambda **_more: pages.pop(0)
    found = upkeep._changes(world.bucket(), "home/bots/alpha/", NOW)
    assert [(one.key[len("home/bots/alpha/"):], one.version) for one in found] == ([change] if change else [])


def test_a_rewound_history_is_no_tampering(world):
    old = world.restic.add(1, NOW - 3 * DAY)
    name, copies = f"snapshots/{old}", []
    world.s3.list_object_versions = lambda **_more: {"Versions": [_version(name, -9)], "DeleteMarkers": [
        _version(name, 1, None)]}
    world.s3.copy_object = lambda Bucket, Key, CopySource, MetadataDirective: (
        copies.append(CopySource["VersionId"]), world.s3.put(Key, b"x", NOW))
    rewind = upkeep.Repairs([world.access()], ["rewind"], [], "/place", rewind="2026-06-01T12:00:00Z")
    plan, result = go(rewind)
    assert [(one.subject, one.after) for one in plan.changes] == [("objects of alpha", 1)]
    assert copies == [f"{name}@-9"] and result["bots"][0]["rewound"] == 1
    assert not go(world.retention())[0].changed


@pytest.mark.parametrize(("steps", "when"), [(["rewind"], None), (["unlock"], "2026-06-01T12:00:00Z"),
                                             (["rewind"], "yesterday"), (["rewind"], "2026-06-01T12:00:00")])
def test_a_point_in_time_has_a_zone(world, steps, when):
    assert _code(lambda: upkeep.Repairs([world.access()], steps, [], "/place", rewind=when)) == "bad_value"


@pytest.mark.parametrize(("steps", "packs"), [(["packs"], []), (["unlock"], [PACK]), (["packs"], ["../x"])])
def test_packs_and_their_step_belong_together(world, steps, packs):
    assert _code(lambda: upkeep.Repairs([world.access()], steps, packs, "/place")) == "bad_value"


# Passwords

def test_a_password_is_changed_once(world):
    world.restic.keys["escrow"] = "somebody else's"
    plan, result = go(world.passwords())
    assert [one.subject for one in plan.changes] == ["new key of alpha", "old key of alpha"]
    assert world.restic.keys == {"escrow": "somebody else's", "k2": "new"} and result["bots"][0]["key"] == "k2"
    assert not go(world.passwords())[0].changed
    assert not any("new" in word or "old" in word for words, _env, _place in world.restic.calls for word in words
                   if not word.startswith("--new-password-file=/proc/"))


def test_a_change_that_was_cut_short_is_finished(world):
    world.restic.keys["k2"] = "new"
    assert [one.subject for one in go(world.passwords())[0].changes] == ["old key of alpha"]
    assert world.restic.keys == {"k2": "new"}


def test_the_old_key_stays_when_the_new_one_does_not_open(world):
    world.restic.answers["key add"] = REST
    assert _code(lambda: go(world.passwords())) == "key_failed"
    assert world.restic.keys == {"k1": "old"}


def test_two_wrong_passwords_change_nothing(world):
    assert _code(lambda: go(world.passwords("x", "y"))) == "wrong_password"
    assert _code(lambda: go(world.passwords("x", None))) == "wrong_password"
    assert world.restic.keys == {"k1": "old"}


def test_the_same_password_is_no_change(world):
    assert not go(world.passwords("old", "old"))[0].changed
    assert world.restic.keys == {"k1": "old"}


# Rights

class Minio:
    """An administrator's MinIO in memory."""

    def __init__(self):
        self.access_key, self.users, self.policies, self.calls = "root", {}, {}, []

    def policy(self, name):
        return self.policies.get(name)

    def user(self, key):
        return self.users.get(key)

    def put_policy(self, name, document):
        self.calls.append("policy")
        self.policies[name] = {"Version": document["Version"], "Statement": [
            {**one, "Action": sorted(one["Action"])} for one in reversed(document["Statement"])]}

    def put_user(self, key, secret):
        self.calls.append("user")
        self.users[key] = {"status": "enabled", "secret": secret}

    def attach(self, key, policy):
        self.calls.append("attach")
        self.users[key]["policyName"] = policy

    def remove_user(self, key):
        self.users.pop(key)


def _rights(cloud, word="s", revoke=(), **keys):
    def opener(key, given):
        def opened():
            s3 = S3()
            s3.code = None if cloud.users.get(key, {}).get("secret") == given else "SignatureDoesNotMatch"
            return bucket.Bucket(STORE, s3)
        return opened

    holders = [rights.holder(STORE, bot, key, word, opener(key, word))
               for bot, key in (keys or {"alpha": "a", "bravo": "b"}).items()]
    holders.append(rights.pruner(STORE, "p", "ps", opener("p", "ps")))
    return rights.Rights(cloud, holders, revoke)


def _settle(one):
    plan = Plan()
    pending = one.plan(plan)
    one.apply(plan)
    return plan, pending


def test_keys_are_made_once():
    cloud = Minio()
    plan, pending = _settle(_rights(cloud))
    assert pending == {"bot alpha", "bot bravo", "pruning"} and plan.changed
    assert cloud.users["a"]["policyName"] == "clawops.home.bot.alpha.backups"
    assert cloud.users["p"]["policyName"] == "clawops.home.prune.backups"
    plan, pending = _settle(_rights(cloud))
    assert not plan.changed and not pending


def test_a_new_secret_a_bent_policy_and_a_disabled_user_are_put_right():
    cloud = Minio()
    _settle(_rights(cloud))
    cloud.users["b"]["status"] = "disabled"
    cloud.policies["clawops.home.prune.backups"]["Statement"][0]["Action"] = ["s3:*"]
    plan, _pending = _settle(_rights(cloud, word="other"))
    assert [one.subject for one in plan.changes] == ["S3 key of bot alpha", "S3 key of bot bravo",
                                                     "policy clawops.home.prune.backups"]
    assert not _settle(_rights(cloud, word="other"))[0].changed
    assert "other" not in json.dumps([plan.result(), repr(_rights(cloud, word="other").holders)])


def test_old_keys_are_revoked():
    cloud = Minio()
    _settle(_rights(cloud))
    _settle(_rights(cloud, alpha="a2", bravo="b", revoke=["a"]))
    assert set(cloud.users) == {"a2", "b", "p"}
    assert not _settle(_rights(cloud, alpha="a2", bravo="b", revoke=["a"]))[0].changed


@pytest.mark.parametrize("keys", [{"alpha": "same", "bravo": "same"}, {"alpha": "root"}, {"alpha": "p"}])
def test_a_key_belongs_to_one_holder(keys):
    assert _code(lambda: _rights(Minio(), **keys)) == "bad_value"


def test_keys_in_use_are_not_revoked():
    assert _code(lambda: _rights(Minio(), revoke=["a"])) == "bad_value"


def test_a_bot_and_a_guest_of_one_name_have_two_policies():
    guest = model.Store("http://s3.example.org:9000", "backups", "home", kind="vm")
    names = {rights.holder(store, "alpha", "a", "s", list).policy_name for store in (STORE, guest)}
    assert len(names) == 2


def test_what_is_sealed_can_be_opened_with_the_secret_alone():
    raw = minio.seal("admin-secret", b"planted")
    salt, method, nonce, rest = raw[:32], raw[32], raw[33:41], raw[41:]
    cipher = AESGCM(hashlib.pbkdf2_hmac("sha256", b"admin-secret", salt, 8192, 32))
    bound = b"\x80" + cipher.encrypt(nonce + bytes(4), b"", b"")
    assert method == 2 and cipher.decrypt(nonce + b"\x01\0\0\0", rest, bound) == b"planted"


@pytest.mark.parametrize(("status", "text", "code"), [
    (403, '{"Code": "AccessDenied"}', "wrong_admin_key"), (404, "<xml/>", "no_admin_api"),
    (400, '{"Code": "XMinioAdminInvalidSecretKey"}', "minio_failed")])
def test_each_refusal_of_minio_has_its_own_error(monkeypatch, status, text, code):
    monkeypatch.setattr(minio, "send", lambda *_words: (status, text))
    assert _code(lambda: minio.Admin(STORE, "root", "secret").put_user("a", "s")) == code


def test_nothing_is_an_answer(monkeypatch):
    monkeypatch.setattr(minio, "send", lambda *_words: (404, '{"Code": "XMinioAdminNoSuchUser"}'))
    assert minio.Admin(STORE, "root", "secret").user("a") is None


# Keys that are yet to be made

@pytest.mark.parametrize("verb", ["repositories", "passwords", "repairs", "retentions", "snapshots"])
def test_check_mode_says_what_keys_are_yet_to_be_made(world, verb):
    def made(check):
        if verb == "repositories":
            return verbs.Repositories([world.access()], STORE, True, check)
        if verb == "passwords":
            return upkeep.Passwords([upkeep.Exchange(world.access(), None)], check_mode=check)
        if verb == "repairs":
            return upkeep.Repairs([world.access()], ["unlock"], [], "/place", check_mode=check)
        if verb == "retentions":
            return world.retention(check=check)
        source = type("Source", (), {"observe": lambda _self: {}})()
        return verbs.Snapshots([verbs.Job(world.access(), source)], "here", check)

    world.s3.code = "InvalidAccessKeyId"
    plan = made(True).plan()
    assert plan.changed and not plan.complete and "backup_keys" in plan.unseen[0]
    assert _code(lambda: go(made(False))) == "wrong_key"
    # A key that is known and has another secret is wrong, whatever comes.
    world.s3.code = "SignatureDoesNotMatch"
    one = made(True)
    assert _code(lambda: (one.plan(), one.facts())) == "wrong_key"


def test_check_mode_says_that_settings_of_the_bucket_wait_for_a_key(world):
    history = rights.History(world.bucket, STORE, rights.Keep(versioning=True))
    world.s3.code = "InvalidAccessKeyId"
    plan = verbs.Repositories([world.access()], STORE, True, True, history=history).plan()
    assert not plan.complete
    # Who has the administrator's key makes the others, so that this one is wrong.
    makes = rights.Rights(Minio(), [])
    assert _code(verbs.Repositories([world.access()], STORE, True, True, rights=makes).plan) == "wrong_key"


# The bucket's settings

def _keep(world, **keep):
    history, plan = rights.History(world.bucket, STORE, rights.Keep(**keep).check()), Plan()
    history.plan(plan, bucket_missing=False)
    history.apply(plan)
    return plan


def test_versions_are_kept_for_a_time_and_rules_of_others_stay(world):
    world.s3.settings["rules"] = [{"ID": "theirs"}]
    assert _keep(world, versioning=True, keep_deleted=30).changed
    assert world.s3.settings["versioning"] == {"Status": "Enabled"}
    assert [rule["ID"] for rule in world.s3.settings["rules"]] == ["theirs", "clawops.home"]
    assert not _keep(world, versioning=True, keep_deleted=30).changed
    _keep(world, versioning=True, keep_deleted=7)
    assert len(world.s3.settings["rules"]) == 2
    assert _keep(world, versioning=False).changed and not _keep(world, versioning=False).changed


def test_locks_of_objects(world):
    assert _code(lambda: _keep(world, lock_mode="governance", lock_days=7)) == "no_object_lock"
    world.s3.settings["lockable"] = True
    _keep(world, lock_mode="governance", lock_days=7)
    assert not _keep(world, lock_mode="governance", lock_days=7).changed


@pytest.mark.parametrize("keep", [{"keep_deleted": 30}, {"versioning": True, "keep_deleted": 0},
                                  {"lock_mode": "compliance"}, {"versioning": False, "lock_mode": "x", "lock_days": 1}])
def test_settings_that_make_no_sense_are_refused(keep):
    assert _code(lambda: rights.Keep(**keep).check()) == "bad_value"


# Arguments and filters

PARAMS = {"admin_access_key": "root", "admin_secret_key": "rs", "prune_access_key": None, "prune_secret_key": None,
          "revoke": [], "access_key": "fleet", "secret_key": "fs", "versioning": None, "keep_deleted": None,
          "object_lock": None, "bots": [{"name": "alpha", "access_key": "a", "secret_key": "s"},
                                        {"name": "bravo", "access_key": None, "secret_key": None}]}


def test_keys_are_made_for_bots_that_have_one_of_their_own():
    found = arguments.rights(PARAMS, STORE)
    assert [holder.name for holder in found.holders] == ["bot alpha"]
    assert arguments.rights({**PARAMS, "admin_access_key": None, "admin_secret_key": None}, STORE) is None


@pytest.mark.parametrize("change", [{"admin_secret_key": ""}, {"prune_access_key": "p"}])
def test_half_a_key_is_refused(change):
    assert _code(lambda: arguments.rights({**PARAMS, **change}, STORE)) == "half_a_key"


def test_accounts_of_bots():
    hostvars = [{"inventory_hostname": "alpha", "bot_on": "x", "bot_backup_access_key": "a",
                 "bot_backup_secret_key": "s", "bot_backup_password": "p", "bot_backup_previous_password": "q",
                 "bot_backup": {"exclude": ["x"]}},
                {"inventory_hostname": "bravo", "bot_backup": {"enabled": False}},
                {"inventory_hostname": "carol", "bot_backup": {"password": "c"}}]
    alpha, carol = filters.backup_accounts(hostvars)
    assert alpha == {"name": "alpha", "access_key": "a", "secret_key": "s", "password": "p"}
    assert carol == {"name": "carol", "password": "c"}
    known = {one["inventory_hostname"]: one for one in hostvars}
    assert filters.backup_previous([alpha, carol], known, "bot_backup") == [{**alpha, "previous_password": "q"}, carol]
    assert filters.backup_secrets([alpha], "password") == [{"name": "alpha", "password": "p"}]


def test_a_report_has_a_row_for_every_bot():
    taken = {"bot": "alpha", "snapshot": "0", "bytes": 3 << 20, "bytes_added": 0, "duration": 2.0, "files": 1}
    failed = [{"bot": "bravo", "code": "disk_full", "message": "no room"}]
    one = {"failed": True, "failure": {"message": "2 failed", "details": {"failed": failed, "snapshots": [taken]}}}
    rows = filters.backup_rows(["alpha", "bravo", "carol"], "alder", {}, one)
    assert [(row["bot"], row["ok"], row.get("why")) for row in rows] == [
        ("alpha", True, None), ("bravo", False, "no room"), ("carol", False, "2 failed")]
    assert filters.backup_table(rows) == [
        "BOT    HOST   RESULT  SIZE   ADDED  SECONDS", "alpha  alder  ok      3 MiB  0 B    2",
        "bravo  alder  FAILED  -      -      -", "carol  alder  FAILED  -      -      -",
        "bravo (alder): no room", "carol (alder): 2 failed"]
    gone = filters.backup_rows(["alpha"], "alder", {}, {"unreachable": True, "msg": "no route"})
    assert gone[0]["why"] == "no route"
    assert filters.backup_rows(["alpha"], "alder", {"snapshots": [taken]})[0]["ok"]


def test_accounts_of_guests():
    hostvars = [{"inventory_hostname": "zap", "vm_backup": {"enabled": True, "password": "p", "other": 1}},
                {"inventory_hostname": "zip", "vm_backup": {"password": "p"}}, {"inventory_hostname": "zop"}]
    assert filters.backup_guests(hostvars) == [{"name": "zap", "password": "p"}]


def test_what_spaces_had_before():
    settings = {"password": "p", "previous_password": "q", "previous_access_key": "k"}
    known = {"web": {"inventory_hostname": "web", "space_backup": settings}}
    taken = spaces.space_backups(known.values())
    assert taken == [{"name": "web", "password": "p"}]
    assert filters.backup_previous(taken, known, "space_backup") == [{"name": "web", **settings}]


def test_passwords_of_spaces_change_too():
    own = dict.fromkeys(("access_key", "secret_key", "password", "previous_password"))
    params = {"endpoint": "http://s3.example.org", "bucket": "backups", "region": "us-east-1", "ca_cert": None,
              "fleet": "home", "access_key": "a", "secret_key": "s", "password": "new", "restic": "restic",
              "timeout": 9, "parallel": 1, "previous_password": "old", "bots": None, "vms": None,
              "spaces": [{"name": "web", **own}]}
    (change,) = backup_password.passwords(params, check_mode=False).changes.values()
    assert change.access.store.url("web").endswith("/home/spaces/web/")
    assert change.previous.repository.password == "old"
