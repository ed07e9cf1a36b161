# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import pwd
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import types

import pytest
from ansible_collections.clawops.fleet.plugins.filter import backup as filters
from ansible_collections.clawops.fleet.plugins.module_utils._backup import (
    arguments,
    bucket,
    copier,
    host,
    model,
    restic,
    sqlite,
    verbs,
)
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished

STORE = model.Store("http://s3.example.org:9000", "backups", "home")
KEYS = model.Keys("the-access", "the-secret", "the-password")
ME = pwd.getpwuid(os.geteuid()).pw_name
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Restic:
    """A runner that plays restic on a directory: one snapshot is a copy of the paths, less what is excluded."""

    def __init__(self, place: pathlib.Path) -> None:
        self.place, self.calls, self.code = place, [], 0
        self.snapshots: list[dict] = []

    def run(self, argv, env, timeout):
        self.calls.append((list(argv), dict(env)))
        words = [word for word in argv[1:] if word != "--json"]
        while words[0] in ("-o", "--cacert"):
            words = words[2:]
        words = [word for word in words if word != "--no-lock"]
        return getattr(self, "do_" + words[0])(words[1:])

    def do_version(self, words):
        return Finished(0, "restic 0.18.0 compiled with go", "")

    def do_cat(self, words):
        return Finished(0, '{"id": "abc"}', "")

    def do_init(self, words):
        return Finished(0, '{"message_type": "initialized", "id": "new"}', "")

    def do_unlock(self, words):
        return Finished(0, "", "")

    def do_backup(self, words):
        if self.code not in (0, 3):
            return Finished(self.code, "", '{"message_type": "exit_error", "message": "Fatal: no"}')
        paths, name = words[words.index("--") + 1:], f"{len(self.snapshots):064x}"
        exclude = {word.split("=", 1)[1] for word in words if word.startswith("--exclude=")}
        tags = [words[at + 1] for at, word in enumerate(words) if word == "--tag"]
        for path in paths:
            shutil.copytree(path, f"{self.place}/{name}{path}", symlinks=True, ignore=lambda where, names: [
                one for one in names if restic.pattern(os.path.join(where, one)) in exclude])
        self.snapshots.append({"id": name, "time": f"2026-01-0{len(self.snapshots) + 1}T00:00:00.123456789Z",
                               "hostname": "h", "tags": tags, "paths": paths})
        summary = {"message_type": "summary", "snapshot_id": name, "total_files_processed": 1,
                   "total_bytes_processed": 2, "data_added": 3}
        return Finished(self.code, json.dumps(summary), '{"error": {"message": "denied"}, "item": "/x"}')

    def do_snapshots(self, words):
        wanted = set(words[words.index("--tag") + 1].split(","))
        return Finished(0, json.dumps([one for one in self.snapshots if wanted <= set(one["tags"])]), "")

    def do_forget(self, words):
        self.snapshots = [one for one in self.snapshots if one["id"] != words[0]]
        return Finished(0, "", "")

    def do_dump(self, words):
        return Finished(0, pathlib.Path(f"{self.place}/{words[0]}{words[1]}").read_text(), "")

    def do_restore(self, words):
        source, target = f"{self.place}/{words[-1]}", words[words.index("--target") + 1]
        for path in (word.split("=", 1)[1] for word in words if word.startswith("--include=")):
            copy = shutil.copytree if os.path.isdir(source + path) else shutil.copy2
            os.makedirs(os.path.dirname(target + path), exist_ok=True)
            copy(source + path, target + path, **({"symlinks": True} if copy is shutil.copytree else {}))
        return Finished(0, "", "")


class S3:
    """The calls of the client that the code makes, on a set of keys."""

    def __init__(self, keys=(), error=None):
        self.keys, self.error, self.bodies = set(keys), error, {}

    def list_objects_v2(self, Bucket, Prefix, **_more):
        if self.error:
            raise self.error
        return {"Contents": [{"Key": key} for key in sorted(self.keys) if key.startswith(Prefix)]}

    def create_bucket(self, Bucket, **more):
        self.error, self.more = None, more

    def put_object(self, Bucket, Key, Body):
        self.keys.add(Key)
        self.bodies[Key] = Body

    def get_object(self, Bucket, Key):
        if Key not in self.bodies:
            raise ClientError("NoSuchKey")
        return {"Body": io.BytesIO(self.bodies[Key])}

    def delete_object(self, Bucket, Key):
        self.keys.discard(Key)
        self.bodies.pop(Key, None)


class ClientError(Exception):
    def __init__(self, code):
        self.response = {"Error": {"Code": code}}


@dataclasses.dataclass
class World:
    top: pathlib.Path
    restic: Restic
    s3: S3

    @property
    def state(self):
        return str(self.top / "lib")

    def access(self, bot="alpha"):
        marks = bucket.Marks(self.bucket, bot)
        return verbs.Access(bot, self.bucket, restic.Repository(STORE, bot, KEYS, self.restic, marks=marks))

    def bucket(self):
        return bucket.Bucket(STORE, self.s3)

    def source(self, bot="alpha", exclude=()):
        trees = [host.Tree("state", str(self.top / "bots" / bot), tuple(exclude))]
        return host.HostSource(bot, "home", "h", trees, state=self.state)

    def snapshots(self, *bots, check=False):
        jobs = [verbs.Job(self.access(bot), self.source(bot)) for bot in bots or ("alpha",)]
        return verbs.Snapshots(jobs, "h", check)

    def restores(self, bot="alpha", check=False, overwrite=False, snapshot="latest", **options):
        places = [host.Place("state", str(self.top / "new" / bot), ME)]
        target = host.HostTarget(bot, places, state=self.state, **options)
        return verbs.Restores([verbs.Wish(self.access(bot), target, snapshot, overwrite)], check)


def go(verb):
    plan = verb.plan()
    return plan, verb.apply(plan) if plan.changed else verb.facts()


@pytest.fixture
def world(tmp_path):
    found = World(tmp_path, Restic(tmp_path / "store"), S3({"home/bots/alpha/config", "home/bots/beta/config"}))
    for bot in ("alpha", "beta"):
        (tmp_path / "bots" / bot / "state").mkdir(parents=True)
        (tmp_path / "bots" / bot / "note").write_text("hello")
        _database(tmp_path / "bots" / bot / "state/openclaw.sqlite", 10)
    return found


def _database(path, rows):
    with contextlib.closing(sqlite3.connect(path)) as base:
        base.execute("create table t(a)")
        base.executemany("insert into t values(?)", [(number,) for number in range(rows)])
        base.commit()


def _count(path):
    with contextlib.closing(sqlite3.connect(path)) as base:
        return base.execute("select count(*) from t").fetchone()[0]


def _code(work):
    with pytest.raises(FleetError) as caught:
        work()
    return caught.value.code


# The model

def test_secrets_show_in_no_repr():
    assert "the-" not in repr(KEYS)


@pytest.mark.parametrize("name", ["access_key", "secret_key", "password"])
def test_empty_secrets_are_refused(name):
    assert _code(lambda: dataclasses.replace(KEYS, **{name: " "}).check("alpha")) == f"empty_{name}"


@pytest.mark.parametrize("change", [{"endpoint": "s3.example.org"}, {"endpoint": "http://a/b"}, {"bucket": "No"},
                                    {"endpoint": "http://user@host"}, {"fleet": "../x"}])
def test_a_bad_store_is_refused(change):
    assert _code(lambda: dataclasses.replace(STORE, **change).check()) == "bad_value"


def _manifest(**changes):
    database = {"path": "state/a.sqlite", "copy": "sqlite/0/0", "sha256": "x", "size": 1, "uid": 0, "gid": 0,
                "mode": 384}
    part = {"role": "state", "path": "/srv/alpha", "mode": 448,
            "owner": {"user": "bot", "uid": 7, "group": "bot", "gid": 7},
            "databases": [{**database, **changes.pop("database", {})}]}
    return json.dumps({"version": 1, "fleet": "home", "bot": "alpha", "host": "h", "substrate": "docker_host",
                       "bot_version": "1", "created": "now", "run": "r", "parts": [{**part, **changes.pop("part", {})}],
                       **changes})


def test_a_manifest_survives_the_round():
    manifest = model.Manifest.from_json(_manifest())
    assert model.Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(("changes", "code"), [
    ({"version": 2}, "manifest_version"),
    ({"surprise": 1}, "manifest_damaged"),
    ({"part": {"path": "/srv/../etc"}}, "unsafe_snapshot"),
    ({"part": {"path": "etc"}}, "unsafe_snapshot"),
    ({"part": {"path": "/"}}, "unsafe_snapshot"),
    ({"part": {"role": "root"}}, "unsafe_snapshot"),
    ({"database": {"path": "../x"}}, "unsafe_snapshot"),
    ({"database": {"path": "/x"}}, "unsafe_snapshot"),
    ({"database": {"copy": "../manifest.json"}}, "unsafe_snapshot"),
])
def test_a_manifest_is_foreign_data(changes, code):
    assert _code(lambda: model.Manifest.from_json(_manifest(**changes))) == code


def test_text_that_is_no_manifest():
    assert _code(lambda: model.Manifest.from_json("[]")) == "manifest_damaged"


# The bucket

@pytest.mark.parametrize(("sdk", "code"), [
    ("NoSuchBucket", "bucket_missing"), ("InvalidAccessKeyId", "wrong_key"), ("SignatureDoesNotMatch", "wrong_key"),
    ("AccessDenied", "wrong_key"), ("RequestTimeTooSkewed", "wrong_clock"), ("PermanentRedirect", "wrong_region"),
    ("XMinioStorageFull", "bucket_full"), ("ServiceUnavailable", "unreachable"), ("404", "not_s3"),
    ("Odd", "s3_failed"),
])
def test_each_answer_has_its_own_error(sdk, code):
    assert bucket.explain(ClientError(sdk), STORE).code == code


@pytest.mark.parametrize(("kind", "code"), [("SSLError", "wrong_certificate"), ("ConnectTimeoutError", "unreachable"),
                                            ("EndpointConnectionError", "unreachable")])
def test_each_failure_to_connect_has_its_own_error(kind, code):
    assert bucket.explain(type(kind, (Exception,), {})("no"), STORE).code == code


def test_an_unreadable_authority(tmp_path):
    (tmp_path / "junk").write_text("junk")
    assert _code(lambda: bucket.check_ca(str(tmp_path / "junk"))) == "ca_unreadable"
    assert _code(lambda: bucket.check_ca(str(tmp_path / "none"))) == "ca_unreadable"


def test_a_bots_policy_reaches_one_prefix_and_deletes_locks_alone():
    statements = bucket.policy(STORE, "alpha")["Statement"]
    assert all("home/bots/alpha/" in json.dumps(statement) for statement in statements)
    deleting = [statement for statement in statements if "s3:DeleteObject" in statement["Action"]]
    assert [one["Resource"] for one in deleting] == [["arn:aws:s3:::backups/home/bots/alpha/locks/*"]]


def test_no_policy_removes_old_versions():
    text = json.dumps([bucket.policy(STORE, "alpha"), bucket.prune_policy(STORE)])
    assert "DeleteObjectVersion" not in text and "s3:*" not in text and "Bypass" not in text


def test_long_lists_come_in_pages():
    pages = [{"Contents": [{"Key": "1"}], "IsTruncated": True, "NextContinuationToken": "t"},
             {"Contents": [{"Key": "2"}]}]
    client = types.SimpleNamespace(list_objects_v2=lambda **_more: pages.pop(0))
    assert [one["Key"] for one in bucket.Bucket(STORE, client).objects("x")] == ["1", "2"]


# Repositories

def _repositories(world, create=True, check=False):
    return verbs.Repositories([world.access()], STORE, create, check)


def test_bucket_and_repository_are_made_once(world):
    world.s3.keys, world.s3.error = set(), ClientError("NoSuchBucket")
    plan, facts = go(_repositories(world))
    assert [(one.subject, one.action) for one in plan.changes] == [("bucket backups", "create"),
                                                                   ("repository alpha", "create")]
    assert facts["repositories"][0]["id"] == "new"
    world.s3.keys.add("home/bots/alpha/config")
    assert not go(_repositories(world))[0].changed


def test_a_missing_bucket_is_an_error_when_it_shall_not_be_made(world):
    world.s3.error = ClientError("NoSuchBucket")
    assert _code(_repositories(world, create=False).plan) == "bucket_missing"


def test_what_an_interrupted_init_left_is_removed(world):
    world.s3.keys = {"home/bots/alpha/keys/1"}
    go(_repositories(world))
    assert not world.s3.keys


def test_data_without_config_is_left_alone(world):
    world.s3.keys = {"home/bots/alpha/data/00/1"}
    assert _code(lambda: go(_repositories(world))) == "repository_damaged"
    assert world.s3.keys


def test_an_old_restic_is_named(world):
    world.restic.do_version = lambda words: Finished(0, "restic 0.14.0 compiled", "")
    assert _code(lambda: go(_repositories(world))) == "restic_too_old"
    plan = _repositories(world, check=True)
    world.restic.do_version = lambda words: Finished(127, "", "")
    assert not plan.plan().complete


@pytest.mark.parametrize(("rc", "text", "code"), [
    (10, "", "repository_missing"), (11, "", "repository_locked"), (12, "", "wrong_password"),
    (1, "no space left on device", "disk_full"), (1, "x509: unknown authority", "wrong_certificate"),
    (1, "Access Denied.", "wrong_key"), (1, "dial tcp: connection refused", "unreachable"),
    (1, "Connection closed by foreign host https://minio/bots. Retry again.", "unreachable"),
    (1, "odd", "restic_failed"),
])
def test_each_exit_of_restic_has_its_own_error(world, rc, text, code):
    world.restic.do_cat = lambda words: Finished(rc, "", json.dumps({"message_type": "exit_error", "message": text}))
    assert _code(world.access().repository.identify) == code


SLOW = """
import sys
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        sys.stdout.write(repr(file.read()))
"""


def _fed(supply):
    argv = [sys.executable, "-c", SLOW, "{input}", "{seal}"]
    return host.HostRunner().feed(argv, os.environ, 20, supply, restic.SEAL)


def test_a_program_begins_before_its_input_is_known():
    text = b"x" * (1 << 20)
    done = _fed(lambda: text)
    assert done.out == repr(text) + repr(b"".join(restic.SEAL)), done.err


def test_without_its_input_a_program_has_half_a_seal(monkeypatch):
    said = []
    monkeypatch.setattr(host, "_end", lambda child: said.append(child.communicate()[0]))

    def fail():
        raise FleetError("database_damaged", "no")

    assert _code(lambda: _fed(fail)) == "database_damaged"
    assert said == [repr(b"") + repr(restic.SEAL[0])]


@pytest.mark.parametrize("wanted, expected", [
    ("/a b/$HOME", b"/a b/$$HOME"), ("/a ", b"/a[ ]"), ("/a\nb", "/a[^\x01-\t\x0b-\U0010ffff]b".encode()),
    (os.fsdecode(b"/\xff"), b"/\xff"), ("/a\\\\ ", b"/a\\\\[ ]")])
def test_patterns_as_lines_of_a_file(wanted, expected):
    assert restic.line(wanted) == expected


def test_what_restic_waited_for_is_named(world):
    def wait(argv, env, timeout):
        raise FleetError("timeout", f"restic took more than 9 seconds. It said: {said.pop()}")

    world.restic.run, said = wait, ["nothing", "x509: certificate signed by unknown authority"]
    assert _code(world.access().repository.snapshots) == "wrong_certificate"
    assert _code(world.access().repository.snapshots) == "timeout"


def test_secrets_go_into_the_environment_only(world):
    go(world.snapshots())
    assert world.restic.calls
    for argv, env in world.restic.calls:
        assert not any("the-" in word for word in argv)
        assert set(env) <= {*restic._PASSED, "RESTIC_REPOSITORY", "RESTIC_PASSWORD", "RESTIC_CACHE_DIR",
                            "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"}


# SQLite

def test_databases_are_found_by_content(tmp_path):
    _database(tmp_path / "no-ending", 1)
    _database(tmp_path / "left-out", 1)
    (tmp_path / "sub").mkdir()
    _database(tmp_path / "sub/b.db", 1)
    (tmp_path / "fake.sqlite").write_text("SQLite? no")
    (tmp_path / "link.sqlite").symlink_to("no-ending")
    os.mkfifo(tmp_path / "fifo.sqlite")
    assert [one.relative for one in sqlite.find(str(tmp_path), ["left-out"])] == ["no-ending", "sub/b.db"]


@pytest.mark.parametrize(("path", "pattern", "answer"), [
    ("cache/x", "cache", True), ("a/cache", "cache", False), ("browser/p/Default/Cache/x", "browser/**/Cache", True),
    ("browser/Cache", "browser/**/Cache", True), ("b/x.tmp", "**/*.tmp", True), ("b/x", "**/*.tmp", False),
    ("x.tmp", "**/*.tmp", True), ("a/b", "a/**", True), ("a/b/c", "**/b/**/c", True), ("a/c", "**/b/**/c", False)])
def test_patterns(path, pattern, answer):
    patterns = sqlite._open([tuple(pattern.split("/"))])
    for name in path.split("/"):
        patterns = patterns and sqlite._advance(patterns, name)
    assert (patterns is None) is answer


def test_rows_in_the_log_are_in_the_copy(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)) as writer:
        writer.execute("pragma journal_mode=wal")
        writer.execute("create table t(a)")
        writer.execute("insert into t values(1)")
        assert copier.copy_database(str(tmp_path / "a.sqlite"), str(tmp_path / "copy")) == ""
    assert _count(tmp_path / "copy") == 1


def test_a_hot_journal_is_rolled_back(tmp_path):
    live, crashed = tmp_path / "live", tmp_path / "crashed"
    live.mkdir()
    with contextlib.closing(sqlite3.connect(live / "a", isolation_level=None)) as writer:
        writer.execute("create table t(a)")
        writer.execute("insert into t values(zeroblob(500000))")
        writer.execute("pragma cache_size=1")
        writer.execute("begin")
        writer.execute("insert into t values(zeroblob(5000000))")
        writer.execute("update t set a = zeroblob(400000)")
        shutil.copytree(live, crashed)
        writer.execute("rollback")
    assert (crashed / "a-journal").stat().st_size
    assert copier.copy_database(str(crashed / "a"), str(tmp_path / "copy")) == ""
    assert _count(tmp_path / "copy") == 1


def test_attributes_of_a_database_are_in_the_copy(tmp_path):
    _database(tmp_path / "a.sqlite", 1)
    try:
        os.setxattr(tmp_path / "a.sqlite", "user.origin", b"kept")
    except OSError:
        pytest.skip("a file system without attributes")
    assert copier.copy_all([[str(tmp_path / "a.sqlite"), str(tmp_path / "copy")]]) == [""]
    assert os.getxattr(tmp_path / "copy", "user.origin") == b"kept"


def test_a_damaged_database_stops_the_snapshot(world):
    path = world.top / "bots/alpha/state/openclaw.sqlite"
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * (8192 - 100))
    assert _code(lambda: go(world.snapshots())) == "database_damaged"
    assert not list((world.top / "lib/backup/staging").iterdir())


@root_only
def test_root_leaves_nothing_of_its_own_beside_a_database():
    with tempfile.TemporaryDirectory() as name:
        top = pathlib.Path(name)
        top.chmod(0o755)
        data, staging = top / "data", top / "staging"
        data.mkdir()
        staging.mkdir()
        with contextlib.closing(sqlite3.connect(data / "a.sqlite", isolation_level=None)) as writer:
            writer.execute("pragma journal_mode=wal")
            writer.execute("create table t(a)")
            shutil.copytree(data, top / "copy")  # as a crash leaves it: a log and no index
        data = top / "copy"
        (data / "a.sqlite-shm").unlink()
        for path in (data, *data.iterdir()):
            os.chown(path, 65534, 65534)
        found = sqlite.find(str(data))
        with sqlite.Copying(str(staging), 60) as copying:
            assert list(copying.copy(found)) == [str(data / "a.sqlite")]
        assert {path.stat().st_uid for path in data.iterdir()} == {65534}
        assert {path.stat().st_uid for path in (staging / "sqlite").iterdir()} == {0}


def test_copies_are_read_before_what_they_were_taken_from():
    """As restic goes by names, it reads them while it looks at all the rest."""
    source = host.HostSource("alpha", "home", "alder", [host.Tree("state", f"{host.STATE}/bots/alpha")])
    assert source.staging < source.trees[0].path


def test_who_stands_ready_to_copy_goes_when_there_is_nothing_to_copy(tmp_path, monkeypatch):
    started, start = [], subprocess.Popen
    monkeypatch.setattr(sqlite.subprocess, "Popen", lambda *args, **more: started.append(start(*args, **more)) or
                        started[-1])
    with sqlite.Copying(str(tmp_path), 60) as copying:
        assert copying.copy([]) == {}
    assert [child.poll() is not None for child in started] == [True]


# Snapshots

def test_a_snapshot_holds_copies_in_place_of_databases(world):
    plan, result = go(world.snapshots())
    assert [one.subject for one in plan.changes] == ["snapshot alpha"]
    taken = result["snapshots"][0]
    assert taken["databases"] == 1 and taken["bytes_added"] == 3
    stored = pathlib.Path(f"{world.restic.place}/{taken['snapshot']}{world.top}")
    assert (stored / "bots/alpha/note").exists()
    assert not (stored / "bots/alpha/state/openclaw.sqlite").exists()
    assert _count(next((stored / "lib/backup/staging/alpha/sqlite").glob("*/*"))) == 10
    assert not list((world.top / "lib/backup/staging").iterdir())


def test_check_mode_plans_and_takes_nothing(world):
    plan = world.snapshots(check=True).plan()
    assert plan.changed and plan.complete
    assert not world.restic.snapshots and not (world.top / "lib").exists()


def test_check_mode_says_what_is_not_there_yet(world):
    world.s3.keys.clear()
    assert not world.snapshots(check=True).plan().complete
    assert _code(lambda: go(world.snapshots())) == "repository_missing"


def test_an_incomplete_snapshot_is_taken_back(world):
    world.restic.code = 3
    assert _code(lambda: go(world.snapshots())) == "incomplete"
    assert world.restic.snapshots and not world.access().repository.snapshots()
    assert _code(lambda: world.access().repository.choose("latest")) == "snapshot_missing"
    assert not list((world.top / "lib/backup/staging").iterdir())


def test_the_snapshot_of_a_killed_run_does_not_count(world):
    go(world.snapshots())
    world.restic.do_backup, original = lambda words: Finished(-9, "", ""), world.restic.do_backup
    assert _code(lambda: go(world.snapshots())) == "restic_failed"
    left = world.top / "lib/backup/staging/alpha/manifest.json"
    run = json.loads(left.read_text())["run"]
    whole = world.restic.snapshots[0]
    tags = [*(tag for tag in whole["tags"] if not tag.startswith("run=")), f"run={run}"]
    world.restic.snapshots.append({**whole, "id": "half", "tags": tags})
    world.restic.do_backup = original
    go(world.snapshots())
    found = {one.id for one in world.access().repository.snapshots()}
    assert "half" not in found and len(found) == 2 and not left.exists()


def test_runs_exclude_each_other(world):
    with world.source().open():
        assert _code(lambda: go(world.snapshots())) == "busy"


def test_the_failure_of_one_bot_does_not_stop_the_others(world):
    shutil.rmtree(world.top / "bots/alpha")
    with pytest.raises(FleetError) as caught:
        go(world.snapshots("alpha", "beta"))
    assert caught.value.code == "path_missing"
    assert caught.value.details["done"] == ["beta"]
    assert [one["bot"] for one in caught.value.details["failed"]] == ["alpha"]


@pytest.mark.parametrize("paths", [["/a", "/a/b"], ["/a", "/a"], ["a"], ["/a/"], ["/"], []])
def test_paths_are_plain_and_apart(paths):
    assert _code(lambda: host.check_paths("alpha", paths, [str(at) for at in range(len(paths))])) == "bad_value"


# Restores

def test_a_restore_brings_everything_back_once(world):
    go(world.snapshots())
    plan, result = go(world.restores())
    new = world.top / "new/alpha"
    assert plan.changed and result["restored"][0]["changed"]
    assert (new / "note").read_text() == "hello" and _count(new / "state/openclaw.sqlite") == 10
    assert sorted(path.name for path in (world.top / "new").iterdir()) == ["alpha"]
    plan, result = go(world.restores())
    assert not plan.changed and not result["restored"][0]["changed"]


def test_data_are_replaced_only_on_demand(world):
    go(world.snapshots())
    new = world.top / "new/alpha"
    new.mkdir(parents=True)
    (new / "mine").write_text("mine")
    assert _code(world.restores().plan) == "target_not_empty"
    _plan, result = go(world.restores(overwrite=True, keep_previous=True))
    assert (pathlib.Path(result["restored"][0]["kept"][0]) / "mine").exists()


def test_another_directory_of_the_same_name_is_not_taken_for_the_restored_one(world):
    go(world.snapshots())
    go(world.restores())
    shutil.move(world.top / "new/alpha", world.top / "elsewhere")
    (world.top / "new/alpha").mkdir()
    (world.top / "new/alpha/fresh").write_text("fresh")
    assert _code(world.restores().plan) == "target_not_empty"


def test_check_mode_of_a_restore_writes_nothing(world):
    go(world.snapshots())
    plan = world.restores(check=True).plan()
    assert plan.changed and plan.diff()["after"]["bot alpha"]["state"] == str(world.top / "new/alpha")
    assert not (world.top / "new").exists()


def test_a_restore_that_fails_leaves_the_old_data(world, monkeypatch):
    go(world.snapshots())
    new = world.top / "new/alpha"
    new.mkdir(parents=True)
    (new / "mine").write_text("mine")
    rename = os.rename

    def fail(source, target):
        if target.endswith("/alpha") and "old" not in source:
            raise OSError(5, "no")
        rename(source, target)

    monkeypatch.setattr(host.os, "rename", fail)
    assert _code(lambda: go(world.restores(overwrite=True))) == "os_failed"
    assert (new / "mine").exists()
    assert [path.name for path in (world.top / "new").iterdir()] == ["alpha"]
    monkeypatch.undo()
    go(world.restores())
    assert (new / "note").exists()


def test_a_changed_copy_is_refused(world):
    go(world.snapshots())
    copy = next(world.restic.place.glob("*/**/staging/alpha/sqlite/*/*"))
    copy.write_bytes(copy.read_bytes() + b"x")
    assert _code(lambda: go(world.restores())) == "checksum"
    assert not (world.top / "new/alpha").exists()


def test_a_database_does_not_go_through_a_symbolic_link(world):
    go(world.snapshots())
    stored = next(world.restic.place.glob("*/**/bots/alpha"))
    (stored / "state").rmdir()
    (stored / "state").symlink_to("/etc")
    assert _code(lambda: go(world.restores())) == "unsafe_snapshot"


def test_a_role_that_the_snapshot_lacks(world):
    go(world.snapshots())
    target = host.HostTarget("alpha", [host.Place("browser", str(world.top / "b"), ME)], state=world.state)
    assert _code(verbs.Restores([verbs.Wish(world.access(), target)], False).plan) == "role_missing"


def test_an_owner_that_is_not_there_yet(world):
    go(world.snapshots())
    target = host.HostTarget("alpha", [host.Place("state", str(world.top / "b"), "nobody-here")], state=world.state)
    assert _code(verbs.Restores([verbs.Wish(world.access(), target)], False).plan) == "owner_missing"
    assert not verbs.Restores([verbs.Wish(world.access(), target)], True).plan().complete


def test_a_running_bot_is_not_restored(world, monkeypatch):
    go(world.snapshots())
    monkeypatch.setattr(host, "_systemctl", lambda *words: words[0] in ("is-active", "stop"))
    assert _code(world.restores(units=["openclaw@alpha.service"]).plan) == "bot_running"
    assert go(world.restores(units=["openclaw@alpha.service"], stop=True))[0].changed


def test_room_is_checked_first(world):
    go(world.snapshots())
    world.restic.snapshots[0]["summary"] = {"total_bytes_processed": 1 << 60, "total_files_processed": 1}
    assert _code(world.restores().plan) == "disk_full"


def test_a_link_is_no_target(world):
    go(world.snapshots())
    (world.top / "new").mkdir()
    (world.top / "new/alpha").symlink_to(world.top)
    assert _code(world.restores(overwrite=True).plan) == "target_fixed"


def test_snapshots_are_chosen_by_id(world):
    go(world.snapshots())
    go(world.snapshots())
    repository = world.access().repository
    assert repository.choose("latest").id == f"{1:064x}"
    assert repository.choose(f"{0:064x}").id == f"{0:064x}"
    assert _code(lambda: repository.choose("0000")) == "snapshot_missing"
    assert _code(lambda: repository.choose("ffff")) == "snapshot_missing"


@root_only
def test_files_go_to_the_user_of_this_host_without_privileges(tmp_path):
    part = model.Part("state", "/x", model.Owner("bot", 4321, "bot", 4321), 0o750)
    for name, uid in (("own", 4321), ("roots", 0), ("strangers", 999)):
        (tmp_path / name).write_text("x")
        os.chown(tmp_path / name, uid, uid)
        (tmp_path / name).chmod(0o6755)
    host._own(str(tmp_path), part, *host.Place("state", "/x", "nobody").ids())
    facts = {path.name: path.stat() for path in tmp_path.iterdir()}
    nobody = pwd.getpwnam("nobody").pw_uid
    assert {name: one.st_uid for name, one in facts.items()} == {"own": nobody, "roots": 0, "strangers": nobody}
    assert not any(one.st_mode & (stat.S_ISUID | stat.S_ISGID) for one in facts.values())


@root_only
def test_files_of_several_owners_keep_them_where_the_users_are_the_same(tmp_path):
    part = model.Part("volume", "/x", model.Owner("bot", 4321, "bot", 4321), 0o750)
    for name, uid, gid in (("own", 4321, 4321), ("roots", 0, 0), ("strangers", 999, 4321)):
        (tmp_path / name).write_text("x")
        os.chown(tmp_path / name, uid, gid)
    host._own(str(tmp_path), part, 4321, 4321)
    assert {path.name: (path.stat().st_uid, path.stat().st_gid) for path in tmp_path.iterdir()} == {
        "own": (4321, 4321), "roots": (0, 0), "strangers": (999, 4321)}


# Info, arguments, filters

def test_info_of_a_bot_without_repository(world):
    go(world.snapshots())
    world.s3.keys.discard("home/bots/beta/config")
    alpha, beta = verbs.info([world.access("alpha"), world.access("beta")])["bots"]
    assert alpha["exists"] and len(alpha["snapshots"]) == 1 and alpha["newest_age"] > 0
    assert beta == {"bot": "beta", "repository": STORE.url("beta"), "exists": False, "snapshots": [],
                    "newest_age": None}


@pytest.mark.parametrize("stamp", ["2026-01-01T00:00:00.123456789Z", "2026-01-01T00:00:00Z",
                                   "2026-01-01T01:00:00.5+01:00"])
def test_ages(stamp):
    assert abs(verbs._age(stamp) - verbs._age("2026-01-01T00:00:00Z")) <= 1


def _params(**changes):
    bots = [{"name": "alpha", "access_key": None, "secret_key": None, "password": None}]
    return {"endpoint": "http://s3/", "bucket": "backups", "fleet": "home", "region": "us-east-1", "ca_cert": None,
            "access_key": "a", "secret_key": "b", "password": "c", "restic": "restic", "timeout": 1, "parallel": 1,
            "bots": bots, **changes}


def test_a_bots_own_secret_goes_first():
    params = _params()
    own = {**params["bots"][0], "password": "own"}
    repository = arguments.access(params, arguments.store(params), own).repository
    assert repository.env["RESTIC_PASSWORD"] == "own" and repository.env["AWS_ACCESS_KEY_ID"] == "a"
    assert _code(lambda: arguments.access(params, STORE, {**own, "password": ""})) == "empty_password"


def test_bad_lists_are_refused():
    bot = _params()["bots"][0]
    assert _code(lambda: arguments.store(_params(bots=[bot, bot]))) == "bad_value"
    assert _code(lambda: arguments.store(_params(bots=[{**bot, "name": "../x"}]))) == "bad_value"
    assert _code(lambda: arguments.store(_params(parallel=0))) == "bad_value"


def test_filters():
    bots = [{"name": "alpha", "user": "bot-alpha", "state_dir": "/s", "config_dir": "/c", "version": "1"},
            {"name": "beta", "backup": {"enabled": False}},
            {"name": "gamma", "user": "g", "state_dir": "/g", "config_dir": "/h",
             "backup": {"password": "own", "exclude": ["x"]}}]
    assert filters.backup_names(bots) == [{"name": "alpha"}, {"name": "gamma", "password": "own"}]
    alpha, gamma = filters.backup_sources(bots)
    assert alpha["paths"] == [{"role": "state", "path": "/s"}, {"role": "config", "path": "/c"}]
    assert gamma["paths"][0]["exclude"] == ["x"]
    assert filters.restore_targets(bots)[0]["paths"] == [{"role": "state", "path": "/s", "owner": "bot-alpha"}]
    with pytest.raises(Exception, match=r"bot_backup\.pasword"):
        filters.backup_names([{"name": "a", "backup": {"pasword": "x"}}])


def test_an_error_about_some_of_many_bots_can_be_returned():
    each = verbs.Each(2)
    each.run({"alpha": object(), "bravo": FleetError("disk_full", "bravo has no room.")}, _raise_errors)
    with pytest.raises(FleetError) as caught:
        each.check()
    assert json.loads(json.dumps(caught.value.result()))["failure"]["details"]["done"] == ["alpha"]


def _raise_errors(item):
    if isinstance(item, FleetError):
        raise item
    return item
