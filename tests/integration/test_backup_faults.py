# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The store goes away, turns slow or full, or becomes another one, in the middle of a backup, a restore and a prune."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
import re
import time

import botocore.exceptions
import pytest
from managed import PLACE
from test_backups import DATA, PRUNE, ROOM, known, secrets, store, unlock, until, world

__all__ = ["store", "world"]
FOLDER, PORT = f"{PLACE}/relay", 9443
HOME = f"{DATA}/anna"
SIZE = 6 << 20
RULES = {"keep_within": {"yearly": "1y"}, "keep_last": 1}
#: How a verb knows of what happened to it.
NAMES = {"cut": "unreachable", "foreign": "wrong_certificate"}


class Relay:
    """The store over TLS, by a way that fails on demand; and the verbs on it."""

    def __init__(self, world):
        self.world, self.host = world, world.host
        self.way = {"endpoint": f"https://127.0.0.1:{PORT}", "ca_cert": f"{FOLDER}/good.crt"}
        certify = ("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=$name "
                   "-addext subjectAltName=IP:127.0.0.1 -keyout $name.key -out $name.crt 2>/dev/null && "
                   "cat $name.key $name.crt >$name.pem")
        script = (pathlib.Path(__file__).parent / "on_host_relay.py").read_bytes()
        self.host.inside(f"rm -rf {FOLDER} && mkdir -p {FOLDER} && cd {FOLDER} && cat >relay.py && "
                         f"printf pass >mode && for name in good foreign; do {certify}; done", script)
        address = world.endpoint.removeprefix("http://")
        self.host.inside(f"systemd-run --quiet --collect --unit clawops-test-relay python3 {FOLDER}/relay.py {FOLDER} "
                         f"{PORT} {address}")
        until(lambda: self.host.inside(f"cat {FOLDER}/count", check=False), 20)

    def end(self):
        self.host.inside(f"systemctl stop clawops-test-relay; rm -rf {FOLDER}", check=False)

    def become(self, mode):
        self.host.inside(f"printf {mode} >{FOLDER}/mode.new && mv {FOLDER}/mode.new {FOLDER}/mode")

    def count(self):
        return int(self.host.inside(f"cat {FOLDER}/count") or 0)

    def arguments(self, verb, **more):
        """A verb's module, and what it takes."""
        bot = secrets("anna")
        own = {"backup": ("backup_snapshot", self.world.job("anna")),
               "prune": ("backup_retention", {**PRUNE, **RULES, "bots": [known("anna")]}),
               "restore": ("backup_restore", {"state_dir": f"{DATA}/lib", "safety": False, "bots": [
                   {**bot, "units": [], "overwrite": True,
                    "paths": [{"role": "state", "path": HOME, "owner": "root"}]}]})}
        name, arguments = own[verb]
        return name, {**self.way, **arguments, **more}

    def run(self, verb, **more):
        name, arguments = self.arguments(verb, **more)
        return self.world.module(name, **arguments)

    def fail(self, verb, **more):
        name, arguments = self.arguments(verb, **more)
        return self.world.failure(name, **arguments)


@pytest.fixture
def relay(world):
    made = Relay(world)
    yield made
    made.end()


def history(world):
    """Three snapshots; the tree is as the last one of them, with a new file."""
    world.keys("anna")
    for seed in range(3):
        world.write("anna", "part", SIZE, seed)
        world.backup("anna")
    world.write("anna", "new", SIZE, 9)


def reached(world, relay, verb):
    """Whether a verb that began is in its middle."""
    begun = relay.count()
    if verb == "prune":
        return lambda: len(world.objects("anna", "snapshots/")) < 3
    return lambda: relay.count() > begun + SIZE // 4


@pytest.mark.full
@pytest.mark.parametrize("fault", ["cut", "foreign"])
@pytest.mark.parametrize("verb", ["backup", "restore", "prune"])
def test_the_store_goes_away_or_becomes_another_one(world, relay, verb, fault):
    history(world)
    before, snapshots = world.content("anna"), world.snapshots("anna")
    relay.become("slow")
    middle = reached(world, relay, verb)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        run = pool.submit(relay.fail, verb, timeout=20)
        until(lambda: middle() or run.done())
        relay.become(fault)
        failure = run.result(150)
    assert failure["code"] == NAMES[fault], failure
    # Nothing is another one than it was, and nothing that is none is taken for one.
    assert world.content("anna") == before
    if verb != "prune":
        assert world.snapshots("anna") == snapshots
    # So does the next one say, while the way is like that, and at once.
    began = time.monotonic()
    assert relay.fail(verb)["code"] == NAMES[fault]
    assert time.monotonic() - began < 40
    relay.become("pass")
    world.host.inside("pkill -9 -x restic || true")
    unlock(world, "anna")
    relay.run(verb)
    if verb == "restore":
        assert before != world.content("anna")
        relay.run("backup")
    assert world.check("anna")[0]["sound"]
    assert {len(world.snapshots("anna"))} <= ({2} if verb == "prune" else {4})


@pytest.mark.full
def test_a_slow_store_takes_longer_and_that_is_all(world, relay):
    history(world)
    before = world.content("anna")
    relay.become("slow")
    relay.run("backup")
    world.host.inside(f"rm -rf {HOME}")
    relay.run("restore")
    assert world.content("anna") == before
    assert relay.run("prune")["bots"][0]["kept"] == 2
    assert world.check("anna")[0]["sound"]


def backup_begins(steps):
    """The step that starts restic for the backup, by way of the program that shuts it in."""
    return next(number for number, step in enumerate(steps, 1) if re.fullmatch(r"subprocess.Popen \S*python3\S*", step))


@pytest.mark.full
@pytest.mark.parametrize("whole", [True, False])
def test_a_backup_that_is_killed_leaves_no_snapshot(world, relay, whole):
    """Alone, or with its restic; one that goes on alone makes a snapshot that does not count."""
    history(world)
    name, arguments = relay.arguments("backup")
    steps = world.host.start(name, world.arguments(**arguments))["steps"]
    last = backup_begins(steps)
    world.write("anna", "newer", 3 * SIZE, 10)
    relay.become("slow")
    assert world.host.start(name, world.arguments(**arguments), die_at=last, die_after=4, whole_group=whole) == {
        "killed": True}
    if not whole:
        assert relay.fail("backup")["code"] == "busy"
    relay.become("pass")
    if not whole:
        until(lambda: not world.host.inside("pgrep -x restic || true").strip())
    relay.run("backup")
    assert len(world.snapshots("anna")) == 5 and world.check("anna")[0]["sound"]


@pytest.mark.full
def test_a_backup_that_dies_while_databases_are_copied_makes_no_snapshot(world):
    """Its restic has begun already, and goes no further."""
    world.keys("anna")
    world.write("anna", "part", 1000, 1)
    arguments = world.arguments(**world.job("anna"))
    steps = world.host.start("backup_snapshot", arguments)["steps"]
    begun = backup_begins(steps)
    assert world.host.start("backup_snapshot", arguments, die_at=begun + 1) == {"killed": True}
    until(lambda: not world.host.inside("pgrep -x restic || true").strip())
    assert len(world.objects("anna", "snapshots/")) == 1
    world.backup("anna")
    assert len(world.snapshots("anna")) == 2 and world.check("anna")[0]["sound"]


@pytest.mark.full
def test_a_full_store_stops_a_prune_and_what_a_restore_would_replace_stays(world, relay):
    history(world)
    before = world.content("anna")
    world.root.create_bucket(Bucket="ballast")
    filled = 0
    with contextlib.suppress(botocore.exceptions.ClientError):
        for number in range(ROOM >> 20):
            world.root.put_object(Bucket="ballast", Key=str(number), Body=os.urandom(1 << 20))
            filled += 1
    try:
        assert relay.fail("prune", timeout=20)["code"] == "bucket_full"
        failure = relay.fail("restore", timeout=20, safety=True)
        assert (failure["code"], failure["details"]["cause"]) == ("safety_failed", "bucket_full")
        assert world.content("anna") == before
    finally:
        for number in range(filled):
            world.root.delete_object(Bucket="ballast", Key=str(number))
        world.root.delete_bucket(Bucket="ballast")
    world.host.inside("pkill -9 -x restic || true")
    unlock(world, "anna")
    relay.run("backup")
    assert relay.run("prune")["bots"][0]["kept"] == 2
    assert relay.run("restore", safety=True)["restored"][0]["safety"]
    assert world.content("anna") == before and world.check("anna")[0]["sound"]
