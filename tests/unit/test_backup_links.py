# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups, restores and extracts by root in directories of others, who put symbolic links there meanwhile."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._backup import (
    copier,
    extract,
    host,
    jail,
    restic,
    sqlite,
    verbs,
)
from test_backup import ME, Restic, _count, _database, go, root_only, world
from test_restore import extracts, refused

__all__ = ["world"]  # the fixture of tests/unit/test_backup.py
pytestmark = root_only
THEM = 65534


def theirs(path):
    path.mkdir(parents=True)
    os.chown(path, THEM, THEM)
    return path


@pytest.fixture
def tree(tmp_path):
    """A directory of somebody else's, in which root has a database."""
    found = theirs(tmp_path / "tree")
    (found / "deep").mkdir()
    _database(found / "deep/a.sqlite", 3)
    return found


@pytest.fixture
def foreign(tmp_path):
    """What belongs to another one."""
    found = tmp_path / "foreign"
    found.mkdir()
    _database(found / "a.sqlite", 50)
    (found / "secret").write_text("secret")
    return found


def linked(path, target):
    path.rename(path.with_name("aside"))
    path.symlink_to(target)


# Databases

def copies(tree, found):
    staging = tree.with_name("staging")
    staging.mkdir(0o700)
    with sqlite.Copying(str(staging), 60, [str(tree)]) as copying:
        return copying.copy(found)


def test_a_database_of_roots_is_copied(tree):
    made = copies(tree, sqlite.find(str(tree)))
    assert _count(tree.with_name("staging") / made[str(tree / "deep/a.sqlite")]) == 3


def test_a_directory_that_becomes_a_link_leads_to_no_database(tree, foreign):
    found = sqlite.find(str(tree))
    linked(tree / "deep", foreign)
    assert copies(tree, found) == {}


def test_a_database_that_becomes_a_link_is_not_followed(tree, foreign):
    found = sqlite.find(str(tree))
    linked(tree / "deep/a.sqlite", foreign / "a.sqlite")
    assert refused(lambda: copies(tree, found)).code == "database_unreadable"


@pytest.mark.parametrize("ending", sqlite.COMPANIONS[1:])
def test_nothing_comes_out_of_companions_that_are_links(tree, foreign, ending):
    before = {path: path.read_bytes() for path in foreign.iterdir()}
    found = sqlite.find(str(tree))
    (tree / f"deep/a.sqlite{ending}").symlink_to(foreign / "secret")
    try:
        made = copies(tree, found)
    except host.FleetError as error:
        assert error.code == "database_unreadable"
    else:
        assert _count(tree.with_name("staging") / made[str(tree / "deep/a.sqlite")]) == 3
    assert {path: path.read_bytes() for path in foreign.iterdir()} == before


def test_a_tree_that_becomes_a_link_is_refused(tree, foreign):
    found = sqlite.find(str(tree / "deep"))
    linked(tree / "deep", foreign)
    error = refused(lambda: copies(tree / "deep", found))
    assert error.code == "not_confined" and "symbolic link" in error.message and "CAP_SYS_ADMIN" in error.hint


def test_no_rights_of_a_program_are_in_the_copy(tree):
    try:
        os.setxattr(tree / "deep/a.sqlite", "security.note", b"rights")
    except OSError:
        pytest.skip("a file system without attributes")
    assert copier.copy_all([[str(tree / "deep/a.sqlite"), str(tree / "copy")]]) == [""]
    assert "security.note" not in os.listxattr(tree / "copy")


# restic

def within(*words, shown, read=""):
    script = "import sys\nfor path in sys.argv[1:]:\n    print(repr(open(path).read()))"
    argv = [sys.executable, "-c", script, *words]
    runner = host.HostRunner().within([*map(str, shown), sys.prefix, sys.base_prefix])
    if read:
        return runner.feed([*argv, "{input}", "{seal}"], os.environ, 20, read.encode, restic.SEAL)
    return runner.run(argv, os.environ, 20)


def test_a_program_sees_what_it_is_shown_by_the_same_path(tree):
    (tree / "note").write_text("words")
    done = within(str(tree / "note"), shown=[tree])
    assert done.out == "'words'\n", done.err


@pytest.mark.parametrize("path", ["link/secret", "note", "../foreign/secret"])
def test_links_lead_to_nothing_that_is_not_shown(tree, foreign, path):
    (tree / "link").symlink_to(foreign)
    (tree / "note").symlink_to(foreign / "secret")
    done = within(str(tree / path), shown=[tree])
    assert done.rc and not done.out and "No such file" in done.err


@pytest.mark.parametrize("path", ["/etc/shadow", "/root/.profile", "/proc/1/root/etc/hostname", "/proc/self/root/root",
                                  "/etc/ssl/private", "/var/lib/dpkg/status", "/usr/local/bin"])
def test_nothing_else_of_the_host_is_there(tree, path):
    (tree / "link").symlink_to(path)
    assert "No such file" in within(str(tree / "link"), shown=[tree]).err


def test_what_is_to_be_left_out_reaches_a_program_that_sees_little(tree):
    done = within(shown=[tree], read="given")
    assert done.out.splitlines() == [repr("given"), repr(b"".join(restic.SEAL).decode())], done.err


def test_a_private_view_leaves_no_mount(tree):
    before = pathlib.Path("/proc/self/mountinfo").read_text()
    within(shown=[tree])
    assert pathlib.Path("/proc/self/mountinfo").read_text() == before and os.listdir(tree) == ["deep"]


def test_without_a_private_view_nothing_starts(world, tree):
    repository = world.access().repository
    done = within(shown=[tree / "missing"])
    assert done.rc == 1 and repository._explain(done).code == "not_confined"


def test_restic_sees_what_is_staged_and_its_cache(world, monkeypatch):
    class Confining(Restic):
        def within(self, paths):
            shown.append(list(paths))
            return self

    shown, cache = [], str(world.top / "cache")
    monkeypatch.setattr(restic, "CACHE", cache)
    world.restic = Confining(world.top / "store")
    go(world.snapshots())
    assert shown == [[str(world.top / "bots/alpha"), f"{world.state}/backup/staging/alpha", cache]]
    assert world.restic.calls[-1][1]["TMPDIR"] == cache and os.stat(cache).st_mode & 0o777 == 0o700


# The way to a directory

def test_links_of_others_are_no_way(tmp_path, foreign):
    home = theirs(tmp_path / "home")
    (home / "link").symlink_to(foreign)
    with pytest.raises(OSError, match="symbolic link"):
        jail.handle(str(home / "link/secret"))
    (tmp_path / "mine").symlink_to("home/../foreign")
    found = jail.handle(str(tmp_path / "mine/secret"))
    assert os.readlink(f"/proc/self/fd/{found}") == str(foreign / "secret")
    os.close(found)
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError, match="round"):
        jail.handle(str(tmp_path / "round"))


def test_what_roots_link_leads_to_is_looked_at_as_well(tmp_path, foreign):
    home = theirs(tmp_path / "home")
    (home / "data").symlink_to(foreign)
    (tmp_path / "mine").symlink_to(home / "data")
    with pytest.raises(OSError, match="symbolic link"):
        jail.handle(str(tmp_path / "mine"))


def test_a_place_is_roots_when_all_above_is(tmp_path):
    inner = theirs(tmp_path / "home") / "inner"
    inner.mkdir()
    assert jail.is_roots(str(tmp_path)) and not jail.is_roots(str(inner)) and not jail.is_roots(str(tmp_path / "home"))
    (tmp_path / "home").chmod(0o1777)
    os.chown(tmp_path / "home", 0, 0)
    assert jail.is_roots(str(inner)) and jail.is_roots(str(tmp_path / "home"))
    os.chown(inner, THEM, THEM)
    assert not jail.is_roots(str(inner))


# Restores

def test_a_directory_of_roots_in_one_of_others_is_no_place_to_put_data_together(tmp_path):
    (theirs(tmp_path / "mount/home") / "inner").mkdir()
    inner, mount = str(tmp_path / "mount/home/inner"), str(tmp_path / "mount")
    assert host._trusted(inner, mount) == mount
    os.chown(mount, THEM, THEM)
    assert refused(lambda: host._trusted(inner, mount)).code == "target_open"


def target(world, path):
    found = host.HostTarget("alpha", [host.Place("state", str(path), ME)], state=world.state)
    return verbs.Restores([verbs.Wish(world.access(), found, overwrite=True)], False)


def test_a_restore_makes_no_directory_by_way_of_a_link(world, foreign):
    go(world.snapshots())
    (theirs(world.top / "home") / "link").symlink_to(foreign)
    assert "symbolic link" in refused(lambda: go(target(world, world.top / "home/link/new/state"))).message
    assert sorted(os.listdir(foreign)) == ["a.sqlite", "secret"]


def test_a_link_that_comes_during_a_restore_leads_it_nowhere(world, foreign, monkeypatch):
    go(world.snapshots())
    place = theirs(world.top / "home") / "inner"
    place.mkdir()
    (foreign / "state").mkdir()
    monkeypatch.setattr(host.HostTarget, "_stop", lambda _target: linked(place, foreign))
    assert "symbolic link" in refused(lambda: go(target(world, place / "state"))).message
    assert sorted(os.listdir(foreign)) == ["a.sqlite", "secret", "state"] and not os.listdir(foreign / "state")
    assert not os.listdir(place.with_name("aside")) and not list(world.top.glob(".restore*"))


def test_what_is_held_stays_the_same_when_directories_are_exchanged(tmp_path, foreign):
    home = theirs(tmp_path / "home")
    with host._held(str(home / "state")) as path:
        linked(home, foreign)
        os.mkdir(path)
    assert os.listdir(tmp_path / "aside") == ["state"] and not (foreign / "state").exists()


def test_a_restore_into_a_home_goes_on(world):
    go(world.snapshots())
    place = theirs(world.top / "home") / "state"
    theirs(place)
    go(target(world, place))
    assert (place / "note").read_text() == "hello" and os.listdir(world.top / "home") == ["state"]


# Extracts

def test_nothing_is_taken_out_into_a_link_or_where_others_write(world, foreign):
    go(world.snapshots())
    empty, home = world.top / "empty", theirs(world.top / "home")
    empty.mkdir()
    (world.top / "link").symlink_to(empty)
    (home / "mine").mkdir()
    shared = world.top / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    for into in (world.top / "link", home, home / "mine", home / "new", shared):
        assert refused(extracts(world, into=str(into)).plan).code == "bad_value", into
    assert go(extracts(world, into=str(empty)))[0].changed and os.listdir(home / "mine") == []
    assert go(extracts(world, into=str(shared / "new")))[0].changed


def test_somebody_may_be_there_first(world, monkeypatch):
    go(world.snapshots())
    shared = world.top / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    into = shared / "new"
    verb = extracts(world, into=str(into))
    plan = verb.plan()
    theirs(into)
    assert refused(lambda: verb.apply(plan)).code == "bad_value" and os.listdir(into) == []


def test_a_record_of_others_is_not_believed(world):
    made = extract.ScratchTarget("alpha", str(theirs(world.top / "look")), None, ME, None)
    assert refused(lambda: made.holds("0" * 64)).code == "bad_value"


def test_files_of_the_system_are_seen_even_if_they_were_exchanged_under_their_mount(tmp_path):
    """So it is in containers whose engine has written their /etc/resolv.conf anew."""
    word, tree = tmp_path / "word", theirs(tmp_path / "tree")
    word.write_text("nameserver 192.0.2.1")
    script = f"mount --bind {word} /etc/hosts && rm {word} && exec {sys.executable} {jail.__file__} 1 {tree} " \
             f"/bin/sh -c 'cat /etc/hosts; ls {tree.parent}'"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("nameserver 192.0.2.1tree\n", "")
