# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What comes out of a backup is what went in: names, kinds, owners, rights, attributes, times and content of files."""

from __future__ import annotations

import contextlib
import json
import pathlib
import uuid

import boto3
import pytest
from bed import dockerhost, minio
from botocore.config import Config
from managed import PLACE, Managed

HERE = pathlib.Path(__file__).parent
HOST = dockerhost.DEFAULT[0]
DATA = "/var/lib/clawops/test-fidelity"
TREE = f"{PLACE}/tree.py"
#: Users that every Debian has: whose bot it is, and to whom it moves.
OWNER, OTHER = "games", "news"
PLANTED = "planted-in-another-bot"
#: Exchanges a directory for a link, and back, until it is stopped.
SWAP = """
import ctypes, time
libc = ctypes.CDLL(None)
while True:
    libc.renameat2(-100, b"here", -100, b"link", 2)
    time.sleep(0.0005)
"""
VOLUME, RECORDS = "clawdspace-vol-test-fidelity", "/var/lib/clawops/spaces/.backup/restored"


class World:
    """A host, its modules, and a bucket of our own in the bed's store, which has room for large files."""

    def __init__(self):
        self.host = Managed(HOST)
        self.host.seconds = 900
        self.host.install()
        self.install("command -v restic && command -v setfacl && python3 -c 'import boto3'", "restic acl python3-boto3")
        self.host.inside(f"cat >{TREE} && rm -rf {DATA} && mkdir -p {DATA}", (HERE / "on_host_tree.py").read_bytes())
        found = json.loads(minio.credentials().read_text())
        keys = {name: found[name] for name in ("access_key", "secret_key")}
        self.bucket = f"test-fidelity-{uuid.uuid4().hex[:8]}"
        self.common = {"endpoint": minio.endpoint(), "bucket": self.bucket, "fleet": "home",
                       "password": "planted-fidelity", **keys}
        self.client = boto3.client("s3", endpoint_url=minio.endpoint(), region_name="us-east-1",
                                   config=Config(s3={"addressing_style": "path"}),
                                   aws_access_key_id=keys["access_key"], aws_secret_access_key=keys["secret_key"])

    def install(self, present, packages):
        self.host.inside(f"{{ {present}; }} >/dev/null 2>&1 || {{ apt-get -qy update && DEBIAN_FRONTEND=noninteractive "
                         f"apt-get -qy install --no-install-recommends {packages}; }}")

    def module(self, name, **arguments):
        return self.host.module(name, **self.common, **arguments)

    def fill(self, path, *sizes):
        self.host.inside(f"python3 {TREE} fill {path} {OWNER} {' '.join(map(str, sizes))}")

    def look(self, path):
        """Each entry of a tree with all that can be said of it."""
        return json.loads(self.host.inside(f"python3 {TREE} look {path}"))

    def end(self):
        self.host.inside(f"rm -rf {DATA}; rm -f /var/lib/clawops/restored/test-fidelity.json")
        with contextlib.suppress(self.client.exceptions.NoSuchBucket):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket):
                for entry in page.get("Contents", []):
                    self.client.delete_object(Bucket=self.bucket, Key=entry["Key"])
            self.client.delete_bucket(Bucket=self.bucket)


@pytest.fixture(scope="module")
def world():
    made = World()
    yield made
    made.end()


def same(found, expected):
    """Names what differs: thousands of entries are no message."""
    differing = {name: (expected.get(name), found.get(name)) for name in {*expected, *found}
                 if expected.get(name) != found.get(name)}
    assert not differing, f"{len(differing)} differ, such as {sorted(differing.items())[:5]}"


def round_trip(world, name, files, large):
    """A bot's state there, backed up, and restored somewhere else."""
    state, again = f"{DATA}/{name}", f"{DATA}/{name}-again"
    world.fill(state, files, large)
    before = world.look(state)
    world.module("backup_repository", bots=[{"name": name}])
    taken = world.module("backup_snapshot", state_dir=f"{DATA}/lib", bots=[
        {"name": name, "paths": [{"role": "state", "path": state, "exclude": []}]}])["snapshots"][0]
    assert taken["databases"] == 2
    same(world.look(state), before)
    world.module("backup_restore", state_dir=f"{DATA}/lib", bots=[
        {"name": name, "units": [], "paths": [{"role": "state", "path": again, "owner": OWNER}]}])
    return before, again


def test_all_kinds_of_files_come_back_the_same(world):
    before, again = round_trip(world, "small", 100, 0)
    same(world.look(again), before)


def test_another_user_takes_the_place_of_the_owner_and_no_rights_come_along(world):
    world.fill(f"{DATA}/moved", 10, 0)
    world.host.inside(f"cd {DATA}/moved && cp /bin/true tool && chown {OWNER}: tool && chmod 6755 tool")
    before = world.look(f"{DATA}/moved")
    world.module("backup_repository", bots=[{"name": "moved"}])
    world.module("backup_snapshot", state_dir=f"{DATA}/lib", bots=[
        {"name": "moved", "paths": [{"role": "state", "path": f"{DATA}/moved"}]}])
    world.module("backup_restore", state_dir=f"{DATA}/lib", bots=[
        {"name": "moved", "units": [], "paths": [{"role": "state", "path": f"{DATA}/moved-again", "owner": OTHER}]}])
    found = world.look(f"{DATA}/moved-again")
    ids = {who: int(world.host.inside(f"id -u {who}")) for who in (OWNER, OTHER)}
    assert {before[name]["uid"] for name in before} == {0, 4321, ids[OWNER]}
    for name, entry in found.items():
        assert entry["uid"] == (0 if before[name]["uid"] == 0 else ids[OTHER]), name
    assert found["tool"]["mode"] & 0o7777 == 0o755


def test_links_that_come_and_go_lead_to_nothing_of_another_bot(world):
    fill = "import sqlite3, sys\nbase = sqlite3.connect('a.sqlite')\nbase.execute('create table t(a)')\n" \
           "base.execute('insert into t values(?)', sys.argv[1:])\nbase.commit()\n" \
           "for one in range(300):\n    open(f'file-{one}', 'w').write(sys.argv[1])"
    state, other = f"{DATA}/swapped", f"{DATA}/other"
    world.host.inside(f"mkdir -p {state}/here {other} && chmod 700 {other}\n"
                      f"for at in '{state}/here words' '{other} {PLANTED}'; do set -- $at; cd $1\n"
                      f"python3 - $2 <<'END'\n{fill}\nEND\ndone\n"
                      f"ln -s {other} {state}/link && chown {OWNER}: {state} && cat >{DATA}/swap.py", SWAP.encode())
    job = {"state_dir": f"{DATA}/lib", "bots": [{"name": "swapped", "paths": [{"role": "state", "path": state}]}]}
    world.module("backup_repository", bots=[{"name": "swapped"}])
    world.host.inside(f"systemd-run --quiet --unit=test-swap --uid={OWNER} --working-directory={state} "
                      f"python3 {DATA}/swap.py")
    try:
        results = [world.host.start("backup_snapshot", {**world.common, **job}) for _run in range(4)]
    finally:
        world.host.inside("systemctl stop test-swap")
    assert {result["failure"]["code"] for result in results if result.get("failed")} <= {
        "incomplete", "database_unreadable"}
    # In peace the same directories can be backed up.
    world.host.inside(f"cd {state} && if test -L here; then mv -T here aside && mv -T link here && mv aside link; fi")
    world.module("backup_snapshot", **job)
    kept = world.module("backup_info", bots=[{"name": "swapped"}])["bots"][0]["snapshots"]
    for one in kept:
        into = f"{DATA}/look/{one['id'][:8]}"
        world.module("backup_extract", bots=[{"name": "swapped", "snapshot": one["id"], "into": into}])
        found = world.host.inside(f"grep -rl {PLANTED} {into} || true")
        assert not found, found
    assert kept and world.host.inside(f"find {into} -name a.sqlite")


@pytest.mark.full
def test_ten_thousand_files_and_a_large_one_come_back_the_same(world):
    before, again = round_trip(world, "large", 10000, 2 << 30)
    assert sum(one["kind"] == "file" for one in before.values()) > 10000
    assert before["large"]["size"] == 2 << 30
    same(world.look(again), before)


@pytest.mark.full
def test_the_volume_of_a_space_comes_back_the_same(world):
    labels = {"managed": "true", "fleet": "home", "space": "test-fidelity"}
    marks = " ".join(f"--label clawops.fleet/{key}={value}" for key, value in labels.items())
    world.install("docker info && python3 -c 'import docker'", "docker.io docker-cli python3-docker")
    try:
        path = world.host.inside(f"docker volume rm -f {VOLUME} >/dev/null; docker volume create {marks} {VOLUME} && "
                                 f"docker volume inspect -f '{{{{.Mountpoint}}}}' {VOLUME}").split()[-1]
        world.fill(path, 100, 0)
        before = world.look(path)
        space = [{"name": "test-fidelity"}]
        world.module("backup_repository", spaces=space)
        world.module("sandbox_snapshot", spaces=space)
        # Somebody else's, and empty.
        world.host.inside(f"find {path} -mindepth 1 -delete")
        world.module("sandbox_restore", spaces=space)
        same(world.look(path), before)
    finally:
        world.host.inside(f"docker volume rm -f {VOLUME}; rm -f {RECORDS}/test-fidelity.*", check=False)
