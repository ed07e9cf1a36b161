# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How bots move: what is planned and refused, who takes which step, and what both ends do."""

from __future__ import annotations

import contextlib
import itertools
import json
import pathlib
import sqlite3
import subprocess

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.clawops.fleet.plugins.filter import moves as filters
from ansible_collections.clawops.fleet.plugins.module_utils import _bot
from ansible_collections.clawops.fleet.plugins.module_utils import _handover as handover
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes import facts, manifests
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes import handover as pod_end
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes.reconcile import Fleet, Settings
from ansible_collections.clawops.fleet.plugins.module_utils._openclaw import handover as host_end
from ansible_collections.clawops.fleet.plugins.module_utils._openclaw import host, places
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished
from fake_cluster import FakeCluster

GROUPS = {"docker_hosts": ["alder", "birch"], "vms": ["zap"], "clusters": ["harbor"], "bots": ["alpha"]}
VERSION = _bot.RELEASE


def bot(on, **more):
    return {"inventory_hostname": "alpha", "bot_on": on, **more}


def stands(move=None, state="started", **more):
    return {"name": "alpha", "version": VERSION, "state": state, "move": move, **more}


def mark(role, source="alder", target="harbor"):
    return {"role": role, "source": source, "target": target, "since": 5.0, "ran": True}


def plan(on, lost=(), silent=(), **found):
    answers = {place: [] for place in ("alder", "birch", "zap", "harbor")}
    answers |= {place: [one] for place, one in found.items()} | dict.fromkeys(silent, "no route")
    return filters.moves_planned([bot(on) if isinstance(on, str) else on], answers, GROUPS, lost)


@pytest.mark.parametrize("on, found, expected", [
    ("harbor", {"alder": stands()}, ("move", "alder", "harbor")),
    ("zap", {"harbor": stands()}, ("move", "harbor", "zap")),
    ("harbor", {"alder": stands(), "harbor": stands(mark("arriving"), "stopped")}, ("move", "alder", "harbor")),
    ("harbor", {"alder": stands(mark("departing"))}, ("move", "alder", "harbor")),
    ("harbor", {"alder": stands(mark("departing")), "harbor": stands(mark("arriving"))}, ("move", "alder", "harbor")),
    ("harbor", {"alder": stands(mark("departing")), "harbor": stands()}, ("arrived", "alder", "harbor")),
    ("alder", {"alder": stands(mark("departing")), "harbor": stands(mark("arriving"))}, ("back", "alder", "harbor")),
    ("alder", {"alder": stands(mark("departing"))}, ("back", "alder", "harbor")),
    ("alder", {"alder": stands(), "harbor": stands(mark("arriving"))}, ("back", "alder", "harbor")),
    ("alder", {"alder": stands()}, ("there", "alder", "alder")),
    ("harbor", {"harbor": stands(), "birch": stands(mark("left", "birch"), "absent")}, ("there", "harbor", "harbor")),
    ("harbor", {"alder": stands(), "harbor": stands(mark("left", "harbor"), "absent")}, ("move", "alder", "harbor")),
])
def test_the_plan_goes_by_what_stands_where(on, found, expected):
    (move,) = plan(on, **found)
    assert (move["stage"], move["source"], move["target"]) == expected


@pytest.mark.parametrize("on, found, words", [
    ("nowhere", {"alder": stands()}, "no machine or cluster"),
    ("harbor", {}, "stands nowhere"),
    ("harbor", {"alder": stands(), "birch": stands()}, "alder and birch"),
    ("harbor", {"alder": stands(), "harbor": stands()}, "alder and harbor"),
    ("harbor", {"alder": stands(mark("departing")), "birch": stands()}, "alder and birch"),
    ("zap", {"alder": stands(mark("departing"))}, "from alder to harbor has not ended"),
    ("zap", {"alder": stands(), "harbor": stands(mark("arriving"))}, "from alder to harbor has not ended"),
    ("alder", {"alder": stands(mark("departing")), "harbor": stands()}, "may have gone on"),
    ("harbor", {"alder": stands(version=None)}, "which release"),
    ("harbor", {"alder": stands(version="2026.1.1")}, "upgrade it then"),
    ("alder", {"harbor": stands(volumes=[{"name": "clawdbot"}, {"name": "clawd"}])}, "clawd has no place"),
    (bot("harbor", bot_runtime="host"), {"alder": stands()}, "desktop on cluster: pod"),
    (bot("harbor", bot_backup={"enabled": False}), {"alder": stands()}, "by way of its backup"),
    (bot("harbor", bot_state="absent"), {"alder": stands()}, "absent"),
])
def test_what_can_not_be_moved_is_refused_before_anything(on, found, words):
    with pytest.raises(AnsibleFilterError, match=r"Nothing was touched\. alpha: ") as caught:
        plan(on, **found)
    assert words in str(caught.value)


@pytest.mark.parametrize(("found", "replaced"), [
    ({}, False), ({"harbor": stands(mark("arriving"), "stopped")}, True),
    ({"harbor": stands(mark("left", "harbor"), "absent")}, True)])
def test_only_what_a_move_left_or_brought_is_replaced(found, replaced):
    (move,) = plan("harbor", alder=stands(), **found)
    assert move["replaces"] is replaced
    with pytest.raises(AnsibleFilterError, match=r"alder and harbor.*purge_data"):
        plan("harbor", alder=stands(), harbor=stands(state="absent"))


@pytest.mark.parametrize(("stage", "note", "purged"), [
    ("move", {}, False), ("move", {"prepared": True}, False), ("move", {"prepared": True, "freed": True}, True),
    ("arrived", {"freed": True}, False), ("back", {}, False)])
def test_only_what_this_run_has_brought_is_deleted_at_the_target(stage, note, purged):
    (move,) = plan("harbor", alder=stands())
    (due,) = filters.moves_due([{**move, "stage": stage}], {"harbor": {"alpha": note}}, "clear", "harbor")
    assert due["purge"] is purged


def test_who_does_not_answer_is_waited_for_unless_lost():
    with pytest.raises(AnsibleFilterError, match="harbor does not answer: no route"):
        plan("harbor", silent=["harbor"], alder=stands())
    with pytest.raises(AnsibleFilterError, match="birch did not answer"):
        plan("harbor", silent=["birch"])
    assert plan("harbor", silent=["birch"], alder=stands())[0]["stage"] == "move"
    with pytest.raises(AnsibleFilterError, match="migrate_lost"):
        plan("alder", silent=["harbor"], alder=stands(mark("departing")))
    (move,) = plan("alder", silent=["harbor"], lost=["harbor"], alder=stands(mark("departing")))
    assert move["lost"] and filters.moves_due([move], {}, "settle", "alder")
    assert not filters.moves_due([move], {}, "clear", "harbor")


def test_who_leaves_is_backed_up_as_it_stands_there():
    (move,) = plan(bot("zap", bot_runtime="host"), alder=stands())
    (leaving,) = filters.moves_sources([bot("zap", bot_backup_password="p", bot_port=1)], [move], "alder")
    assert leaving == {"name": "alpha", "version": VERSION, "state_dir": "/var/lib/clawops/bots/alpha",
                       "config_dir": "/opt/openclaw/alpha/config", "backup_password": "p"}
    (move,) = plan("zap", harbor=stands())
    assert filters.moves_sources([bot("zap")], [move], "harbor") == [{"name": "alpha", "version": VERSION}]


class World:
    """Two places and one bot, the steps of the playbook on them, and who dies or fails when."""

    def __init__(self):
        self.at = {"alder": self.fresh(runs=True, said=1), "harbor": self.fresh()}
        self.bucket, self.notes, self.trouble = None, {}, None

    @staticmethod
    def fresh(runs=False, said=None):
        return {"there": said is not None, "runs": runs, "said": said, "mark": None}

    def seen(self, place):
        one = self.at[place]
        if not (one["there"] or one["mark"]):
            return []
        return [stands(one["mark"], "started" if one["runs"] else "stopped")]

    def step(self, name):
        """One thing that happens; the world may end before or after it."""
        if self.trouble and self.trouble[:2] == (name, "fails"):
            raise FleetError("failed", name)
        if self.trouble and self.trouble[:2] == (name, "kill"):
            raise KeyboardInterrupt
        assert not (self.at["alder"]["runs"] and self.at["harbor"]["runs"]), "it runs twice"

    def run(self, on):
        self.notes = {"alder": {"alpha": {}}, "harbor": {"alpha": {}}}
        moves = filters.moves_planned([bot(on)], {place: self.seen(place) for place in self.at}, GROUPS)
        for step in ("prepare", "copy", "rehearse", "depart", "arrive", "clear", "settle"):
            for place in self.at:
                for move in filters.moves_due(moves, self.notes, step, place):
                    try:
                        getattr(self, step)(move, self.at[place], self.notes[place]["alpha"])
                    except FleetError as error:
                        self.notes[place]["alpha"]["why"] = error.message
        return filters.moves_rows(moves, self.notes)[0]

    def prepare(self, move, here, note):
        self.step("mark")
        here["mark"] = {**mark("arriving"), "source": move["source"], "target": move["target"]}
        self.step("make")
        here["there"] = True
        note["prepared"] = True

    def copy(self, _move, _here, note):
        self.step("copy")
        note["copied"] = True

    def rehearse(self, _move, _here, note):
        self.step("rehearse")
        note["rehearsed"] = True

    def depart(self, move, here, note):
        note["stopped"] = 1.0
        self.step("hold")
        known = here["mark"] or {**mark("departing", move["source"], move["target"]), "ran": here["runs"]}
        here["mark"] = known
        self.step("stop")
        here["runs"] = False
        note["ran"] = known["ran"]
        self.step("snapshot")
        self.bucket = here["said"]
        note |= {"departed": True, "snapshot": "1"}

    def arrive(self, move, here, note):
        if move["stage"] == "move":
            self.step("restore")
            here["said"] = self.bucket
        note["freed"] = True
        self.step("free")
        here["mark"] = None
        self.step("start")
        here["runs"] = True
        self.step("check")
        here["said"] += 1
        note["up"] = 3.0

    def clear(self, _move, here, note):
        self.step("clear")
        here["runs"] = False
        here |= {"there": False, "said": None}
        self.step("unmark")
        here["mark"] = None
        note["cleared"] = True

    def settle(self, move, here, note):
        self.step("settle")
        if move["up"]:
            here |= self.fresh()
        else:
            ran, here["mark"] = bool(here["mark"] and here["mark"]["ran"]), None
            here["runs"] = here["runs"] or ran
        note["settled"] = 9.0


STEPS = ("mark", "make", "copy", "rehearse", "hold", "stop", "snapshot", "restore", "free", "start", "check", "clear",
         "unmark", "settle")


@pytest.mark.parametrize("how", ["fails", "kill"])
@pytest.mark.parametrize("then", ["harbor", "alder"])
def test_whatever_dies_it_never_runs_twice_and_ends_at_one_place(how, then):
    for first, second in itertools.product(STEPS, ("none", *STEPS)):
        live(World(), first, how, second, then)


def live(world, first, how, second, then):
    """Something happens in the first run, another one dies; then all goes well."""
    said = 1
    for trouble, on in (((first, how), "harbor"), ((second, "kill"), then), (None, then), (None, "harbor")):
        world.trouble = trouble
        try:
            row = world.run(on)
        except (KeyboardInterrupt, AnsibleFilterError):
            row = None
        running = [one for one in world.at.values() if one["runs"]]
        assert len(running) <= 1
        here = max((one["said"] or 0) for one in world.at.values())
        assert here >= said
        said = here
    if not world.at["harbor"]["runs"]:
        world.trouble = None
        row = world.run("harbor")
    assert world.at["harbor"]["runs"] and not world.at["alder"]["there"]
    assert row["ok"] and row["result"] in ("moved", "is there")


def unreachable(*words):
    raise FleetError("unreachable", "no answer")


def test_a_target_that_may_run_it_keeps_the_source_from_starting():
    world = World()
    world.trouble = ("start", "fails")
    world.clear = unreachable
    row = world.run("harbor")
    assert row["result"] == "STOPPED" and "harbor" in row["why"] and not row["ok"]
    assert not world.at["alder"]["runs"] and world.at["alder"]["mark"]["role"] == "departing"
    world = World()
    world.trouble = ("restore", "fails")
    world.clear = unreachable
    row = world.run("harbor")
    assert row["result"] == "rolled back" and world.at["alder"]["runs"]
    assert world.at["harbor"]["mark"]["role"] == "arriving"


def test_the_table_tells_how_long_it_was_down():
    rows = filters.moves_rows(plan("harbor", alder=stands()), {
        "alder": {"alpha": {"stopped": 10.0, "ran": True, "settled": 60.0, "snapshot": "ab"}},
        "harbor": {"alpha": {"up": 52.31}}})
    assert rows[0] == {"bot": "alpha", "source": "alder", "target": "harbor", "result": "moved", "ok": True,
                       "downtime": 42.3, "snapshot": "ab", "why": ""}
    assert filters.moves_table(rows) == ["BOT    FROM   TO      RESULT  DOWNTIME",
                                         "alpha  alder  harbor  moved   42.3 s"]


# -- a machine's end ---------------------------------------------------------------------------------------------------


class Rooted(places.Places):
    """A machine below a directory."""

    root = pathlib.Path("/nonexistent")

    def __getattribute__(self, key):
        value = super().__getattribute__(key)
        moved = isinstance(value, str) and value.startswith("/")
        return f"{object.__getattribute__(self, 'root')}{value}" if moved and key not in ("project", "home") else value


class Machine:
    """Units by name, and what was called."""

    def __init__(self):
        self.active, self.enabled, self.loaded, self.calls = False, False, False, []

    def __call__(self, argv, **_options):
        self.calls.append(list(argv))
        if argv[0] == "setpriv":
            assert argv[1:5] == ["--reuid=bot-alpha", "--regid=bot-alpha", "--clear-groups", "--"]
            done = subprocess.run(argv[5:], capture_output=True, text=True, check=False)
            return Finished(done.returncode, done.stdout, done.stderr)
        if argv[:2] == ["systemctl", "show"]:
            state = {"LoadState": "loaded" if self.loaded else "not-found", "UnitFileState": "enabled"
                     if self.enabled else "disabled", "ActiveState": "active" if self.active else "inactive"}
            return Finished(0, "".join(f"{key}={value}\n" for key, value in state.items()), "")
        if argv[:3] == ["systemctl", "disable", "--now"]:
            self.active = self.enabled = False
        if argv[:3] == ["systemctl", "enable", "--now"]:
            self.active = self.enabled = True
        return Finished(0, "", "")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(Rooted, "root", tmp_path)
    for module in (host, host_end):
        monkeypatch.setattr(module, "Places", Rooted)
    monkeypatch.setattr(host, "INSTANCES", f"{tmp_path}{places.INSTANCES}")
    monkeypatch.setattr(host, "MOVES", f"{tmp_path}{places.MOVES}")
    for name, value in {"held": {}, "reserve": None, "release": None}.items():
        monkeypatch.setattr(host.ports, name, lambda *_words, value=value: value)
    monkeypatch.setattr(host_end.health, "wait_ready", lambda *_words: None)
    made = Machine()
    made.root, made.active, made.enabled, made.loaded = tmp_path, True, True, True
    spot = Rooted("alpha")
    for path, text in ((spot.instance, json.dumps({"version": VERSION, "port": 19100, "labels": {
            "clawops.fleet/managed": "true", "clawops.fleet/fleet": "home", "clawops.fleet/bot": "alpha"}})),
            (spot.unit_file, "[Unit]"), (f"{spot.state}/agents/main/sessions/1.jsonl", "said\n")):
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).write_text(text)
    folder = pathlib.Path(spot.state) / "agents/main/agent"
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(folder / "openclaw-agent.sqlite", isolation_level=None)) as database:
        database.execute("pragma journal_mode=wal")
        database.execute("create table transcript_events (session_id, seq)")
        database.executemany("insert into transcript_events values (?, ?)", [("one", 1), ("one", 2), ("one", 3)])
    (folder / "other.sqlite").write_text("no database")
    return made


def end(machine, state, source="alder", target="harbor", **more):
    one = host_end.End(machine, handover.Wish("alpha", "home", state, source, target, **more), lambda: 7.0)
    decided = one.plan()
    return decided, one.apply(decided) if decided.changed else one.facts()


def test_a_machine_holds_a_bot_and_takes_it_back(machine):
    decided, told = end(machine, "held")
    assert [change.action for change in decided.changes] == ["create", "stop"]
    assert told["move"] == {"role": "departing", "source": "alder", "target": "harbor", "since": 7.0, "ran": True}
    assert told["conversations"] == {"sessions": 2, "records": 4} and not machine.active and not machine.enabled
    assert not end(machine, "held")[0].changed
    assert end(machine, "held", target="birch")[1]["move"]["ran"] is True
    with pytest.raises(FleetError, match="is being moved from alder to birch"):
        host.Host(machine, _bot.parse_all([{"name": "alpha", "version": VERSION}], "docker_host"),
                  host.Settings("home", {})).plan()
    assert host.Host(machine, [], host.Settings("home", {}, prune=True)).plan().changes == []
    (seen,) = host_end.describe(machine, "home", ["alpha", "bravo"])
    assert (seen["state"], seen["move"]["role"], seen["version"]) == ("stopped", "departing", VERSION)
    end(machine, "returned")
    assert machine.active and machine.enabled and not end(machine, "returned")[0].changed
    assert not pathlib.Path(Rooted("alpha").move).exists()


def test_a_machine_lets_a_bot_go_and_keeps_its_data_aside(machine):
    end(machine, "held")
    end(machine, "gone")
    spot = Rooted("alpha")
    aside = pathlib.Path(f"{spot.state}.moved-19700101T000007Z")
    assert (aside / "agents/main/sessions/1.jsonl").read_text() == "said\n"
    assert not any(pathlib.Path(path).exists() for path in (spot.state, spot.instance, spot.move, spot.unit_file))
    machine.loaded = False
    assert host_end.describe(machine, "home", ["alpha"]) == [] and not end(machine, "gone")[0].changed


def test_a_machine_keeps_what_was_put_aside_before(machine):
    older = pathlib.Path(f"{Rooted('alpha').state}.moved-19700101T000001Z/old")
    older.mkdir(parents=True)
    end(machine, "held")
    end(machine, "gone")
    assert older.exists() and older.parent.with_name("alpha.moved-19700101T000007Z").is_dir()


@pytest.mark.parametrize("purge", [True, False])
def test_a_machine_leaves_data_alone_that_have_no_record(machine, purge):
    spot = Rooted("alpha")
    pathlib.Path(spot.instance).unlink()
    machine.loaded = machine.active = machine.enabled = False
    with pytest.raises(FleetError, match="alpha on this host exists and is not managed"):
        end(machine, "gone", purge_data=purge)
    assert pathlib.Path(f"{spot.state}/agents/main/sessions/1.jsonl").exists()


def test_a_machine_expects_nobody_where_data_are_that_no_move_brought(machine):
    with pytest.raises(FleetError, match="holds data that no move brought") as caught:
        end(machine, "expected")
    assert "purge_data: true" in caught.value.hint and not pathlib.Path(Rooted("alpha").move).exists()
    end(machine, "held")
    with pytest.raises(FleetError, match="is being moved away"):
        end(machine, "expected", "birch", "alder")


def test_a_machine_purges_where_it_is_told_to(machine):
    spot = Rooted("alpha")
    aside = pathlib.Path(f"{spot.state}.moved-19700101T000001Z")
    aside.mkdir()
    end(machine, "held")
    end(machine, "gone", purge_data=True)
    assert not pathlib.Path(spot.state).exists() and not aside.exists()


def test_a_machine_is_a_target(machine):
    state = pathlib.Path(Rooted("alpha").state)
    pathlib.Path(Rooted("alpha").instance).unlink()
    machine.loaded = machine.active = machine.enabled = False
    brought = state.rename(state.with_name("brought"))
    assert end(machine, "expected")[1]["move"]["role"] == "arriving"
    brought.rename(state)
    assert not end(machine, "expected")[0].changed
    with pytest.raises(FleetError, match="4 records where there were 5"):
        end(machine, "free", conversations={"sessions": 2, "records": 5})
    end(machine, "free", conversations={"sessions": 2, "records": 4})
    assert end(machine, "arrived", conversations={"sessions": 2, "records": 5})[1]["move"] is None
    with pytest.raises(FleetError, match="2 sessions where there were 3"):
        end(machine, "arrived", conversations={"sessions": 3, "records": 5})


def test_a_machine_touches_no_bot_of_others(machine):
    record = pathlib.Path(Rooted("alpha").instance)
    record.write_text(record.read_text().replace('"home"', '"other"'))
    for state in handover.STATES:
        with pytest.raises(FleetError, match="fleet other"):
            end(machine, state)
    assert machine.active


def test_a_mark_that_can_not_be_read_holds_the_bot_all_the_same():
    with pytest.raises(FleetError, match="may not be started"):
        handover.check_free("alpha", handover.mark_of("{torn"))
    handover.check_free("alpha", handover.mark_of(None))


# -- a cluster's end ---------------------------------------------------------------------------------------------------

SITE = manifests.Site("home", gateway_image="gateway:1")


class Ended:
    """What is waited for is so at once."""

    def __init__(self, *_words):
        pass

    def run(self):
        return {}


@pytest.fixture
def cluster(monkeypatch):
    for module in (pod_end, pod_end.Fleet.__init__.__globals__):
        if isinstance(module, dict):
            monkeypatch.setitem(module, "Wait", Ended)
        else:
            monkeypatch.setattr(module, "Wait", Ended)
    made = FakeCluster()
    made.exec = lambda *_words: Finished(0, '{"sessions": 2, "records": 9}', "")
    return made


def fleet(cluster, state="started", **settings):
    one = {"name": "alpha", "version": VERSION, "state": state}
    made = Fleet(cluster, SITE, _bot.parse_all([one], "cluster"), Settings(wait=False, **settings))
    decided = made.plan()
    return made.apply(decided) if decided.changed else made.facts()


def pod(cluster, state, source="harbor", target="alder", **more):
    wish = handover.Wish("alpha", "home", state, source, target, **more)
    one = pod_end.End(cluster, wish, (SITE.gateway_namespace, SITE.namespace), lambda: 7.0)
    decided = one.plan()
    return decided, one.apply(decided) if decided.changed else one.facts()


def running(cluster):
    return cluster.get("Deployment", "bot-alpha", SITE.gateway_namespace)["spec"]["replicas"]


def seen(cluster):
    return facts.read(cluster, [SITE.gateway_namespace, SITE.namespace], "home", ["alpha"])


def test_a_cluster_holds_a_bot_and_takes_it_back(cluster):
    fleet(cluster)
    cluster.put({"kind": "Pod", "metadata": {"name": "p", "namespace": SITE.gateway_namespace, "labels": {
        "app": "bot-alpha"}}, "status": {"phase": "Running"}})
    decided, told = pod(cluster, "held")
    assert [change.action for change in decided.changes] == ["create", "stop"]
    assert told["conversations"] == {"sessions": 2, "records": 9} and told["move"]["ran"] and running(cluster) == 0
    del cluster.objects["Pod", SITE.gateway_namespace, "p"]
    assert not pod(cluster, "held")[0].changed
    with pytest.raises(FleetError, match="is being moved from harbor to alder"):
        fleet(cluster)
    fleet(cluster, "stopped")
    assert seen(cluster)[0]["move"]["role"] == "departing"
    pod(cluster, "returned")
    assert running(cluster) == 1 and seen(cluster)[0]["move"] is None and not pod(cluster, "returned")[0].changed


def test_a_cluster_lets_a_bot_go_and_its_volumes_are_marked(cluster):
    fleet(cluster)
    pod(cluster, "held")
    pod(cluster, "gone")
    (left,) = seen(cluster)
    assert (left["state"], left["move"]["role"], left["move"]["target"]) == ("absent", "left", "alder")
    assert not pod(cluster, "gone")[0].changed
    assert fleet(cluster, hold_new=True)["held"] == ["alpha"]
    with pytest.raises(FleetError, match="move from harbor to alder left behind"):
        fleet(cluster)
    fleet(cluster, "stopped")
    assert pod(cluster, "expected", "alder", "harbor")[1]["move"]["role"] == "arriving"
    pod(cluster, "free")
    fleet(cluster)
    assert running(cluster) == 1


def test_a_cluster_purges_where_it_is_told_to(cluster):
    fleet(cluster, "stopped")
    pod(cluster, "expected", "alder", "harbor")
    pod(cluster, "gone", "alder", "harbor", purge_data=True)
    assert seen(cluster) == [] and not pod(cluster, "gone", "alder", "harbor", purge_data=True)[0].changed


def test_a_cluster_expects_only_what_is_there(cluster):
    with pytest.raises(FleetError, match="has no Deployment"):
        pod(cluster, "expected")
    fleet(cluster)
    with pytest.raises(FleetError, match=r"alpha can't come here: it runs\."):
        pod(cluster, "expected", "alder", "harbor")
    fleet(cluster, "stopped")
    pod(cluster, "held")
    with pytest.raises(FleetError, match="is being moved away"):
        pod(cluster, "expected", "alder", "harbor")
    assert seen(cluster)[0]["move"]["role"] == "departing"


def test_a_cluster_touches_no_bot_of_others(cluster):
    fleet(cluster)
    for obj in cluster.objects.values():
        obj["metadata"].get("labels", {}).update({"clawops.fleet/fleet": "other"})
    before = json.dumps(list(cluster.objects.values()))
    for state in handover.STATES:
        with pytest.raises(FleetError, match="fleet other"):
            pod(cluster, state)
    assert json.dumps(list(cluster.objects.values())) == before
