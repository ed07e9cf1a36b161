# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Drills: what is restored, tried and removed, what is written down, and when nobody looked for too long."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import sqlite3

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.clawops.fleet.plugins.filter import drills as filters
from ansible_collections.clawops.fleet.plugins.module_utils import _bot, _bot_drill, _lock
from ansible_collections.clawops.fleet.plugins.module_utils._backup import bucket, drill, host, proof
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._openclaw import trial
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished
from test_backup import S3, STORE, Restic
from test_backup import World as Backups

# In a test nobody needs a user of the drill's own.
ME = os.geteuid()


class Trial:
    """Notes what it is given."""

    def __init__(self):
        self.seen, self.cleared, self.deaths = [], [], []

    def __call__(self, restored):
        for death in self.deaths:
            raise death
        self.seen.append((restored, pathlib.Path(restored.places["state"], "note").read_text()))
        return {"ready": 1.5}

    def clear(self, title):
        self.cleared.append(title)


class World(Backups):
    """Bots with snapshots, and drills of them."""

    def __init__(self, top):
        keys = {"home/bots/alpha/config", "home/bots/beta/config"}
        super().__init__(top, Restic(top / "store"), S3(keys))
        self.trial = Trial()
        for bot in ("alpha", "beta"):
            agent = top / "bots" / bot / "agents/main/agent"
            agent.mkdir(parents=True)
            (top / "bots" / bot / "note").write_text(f"hello {bot}")
            conversation(agent / "openclaw-agent.sqlite")

    def back_up(self, bot="alpha"):
        verb = self.snapshots(bot)
        verb.apply(verb.plan())
        self.restic.snapshots[-1]["summary"] = {"files_new": 2, "files_unmodified": 1, "total_bytes_processed": 100}

    def drills(self, *bots):
        jobs = [drill.Job(self.access(bot), host.HostRunner(), self.trial) for bot in bots or ("alpha",)]
        return drill.Drills(jobs, self.trial.clear, 1, 60, str(self.top / "drills"), str(self.top / "locks"), ME)

    def run(self, *bots):
        return self.drills(*bots).run()["drills"]

    def failure(self, *bots):
        with pytest.raises(FleetError) as caught:
            self.run(*bots)
        return caught.value

    def stored(self, name):
        """A file of the newest snapshot."""
        return next(pathlib.Path(self.restic.place, self.restic.snapshots[-1]["id"]).rglob(name))

    @property
    def left(self):
        place = self.top / "drills"
        return sorted(path.name for path in place.iterdir()) if place.exists() else []


def conversation(path, rows=(("agent:main:main", "m1", 1), ("agent:main:main", "m2", 2))):
    with contextlib.closing(sqlite3.connect(path)) as base:
        base.execute("create table session_nodes(session_key text, current_session_id text)")
        base.execute("create table transcript_event_identities(session_id text, event_id text, seq integer, "
                     "event_type text, created_at integer)")
        for key in dict.fromkeys(row[0] for row in rows):
            base.execute("insert into session_nodes values(?, ?)", (key, f"id of {key}"))
        for key, message, when in rows:
            base.execute("insert into transcript_event_identities values(?, ?, ?, 'message', ?)",
                         (f"id of {key}", message, when, when))
        base.commit()


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


# The data

def test_a_good_drill_tells_what_came_back_and_leaves_nothing(world):
    world.back_up()
    row, = world.run()
    duration = row.pop("duration")
    assert row == {"bot": "alpha", "ok": True, "snapshot": world.restic.snapshots[0]["id"],
                   "time": world.restic.snapshots[0]["time"], "files": 2, "bytes": 100, "databases": 1, "ready": 1.5}
    assert duration >= 0 and world.left == []
    (restored, note), = world.trial.seen
    assert note == "hello alpha" and restored.title == "bot-alpha"
    assert restored.places == {"state": f"{world.top}/drills/bot-alpha/data/state"}
    assert world.trial.cleared == ["bot-alpha", "bot-alpha"]
    caches = {env.get("RESTIC_CACHE_DIR") for argv, env in world.restic.calls if "restore" in argv}
    assert caches == {f"{world.top}/drills/bot-alpha/cache"}


def test_what_lives_is_not_touched(world):
    world.back_up()
    before = sorted((path, path.lstat().st_mtime_ns) for path in (world.top / "bots").rglob("*"))
    world.run()
    assert sorted((path, path.lstat().st_mtime_ns) for path in (world.top / "bots").rglob("*")) == before
    assert not (world.top / "lib/restored").exists()


def test_a_file_that_does_not_come_back_is_missed(world):
    world.back_up()
    world.stored("note").unlink()
    failure = world.failure()
    assert failure.code == "files_missing" and "1 of 2 files" in failure.message
    assert world.left == [] and world.trial.seen == []


def test_a_database_that_is_not_sound_is_named(world):
    world.back_up()
    live = world.top / "bots/alpha/agents/main/agent/openclaw-agent.sqlite"
    with contextlib.closing(sqlite3.connect(live)) as base:
        base.execute("create index by_seq on transcript_event_identities(seq)")
        base.execute("pragma writable_schema=on")
        # An index that a change of the table passed by: a quick check does not see that.
        base.execute("update sqlite_master set sql='create index by_seq on transcript_event_identities(seq + 1)' "
                     "where name='by_seq'")
        base.commit()
    world.back_up()
    failure = world.failure()
    assert failure.code == "database_damaged"
    assert "state/agents/main/agent/openclaw-agent.sqlite: " in failure.message and "by_seq" in failure.message
    assert str(world.top) not in failure.message


def test_a_copy_that_is_not_what_the_manifest_says_is_refused(world):
    world.back_up()
    copy = next(path for path in pathlib.Path(world.restic.place).rglob("sqlite/*/*") if path.is_file())
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    assert world.failure().code == "checksum" and world.left == []


def test_one_that_fails_does_not_stop_the_others(world):
    world.back_up("beta")
    failure = world.failure("alpha", "beta")
    rows = {row["bot"]: row for row in failure.details["drills"]}
    assert not rows["alpha"]["ok"] and rows["alpha"]["code"] == "snapshot_missing" and rows["alpha"]["snapshot"] is None
    assert rows["beta"]["ok"] and failure.details["done"] == ["beta"]


def test_a_failure_names_the_snapshot(world):
    world.back_up()
    world.trial.deaths = [FleetError("not_ready", "It said last: no.")]
    row, = world.failure().details["drills"]
    assert (row["code"], row["why"], row["snapshot"]) == ("not_ready", "It said last: no.", f"{0:064x}")
    assert world.left == []


def test_a_bug_still_leaves_nothing(world):
    world.back_up()
    world.trial.deaths = [RuntimeError("bug")]
    with pytest.raises(RuntimeError):
        world.run()
    assert world.left == []


def test_what_a_killed_drill_left_is_removed(world):
    world.back_up("beta")
    for title in ("bot-beta", "space-gone"):
        (world.top / "drills" / title / "data/.clawops/locks").mkdir(parents=True)
        (world.top / "drills" / title / "data/state").mkdir()
    assert world.run("beta")[0]["ok"] and world.left == []
    assert world.trial.cleared == ["space-gone", "bot-beta", "bot-beta"]


def test_a_living_drill_is_left_alone(world):
    world.back_up()
    (world.top / "drills/bot-alpha").mkdir(parents=True)
    (world.top / "drills/bot-beta").mkdir()
    with _lock.hold(world.top / "locks/bot-alpha.lock", "test"), _lock.hold(world.top / "locks/bot-beta.lock", "test"):
        assert world.failure("alpha").code == "busy"
    assert world.left == ["bot-alpha", "bot-beta"] and world.trial.cleared == []


def test_a_restic_that_goes_on_is_not_disturbed(world):
    """Its parent was killed; it holds the lock of the folder that it writes to."""
    world.back_up()
    state = world.top / "drills/bot-alpha/data/.clawops"
    state.mkdir(parents=True)
    with host.lock(str(state), "alpha", host.HostRunner()):
        assert world.failure().code == "busy"
    assert world.left == ["bot-alpha"]
    assert world.run()[0]["ok"]


def test_check_mode_only_looks(world):
    world.back_up()
    assert world.drills("alpha", "beta").look() == {"drills": []}
    assert not any("restore" in argv for argv, _env in world.restic.calls) and world.left == []


# The gateway

class Docker:
    """An engine that has one image, and a gateway that becomes ready when it is asked the second time."""

    def __init__(self, history, sessions=()):
        self.calls, self.there, self.asked = [], False, 0
        self.history, self.sessions = history, list(sessions)
        self.never, self.dead, self.silent, self.leased = False, False, False, 0

    def __call__(self, argv, stdin=None, env=None, timeout=None):
        self.calls.append(list(argv))
        words = argv[1:]
        if words[:2] == ["image", "inspect"]:
            return Finished(0 if words[-1] == "clawops/openclaw:1" else 1, "sha256:1", "")
        if words[0] == "run":
            self.there = True
            self.files = {word.split("source=")[1].split(",")[0] for word in words if "source=" in word}
            self.texts = {pathlib.Path(path).name: pathlib.Path(path).read_text() for path in self.files
                          if pathlib.Path(path).is_file()}
        elif words[0] == "inspect":
            if not self.there:
                return Finished(1, "", "no such object")
            return Finished(0, "false" if self.dead else "true", "") if "Running" in words[2] else Finished(
                0, words[-1][len("clawops-drill-"):], "")
        elif words[0] == "start":
            self.leased -= 1
            self.dead = self.leased > 0
        elif words[0] == "rm":
            self.there = False
        elif words[0] == "logs":
            token = self.texts["openclaw.env"].split("`")[1]
            words = "Another Gateway owner lease is still active for this state directory" if self.leased else "bad"
            return Finished(0, f"starting\n{words} {token}\n", "")
        elif words[0] == "exec":
            return self._exec(words[2:])
        return Finished(0, "", "")

    def _exec(self, words):
        if words[1] == "-e":
            self.asked += words[-1].endswith("readyz")
            ready = self.asked > 1 and not self.never and not self.dead
            return Finished(0, json.dumps({"ok": True, "ready": ready}), "")
        method, params = words[words.index("call") + 1], json.loads(words[words.index("--params") + 1])
        if self.silent:
            return Finished(1, "", "gateway closed")
        answer = {"sessions": self.sessions, "totalCount": len(self.sessions)} if method == "sessions.list" else {
            "messages": self.history.get(params["sessionKey"], [])}
        return Finished(0, json.dumps(answer), "")


def message(name, role="assistant", text="a word", when=1795259411077):
    return {"role": role, "content": [{"type": "text", "text": text}], "timestamp": when, "__openclaw": {"id": name}}


class Scene:
    def __init__(self, top, docker, bot="alpha", image="clawops/openclaw:1"):
        now = iter(range(1000))
        self.docker, self.folder = docker, top / "drill"
        self.state = self.folder / "data/state"
        self.agent = self.state / "agents/main/agent"
        self.agent.mkdir(parents=True)
        parsed = _bot.parse({"name": bot, "version": "2026.9.6"}, "docker_host")
        self.trial = _bot_drill.GatewayTrial(parsed, image, 10, docker, ME, clock=lambda: next(now),
                                             sleep=lambda seconds: None)

    def run(self, *paths):
        def examine(questions):
            return {path: drill.examiner.examine(path, question) for path, question in questions.items()}

        databases = tuple(map(str, paths or (self.agent / "openclaw-agent.sqlite",)))
        restored = drill.Restored("bot-alpha", str(self.folder), {"state": str(self.state)}, databases, examine)
        return self.trial(restored)

    def failure(self):
        with pytest.raises(FleetError) as caught:
            self.run()
        assert not self.docker.there
        return caught.value


def test_the_gateway_tells_the_last_turn(tmp_path):
    docker = Docker({"agent:main:main": [message("m1", "user"), message("m2", text="the answer"),
                                         message("x", "toolResult")]})
    scene = Scene(tmp_path, docker)
    conversation(scene.agent / "openclaw-agent.sqlite")
    found = scene.run()
    assert found.pop("ready") > 0 and not docker.there
    turn = {"role": "assistant", "time": "2026-11-21T11:10:11+00:00", "characters": 10}
    assert found == {"sessions": 1, "turn": turn}


def test_the_container_reaches_nobody_and_has_no_secret_in_its_arguments(tmp_path):
    docker = Docker({"agent:main:main": [message("m2")]})
    scene = Scene(tmp_path, docker)
    conversation(scene.agent / "openclaw-agent.sqlite")
    scene.run()
    argv = next(argv for argv in docker.calls if argv[1] == "run")
    text = " ".join(argv)
    assert "--network none" in text and "--publish" not in text and "-p " not in text
    assert "--cap-drop ALL" in text and "--read-only" in text and "no-new-privileges:true" in text
    assert "OPENCLAW_SKIP_CHANNELS=1" in text and "OPENCLAW_SKIP_CRON=1" in text
    assert f"--user {ME}:{ME}" in text and "--entrypoint timeout" in text
    token = docker.texts["openclaw.env"].split("`")[1]
    assert len(token) > 30 and not any(token in word for argv in docker.calls for word in argv)
    config = json.loads(docker.texts["openclaw.json"])
    assert config["cron"] == {"enabled": False} and "channels" not in config
    assert config["gateway"]["bind"] == "loopback" and config["agents"] == {"list": [{"id": "main"}]}
    assert str(scene.state) in docker.files


def test_a_conversation_that_the_gateway_does_not_tell_is_missed(tmp_path):
    scene = Scene(tmp_path, Docker({"agent:main:main": [message("other")]}))
    conversation(scene.agent / "openclaw-agent.sqlite")
    assert scene.failure().code == "turn_missing"


def test_a_session_that_shows_nothing_is_passed_over(tmp_path):
    rows = (("agent:main:old", "m1", 1), ("agent:main:quiet", "m2", 2))
    scene = Scene(tmp_path, Docker({"agent:main:old": [message("m1")]}))
    conversation(scene.agent / "openclaw-agent.sqlite", rows)
    assert scene.run()["sessions"] == 2


def test_a_bot_without_a_conversation_is_fine(tmp_path):
    scene = Scene(tmp_path, Docker({}))
    conversation(scene.agent / "openclaw-agent.sqlite", ())
    assert scene.run()["turn"] is None


def test_a_release_with_other_tables_is_asked_itself(tmp_path):
    scene = Scene(tmp_path, Docker({"k": [message("any", "user")]}, [{"key": "k"}]))
    sqlite3.connect(scene.agent / "openclaw-agent.sqlite").close()
    assert scene.run()["turn"]["role"] == "user"
    assert scene.run(scene.state / "state/other.sqlite")["sessions"] == 1


def test_several_agents_count(tmp_path):
    docker = Docker({"agent:ops:main": [message("o1")]})
    scene = Scene(tmp_path, docker)
    other = scene.state / "agents/ops/agent"
    other.mkdir(parents=True)
    conversation(scene.agent / "openclaw-agent.sqlite")
    conversation(other / "openclaw-agent.sqlite", (("agent:ops:main", "o1", 9),))
    found = scene.run(scene.agent / "openclaw-agent.sqlite", other / "openclaw-agent.sqlite")
    assert found["sessions"] == 2 and found["turn"]
    assert json.loads(docker.texts["openclaw.json"])["agents"]["list"] == [{"id": "main"}, {"id": "ops"}]


def test_a_gateway_that_is_never_ready_ends_the_drill(tmp_path):
    docker = Docker({})
    docker.never = True
    scene = Scene(tmp_path, docker)
    conversation(scene.agent / "openclaw-agent.sqlite")
    failure = scene.failure()
    assert failure.code == "not_ready" and "bad (hidden)" in failure.message
    docker.dead = True
    assert "is gone after" in scene.failure().message


def test_a_gateway_waits_until_the_lease_of_the_bot_that_ran_ends(tmp_path):
    docker = Docker({"agent:main:main": [message("m2")]})
    docker.dead, docker.leased = True, 2
    scene = Scene(tmp_path, docker)
    conversation(scene.agent / "openclaw-agent.sqlite")
    assert scene.run()["turn"] and sum(argv[1] == "start" for argv in docker.calls) == 2


def test_a_gateway_that_does_not_answer_ends_the_drill(tmp_path):
    docker = Docker({})
    docker.silent = True
    scene = Scene(tmp_path, docker)
    conversation(scene.agent / "openclaw-agent.sqlite")
    assert scene.failure().code == "no_answer"


def test_an_image_that_is_not_there_is_named(tmp_path):
    scene = Scene(tmp_path, Docker({}), image="clawops/openclaw:2")
    conversation(scene.agent / "openclaw-agent.sqlite")
    assert scene.failure().code == "no_image"


def test_a_container_of_somebody_else_stays(tmp_path):
    def foreign(argv, **more):
        return Finished(0, "", "")

    with pytest.raises(FleetError, match="not one of a drill"):
        trial.clear(foreign, "bot-alpha")


def test_without_an_engine_nothing_was_left():
    def none(argv, **more):
        raise FleetError("no_program", "docker is not installed")

    _bot_drill.clear("bot-alpha", none)


# What is written down

NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.timezone.utc)


class Objects(S3):
    def list_objects_v2(self, Bucket, Prefix, **more):
        found = super().list_objects_v2(Bucket, Prefix, **more)
        for entry in found["Contents"]:
            entry["LastModified"] = NOW - datetime.timedelta(days=30)
        return {**found, "ResponseMetadata": {"HTTPHeaders": {"date": "Sat, 21 Nov 2026 12:00:00 GMT"}}}


@pytest.fixture
def stored():
    return bucket.Bucket(STORE, Objects(["home/bots/alpha/config", "home/bots/beta/config"]))


def read(stored, name="alpha"):
    return json.loads(stored.client.bodies[f"home/drills/bots/{name}.json"])


def test_the_last_success_outlives_failures(stored):
    good = {"bot": "alpha", "host": "alder", "ok": True, "snapshot": "s1", "turn": {"role": "user"}, "why": "secret"}
    assert proof.record(stored, [good]) == ["home/drills/bots/alpha.json"]
    proof.record(stored, [{"bot": "alpha", "host": "alder", "ok": False, "code": "not_ready", "why": "words of a log"}])
    found = read(stored)
    assert found["last"] == {"drilled": "2026-11-21T12:00:00+00:00", "ok": False, "code": "not_ready", "host": "alder"}
    assert found["passed"]["snapshot"] == "s1"
    assert "words" not in json.dumps(found) and "secret" not in json.dumps(found)
    row, = proof.proofs(stored, ["alpha"], 14)
    assert (row["ok"], row["passed"], row["age"], row["late"]) == (False, "2026-11-21T12:00:00+00:00", 0, False)


@pytest.mark.parametrize("days, late", [(0, False), (14, True), (31, False)])
def test_one_that_never_passed_has_as_long_as_its_repository_is_old(stored, days, late):
    rows = proof.proofs(stored, ["alpha", "nobody"], days)
    assert [row["late"] for row in rows] == [late, False]
    with pytest.raises(FleetError, match=r"within 14 days for alpha \(never\)") if late else contextlib.nullcontext():
        proof.check(rows, "bot", days)


def test_too_old_a_success_is_an_alarm(stored):
    stored.write_json("home/drills/bots/alpha.json", {"version": 1, "last": {}, "passed": {
        "drilled": "2026-11-01T00:00:00+00:00"}})
    with pytest.raises(FleetError, match=r"alpha \(20 days ago\)") as caught:
        proof.check(proof.proofs(stored, ["alpha"], 14), "bot", 14)
    assert caught.value.details["bots"][0]["age"] == 20 * 86400 + 43200


@pytest.mark.parametrize("row", [{"bot": "../x", "ok": True}, {"ok": True}, {"space": "a", "ok": "yes"}])
def test_a_bad_row_is_refused(row):
    with pytest.raises(FleetError):
        proof.checked([row])


# What a playbook makes of it

def variables(name, on, **more):
    return {"inventory_hostname": name, "bot_on": on, **more}


BOTS = [variables("here", "alder"), variables("there", "birch", bot_backup_password="own"),
        variables("pod", "harbor", bot_profile="desktop", bot_resources={"memory": "3Gi"}),
        variables("guest", "zap"), variables("boxed", "zap", bot_runtime="container"),
        variables("off", "alder", bot_backup={"enabled": False}), variables("gone", "alder", bot_state="absent")]


def where(**more):
    found = filters.drill_places(BOTS, ["alder", "birch"], ["zap"], **more)
    return {one["name"]: one["on"] for one in found}


def test_a_bot_is_tried_where_it_stands_else_on_the_first_docker_host():
    assert where() == {"here": "alder", "there": "birch", "pod": "alder", "guest": "alder", "boxed": "zap"}
    assert set(where(host="birch").values()) == {"birch"}
    found = {one["name"]: one for one in filters.drill_places(BOTS, ["alder"], [])}
    assert found["there"]["password"] == "own" and found["pod"]["resources"] == {"memory": "3Gi"}
    assert found["boxed"]["on"] == "alder" and filters.drill_places(BOTS[:1], [], [])[0]["on"] == ""


def test_what_the_module_gets_of_a_bot():
    images = [{"item": "2026.9.6", "image": "clawops/openclaw:1"}]
    bots = filters.drill_places([BOTS[2]], ["alder"], [])
    assert filters.drill_bots(bots, images) == [
        {"name": "pod", "version": "2026.9.6", "memory": "3Gi", "image": "clawops/openclaw:1"}]
    assert "image" not in filters.drill_bots(bots, [{"item": "2026.9.6"}])[0]


def test_rows_of_a_drill():
    told = [{"bot": "a", "ok": True, "files": 3, "duration": 2.0, "space": "other", "host": "x", "turn": None},
            {"bot": "b", "ok": False, "why": "no", "code": "x"}]
    failed = {"failed": True, "msg": "1 of 2", "failure": {"message": "1 of 2", "details": {"drills": told}}}
    rows = filters.drill_rows(["a", "b", "c"], "alder", failed)
    assert [(row["bot"], row["host"], row["ok"]) for row in rows] == [
        ("a", "alder", True), ("b", "alder", False), ("c", "alder", False)]
    assert rows[0] == {"bot": "a", "host": "alder", "ok": True, "files": 3, "duration": 2.0}
    assert rows[2]["why"] == "1 of 2" and rows[1]["why"] == "no"
    assert filters.drill_rows(["s"], "-", {"unreachable": True, "msg": "no way"}, kind="space") == [
        {"space": "s", "host": "-", "ok": False, "code": "not_tried", "why": "no way"}]


def test_the_table():
    rows = [{"bot": "a", "host": "alder", "ok": True, "time": "2026-11-21T10:00:00.1Z", "files": 3, "databases": 1,
             "ready": 8.5, "turn": {"role": "user", "time": "2026-11-20T09:00:00+00:00"}, "duration": 20.0},
            {"space": "s", "host": "alder", "ok": False, "why": "damaged", "duration": 1.0}]
    head, first, second, why = filters.drill_table(rows)
    assert head.split(maxsplit=3)[:3] == ["BOT", "HOST", "RESULT"] and "LAST TURN" in head
    assert first.split() == ["a", "alder", "ok", "2026-11-21T10:00:00", "3", "1", "8.5", "2026-11-20T09:00:00", "20"]
    assert second.split()[:4] == ["space", "s", "alder", "FAILED"] and why == "space s (alder): damaged"


def test_a_bad_setting_of_a_bot_is_refused():
    with pytest.raises(AnsibleFilterError, match=r"bot_backup\.enable "):
        filters.drill_places([variables("a", "alder", bot_backup={"enable": True})], ["alder"], [])
