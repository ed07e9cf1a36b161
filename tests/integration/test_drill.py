# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Restore drills of a real bot: one that passes, and some that must not."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess

import boto3
import pytest
from bed import dockerhost, net
from botocore.config import Config
from conftest import ROOT, Box
from managed import Managed

pytestmark = pytest.mark.full
HOST, BOT, FLEET, BUCKET = dockerhost.DEFAULT[0], "delta", "box", "clawops-box"
STATE = f"/var/lib/clawops/bots/{BOT}"
PASSWORD = "box-password-of-the-repository"
CACHE = pathlib.Path(os.environ.get("CLAWOPS_CACHE") or pathlib.Path.home() / ".cache/clawops-fleet")
# A quick check does not see that entries of an index are not those of its table.
DAMAGE = """
import sqlite3
base = sqlite3.connect("/broken.sqlite", isolation_level=None)
base.execute("create table t(a)")
base.executemany("insert into t values(?)", [(number,) for number in range(100)])
base.execute("create index by_a on t(a)")
base.execute("pragma writable_schema=on")
base.execute("update sqlite_master set sql='create index by_a on t(a + 1)' where name='by_a'")
"""


class World(Box):
    """The box with one more bot, which has had a conversation and has a snapshot."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__()
        Managed.bed("up", "minio", "model", f"dockerhost:{HOST}")
        self.host, self.folder = Managed(HOST), folder
        groups = {"docker_hosts": {HOST: {"ansible_host": net.v4(HOST)}}, "backup_hosts": {HOST: {}},
                  "bots": {BOT: {"bot_on": HOST}}}
        (folder / "delta.json").write_text(json.dumps({"all": {"children": {
            group: {"hosts": members} for group, members in groups.items()}}}))
        self.env["ANSIBLE_INVENTORY"] = f"{ROOT}/inventory/local,{folder}/delta.json"
        self.play("machines", fleet_target=HOST)
        self.host.install()
        given = json.loads((CACHE / "bed/minio/credentials.json").read_text())
        self.store = {"endpoint": given["endpoint"], "bucket": BUCKET, "fleet": FLEET, "password": PASSWORD,
                      "access_key": given["access_key"], "secret_key": given["secret_key"]}
        self.s3 = boto3.client("s3", endpoint_url=given["endpoint"], aws_access_key_id=given["access_key"],
                               aws_secret_access_key=given["secret_key"], region_name="us-east-1",
                               config=Config(s3={"addressing_style": "path"}))
        self.talk("remember: the heron stands on one leg")
        # What is no file counts as none.
        self.host.inside(f"cd {STATE}/workspace && touch file && ln -sf nowhere link && ln -f file "
                         "hard && { test -p pipe || mkfifo pipe; } && chown -h bot-delta *")
        self.back_up()

    def talk(self, text: str) -> None:
        self.play("ask", fleet_target=HOST, fleet_bot=BOT, fleet_message=text)

    def back_up(self) -> None:
        self.play("backup", fleet_only=[BOT])

    def fails(self, verb: str, **variables: object) -> str:
        done = subprocess.run(self._argv(verb, **variables), env=self.env, capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL)
        assert done.returncode == 2, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    @property
    def report(self) -> str:
        return str(self.folder / "report.json")

    def row(self) -> dict:
        row, = json.loads(pathlib.Path(self.report).read_text())
        return row

    def drill(self, **death: object) -> dict:
        """The module alone."""
        image = self.host.inside(f"docker inspect --format '{{{{.Config.Image}}}}' bot-{BOT}").strip()
        return self.host.start("backup_drill", {**self.store, "bots": [{"name": BOT, "image": image}]}, **death)

    def object(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)

    def keys(self, prefix: str) -> list[dict]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{FLEET}/{prefix}")
        return [entry for page in pages for entry in page.get("Contents", [])]

    @contextlib.contextmanager
    def exchanged(self, key: str, body: bytes | None):
        """Another object in the place of one, or none."""
        before = self.object(key)
        if body is None:
            self.s3.delete_object(Bucket=BUCKET, Key=key)
        else:
            self.put(key, body)
        try:
            yield
        finally:
            self.put(key, before)

    def left(self) -> str:
        """What a drill leaves on the host."""
        return self.host.inside("docker ps --all --quiet --filter name=clawops-drill; "
                                "ls -A /var/lib/clawops/drills 2>/dev/null", check=False)

    def largest(self) -> str:
        return max(self.keys(f"bots/{BOT}/data/"), key=lambda entry: entry["Size"])["Key"]

    def end(self) -> None:
        self.play("remove", fleet_target=HOST, fleet_only=[BOT], purge_data=True)
        for entry in self.keys(f"bots/{BOT}/") + self.keys("drills/"):
            self.s3.delete_object(Bucket=BUCKET, Key=entry["Key"])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("drill"))
    yield made
    made.end()


def test_a_restore_is_proved_without_touching_the_bot(world):
    asked = f"docker inspect --format '{{{{.State.StartedAt}}}}' bot-{BOT}"
    started = world.host.inside(asked)
    world.play("restore_drill", fleet_only=[BOT], fleet_report=world.report)
    row = world.row()
    assert row["ok"] and row["host"] == HOST and row["sessions"] == 1 and row["ready"] > 0, row
    assert row["turn"]["role"] == "assistant" and row["turn"]["characters"] > 20
    assert row["files"] > 10 and row["databases"] > 1
    text = world.object(f"{FLEET}/drills/bots/{BOT}.json").decode()
    assert json.loads(text)["passed"]["snapshot"] == row["snapshot"] and "heron" not in text + json.dumps(row)
    assert world.left() == "" and world.host.inside(asked) == started


def test_what_was_said_last_is_what_counts(world):
    before = world.drill()["drills"][0]["turn"]
    world.talk("a longer word than before, so that it can be told from the other one by its length alone " * 3)
    world.back_up()
    after = world.drill()["drills"][0]["turn"]
    assert after["time"] > before["time"] and after["characters"] > 200


def test_a_database_that_no_backup_finds_damaged_is_found(world):
    world.host.inside(f"python3 - && mv /broken.sqlite {STATE}/workspace/", DAMAGE.encode())
    try:
        world.back_up()
        out = world.fails("restore_drill", fleet_only=[BOT], fleet_report=world.report)
    finally:
        world.host.inside(f"rm -f {STATE}/workspace/broken.sqlite")
    assert f"The restore of {BOT} is not proved: see the table." in out
    row = world.row()
    assert row["code"] == "database_damaged" and "state/workspace/broken.sqlite: " in row["why"]
    known = json.loads(world.object(f"{FLEET}/drills/bots/{BOT}.json"))
    assert not known["last"]["ok"] and known["passed"]["ok"] and "broken" not in json.dumps(known)
    assert world.left() == ""
    world.back_up()


@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_damage_in_the_bucket_is_found(world, how):
    """In all of a pack: much of it is of older snapshots alone, which a drill does not read."""
    key = world.largest()
    body = bytes(byte ^ 1 for byte in world.object(key))
    with world.exchanged(key, body if how == "flipped" else None):
        result = world.drill()
    assert result.get("failed"), result
    row, = result["failure"]["details"]["drills"]
    assert not row["ok"] and row["snapshot"] and row["why"], row
    assert world.left() == ""
    assert world.drill()["drills"][0]["ok"]


def test_a_snapshot_that_lacks_a_file_since_it_was_taken_is_found(world):
    """As restic's own repair leaves it."""
    known = {"RESTIC_REPOSITORY": f"s3:{world.store['endpoint']}/{BUCKET}/{FLEET}/bots/{BOT}/",
             "RESTIC_PASSWORD": PASSWORD, "AWS_ACCESS_KEY_ID": world.store["access_key"],
             "AWS_SECRET_ACCESS_KEY": world.store["secret_key"]}
    settings = "".join(f"export {key}='{value}'\n" for key, value in known.items())
    restic = "restic --no-cache -o s3.bucket-lookup=path rewrite --forget"
    world.host.inside("sh -e", f"{settings}{restic} --exclude {STATE}/workspace/hard latest\n".encode())
    row, = world.drill()["failure"]["details"]["drills"]
    assert row["code"] == "files_missing" and not row["ok"], row
    world.back_up()


@pytest.mark.parametrize("whole_group", [False, True])
def test_what_a_killed_drill_leaves_goes_with_the_next(world, whole_group):
    steps = world.drill()["steps"]
    # With a gateway: the third time that docker is started, after looks at what was left and at the image.
    at = [number for number, step in enumerate(steps, 1) if step.startswith("subprocess.Popen docker")][2]
    assert world.drill(die_at=at, die_after=4, whole_group=whole_group) == {"killed": True}
    name = f"clawops-drill-bot-{BOT}"
    assert world.left().split()[1:] == [f"bot-{BOT}"]
    found = json.loads(world.host.inside(f"docker inspect {name}"))[0]
    assert found["HostConfig"]["NetworkMode"] == "none" and not found["HostConfig"]["PortBindings"]
    assert found["State"]["Running"] and "token" not in json.dumps(found["Config"]).lower()
    assert world.drill()["drills"][0]["ok"] and world.left() == ""
    # In the middle of the restore.
    at = [number for number, step in enumerate(steps, 1) if "restic" in step][-1]
    assert world.drill(die_at=at, die_after=0.3, whole_group=whole_group) == {"killed": True}
    assert world.left() != ""
    result = world.drill()
    if result.get("failed"):
        # A restic that lives on without its parent is waited for.
        assert not whole_group and result["failure"]["code"] == "busy", result
        world.host.inside("while pgrep -x restic >/dev/null; do sleep 1; done")
        result = world.drill()
    assert result["drills"][0]["ok"] and world.left() == ""


def test_a_drill_that_has_not_passed_for_too_long_is_an_alarm(world):
    key = f"{FLEET}/drills/bots/{BOT}.json"
    world.play("restore_drill", fleet_only=[BOT])
    world.play("backup_check", fleet_only=[BOT])
    known = json.loads(world.object(key))
    known["passed"]["drilled"] = "2026-01-01T00:00:00+00:00"
    with world.exchanged(key, json.dumps(known).encode()):
        out = world.fails("backup_check", fleet_only=[BOT])
        assert "No restore drill has passed within 15 days" in out and f"{BOT} (" in out
        world.play("backup_check", fleet_only=[BOT], fleet_drill_max_age=0)
    assert json.loads(world.object(key))["passed"]["drilled"] > "2026-01-01"


def test_the_volume_of_a_space_is_tried(world):
    labels = {"managed": "true", "fleet": FLEET, "space": "attic"}
    words = " ".join(f"--label clawops.fleet/{key}={value}" for key, value in labels.items())
    world.host.inside("python3 -c 'import docker' || apt-get -qy install --no-install-recommends python3-docker")
    world.host.inside(f"docker volume create {words} clawdspace-vol-attic && "
                      "echo word >/var/lib/docker/volumes/clawdspace-vol-attic/_data/note")
    try:
        spaces = [{"name": "attic"}]
        world.host.module("backup_repository", **world.store, spaces=spaces)
        world.host.module("sandbox_snapshot", **world.store, host=HOST, spaces=spaces)
        row, = world.host.module("backup_drill", **world.store, spaces=spaces)["drills"]
        assert row["ok"] and row["space"] == "attic" and row["files"] == 1 and "ready" not in row
    finally:
        world.host.inside("docker volume rm clawdspace-vol-attic")
        for entry in world.keys("spaces/attic/"):
            world.s3.delete_object(Bucket=BUCKET, Key=entry["Key"])
    assert world.left() == ""
