# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Restores with real restic and MinIO: to a point in time and forth, beside what lives, and of what is hostile."""

from __future__ import annotations

import json
import time

import pytest
from test_backups import DATA, HOST, Story, secrets, store, world

__all__ = ["store", "world"]
HOME = f"{DATA}/anna"
CREDENTIALS = "/etc/clawops/credentials/bot-anna.env"
# All that a file system has to say of a tree; of a directory no times, which entries of it change.
LIST = """
import hashlib, os, stat, sys
top = sys.argv[1].encode()
for place, folders, files in os.walk(top):
    for name in sorted(folders + files):
        path = os.path.join(place, name)
        facts = os.lstat(path)
        what = (os.readlink(path) if stat.S_ISLNK(facts.st_mode) else
                hashlib.sha256(open(path, "rb").read()).hexdigest() if stat.S_ISREG(facts.st_mode) else "")
        attributes = [(one, os.getxattr(path, one, follow_symlinks=False))
                      for one in sorted(os.listxattr(path, follow_symlinks=False))]
        print(path[len(top):], oct(facts.st_mode), facts.st_uid, facts.st_gid, facts.st_size, what, attributes,
              facts.st_nlink if stat.S_ISREG(facts.st_mode) else "",
              facts.st_mtime_ns if stat.S_ISREG(facts.st_mode) else "")
"""
ODD = """
import os, sqlite3, sys
os.chdir(sys.argv[1])
os.makedirs("deep/er")
for name in ("a\\nb", "caf\\u00e9", "with blanks ", "-dash", "*?[x]"):
    open(f"deep/{name}", "w").write(name)
os.link("deep/-dash", "deep/er/hard")
os.symlink("../-dash", "deep/er/soft")
os.symlink("/nowhere at all", "dangling")
with open("sparse", "wb") as file:
    file.truncate(64 << 20)
    file.write(b"end")
os.setxattr("sparse", "user.colour", b"black")
open("private", "w").write("x")
os.chmod("private", 0o600)
os.mkdir("sticky")
os.chmod("sticky", 0o1777)
with sqlite3.connect("memory.sqlite") as base:
    base.execute("create table t (x)")
"""


def listing(world, path):
    return world.host.inside(f"cat >{DATA}/list.py && python3 {DATA}/list.py '{path}'", LIST.encode())


def target(path=HOME, **more):
    return {**secrets("anna"), "paths": [{"role": "state", "path": path, "owner": "root"}], **more}


def restore(world, **more):
    result = world.module("backup_restore", state_dir=f"{DATA}/lib", bots=[target(**more)])
    return result["restored"][0]


def refused(world, **more):
    return world.failure("backup_restore", state_dir=f"{DATA}/lib", bots=[target(**more)])


def clock(world):
    """Between two snapshots: restic writes times to the nanosecond."""
    time.sleep(0.1)
    return world.host.inside("date --utc +%Y-%m-%dT%H:%M:%S.%NZ").strip()


def test_back_to_a_point_in_time_and_forth_again(world):
    world.keys("anna")
    before = clock(world)
    world.write("anna", "first", 1000, 1)
    world.backup("anna")
    middle, first = clock(world), world.content("anna")
    world.write("anna", "second", 1000, 2)
    world.backup("anna")
    world.write("anna", "third", 1000, 3)
    world.host.inside(f"mkdir -p /etc/clawops/credentials && printf 'KEY=`kept`\\nOPENCLAW_GATEWAY_TOKEN=`old`\\n' "
                      f">{CREDENTIALS}")
    third, ids = world.content("anna"), [one["id"] for one in world.snapshots("anna")]
    try:
        assert refused(world, time=middle)["code"] == "target_not_empty"
        error = refused(world, time=before, overwrite=True)
        assert error["code"] == "snapshot_missing" and world.snapshots("anna")[-1]["time"] in error["message"]
        assert refused(world, time=middle[:-1], overwrite=True)["code"] == "bad_value"
        assert refused(world, time=middle, snapshot=ids[0], overwrite=True)["code"] == "bad_value"
        assert world.content("anna") == third and len(world.snapshots("anna")) == 2

        done = restore(world, time=middle, overwrite=True)
        assert done["snapshot"] == ids[0] and world.content("anna") == first
        found = world.host.inside(f"cat {CREDENTIALS}")
        assert "KEY=`kept`" in found and "`old`" not in found and "OPENCLAW_GATEWAY_TOKEN=`" in found
        assert [(one["id"], one["safety"]) for one in world.snapshots("anna")] == [
            (ids[0], False), (ids[1], False), (done["safety"], True)]

        again = restore(world, snapshot=done["safety"], overwrite=True)
        assert again["safety"] and world.content("anna") == third
        assert restore(world, overwrite=True)["snapshot"] == ids[1]
        # Pruning keeps them for their time and in nobody's place.
        kept = world.prune("anna")["bots"][0]
        assert not {ids[0], ids[1]} & {*kept["removed"]}
        assert world.check("anna")[0]["sound"]
    finally:
        world.host.inside(f"rm -f {CREDENTIALS}")


def test_beside_what_lives(world):
    world.keys("anna")
    world.host.inside(f"mkdir -p {HOME} && cat >{DATA}/odd.py && python3 {DATA}/odd.py {HOME}", ODD.encode())
    before = listing(world, HOME)
    world.backup("anna")
    into = f"{DATA}/look/anna"
    given = {"bots": [{**secrets("anna"), "into": into}]}
    assert world.module("backup_extract", check=True, **given)["changed"]
    one, = world.module("backup_extract", **given)["extracted"]
    assert one["places"] == {"state": f"{into}/state"} and not world.module("backup_extract", **given)["changed"]
    base, = one["databases"]
    assert world.host.inside(f"sha256sum {base['path']}").split()[0] == base["sha256"]

    def plain(text):
        # What is a copy of a database is not the database byte by byte, nor as old.
        return [line for line in text.splitlines() if not line.startswith("b'/memory.sqlite'")]

    assert plain(listing(world, f"{into}/state")) == plain(before) == plain(listing(world, HOME))
    assert int(world.host.inside(f"du -k {into}/state/sparse").split()[0]) < 1024
    # Nothing of the bot's own was touched, and a bot may be backed up meanwhile.
    assert world.host.inside(f"ls {DATA}/lib/restored 2>/dev/null || true") == ""
    world.backup("anna")
    assert world.failure("backup_extract", **given)["code"] == "target_not_empty"
    numbered = {"bots": [{**secrets("anna"), "into": f"{DATA}/look/numbered", "owner": "4321"}]}
    world.module("backup_extract", **numbered)
    # What was root's stays root's only where the bot is somebody else.
    assert world.host.inside(f"stat -c %u {DATA}/look/numbered/state/private").strip() == "4321"


def hostile(world, prepare, change=None):
    """A snapshot by somebody who has the password: what prepare makes of the tree, and change of the manifest."""
    where = f"{DATA}/lib/backup/staging/anna"
    newest = world.snapshots("anna")[-1]
    manifest = json.loads(world.restic("anna", "dump", newest["id"], f"{where}/manifest.json").stdout)
    tags = [f"--tag={tag}" for tag in newest["tags"] if not tag.startswith("run=")]
    (change or (lambda found: None))(manifest)
    text = json.dumps(manifest).encode()
    world.host.inside(f"rm -rf {where} && mkdir -p {where} && cat >{where}/manifest.json", text)
    world.host.inside(f"rm -rf {HOME} && mkdir -p {HOME} && cd {HOME} && {prepare}")
    done = world.restic("anna", "backup", "--quiet", *tags, "--tag", "run=0123", HOME, where)
    assert done.returncode == 0, done.stderr
    world.host.inside(f"rm -rf {where} {HOME}")


def path_of(name):
    return lambda found: found["parts"][0].update(path=name)


def database(**wrong):
    one = {"path": "m.sqlite", "copy": "sqlite/0/0", "sha256": "0" * 64, "size": 1, "uid": 0, "gid": 0, "mode": 420}
    return lambda found: found["parts"][0].update(databases=[{**one, **wrong}])


FULL = {"marks": pytest.mark.full}


@pytest.mark.parametrize("prepare, change, code", [
    pytest.param("mknod null c 1 3", None, "unsafe_snapshot", id="device"),
    pytest.param("mkdir sub && mknod sub/disk b 8 0", None, "unsafe_snapshot", id="disk", **FULL),
    pytest.param("touch x", path_of(f"{DATA}/../etc"), "unsafe_snapshot", id="dots"),
    pytest.param("touch x", path_of("etc"), "unsafe_snapshot", id="relative", **FULL),
    pytest.param("touch x", database(path="../../outside"), "unsafe_snapshot", id="database-dots", **FULL),
    pytest.param("touch x", database(path="/etc/outside"), "unsafe_snapshot", id="database-absolute", **FULL),
    pytest.param("touch x", database(copy="../../../etc/shadow"), "unsafe_snapshot", id="copy", **FULL),
    pytest.param("ln -s /etc link", database(path="link/outside"), "unsafe_snapshot", id="link"),
    pytest.param("touch x", database(), "checksum", id="no-copy", **FULL),
    pytest.param(f"cd / && rm -r {HOME} && ln -s /etc {HOME}", None, "unsafe_snapshot", id="root"),
])
def test_what_was_tampered_with_is_refused(world, prepare, change, code):
    world.keys("anna")
    world.write("anna", "a", 1000, 1)
    world.backup("anna")
    hostile(world, prepare, change)
    before = world.host.inside("ls -lA /etc | sha256sum")
    assert refused(world)["code"] == code
    assert world.failure("backup_extract", bots=[{**secrets("anna"), "into": f"{DATA}/look"}])["code"] == code
    assert world.host.inside(f"ls -d {HOME} {DATA}/look/state {DATA}/.restore* 2>/dev/null || true") == ""
    assert world.host.inside("ls -lA /etc | sha256sum") == before


def test_privileges_do_not_come_along(world):
    world.keys("anna")
    world.write("anna", "a", 1000, 1)
    world.backup("anna")
    hostile(world, "cp /bin/true suid && chmod 6755 suid && mkfifo pipe && ln -s / up")
    restore(world)
    assert world.host.inside(f"stat -c %a {HOME}/suid").strip() == "755"
    assert world.host.inside(f"readlink {HOME}/up").strip() == "/"


@pytest.mark.full
def test_a_restore_that_is_killed_loses_nothing(world):
    """Whatever moment it dies at: what was there is still there or in a snapshot, and the next run ends it."""
    world.keys("anna")
    world.write("anna", "first", 100000, 1)
    world.backup("anna")
    first = world.content("anna")
    world.write("anna", "later", 1000, 2)
    arguments = world.arguments(state_dir=f"{DATA}/lib", bots=[target(overwrite=True)])
    steps = len(world.host.start("backup_restore", arguments)["steps"])
    # The data are there by then: the snapshot of what is replaced, the switch, the token.
    for number in range(max(1, steps - 24), steps + 1, 3):
        world.host.inside(f"rm -rf {HOME}")
        world.write("anna", "first", 100000, 1)
        world.write("anna", "later", 1000, 2)
        world.host.start("backup_restore", arguments, die_at=number, whole_group=True)
        # Between two renames nothing has the name.
        if "later" not in world.host.inside(f"ls {HOME} 2>/dev/null || true").split():
            safe = [one for one in world.snapshots("anna") if one["safety"]][-1]
            into = f"{DATA}/saved-{number}"
            world.module("backup_extract", bots=[{**secrets("anna"), "into": into, "snapshot": safe["id"]}])
            assert world.host.inside(f"ls {into}/state").split() == ["first", "later"]
        result = world.module("backup_restore", state_dir=f"{DATA}/lib", bots=[target(overwrite=True)])
        assert result["changed"] and world.content("anna") == first
        assert world.host.inside(f"ls -d {DATA}/.restore* {DATA}/lib/backup/staging/anna 2>/dev/null || true") == ""


@pytest.mark.full
def test_the_store_fails_under_a_restore(world):
    world.keys("anna")
    world.write("anna", "large", 30 << 20, 1)
    world.backup("anna")
    world.write("anna", "later", 1000, 2)
    content = world.content("anna")
    with world.gone():
        assert refused(world, overwrite=True)["code"] == "unreachable"
    with world.stuck():
        failure = world.failure("backup_restore", state_dir=f"{DATA}/lib", timeout=10, bots=[target(overwrite=True)])
        assert failure["code"] in ("timeout", "unreachable")
    assert world.content("anna") == content
    assert restore(world, overwrite=True)["safety"]


@pytest.mark.full
def test_beside_as_a_playbook(world, tmp_path):
    story = Story(world, tmp_path)
    home, into = "/var/lib/clawops/bots/story-a", f"{DATA}/look"
    world.host.inside(f"mkdir -p {home} /opt/openclaw/story-a/config && echo hello >{home}/note")
    try:
        story.play("backup_keys", fleet_only=["story-a"])
        story.play("backup", fleet_only=["story-a"])
        given = {"fleet_only": ["story-a"], "fleet_restore_host": HOST, "fleet_restore_into": into}
        out = story.play("restore_beside", **given)
        assert f"story-a: {into}/bots/story-a, of 20" in out
        assert world.host.inside(f"cat {into}/bots/story-a/state/note") == "hello\n"
        assert "changed=0" in story.play("restore_beside", **given).split("PLAY RECAP")[1]
        out = story.play("restore_beside", 2, **given, fleet_restore_time="2020-01-01T00:00:00Z")
        assert "The oldest is of" in out
    finally:
        world.host.inside(f"rm -rf {home} /opt/openclaw/story-a")
