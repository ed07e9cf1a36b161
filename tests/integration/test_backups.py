# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Least rights, retention, checks and faults, with a real MinIO that may be broken and real restic on a real host.

The store is one of our own, in memory: the bed's is shared. Whoever has a bot's key plays the compromised host.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import json
import os
import subprocess
import time

import boto3
import botocore.exceptions
import pytest
from bed import dockerhost, minio, net
from bed.job import Job
from botocore.config import Config
from conftest import ROOT
from managed import Managed

HOST = dockerhost.DEFAULT[0]
STORE = "clawops-test-store"
ROOT_KEY, ROOT_SECRET = "planted-admin-1", "planted-admin-secret-1"
PRUNE = {"access_key": "planted-prune-1", "secret_key": "planted-prune-secret-1"}
ADMIN = {"access_key": ROOT_KEY, "secret_key": ROOT_SECRET}
DATA = "/var/lib/clawops/test-backups"
ROOM = 192 << 20


def secrets(bot, password=None):
    return {"name": bot, "access_key": f"planted-{bot}-key", "secret_key": f"planted-{bot}-secret",
            "password": password or f"planted-{bot}-password"}


def known(bot):
    """What the verbs that prune know of a bot."""
    return {"name": bot, "password": secrets(bot)["password"]}


class World:
    """A store of our own, a host, and the modules on it."""

    def __init__(self):
        self.host = Managed(HOST)
        self.host.install()
        self.host.inside("command -v restic && python3 -c 'import boto3, cryptography' || { apt-get -qy update && "
                         "DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends restic "
                         "python3-boto3 python3-cryptography; }")
        self.host.inside(f"rm -rf {DATA} && mkdir -p {DATA}")
        tag = minio.image(Job("test-store"))
        subprocess.run(["docker", "rm", "--force", STORE], capture_output=True, check=False)
        settings = {"MINIO_ROOT_USER": ROOT_KEY, "MINIO_ROOT_PASSWORD": ROOT_SECRET, "MINIO_BROWSER": "off",
                    "MINIO_UPDATE": "off"}
        subprocess.run(["docker", "run", "--detach", "--name", STORE, "--network", net.NAME,
                        f"--tmpfs=/data:size={ROOM}", *(f"--env={key}={value}" for key, value in settings.items()), tag,
                        "/minio", "server", "--quiet", "--address", ":9000", "/data"], check=True, capture_output=True)
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        self.address = subprocess.run(["docker", "inspect", STORE, "--format", form], check=True, capture_output=True,
                                      text=True).stdout.strip()
        self.endpoint = f"http://{self.address}:9000"
        self.root = self.client(**ADMIN)
        for _attempt in range(100):
            with contextlib.suppress(botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                self.root.list_buckets()
                break
            time.sleep(0.2)
        self.bucket = ""

    def client(self, access_key, secret_key):
        config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=5)
        return boto3.client("s3", endpoint_url=self.endpoint, aws_access_key_id=access_key, region_name="us-east-1",
                            aws_secret_access_key=secret_key, config=config)

    def arguments(self, **more):
        return {"endpoint": self.endpoint, "bucket": self.bucket, "fleet": "home", **more}

    def module(self, name, check=False, **arguments):
        return self.host.module(name, check, **self.arguments(**arguments))

    def failure(self, name, **arguments):
        result = self.host.start(name, self.arguments(**arguments))
        assert result.get("failed"), result
        return result["failure"]

    def keys(self, *bots, **more):
        """A bucket with keys and repositories for bots."""
        return self.module("backup_repository", admin_access_key=ROOT_KEY, admin_secret_key=ROOT_SECRET,
                           prune_access_key=PRUNE["access_key"], prune_secret_key=PRUNE["secret_key"],
                           bots=[secrets(bot) for bot in bots], **{"versioning": True, "keep_deleted": 30, **more})

    def write(self, bot, name, size, seed):
        """Data that neither compress nor repeat."""
        noise = f"openssl enc -aes-128-ctr -pass pass:{seed} -nosalt -pbkdf2 -in /dev/zero 2>/dev/null"
        self.host.inside(f"mkdir -p {DATA}/{bot} && {noise} | head -c {size} >{DATA}/{bot}/{name}")

    def job(self, *bots):
        return {"state_dir": f"{DATA}/lib", "bots": [{**secrets(bot), "paths": [
            {"role": "state", "path": f"{DATA}/{bot}"}]} for bot in bots]}

    def backup(self, *bots, **more):
        return self.module("backup_snapshot", **self.job(*bots), **more)["snapshots"]

    def snapshots(self, bot):
        return self.module("backup_info", bots=[secrets(bot)])["bots"][0]["snapshots"]

    def prune(self, *bots, **more):
        """Of each bot the newest snapshot stays, and the oldest of the year."""
        return self.module("backup_retention", **PRUNE, bots=[known(bot) for bot in bots],
                           **{"keep_within": {"yearly": "1y"}, "keep_last": 1, **more})

    def check(self, *bots):
        return self.module("backup_check", **PRUNE, read_data="all", bots=[known(bot) for bot in bots])["bots"]

    def restic(self, bot, *words):
        """restic by hand, with the bot's own secrets."""
        own = secrets(bot)
        env = {"RESTIC_REPOSITORY": f"s3:{self.endpoint}/{self.bucket}/home/bots/{bot}/",
               "RESTIC_PASSWORD": own["password"], "AWS_ACCESS_KEY_ID": own["access_key"],
               "AWS_SECRET_ACCESS_KEY": own["secret_key"], "AWS_DEFAULT_REGION": "us-east-1",
               "RESTIC_CACHE_DIR": f"{DATA}/cache"}
        argv = ["docker", "exec", *(f"--env={key}={value}" for key, value in env.items()), self.host.container]
        return subprocess.run([*argv, "restic", "-o", "s3.bucket-lookup=path", *words], capture_output=True, text=True,
                              check=False)

    def content(self, bot):
        return self.host.inside(f"cd {DATA}/{bot} && find . -type f -exec sha256sum {{}} + | sort")

    def objects(self, bot, kind=""):
        prefix = f"home/bots/{bot}/{kind}"
        pages = self.root.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry for page in pages for entry in page.get("Contents", [])]

    @contextlib.contextmanager
    def gone(self):
        """The store can't be reached from the host."""
        self.host.inside(f"ip route add unreachable {self.address}/32")
        try:
            yield
        finally:
            self.host.inside(f"ip route del unreachable {self.address}/32")

    @contextlib.contextmanager
    def stuck(self):
        """The store takes connections and answers nothing."""
        subprocess.run(["docker", "pause", STORE], check=True, capture_output=True)
        try:
            yield
        finally:
            subprocess.run(["docker", "unpause", STORE], check=True, capture_output=True)

    def end(self):
        subprocess.run(["docker", "rm", "--force", STORE], check=False, capture_output=True)
        self.host.inside(f"rm -rf {DATA}; ip route del unreachable {self.address}/32 2>/dev/null", check=False)


@pytest.fixture(scope="module")
def store():
    made = World()
    yield made
    made.end()


@pytest.fixture
def world(store, request):
    """Every test has a bucket of its own, and leaves no room taken."""
    name = request.node.name.lower()
    store.bucket = "".join(letter if letter.isalnum() else "-" for letter in name)[-50:].strip("-")
    store.host.inside(f"rm -rf {DATA}/*")
    yield store
    with contextlib.suppress(botocore.exceptions.ClientError):
        for page in store.root.get_paginator("list_object_versions").paginate(Bucket=store.bucket):
            for entry in page.get("Versions", []) + page.get("DeleteMarkers", []):
                store.root.delete_object(Bucket=store.bucket, Key=entry["Key"], VersionId=entry["VersionId"],
                                         BypassGovernanceRetention=True)
        store.root.delete_bucket(Bucket=store.bucket)


def refused(call, *codes, **arguments):
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] in (codes or ("AccessDenied",)), caught.value


# Least rights

def test_keys_and_repositories_are_made_once(world):
    assert world.module("backup_repository", check=True, bots=[secrets("anna")], admin_access_key=ROOT_KEY,
                        admin_secret_key=ROOT_SECRET)["changed"]
    assert not world.root.list_buckets()["Buckets"]
    assert world.keys("anna", "berta")["changed"]
    assert not world.keys("anna", "berta")["changed"]
    # As each bot's host does it, with the bot's key alone.
    assert not world.module("backup_repository", bots=[secrets("anna"), secrets("berta")])["changed"]
    wrong = {**secrets("berta"), "password": "no"}
    details = world.failure("backup_repository", bots=[secrets("anna"), wrong])["details"]
    assert details["done"] == ["anna"] and details["failed"][0]["code"] == "wrong_password"


def test_a_compromised_host_reaches_nothing_of_another_bot(world):
    world.keys("anna", "berta")
    world.write("anna", "a", 1000, 1)
    world.write("berta", "b", 1000, 2)
    world.backup("anna", "berta")
    world.prune("anna", "berta")
    thief = world.client(**{key: secrets("anna")[key] for key in ("access_key", "secret_key")})
    theirs = [entry["Key"] for entry in world.objects("berta")]
    theirs += ["home/admin/bots/anna.json", "home/admin/bots/none.json"]
    bucket = {"Bucket": world.bucket}
    for prefix in ("", "home/", "home/bots/", "home/bots/berta/", "home/bots/anna", "home/admin/"):
        refused(thief.list_objects_v2, **bucket, Prefix=prefix)
        refused(thief.list_object_versions, **bucket, Prefix=prefix)
    for key in theirs:
        refused(thief.get_object, **bucket, Key=key)
        refused(thief.put_object, **bucket, Key=key, Body=b"x")
        refused(thief.delete_object, **bucket, Key=key)
        refused(thief.copy_object, **bucket, Key="home/bots/anna/data/stolen", CopySource=f"{world.bucket}/{key}")
    refused(thief.put_bucket_versioning, **bucket, VersioningConfiguration={"Status": "Suspended"})
    refused(thief.put_bucket_policy, **bucket, Policy="{}")
    refused(thief.put_bucket_lifecycle_configuration, **bucket, LifecycleConfiguration={"Rules": [
        {"ID": "x", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]})
    refused(thief.delete_bucket, **bucket)
    refused(thief.create_bucket, Bucket="mine-alone")
    assert world.failure("backup_repository", bots=[secrets("anna")], admin_access_key="planted-anna-key",
                         admin_secret_key="planted-anna-secret", repositories=False)["code"] in (
                             "wrong_admin_key", "bad_value")
    # Their password does not help without their key, nor the other way round.
    mixed = {**secrets("anna"), "password": secrets("berta")["password"]}
    assert world.failure("backup_info", bots=[{**mixed, "name": "berta"}])["code"] == "wrong_key"
    assert world.failure("backup_info", bots=[mixed])["code"] == "wrong_password"
    assert len(world.snapshots("berta")) == 1


def test_a_compromised_host_destroys_nothing_that_does_not_come_back(world):
    world.keys("anna")
    world.write("anna", "a", 300000, 1)
    world.backup("anna")
    world.write("anna", "b", 1000, 2)
    world.backup("anna")
    world.prune("anna", keep_last=2)
    content, before = world.content("anna"), world.snapshots("anna")
    time.sleep(1.1)
    moment = datetime.datetime.now(datetime.timezone.utc).isoformat()
    time.sleep(1.1)

    own = {key: secrets("anna")[key] for key in ("access_key", "secret_key")}
    vandal, bucket = world.client(**own), {"Bucket": world.bucket}
    for number, entry in enumerate(world.objects("anna")):
        key = entry["Key"]
        if "/locks/" not in key:
            refused(vandal.delete_object, **bucket, Key=key)
            version = world.root.head_object(**bucket, Key=key)["VersionId"]
            refused(vandal.delete_object, **bucket, Key=key, VersionId=version)
        if number % 2:
            vandal.put_object(**bucket, Key=key, Body=b"junk")
    assert world.restic("anna", "forget", before[0]["id"]).returncode
    vandal.put_object(**bucket, Key="home/bots/anna/rejected/" + "0" * 32, Body=b"")
    vandal.put_object(**bucket, Key="home/bots/anna/data/00/" + "0" * 64, Body=b"junk")

    done = world.module("backup_repair", **PRUNE, bots=[known("anna")], steps=["rewind"], rewind=moment)
    assert done["changed"] and done["bots"][0]["rewound"]
    again = world.module("backup_repair", **PRUNE, bots=[known("anna")], steps=["rewind"], rewind=moment)
    assert not again["changed"]
    assert world.check("anna")[0]["sound"] and world.snapshots("anna") == before
    world.module("backup_restore", state_dir=f"{DATA}/lib", bots=[{**secrets("anna"), "paths": [
        {"role": "state", "path": f"{DATA}/anna2", "owner": "root"}]}])
    assert world.content("anna2") == content
    assert not world.prune("anna", keep_last=2)["changed"]


def test_objects_that_are_locked_stay_even_for_the_key_that_prunes(world):
    world.keys("anna", object_lock={"mode": "governance", "days": 1})
    assert not world.keys("anna", object_lock={"mode": "governance", "days": 1})["changed"]
    world.write("anna", "a", 1000, 1)
    world.backup("anna")
    world.backup("anna")
    world.prune("anna")
    pruner, bucket = world.client(**PRUNE), {"Bucket": world.bucket}
    for entry in world.root.list_object_versions(**bucket, Prefix="home/bots/anna/snapshots/")["Versions"]:
        for client in (pruner, world.root):
            refused(client.delete_object, "AccessDenied", "InvalidRequest", **bucket, Key=entry["Key"],
                    VersionId=entry["VersionId"])
    assert world.check("anna")[0]["sound"]


def test_keys_and_passwords_are_rotated(world):
    world.keys("anna")
    world.write("anna", "a", 1000, 1)
    world.backup("anna")
    old = secrets("anna")
    new = {"name": "anna", "access_key": "planted-new-key", "secret_key": "planted-new-secret",
           "password": "planted-new-password"}
    admin = {"admin_access_key": ROOT_KEY, "admin_secret_key": ROOT_SECRET}
    assert world.module("backup_repository", **admin, bots=[new], repositories=False)["changed"]
    change = {"name": "anna", "password": new["password"], "previous_password": old["password"]}
    assert world.module("backup_password", **PRUNE, bots=[change])["changed"]
    assert not world.module("backup_password", **PRUNE, bots=[change])["changed"]
    assert world.module("backup_info", bots=[new])["bots"][0]["newest_age"] is not None
    assert world.failure("backup_info", bots=[{**new, "password": old["password"]}])["code"] == "wrong_password"
    assert world.module("backup_repository", **admin, bots=[new], revoke=[old["access_key"]])["changed"]
    assert not world.module("backup_repository", **admin, bots=[new], revoke=[old["access_key"]])["changed"]
    assert world.failure("backup_info", bots=[{**new, **{key: old[key] for key in ("access_key", "secret_key")}}])[
        "code"] == "wrong_key"


# Retention, checks, repairs

def test_snapshots_go_by_the_rules_and_never_on_a_suspicion(world):
    world.keys("anna", "berta")
    for number in range(3):
        world.write("anna", "a", 200000, number)
        world.backup("anna")
    world.write("berta", "b", 1000, 1)
    world.backup("berta")
    planned = world.prune("anna", "berta", "nobody", check=True)["bots"]
    result = world.prune("anna", "berta", "nobody")
    assert [(one["kept"], len(one["removed"])) for one in result["bots"]] == [(2, 1), (1, 0), (0, 0)]
    assert [one["removed"] for one in planned] == [one["removed"] for one in result["bots"]]
    assert result["bots"][0]["bytes_freed"] > 150000
    assert not world.prune("anna", "berta")["changed"]
    tags = ("--tag", "fleet=home,bot=anna,manifest=1")
    for when in ("2035-01-01 00:00:00", "2020-01-01 00:00:00"):
        done = world.restic("anna", "backup", *tags, "--time", when, f"{DATA}/anna")
        assert done.returncode == 0, done.stderr
    stop = world.failure("backup_retention", **PRUNE, bots=[known("anna"), known("berta")],
                         keep_within={"all": "1h"}, keep_last=1)
    assert stop["code"] == "history_suspect" and stop["details"]["done"] == ["berta"]
    assert "2035-01-01" in stop["message"] and "2020-01-01" in stop["message"]
    dates = {one["time"][:4]: one["id"] for one in world.snapshots("anna")}
    world.prune("anna", forget=[dates["2035"][:8], dates["2020"]])
    assert len(world.snapshots("anna")) == 2 and all(one["sound"] for one in world.check("anna", "berta"))
    assert world.failure("backup_retention", bots=[secrets("anna")], keep_within={"all": "1h"})["code"] == "wrong_key"


def test_a_flipped_byte_is_found_named_and_undone(world):
    world.keys("anna", "berta")
    for bot in ("anna", "berta"):
        world.write(bot, "precious", 500000, 1)
    world.backup("anna", "berta")
    assert all(one["sound"] for one in world.check("anna", "berta"))
    moment = datetime.datetime.now(datetime.timezone.utc).isoformat()
    time.sleep(1.1)
    pack = max(world.objects("anna", "data/"), key=lambda entry: entry["Size"])["Key"]
    body = bytearray(world.root.get_object(Bucket=world.bucket, Key=pack)["Body"].read())
    body[len(body) // 3] ^= 1
    world.root.put_object(Bucket=world.bucket, Key=pack, Body=bytes(body))
    found = world.failure("backup_check", **PRUNE, read_data="all", bots=[known("anna"), known("berta")])
    assert found["code"] == "repository_damaged" and found["details"]["done"] == ["berta"]
    damaged = found["details"]["bots"][0]
    assert damaged["packs"] == [pack.rsplit("/", 1)[1]]
    assert any(name.startswith(f"{DATA}/anna/precious of snapshot") for name in damaged["files"])
    world.module("backup_repair", **PRUNE, bots=[known("anna")], steps=["rewind"], rewind=moment)
    assert world.check("anna")[0]["sound"]
    # Where there is no older version: what can be read is saved, the rest is left out.
    world.root.put_object(Bucket=world.bucket, Key=pack, Body=bytes(body))
    result = world.module("backup_repair", **PRUNE, bots=[known("anna")], steps=["packs", "snapshots"],
                          packs=damaged["packs"], place=f"{DATA}/repair")
    assert len(result["bots"][0]["repaired"]) == 1 and world.check("anna")[0]["sound"]
    assert not world.prune("anna")["changed"]


def test_a_living_lock_stays(world):
    world.keys("anna")
    world.write("anna", "a", 1000, 1)
    world.backup("anna")
    world.root.put_object(Bucket=world.bucket, Key="home/bots/anna/locks/" + "a" * 64, Body=b"young")
    result = world.module("backup_repair", **PRUNE, bots=[known("anna")])
    assert not result["changed"] and [lock["stale"] for lock in result["bots"][0]["locks"]] == [False]


# Faults

def test_a_store_that_is_gone_is_named_within_seconds(world):
    world.keys("anna")
    world.write("anna", "a", 1000, 1)
    began = time.monotonic()
    with world.gone():
        assert world.failure("backup_snapshot", **world.job("anna"))["code"] == "unreachable"
        assert world.failure("backup_retention", **PRUNE, bots=[known("anna")], keep_within={"all": "1d"})["code"] == (
            "unreachable")
    assert time.monotonic() - began < 60
    assert len(world.backup("anna")) == 1


@pytest.mark.full
@pytest.mark.parametrize("fault", ["gone", "stuck"])
def test_a_store_that_fails_in_the_middle_of_a_backup(world, fault):
    world.keys("anna")
    world.write("anna", "small", 1000, 1)
    world.backup("anna")
    world.write("anna", "large", 60 << 20, 2)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        run = pool.submit(world.failure, "backup_snapshot", **world.job("anna"), timeout=20)
        until(lambda: len(world.objects("anna", "data/")) > 1)
        with getattr(world, fault)():
            failure = run.result(120)
    assert failure["code"] in ("timeout", "unreachable"), failure
    assert len(world.snapshots("anna")) == 1
    world.backup("anna")
    assert len(world.snapshots("anna")) == 2 and world.check("anna")[0]["sound"]


@pytest.mark.full
def test_a_store_that_fails_in_the_middle_of_a_prune(world):
    world.keys("anna")
    for seed in range(4):
        world.write("anna", f"part{seed % 2}", 8 << 20, seed)
        world.backup("anna")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        run = pool.submit(world.failure, "backup_retention", **PRUNE, bots=[known("anna")], timeout=15,
                          keep_within={"yearly": "1y"}, keep_last=1)
        until(lambda: len(world.objects("anna", "snapshots/")) < 4 or run.done())
        with world.stuck():
            failure = run.result(120)
    assert failure["code"] in ("timeout", "unreachable"), failure
    world.host.inside("pkill -9 -x restic || true")
    unlock(world, "anna")
    assert world.prune("anna")["bots"][0]["kept"] == 2
    assert not world.prune("anna")["changed"] and world.check("anna")[0]["sound"]


@pytest.mark.full
def test_a_prune_that_is_killed_is_taken_up_again(world):
    world.keys("anna")
    for seed in range(3):
        world.write("anna", "part", 4 << 20, seed)
        world.backup("anna")
    arguments = world.arguments(**PRUNE, bots=[known("anna")], keep_within={"yearly": "1y"}, keep_last=1)
    steps = world.host.start("backup_retention", {**arguments, "_ansible_check_mode": True})["steps"]
    for more in (1, 3):
        world.host.start("backup_retention", arguments, die_at=len(steps) + more, die_after=0.6, whole_group=True)
        unlock(world, "anna")
    assert world.prune("anna")["bots"][0]["kept"] == 2
    assert not world.prune("anna")["changed"] and world.check("anna")[0]["sound"]


@pytest.mark.full
def test_a_full_store_is_named_and_the_next_run_is_fine(world):
    world.keys("anna")
    world.write("anna", "small", 1000, 1)
    world.backup("anna")
    world.write("anna", "large", 40 << 20, 2)
    world.root.create_bucket(Bucket="ballast")
    filled = 0
    with contextlib.suppress(botocore.exceptions.ClientError):
        for number in range(ROOM >> 20):
            world.root.put_object(Bucket="ballast", Key=str(number), Body=os.urandom(1 << 20))
            filled += 1
    try:
        failure = world.failure("backup_snapshot", **world.job("anna"), timeout=40)
        assert failure["code"] in ("bucket_full", "timeout"), failure
    finally:
        for number in range(filled):
            world.root.delete_object(Bucket="ballast", Key=str(number))
        world.root.delete_bucket(Bucket="ballast")
    assert len(world.snapshots("anna")) == 1
    world.backup("anna")
    assert len(world.snapshots("anna")) == 2 and world.check("anna")[0]["sound"]


def until(ready, seconds=60):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def unlock(world, bot):
    """Half an hour later: a killed restic's locks are stale then."""
    for entry in world.objects(bot, "locks/"):
        world.root.delete_object(Bucket=world.bucket, Key=entry["Key"])


# The whole

class Story:
    """Playbooks against the host, from an inventory with planted secrets."""

    def __init__(self, world, top):
        self.world, self.top = world, top
        argv = ["ansible-inventory", "-i", ROOT / "inventory/local/hosts.yml", "--host", "alder"]
        box = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
        common = {key: box[key] for key in box if key == "box_dir" or key.startswith("ansible_")}
        del common["ansible_host"]
        # Beside the host one that nobody can log in to.
        hosts = {HOST: {"ansible_host": net.v4(HOST)}, "dead": {"ansible_host": net.v4("outside")}}
        bots = {name: {"bot_on": on} for name, on in (("story-a", HOST), ("story-b", HOST), ("story-c", "dead"))}
        for name, bot in bots.items():
            bot.update({f"bot_backup_{key}": value for key, value in secrets(name).items() if key != "name"})
        prune = {f"fleet_backup_prune_{key}": value for key, value in PRUNE.items()}
        admin = {f"fleet_backup_admin_{key}": value for key, value in ADMIN.items()}
        variables = {**common, **prune, **admin, "fleet_name": "home",
                     **{f"fleet_backup_{key}": "none" for key in ("access_key", "secret_key", "password")},
                     "fleet_backup": {"endpoint": world.endpoint, "bucket": world.bucket,
                                      "keep_within": {"yearly": "1y"}},
                     "fleet_backup_protection": {"versioning": True, "keep_deleted": 30}}
        groups = {"docker_hosts": hosts, "backup_hosts": {HOST: {}}, "bots": bots}
        self.inventory = {"all": {"vars": variables, "children": {name: {"hosts": group}
                                                                  for name, group in groups.items()}}}

    def play(self, verb, code=0, **variables):
        path = self.top / "hosts.json"
        path.write_text(json.dumps(self.inventory))
        env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_TIMEOUT": "5"}
        done = subprocess.run(["ansible-playbook", "-i", path, f"clawops.fleet.{verb}", "-e", json.dumps(variables)],
                              env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == code, done.stdout[-4000:] + done.stderr[-2000:]
        assert "planted-" not in done.stdout + done.stderr
        return done.stdout


@pytest.mark.full
def test_the_verbs_as_playbooks(world, tmp_path):
    story = Story(world, tmp_path)
    homes = [f"/var/lib/clawops/bots/story-{letter} /opt/openclaw/story-{letter}/config" for letter in "ab"]
    world.host.inside(f"mkdir -p {' '.join(homes)} && echo hello >/var/lib/clawops/bots/story-a/note")
    try:
        assert "changed=0" not in story.play("backup_keys").split("PLAY RECAP")[1]
        assert "changed=0" in story.play("backup_keys").split("PLAY RECAP")[1]
        out = story.play("backup", 2, fleet_report=str(tmp_path / "report.json"))
        rows = {row["bot"]: row for row in json.loads((tmp_path / "report.json").read_text())}
        assert [rows[f"story-{letter}"]["ok"] for letter in "abc"] == [True, True, False]
        assert "No snapshot of story-c: see the table." in out and "story-a  " in out
        assert rows["story-c"]["host"] == "dead" and rows["story-c"]["why"]
        for _again in range(2):
            story.play("backup", fleet_only=["story-a"])
        assert "changed=0" in story.play("prune").split("PLAY RECAP")[1]
        assert "changed=1" in story.play("prune", backup_upkeep_keep_last=1).split("PLAY RECAP")[1]
        story.play("backup_check")
        story.play("backup_repair")
        # A space that need not be anywhere for its repository to be made.
        web = {key: value for key, value in secrets("web").items() if key != "name"}
        story.inventory["all"]["children"]["spaces"] = {"hosts": {"story-web": {"space_backup": web}}}
        story.play("backup_keys")
        bots = story.inventory["all"]["children"]["bots"]["hosts"]
        bots["story-a"].update(bot_backup_password="planted-fresh-password", bot_backup_access_key="planted-fresh-key",
                               bot_backup_previous_password=secrets("story-a")["password"],
                               bot_backup_previous_access_key=secrets("story-a")["access_key"])
        web.update(password="planted-web-fresh", access_key="planted-web-fresh-key",
                   previous_password=web["password"], previous_access_key=web["access_key"])
        # Of bots and of spaces: new keys, new passwords, and the end of the old keys.
        assert "changed=6" in story.play("rotate_backup_keys").split("PLAY RECAP")[1]
        assert "changed=0" in story.play("rotate_backup_keys").split("PLAY RECAP")[1]
        story.play("backup", fleet_only=["story-a"])
        places = "/var/log /etc /run /tmp /var/cache/clawops /var/lib/clawops"
        seek = f"{{ journalctl --no-pager; grep -rF planted- {places} --binary-files=text; }} 2>/dev/null"
        left = world.host.inside(f"{seek} | grep -F planted- | head", check=False)
        assert not left, left
    finally:
        world.host.inside("rm -rf /var/lib/clawops/bots/story-* /opt/openclaw/story-*")


@pytest.mark.full
def test_a_schedule_runs_catches_up_and_goes_without_a_trace(world, tmp_path):
    story, stand_in = Story(world, tmp_path), "/usr/local/bin/ansible-stand-in"
    script = "#!/bin/sh\nfor word; do case $word in @*) cat ${word#@};; esac; done >/run/seen; exit ${CODE:-0}\n"
    world.host.inside(f"rm -rf /var/log/clawops/backup; cat >{stand_in} && chmod 755 {stand_in}", script.encode())
    given = {"backup_schedule_inventory": "/srv/hosts.yml", "backup_schedule_ansible": stand_in,
             "backup_schedule_delay": 0, "backup_schedule_credentials": {"fleet_backup_password": "planted-timer"},
             "backup_schedule_settings": {"metrics": "/var/lib/clawops/backup.prom"}}
    try:
        story.play("schedule_backups", **given)
        assert "changed=0" in story.play("schedule_backups", **given).split("PLAY RECAP")[1]
        world.host.inside("systemctl start clawops-backup@backup")
        assert "planted-timer" in world.host.inside("cat /run/seen")
        assert "backup ok: " in world.host.inside("journalctl --unit clawops-backup@backup --output cat")
        assert 'run_success{verb="backup"} 1' in world.host.inside("cat /var/lib/clawops/backup.prom")
        # A night that the machine slept through.
        world.host.inside("systemctl stop clawops-backup-check.timer && "
                          "touch -d '2 days ago' /var/lib/systemd/timers/stamp-clawops-backup-check.timer && "
                          "systemctl start clawops-backup-check.timer")
        until(lambda: world.host.inside("ls /var/log/clawops/backup").count("check-") == 1, 30)
        failing = {**given["backup_schedule_settings"], "environment": {"CODE": "3"}}
        story.play("schedule_backups", **{**given, "backup_schedule_settings": failing})
        assert world.host.inside("systemctl start clawops-backup@backup; echo $?", check=False).strip().endswith("1")
        assert "backup FAILED: Ansible ended with 3" in world.host.inside(
            "journalctl --unit clawops-backup@backup --output cat")
        story.play("schedule_backups", **given, backup_schedule_method="cron")
        assert "clawops-backup" not in world.host.inside("systemctl list-timers --no-pager")
        assert "backup-cron --quiet backup" in world.host.inside("cat /etc/cron.d/clawops-backup")
    finally:
        story.play("schedule_backups", backup_schedule_state="absent")
        world.host.inside(f"rm -f {stand_in} /run/seen /var/lib/clawops/backup.prom; rm -rf /var/log/clawops/backup")
    assert not world.host.inside("ls -d /etc/systemd/system/clawops-backup* /etc/cron.d/clawops-backup "
                                 "/etc/clawops/backup-cron.json /etc/clawops/credentials/backup-cron.json", check=False)
