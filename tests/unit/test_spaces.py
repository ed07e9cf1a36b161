# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Spaces on an engine: planned, made, changed, refused and cleared away."""

from __future__ import annotations

import contextlib
import json
import pathlib
import typing as t

import fake_engine
import pytest
from ansible_collections.clawops.fleet.plugins.module_utils import _audit
from ansible_collections.clawops.fleet.plugins.module_utils._docker import (
    apply,
    arguments,
    client,
    compare,
    git,
    lock,
    names,
    observe,
    payload,
    reconcile,
    space,
    workspace,
)
from ansible_collections.clawops.fleet.plugins.module_utils._docker.decide import Settings
from ansible_collections.clawops.fleet.plugins.module_utils._docker.state import Record
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from fake_engine import FakeEngine, refusal

Json = dict[str, t.Any]
ORIGIN = _audit.Origin("tester", "7")


class Host:
    """A host with an engine, as one module call after another sees it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.engine = FakeEngine()
        self.api = self.engine.fake
        self.state = self.engine.state

    def record(self, name: str) -> Record:
        return Record(name, self.folder / "spaces")

    def call(self, *descriptions: Json, only: list[str] | None = None, prune: bool = False,
             check: bool = False, **settings: t.Any) -> Json:
        spaces = space.parse_all(descriptions, settings.pop("templates", None))
        run = reconcile.Spaces(self.engine, spaces, Settings(settings.pop("fleet", "home"), timeout=1.0, **settings),
                               ORIGIN, only, prune, self.record)
        self.api._forget()
        plan = run.plan()
        assert self.api._writes() == []
        values = run.facts() if check or not plan.changed else run.apply(plan)
        return {**plan.result(), **values}

    def settled(self, *descriptions: Json, **settings: t.Any) -> Json:
        """The values of a run after which another one changes nothing and writes nothing."""
        values = self.call(*descriptions, **settings)
        again = self.call(*descriptions, **settings)
        assert (again["changed"], again["actions"], self.api._writes()) == (False, [], [])
        return values

    def status(self, name: str) -> str:
        return observe.status(self.state.containers.get(names.container(name)))

    def foreign(self, name: str) -> None:
        self.api.create_container_from_config(
            {"Image": space.IMAGE, "Labels": {}, "HostConfig": {"NetworkMode": "none"}}, names.container(name))


@pytest.fixture
def host(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(names, "LOCKS", tmp_path / "locks")
    monkeypatch.setattr(names, "STATE", tmp_path / "spaces")
    event, log = _audit.event, str(tmp_path / "audit.jsonl")
    monkeypatch.setattr(_audit, "event",
                        lambda name, subject, origin, **fields: event(name, subject, origin, log, **fields))
    monkeypatch.setattr(apply.time, "sleep", lambda seconds: None)
    return Host(tmp_path)


def alpha(**more: t.Any) -> Json:
    return {"name": "alpha", **more}


def events(host: Host) -> list[str]:
    return [entry["event"] for entry in _audit.read(str(host.folder / "audit.jsonl"))]


# -- descriptions ----------------------------------------------------------------------------------------------------

def test_description_goes_over_template_over_defaults() -> None:
    own = {"big": {"resources": {"memory": "8Gi"}, "env": {"A": "template"}, "network": {"mode": "lan"}}}
    parsed = space.parse(alpha(template="big", env={"B": "own"}, resources={"cpus": "500m"}), own)
    assert (parsed.memory, parsed.cpus, parsed.pids) == (8 * 1024**3, 0.5, 512)
    assert (parsed.env, parsed.network) == ({"A": "template", "B": "own"}, "lan")


def test_own_template_replaces_one_of_ours() -> None:
    assert space.parse(alpha(template="gpu"), {"gpu": {"gpu": 2}}).gpu == 2
    assert space.parse(alpha(template="gpu")).gpu == -1


@pytest.mark.parametrize(("values", "parameter"), [
    ({"resources": {"memory": "2g"}}, "space_resources.memory"),
    ({"resources": {"memory": "1Mi"}}, "space_resources.memory"),
    ({"resources": {"cpus": 0}}, "space_resources.cpus"),
    ({"resources": {"pids": 0}}, "space_resources.pids"),
    ({"resources": {"disk": 1}}, "space_resources"),
    ({"name": "Alpha"}, "space name"),
    ({"name": "a" * 29}, "space name"),
    ({"state": "running"}, "space_state"),
    ({"template": "nope"}, "space_template"),
    ({"image": "--privileged"}, "space_image"),
    ({"image": "x@sha256:12"}, "space_image"),
    ({"env": {"A-B": "1"}}, "space_env"),
    ({"env": {"A": ["1"]}}, "space_env.A"),
    ({"secret_env": {"A": "x\0"}}, "space_secret_env.A"),
    ({"user": "root"}, "space_user"),
    ({"writable_root": "maybe"}, "space_writable_root"),
    ({"gpu": "some"}, "space_gpu"),
    ({"network": {"mode": "host"}}, "space_network.mode"),
    ({"network": {"block": ["10.0.0.1/8"]}}, "space_network.block"),
    ({"workspace": {"strategy": "bind"}}, "space_workspace.path"),
    ({"workspace": {"strategy": "bind", "path": "/srv/../etc"}}, "space_workspace.path"),
    ({"workspace": {"strategy": "volume", "path": "/srv"}}, "space_workspace.path"),
    ({"workspace": {"branch": "x"}}, "space_workspace.branch"),
    ({"workspace": {"strategy": "worktree", "path": "/srv/x", "branch": "-b"}}, "space_workspace.branch"),
    ({"repository": {"url": "ext::sh -c id"}}, "space_repository.url"),
    ({"repository": {"url": "https://user:token@h/x"}}, "space_repository.url"),
    ({"repository": {"url": "https://h/x", "dest": "../x"}}, "space_repository.dest"),
    ({"repository": {"url": "https://h/x", "dest": "/etc"}}, "space_repository.dest"),
    ({"repository": {"dest": "x"}}, "space_repository"),
    ({"repository": {"url": "http://h/x"}, "repository_token": "token"}, "space_repository.url"),
    ({"repository": {"url": "https://h/x"}, "template": "offline"}, "space_repository.url"),
    ({"idle": {"after": -1}}, "space_idle.after"),
    ({"idle": {"action": "kill"}}, "space_idle.action"),
    ({"restart": "sometimes"}, "space_restart"),
    ({"mounts": ["/:/host"]}, "space"),
])
def test_bad_input_is_refused_by_name(values: Json, parameter: str) -> None:
    with pytest.raises(FleetError) as refused:
        space.parse({"name": "alpha", **values})
    assert (refused.value.code, refused.value.details["parameter"]) == ("bad_value", parameter)
    assert "token" not in refused.value.message


def test_names_are_unique() -> None:
    with pytest.raises(FleetError, match="alpha"):
        space.parse_all([alpha(), alpha()])


def test_dest_is_the_last_part_of_the_address() -> None:
    for url in ("https://h/team/project.git", "git@h:team/project.git", "ssh://git@h/team/project/"):
        found = space.parse(alpha(repository={"url": url})).repository
        assert found is not None and found.dest == "project"


def test_shown_has_no_secrets() -> None:
    parsed = space.parse(alpha(secret_env={"TOKEN": "planted"}, repository_token="planted"))
    assert "planted" not in f"{parsed.shown()} {parsed}"
    assert parsed.shown()["secret_env"] == ["TOKEN"]


# -- what is asked of the engine -------------------------------------------------------------------------------------

def test_defaults_are_the_least(host: Host) -> None:
    host.settled(alpha())
    found = host.state.containers["clawdspace-alpha"]
    limits = found["HostConfig"]
    assert limits["CapDrop"] == ["ALL"] and limits["SecurityOpt"] == ["no-new-privileges"]
    assert limits["ReadonlyRootfs"] and limits["Init"] and not limits["Privileged"]
    assert (limits["Memory"], limits["MemorySwap"], limits["NanoCpus"], limits["PidsLimit"]) == (
        2 * 1024**3, 2 * 1024**3, 10**9, 512)
    assert sorted(path.strip("/") for path in limits["Tmpfs"]) == ["run", "tmp"]
    assert all("noexec,nosuid,nodev" in options for options in limits["Tmpfs"].values())
    assert [mount["Type"] for mount in limits["Mounts"]] == ["volume"] and limits["Binds"] == []
    assert found["Config"]["User"] == "1001:1001"
    assert (found["Config"]["Entrypoint"], found["Config"]["Cmd"]) == (["sleep"], ["infinity"])
    assert host.state.networks["clawdspace-alpha"]["Options"] == {
        "com.docker.network.bridge.name": names.bridge("alpha")}
    assert host.status("alpha") == "running"


def test_space_without_network(host: Host) -> None:
    host.settled(alpha(template="offline"))
    assert host.state.networks == {}
    assert host.state.containers["clawdspace-alpha"]["HostConfig"]["NetworkMode"] == "none"


def test_everything_carries_labels(host: Host) -> None:
    host.settled(alpha())
    for found in (host.state.containers["clawdspace-alpha"]["Config"], host.state.volumes["clawdspace-vol-alpha"],
                  host.state.networks["clawdspace-alpha"]):
        assert found["Labels"]["clawops.fleet/space"] == "alpha"
        assert found["Labels"]["clawops.fleet/fleet"] == "home"


def test_no_change_costs_three_lists_and_an_inspection_each(host: Host) -> None:
    spaces = [{"name": f"s{number}"} for number in range(5)]
    host.settled(*spaces)
    verbs = [verb for verb, _subject in host.state.calls]
    assert sorted(verbs) == sorted(["containers", "volumes", "networks", "inspect_image"] + ["inspect_container"] * 5)


def test_gpu_is_refused_where_there_is_none(host: Host) -> None:
    with pytest.raises(FleetError) as refused:
        host.call(alpha(template="gpu"))
    assert refused.value.code == "no_gpu"
    assert host.state.containers == {}


def test_gpus_are_asked_for(host: Host) -> None:
    host.state.about["Runtimes"]["nvidia"] = {}
    host.settled(alpha(gpu=2))
    assert host.state.containers["clawdspace-alpha"]["HostConfig"]["DeviceRequests"][0]["Count"] == 2


def test_more_processors_than_the_host_has(host: Host) -> None:
    with pytest.raises(FleetError) as refused:
        host.call(alpha(resources={"cpus": 5}))
    assert refused.value.code == "too_many_cpus"


# -- states ----------------------------------------------------------------------------------------------------------

WANTED = {"created": "created", "started": "running", "paused": "paused", "stopped": "exited", "absent": "absent"}


@pytest.mark.parametrize("before", WANTED)
@pytest.mark.parametrize("after", WANTED)
def test_every_transition(host: Host, before: str, after: str) -> None:
    host.settled(alpha(state=before))
    was = host.status("alpha")
    planned = host.call(alpha(state=after), check=True)
    done = host.settled(alpha(state=after))
    assert [planned[key] for key in ("changed", "actions", "diff")] == [
        done[key] for key in ("changed", "actions", "diff")]
    expected = {"created": was if was != "absent" else "created",
                "stopped": "exited" if was in ("running", "paused", "exited") else "created"}
    assert host.status("alpha") == expected.get(after, WANTED[after])


def test_absent_keeps_the_volume_until_it_is_purged(host: Host) -> None:
    host.settled(alpha(secret_env={"A": "b"}))
    host.settled(alpha(state="absent"))
    assert list(host.state.volumes) == ["clawdspace-vol-alpha"] and host.state.networks == {}
    assert not host.record("alpha").secrets.exists()
    host.settled(alpha(state="absent"), purge_data=True)
    assert host.state.volumes == {} and not host.record("alpha").path.exists()


def test_what_is_left_of_ours_on_a_network_does_not_hold_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.settled(alpha())
    refusals, gone = [refusal(403, "network has active endpoints")], []
    look, ends = fake_engine.FakeApi.inspect_network, {"x": {"Name": "clawdspace-alpha.old"}}
    monkeypatch.setattr(fake_engine.FakeApi, "inspect_network",
                        lambda api, name: {**look(api, name), "Containers": ends})
    monkeypatch.setattr(fake_engine.FakeApi, "disconnect_container_from_network",
                        lambda _api, container, _name, force: gone.append((container, force)))
    monkeypatch.setattr(fake_engine.FakeApi, "remove_network", lambda api, name: api.state.networks.pop(name))
    host.state.fails = lambda verb, subject: refusals.pop() if verb == "remove_network" and refusals else None
    host.call(alpha(state="absent"))
    assert gone == [("clawdspace-alpha.old", True)] and host.state.networks == {}


def test_what_is_foreign_on_a_network_stays_there(host: Host) -> None:
    host.settled(alpha())
    host.foreign("guest")
    host.api.start("clawdspace-guest")
    joined = host.state.containers["clawdspace-guest"]["NetworkSettings"]["Networks"]
    joined["clawdspace-alpha"] = {"NetworkID": "", "IPAddress": ""}
    with pytest.raises(FleetError, match="active endpoints"):
        host.call(alpha(state="absent"))
    assert "clawdspace-alpha" in joined and list(host.state.networks) == ["clawdspace-alpha"]


def test_sleeper_counts_as_started(host: Host) -> None:
    host.settled(alpha())
    host.record("alpha").fall_asleep(host.api.inspect_container("clawdspace-alpha"), reason="idle")
    host.api.pause("clawdspace-alpha")
    found = host.settled(alpha())["spaces"][0]
    assert (found["state"], found["asleep"], found["changed"]) == ("paused", True, False)


def test_who_was_paused_by_hand_is_started(host: Host) -> None:
    host.settled(alpha())
    host.api.pause("clawdspace-alpha")
    host.settled(alpha())
    assert host.status("alpha") == "running"


def test_note_of_an_earlier_sleep_means_nothing(host: Host) -> None:
    host.settled(alpha())
    host.record("alpha").fall_asleep(host.api.inspect_container("clawdspace-alpha"), reason="idle")
    host.api.stop("clawdspace-alpha")
    host.api.start("clawdspace-alpha")
    host.api.stop("clawdspace-alpha")
    host.settled(alpha())
    assert host.status("alpha") == "running"


def test_audit_tells_what_was_done(host: Host) -> None:
    for state in ("started", "paused", "started", "stopped", "absent"):
        host.call(alpha(state=state))
    assert events(host) == ["space.create", "space.start", "space.pause", "space.wake", "space.stop", "space.destroy"]


def test_nothing_is_done_that_can_not_be_recorded(host: Host) -> None:
    (host.folder / "audit.jsonl").mkdir()
    with pytest.raises(FleetError) as failed:
        host.call(alpha())
    assert failed.value.code == "audit_failed"
    assert host.state.containers == {}


# -- changes ---------------------------------------------------------------------------------------------------------

def test_limits_change_while_it_runs(host: Host) -> None:
    host.settled(alpha())
    ident = host.state.containers["clawdspace-alpha"]["Id"]
    done = host.settled(alpha(resources={"memory": "1Gi", "cpus": 2, "pids": 99}, restart="always"))
    assert done["diff"]["after"]["limits of space alpha"] == {
        "memory": 1024**3, "cpus": 2.0, "pids": 99, "restart": "always"}
    found = host.state.containers["clawdspace-alpha"]
    assert found["Id"] == ident and found["HostConfig"]["MemorySwap"] == 1024**3


def test_engine_without_swap_accounting(host: Host) -> None:
    host.settled(alpha())
    host.state.about["SwapLimit"] = False
    host.state.containers["clawdspace-alpha"]["HostConfig"]["MemorySwap"] = -1
    assert not host.call(alpha())["changed"]


@pytest.mark.parametrize("change", [
    {"env": {"A": "b"}}, {"user": "2000:2000"}, {"writable_root": True}, {"resources": {"tmp": "1Gi"}},
    {"network": {"mode": "none"}}, {"secret_env": {"A": "b"}},
])
def test_what_takes_a_new_container_is_refused_while_it_runs(host: Host, change: Json) -> None:
    host.settled(alpha())
    ident = host.state.containers["clawdspace-alpha"]["Id"]
    with pytest.raises(FleetError) as refused:
        host.call(alpha(**change))
    assert refused.value.code == "needs_recreate"
    assert host.state.containers["clawdspace-alpha"]["Id"] == ident
    host.settled(alpha(**change, recreate=True))
    assert host.state.containers["clawdspace-alpha"]["Id"] != ident
    assert list(host.state.containers) == ["clawdspace-alpha"]
    assert host.status("alpha") == "running"


def test_refusal_names_what_differs(host: Host) -> None:
    host.settled(alpha(env={"A": "b"}))
    with pytest.raises(FleetError) as refused:
        host.call(alpha())
    assert refused.value.details["differences"] == {"before": {"env": {"A": "b"}}, "after": {"env": {}}}


def test_stopped_space_is_replaced_without_asking(host: Host) -> None:
    host.settled(alpha(state="stopped"))
    host.settled(alpha(state="stopped", env={"A": "b"}))
    assert "A=b" in host.state.containers["clawdspace-alpha"]["Config"]["Env"]


def test_written_root_is_something_to_lose(host: Host) -> None:
    host.settled(alpha(writable_root=True))
    host.call(alpha(writable_root=True, state="stopped"))
    with pytest.raises(FleetError) as refused:
        host.call(alpha(state="stopped"))
    assert refused.value.code == "needs_recreate"


def test_drift_from_outside_is_seen(host: Host) -> None:
    host.settled(alpha())
    host.state.containers["clawdspace-alpha"]["HostConfig"]["CapAdd"] = ["SYS_ADMIN"]
    with pytest.raises(FleetError, match="CapAdd"):
        host.call(alpha())


def test_second_network_is_seen(host: Host) -> None:
    host.settled(alpha())
    host.state.containers["clawdspace-alpha"]["NetworkSettings"]["Networks"]["bridge"] = {"NetworkID": "x"}
    with pytest.raises(FleetError, match="Networks"):
        host.call(alpha())


def test_moved_tag_waits_until_it_is_asked_for(host: Host) -> None:
    host.settled(alpha())
    host.state.images[space.IMAGE] = {"Id": "sha256:second"}
    found = host.settled(alpha())["spaces"][0]
    assert not found["changed"] and "another image" in found["pending"][0]
    found = host.settled(alpha(recreate=True))["spaces"][0]
    assert found["pending"] == [] and host.state.containers["clawdspace-alpha"]["Image"] == "sha256:second"


def test_missing_image_is_said_before_the_container_goes(host: Host) -> None:
    host.settled(alpha())
    with pytest.raises(FleetError) as refused:
        host.call(alpha(image="nope:1", recreate=True))
    assert refused.value.code == "no_image"
    assert host.status("alpha") == "running"


def test_digest_is_pulled(host: Host) -> None:
    reference = f"registry.example.org/x@sha256:{'0' * 64}"
    done = host.settled(alpha(image=reference))
    assert {"subject": f"image {reference}", "action": "pull"} in done["actions"]


def test_new_container_that_does_not_start_gives_way_to_the_old_one(host: Host) -> None:
    host.settled(alpha())
    ident = host.state.containers["clawdspace-alpha"]["Id"]
    broken = [refusal(400, "exec: sleep: not found")]
    host.state.fails = lambda verb, subject: broken.pop() if verb == "start" and broken else None
    with pytest.raises(FleetError, match="not found"):
        host.call(alpha(env={"A": "b"}, recreate=True))
    assert host.state.containers["clawdspace-alpha"]["Id"] == ident
    assert list(host.state.containers) == ["clawdspace-alpha"]
    assert host.status("alpha") == "running"


def test_settings_change_without_the_engine(host: Host) -> None:
    host.settled(alpha())
    done = host.call(alpha(idle={"after": 60}))
    assert done["changed"] and host.api._writes() == []
    assert host.record("alpha").idle() == (60, "pause")
    host.settled(alpha(idle={"after": 60}))


# -- secrets ---------------------------------------------------------------------------------------------------------

def test_secrets_are_a_file_and_nothing_else(host: Host) -> None:
    values = {"TOKEN": "planted 'q' \"d\" $x", "KEY": "a\nplanted"}
    done = host.settled(alpha(secret_env=values))
    record = host.record("alpha")
    assert record.secret_env() == values
    assert (record.secrets / "environment").stat().st_mode & 0o777 == 0o400
    assert record.path.stat().st_mode & 0o777 == 0o700
    seen = f"{done} {host.state.containers} {host.state.calls} {record.spec()}"
    assert "planted" not in seen + (host.folder / "audit.jsonl").read_text()
    mount = host.state.containers["clawdspace-alpha"]["HostConfig"]["Mounts"][-1]
    assert (mount["Target"], mount["ReadOnly"]) == ("/run/secrets", True)


def test_new_secrets_need_no_new_container(host: Host) -> None:
    host.settled(alpha(secret_env={"A": "one"}))
    ident = host.state.containers["clawdspace-alpha"]["Id"]
    host.settled(alpha(secret_env={"A": "two"}))
    assert host.state.containers["clawdspace-alpha"]["Id"] == ident
    assert host.record("alpha").secret_env() == {"A": "two"}


# -- whose it is -----------------------------------------------------------------------------------------------------

def _foreign_container(host: Host) -> None:
    host.foreign("alpha")


def _foreign_volume(host: Host) -> None:
    host.api.create_volume("clawdspace-vol-alpha", labels={})


def _foreign_network(host: Host) -> None:
    host.api.create_network({"Name": "clawdspace-alpha", "Driver": "bridge", "Labels": {}, "Options": {}})


FOREIGN = [_foreign_container, _foreign_volume, _foreign_network]


@pytest.mark.parametrize("make", FOREIGN)
def test_foreign_object_is_named_and_untouched(host: Host, make: t.Callable[[Host], None]) -> None:
    make(host)
    with pytest.raises(FleetError, match=r"clawdspace-(vol-)?alpha exists and is not managed") as refused:
        host.call(alpha())
    assert refused.value.code == "foreign_object" and host.api._writes() == []
    with pytest.raises(FleetError, match="not managed"):
        host.call(alpha(state="absent"), purge_data=True)


@pytest.mark.parametrize("make", FOREIGN)
def test_adoption(host: Host, make: t.Callable[[Host], None]) -> None:
    make(host)
    host.call(alpha(recreate=True), adopt=True)
    host.settled(alpha())
    assert host.status("alpha") == "running"


def test_space_of_another_fleet(host: Host) -> None:
    host.settled(alpha(), fleet="other")
    with pytest.raises(FleetError, match="belongs to the fleet other"):
        host.call(alpha())


def test_prune_takes_only_our_fleet_and_nothing_outside_only(host: Host) -> None:
    host.call({"name": "theirs"}, fleet="other")
    host.foreign("foreign")
    host.call(alpha(), {"name": "bravo"}, {"name": "charlie"})
    host.call(alpha(), prune=True, only=["alpha", "bravo"])
    assert host.status("bravo") == "absent" and host.status("charlie") == "running"
    host.settled(alpha(), prune=True)
    assert sorted(host.state.containers) == ["clawdspace-alpha", "clawdspace-foreign", "clawdspace-theirs"]


# -- many ------------------------------------------------------------------------------------------------------------

def test_one_that_can_not_be_planned_stops_all_before_the_first_write(host: Host) -> None:
    host.foreign("bravo")
    with pytest.raises(FleetError) as failed:
        host.call(alpha(), {"name": "bravo"}, {"name": "charlie", "image": "nope:1"})
    assert failed.value.code == "spaces_failed" and host.api._writes() == []
    assert "bravo" in failed.value.message and "charlie" in failed.value.message


def test_one_that_fails_does_not_stop_the_others(host: Host) -> None:
    host.state.fails = lambda verb, subject: (
        refusal(500, "no space left") if (verb, subject) == ("start", "clawdspace-bravo") else None)
    with pytest.raises(FleetError) as failed:
        host.call(alpha(), {"name": "bravo"}, {"name": "charlie"})
    assert "bravo" in failed.value.message and "no space left" in failed.value.message
    assert [entry["failed"] for entry in failed.value.details["spaces"]] == [False, True, False]
    assert (host.status("alpha"), host.status("charlie")) == ("running", "running")


def test_engine_that_comes_back_is_waited_for(host: Host) -> None:
    failures = [ConnectionError("refused"), refusal(500, "daemon is shutting down")]
    host.state.fails = lambda verb, subject: failures.pop() if verb == "create_volume" and failures else None
    host.settled(alpha())
    assert host.status("alpha") == "running"


def test_engine_that_stays_away_is_one_clear_error(host: Host) -> None:
    host.state.fails = lambda verb, subject: ConnectionError("refused") if verb in ("start", "ping") else None
    with pytest.raises(FleetError) as failed:
        host.call(alpha())
    assert failed.value.code == "engine_unreachable"


class Killed(BaseException):
    """As kill -9: nothing tidies up."""


def _steps(host: Host, *calls: Json) -> int:
    """How many writes the last of these calls makes."""
    for description in calls:
        host.call(description, purge_data=True)
    return len(host.api._writes())


def _dies_after(writes: int) -> t.Callable[[str, str], BaseException | None]:
    left = [writes]

    def kill(verb: str, subject: str) -> BaseException | None:
        if verb in fake_engine.READS:
            return None
        left[0] -= 1
        return Killed() if left[0] < 0 else None
    return kill


@pytest.mark.parametrize(("before", "after"), [
    ({"state": "absent"}, {"secret_env": {"A": "b"}}),
    ({}, {"env": {"A": "b"}, "recreate": True}),
    ({}, {"network": {"mode": "none"}, "recreate": True}),
    ({"state": "paused"}, {"user": "2000:2000", "recreate": True, "state": "paused"}),
    ({}, {"state": "absent"}),
])
def test_killed_anywhere_the_next_run_converges(host: Host, before: Json, after: Json) -> None:
    count = _steps(host, alpha(state="absent"), alpha(**before), alpha(**after))
    for deadly in range(count):
        _steps(host, alpha(state="absent"), alpha(**before))
        host.state.fails = _dies_after(deadly)
        with contextlib.suppress(Killed):
            host.call(alpha(**after), purge_data=True)
        host.state.fails = lambda verb, subject: None
        host.settled(alpha(**after), purge_data=True)
        gone = after.get("state") == "absent"
        assert list(host.state.containers) == ([] if gone else ["clawdspace-alpha"])
        assert list(host.state.volumes) == ([] if gone else ["clawdspace-vol-alpha"])
        assert gone or all("owner" in done for done in host.record("alpha").done().values())


def test_busy_space_is_said_so(host: Host) -> None:
    with lock.hold("alpha"), pytest.raises(FleetError) as failed:
        host.call(alpha())
    assert failed.value.code == "busy"


class Wire:
    """The engine's socket, which answers to these paths."""

    def __init__(self, **answers: tuple[int, Json]) -> None:
        self.answers = answers

    def get(self, path: str) -> tuple[int, bytes]:
        status, found = self.answers.get(path.split("?")[0].split("/")[2], (500, {}))
        return status, json.dumps(found).encode()


def test_library_reads_what_the_socket_does_not_give(host: Host) -> None:
    host.call(alpha())
    wire = Wire(volumes=(200, {"Volumes": None}), containers=(404, {"message": "No such container"}))
    engine = client.Engine(host.api, wire=t.cast("client.Wire", wire))
    assert (engine.volumes("clawdspace"), engine.inspect("clawdspace-alpha")) == ([], None)
    assert [network["Name"] for network in engine.networks("clawdspace")] == ["clawdspace-alpha"]
    assert engine.network("clawdspace-beta") is None and engine.network("clawdspace-alpha")


# -- files -----------------------------------------------------------------------------------------------------------

def test_owner_is_set_where_the_image_has_another(host: Host) -> None:
    host.settled(alpha(state="created"))
    assert [subject for verb, subject in host.state.calls if verb == "create_container_from_config"] == []
    host.call({"name": "bravo", "state": "created"})
    made = [subject for verb, subject in host.api._writes() if verb == "create_container_from_config"]
    assert made == ["clawdspace-bravo", "clawdspace-bravo.prepare"]
    assert "clawdspace-bravo.prepare" not in host.state.containers


def test_owner_that_is_right_takes_no_helper(host: Host, tmp_path: pathlib.Path) -> None:
    host.state.mountpoint = tmp_path
    found = tmp_path.stat()
    host.call(alpha(user=f"{found.st_uid}:{found.st_gid}"))
    assert "clawdspace-alpha.prepare" not in [subject for _verb, subject in host.api._writes()]


def test_helper_has_no_network_and_few_rights() -> None:
    helper = payload.helper(space.parse(alpha()), ["chown", "x"], [])["HostConfig"]
    assert helper["NetworkMode"] == "none" and helper["CapDrop"] == ["ALL"] and "SYS_ADMIN" not in helper["CapAdd"]


def _folder(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "allowed" / "project"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_bytes(b"x" * 1000)
    (folder / "sub/b").write_text("b")
    (folder / "a").chmod(0o4755)
    (folder / "link").symlink_to("/etc/shadow")
    return folder


def _workspace(host: Host, strategy: str) -> tuple[Json, Json]:
    folder = _folder(host.folder)
    return alpha(workspace={"strategy": strategy, "path": str(folder)}), {"allowed_paths": (str(folder.parent),)}


def test_bind_needs_an_allowed_path(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "_NEVER", ("/etc",))
    description, allowed = _workspace(host, "bind")
    with pytest.raises(FleetError) as refused:
        host.call(description)
    assert "allowed_paths" in refused.value.hint
    host.settled(description, **allowed)
    mount = host.state.containers["clawdspace-alpha"]["HostConfig"]["Mounts"][0]
    assert (mount["Type"], mount["Target"]) == ("bind", "/workspace")
    (host.folder / "allowed/out").symlink_to("/etc")
    for path in (host.folder / "allowed/out", host.folder / "allowed/none", "/etc", "/"):
        with pytest.raises(FleetError) as refused:
            host.call({"name": "b", "workspace": {"strategy": "bind", "path": str(path)}}, **allowed)
        assert refused.value.code == "bad_value"


def test_snapshot_is_copied_once(host: Host) -> None:
    import io
    import tarfile

    description, allowed = _workspace(host, "snapshot")
    host.settled(description, **allowed)
    with tarfile.open(fileobj=io.BytesIO(host.state.archives.pop("clawdspace-alpha"))) as tar:
        found = {member.name: member for member in tar}
        assert sorted(found) == ["a", "link", "sub", "sub/b"]
        assert found["link"].issym() and found["a"].mode == 0o755
        assert {member.uid for member in found.values()} == {1001}
        content = tar.extractfile("a")
        assert content is not None and content.read() == b"x" * 1000
    host.call({**description, "recreate": True, "env": {"A": "b"}}, **allowed)
    host.call(alpha(state="absent"))
    host.call(description, **allowed)
    assert host.state.archives == {}


def test_snapshot_has_no_empty_part_that_would_end_it(tmp_path: pathlib.Path) -> None:
    for name, size in (("a", 0), ("b", 512), ("c", 3 << 20), ("d", 1)):
        (tmp_path / name).write_bytes(bytes(size))
    assert all(workspace.snapshot(str(tmp_path), 1, 1))


def test_clone_happens_once_and_after_the_lock(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[t.Any, ...]] = []

    def clone(engine: t.Any, name: str, *args: t.Any, **options: t.Any) -> None:
        with lock.hold(name, shared=True, timeout=0):
            asked.append(args)
    monkeypatch.setattr(git, "clone", clone)
    description = alpha(repository={"url": "https://h/p.git", "branch": "main"}, repository_token="planted",
                        state="paused")
    host.settled(description)
    assert asked == [("https://h/p.git", "main", "p", "planted")]
    assert host.status("alpha") == "paused"
    host.call(alpha(state="absent"))
    host.settled(description)
    assert len(asked) == 1


# -- comparing -------------------------------------------------------------------------------------------------------

def test_engines_write_nothing_down_in_different_ways() -> None:
    wanted = payload.container("home", space.parse(alpha()), [])
    found = {"Config": {key: value for key, value in wanted.items() if key != "HostConfig"},
             "HostConfig": {**wanted["HostConfig"], "CapAdd": None, "Binds": None, "Devices": None,
                            "PortBindings": None, "DeviceRequests": None, "Mounts": None}}
    assert compare.fixed(wanted, found) == {} and compare.live(wanted, found) == {}


def test_guard_is_asked_for_only_where_there_is_a_network() -> None:
    def missing(*_args: t.Any, **_options: t.Any) -> t.Any:
        raise FleetError("no_program", "The program nft is not installed on this host.")
    assert reconcile.check_guard(space.parse_all([alpha(template="offline")]), missing) is None
    assert "nft" in str(reconcile.check_guard(space.parse_all([alpha()]), missing))


# -- modules ---------------------------------------------------------------------------------------------------------

class Ended(Exception):
    """exit_json or fail_json with its values."""


class Module:
    """AnsibleModule, as far as manage() knows it."""

    def __init__(self, check_mode: bool = False, **params: t.Any) -> None:
        defaults = {name: option.get("default") for name, option in {**arguments.FLEET, **arguments.COMMON}.items()}
        self.params = {**defaults, "fleet": "home", **params}
        self.check_mode = check_mode
        self.warnings: list[str] = []

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)

    def exit_json(self, **values: t.Any) -> t.Any:
        raise Ended(values)

    def fail_json(self, msg: str, **values: t.Any) -> t.Any:
        raise Ended({"failed": True, "msg": msg, **values})


def ended(module: Module, *spaces: Json) -> Json:
    with pytest.raises(Ended) as values:
        arguments.manage(module, spaces)
    return t.cast(Json, values.value.args[0])


def test_module_without_an_engine_in_check_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_args: t.Any) -> t.Any:
        raise FleetError("engine_unreachable", "The Docker engine doesn't answer.")
    monkeypatch.setattr(arguments, "connect", nowhere)
    module = Module(check_mode=True, require_guard=False)
    values = ended(module, alpha())
    assert (values["changed"], values["plan_complete"]) == (True, False)
    assert module.warnings
    assert ended(Module(require_guard=False), alpha())["failure"]["code"] == "engine_unreachable"


def test_module_refuses_spaces_without_a_guard(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "connect", lambda *_args: host.engine)
    monkeypatch.setattr(arguments, "check_guard",
                        lambda spaces: "This host has no table inet clawops (none)" if spaces else None)
    values = ended(Module(), alpha())
    assert values["failure"]["code"] == "no_guard" and host.api._writes() == []
    assert not ended(Module(check_mode=True), alpha())["plan_complete"]
    assert "failed" not in ended(Module(require_guard=False), alpha(template="offline"))
    assert host.status("alpha") == "running"


def test_module_lets_the_template_say_what_nobody_said(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "connect", lambda *_args: host.engine)
    unsaid: Json = dict.fromkeys(arguments.SPACE)
    values = ended(Module(require_guard=False), {**unsaid, "name": "alpha", "template": "offline", "state": "started",
                                                 "recreate": False, "resources": {"memory": "1Gi", "cpus": None}})
    assert values["spaces"][0]["network"] is None
    assert host.state.containers["clawdspace-alpha"]["HostConfig"]["NanoCpus"] == 10**9


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"allowed_paths": ["/"]}, {"allowed_paths": ["srv"]},
                                   {"only": ["No"]}, {"templates": {"big": {"name": "x"}}}])
def test_module_refuses_bad_settings_before_it_connects(monkeypatch: pytest.MonkeyPatch, wrong: Json) -> None:
    def never(*_args: t.Any) -> t.Any:
        raise AssertionError
    monkeypatch.setattr(arguments, "connect", never)
    assert ended(Module(**wrong), alpha())["failure"]["code"] == "bad_value"
