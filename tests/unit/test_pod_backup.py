# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups of bots in a cluster: a fake API server whose pods run their programs here, on directories as volumes."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import sqlite3
import subprocess
import sys

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils import _pod_backup as pods
from ansible_collections.clawops.fleet.plugins.module_utils._backup import bucket, model, restic, verbs, volumes
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes import job
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes.client import Done
from ansible_collections.clawops.fleet.plugins.module_utils._ownership import FLEET, labels
from fake_cluster import FakeCluster
from test_backup import S3, Restic

STORE = model.Store("http://203.0.113.5:9000", "backups", "home")
KEYS = model.Keys("the-access", "the-secret", "the-password")
NAMESPACE = "claworc-gateway"


class Cluster(FakeCluster):
    """A suspended Job that goes on has a running pod; a Job that goes takes what it owns with it."""

    def __init__(self, restic_: Restic) -> None:
        super().__init__()
        self.restic, self.benches, self.state = restic_, [], {"running": {}}
        self.has_restic = True

    def events(self, namespace, name):
        return [{"type": "Warning", "reason": "FailedCreate", "message": "quota"}]

    def patch(self, kind, name, body, namespace=None):
        made = super().patch(kind, name, body, namespace)
        if kind == "Job":
            self.benches.append(made)
            template = made["spec"]["template"]
            self.put({"kind": "Pod", "spec": template["spec"], "status": {"containerStatuses": [
                {"name": "backup", "state": self.state}]}, "metadata": {
                    "name": f"{name}-x", "namespace": namespace, "labels": template["metadata"]["labels"]}})
        return made

    def delete(self, obj):
        super().delete(obj)
        uid = obj["metadata"].get("uid")
        for key, one in list(self.objects.items()):
            if any(owner["uid"] == uid for owner in one["metadata"].get("ownerReferences", [])) or (
                    obj["kind"] == "Job" and key[0] == "Pod" and key[2].startswith(obj["metadata"]["name"])):
                del self.objects[key]

    def exec(self, namespace, pod, argv, stdin=None, container=None, timeout=60.0):
        self.calls.append(("exec", pod, argv[0]))
        if argv[0] == "restic":
            if argv[1:] == ["version"]:
                return Done(0 if self.has_restic else 126, "restic 0.18.0 compiled", "")
            done = self.restic.run(argv, {}, timeout)
            return Done(done.rc, done.out, done.err)
        done = subprocess.run([sys.executable if word == "python3" else word for word in argv], input=stdin,
                              capture_output=True, check=False)
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def names(cluster, kind):
    return sorted(key[2] for key in cluster.objects if key[0] == kind)


class World:
    def __init__(self, top, monkeypatch):
        self.top, self.restic, self.s3 = top, Restic(top / "snapshots"), S3()
        self.cluster = Cluster(self.restic)
        monkeypatch.setattr(pods, "PLACES", {"clawdbot": str(top / "state"), "clawd": str(top / "work")})
        monkeypatch.setattr(pods, "AGAIN", str(top / "again"))
        monkeypatch.setattr(pods, "STAGING", str(top / "staging"))
        monkeypatch.setattr(pods, "USER", os.getuid())
        (top / "again").symlink_to(top / "state")
        self.state = top / "state"
        self.ways = pods.Ways(self.cluster, STORE, (NAMESPACE, "claworc"), None, 60.0)

    def bot(self, replicas=1, profile="gateway", volumes_=("clawdbot",)):
        for volume in volumes_:
            (self.top / {"clawdbot": "state", "clawd": "work"}[volume]).mkdir(exist_ok=True)
            self.put("PersistentVolumeClaim", f"bot-golf-{volume}",
                     spec={"resources": {"requests": {"storage": "1Gi"}}})
        template = {"spec": {"containers": [{"name": "openclaw", "image": "registry/bot:1"}]}}
        self.put("Deployment", "bot-golf", {"clawops.fleet/profile": profile, "clawops.fleet/version": "2026.9.6"},
                 spec={"replicas": replicas, "template": template})
        self.put("Secret", "bot-golf-keys", data={"OPENCLAW_GATEWAY_TOKEN": "b2xk", "KEY": "a2V5"})
        if replicas:
            self.put("Pod", "bot-golf-0", spec={"nodeName": "node-1"},
                     status={"containerStatuses": [{"name": "openclaw", "state": {"running": {}}}]})

    def put(self, kind, name, notes=None, **body):
        marks = {**labels("home", "bot", "golf", name), "app": "bot-golf"}
        self.cluster.put({"kind": kind, "metadata": {"name": name, "namespace": NAMESPACE, "labels": marks,
                                                     "annotations": notes or {}}, **body})

    def fill(self):
        (self.state / "a\nb").write_text("words")
        database = sqlite3.connect(self.state / "m.sqlite")
        database.execute("pragma journal_mode=wal")
        database.execute("create table t (x)")
        database.execute("insert into t values (7)")
        database.commit()
        return database

    def access(self, runner):
        def found():
            return bucket.Bucket(STORE, self.s3)

        repository = restic.Repository(STORE, "golf", KEYS, runner, marks=bucket.Marks(found, "golf"))
        return verbs.Access("golf", found, repository)

    def snapshot(self):
        self.s3.keys.add("home/bots/golf/config")
        runner = pods.PodRunner(None)
        runner.here = self.restic
        access = self.access(runner)
        source = pods.PodSource(self.ways, "golf", runner, access.repository.env, "harbor", ["cache"])
        verb = verbs.Snapshots([verbs.Job(access, source)], "harbor", False)
        return verb.apply(verb.plan())["snapshots"][0]

    def restore(self, overwrite=False, stop=False, safety=False):
        runner = pods.PodRunner(None)
        runner.here = self.restic
        access = self.access(runner)
        target = pods.PodTarget(self.ways, "golf", runner, access.repository.env, stop, overwrite)
        verb = verbs.Restores([verbs.Wish(access, target, "latest", overwrite, safety=safety)], False, host="harbor")
        plan = verb.plan()
        return verb.apply(plan)["restored"][0] if plan.changed else None


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


def rows(path):
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute("select x from t").fetchall()


def test_a_running_bot_makes_its_copies_itself_and_a_job_on_its_node_only_reads(world):
    world.bot()
    live = world.fill()
    taken = world.snapshot()
    assert (taken["bot"], taken["databases"]) == ("golf", 1)
    snapshot = pathlib.Path(f"{world.restic.place}/{taken['snapshot']}{world.top}")
    assert (snapshot / "state/a\nb").read_text() == "words" and not (snapshot / "state/m.sqlite").exists()
    manifest = json.loads((snapshot / "again/.clawops/staging/golf/manifest.json").read_text())
    assert (manifest["host"], manifest["substrate"], manifest["bot_version"]) == ("harbor", "cluster", "2026.9.6")
    assert rows(snapshot / "again/.clawops/staging/golf" / manifest["parts"][0]["databases"][0]["copy"]) == [(7,)]
    pod = world.cluster.benches[0]["spec"]["template"]["spec"]
    assert pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] == [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}]
    assert [mount.get("readOnly") for mount in pod["containers"][0]["volumeMounts"]] == [None, None, True, True]
    assert not (world.state / ".clawops").exists()
    assert names(world.cluster, "Job") == [] and names(world.cluster, "Secret") == ["bot-golf-keys"]
    claim = world.cluster.get("PersistentVolumeClaim", "bot-golf-clawdbot", NAMESPACE)
    assert pods.RUN not in claim["metadata"]["annotations"]
    live.close()


def test_excluded_are_what_backups_put_there_and_what_was_asked_for(world):
    world.bot()
    world.fill().close()
    world.snapshot()
    words = next(argv for argv, _env in world.restic.calls if "backup" in argv)
    left_out = {word.split("=", 1)[1] for word in words if word.startswith("--exclude=")}
    assert {f"{world.state}/{name}" for name in (".clawops", "lost+found", "cache", "m.sqlite")} <= left_out


def test_a_stopped_bot_loses_its_data_and_gets_them_back(world):
    world.bot(replicas=0)
    world.fill().close()
    world.snapshot()
    for path in world.state.iterdir():
        path.unlink()
    restored = world.restore()
    assert restored["changed"] and restored["places"] == {
        "state": f"PersistentVolumeClaim {NAMESPACE}/bot-golf-clawdbot"}
    assert (world.state / "a\nb").read_text() == "words" and rows(world.state / "m.sqlite") == [(7,)]
    assert sorted(os.listdir(world.state)) == ["a\nb", "m.sqlite"]
    assert world.cluster.get("Secret", "bot-golf-keys", NAMESPACE)["data"] == {"KEY": "a2V5"}
    assert world.restore() is None
    assert names(world.cluster, "Job") == []


def test_data_that_are_there_are_replaced_only_by_consent(world):
    world.bot(replicas=0)
    world.fill().close()
    world.snapshot()
    (world.state / "later").write_text("x")
    with pytest.raises(FleetError) as caught:
        world.restore()
    assert caught.value.code == "target_not_empty" and (world.state / "later").exists()
    assert world.restore(overwrite=True)["changed"]
    assert sorted(os.listdir(world.state)) == ["a\nb", "m.sqlite"]


def test_what_is_replaced_goes_into_a_snapshot_first(world):
    world.bot(replicas=0)
    world.fill().close()
    world.snapshot()
    (world.state / "later").write_text("x")
    restored = world.restore(overwrite=True, safety=True)
    taken = world.restic.snapshots[1]
    assert restored["safety"] == taken["id"] and taken["hostname"] == "h" and "safety=1" in taken["tags"]
    saved = world.restic.place / taken["id"] / str(world.state).lstrip("/")
    assert {"a\nb", "later", "m.sqlite"} <= {*os.listdir(saved)} and ".clawops" not in os.listdir(saved)
    claim = world.cluster.get("PersistentVolumeClaim", "bot-golf-clawdbot", NAMESPACE)
    assert claim["metadata"]["annotations"].get(pods.RUN) is None
    assert not (world.state / "later").exists() and world.restore() is None


def test_without_that_snapshot_nothing_is_replaced(world):
    world.bot(replicas=0)
    world.fill().close()
    world.snapshot()
    (world.state / "later").write_text("x")
    world.restic.code = 1
    with pytest.raises(FleetError) as caught:
        world.restore(overwrite=True, safety=True)
    assert caught.value.code == "safety_failed" and (world.state / "later").exists()
    world.restic.code = 0
    assert world.restore(overwrite=True, safety=True)["safety"]


def test_a_bot_that_runs_is_not_restored(world):
    world.bot()
    world.fill().close()
    world.snapshot()
    with pytest.raises(FleetError) as caught:
        world.restore(overwrite=True)
    assert caught.value.code == "bot_running"


def test_a_bot_that_is_started_meanwhile_keeps_what_it_has(world, monkeypatch):
    world.bot(replicas=0)
    world.fill().close()
    world.snapshot()
    (world.state / "later").write_text("x")
    run = pods.PodTarget._in_job

    def start(self, verb, **arguments):
        run(self, verb, **arguments)
        if verb == "finish":
            world.bot(replicas=1)

    monkeypatch.setattr(pods.PodTarget, "_in_job", start)
    with pytest.raises(FleetError) as caught:
        world.restore(overwrite=True)
    assert caught.value.code == "bot_running" and (world.state / "later").exists()
    claim = world.cluster.get("PersistentVolumeClaim", "bot-golf-clawdbot", NAMESPACE)
    assert pods.RESTORED not in claim["metadata"]["annotations"]


def test_an_exchange_that_was_cut_short_is_undone_and_repeated_without_consent(world, monkeypatch):
    world.bot(replicas=0)
    world.fill().close()
    world.snapshot()
    (world.state / "later").write_text("x")
    run = pods.PodTarget._in_job

    def die(self, verb, **arguments):
        run(self, verb, **arguments)
        if verb == "exchange":
            raise FleetError("killed", "here")

    monkeypatch.setattr(pods.PodTarget, "_in_job", die)
    with pytest.raises(FleetError):
        world.restore(overwrite=True)
    monkeypatch.setattr(pods.PodTarget, "_in_job", run)
    assert world.restore()["changed"]
    assert sorted(os.listdir(world.state)) == ["a\nb", "m.sqlite"]


def test_a_run_that_was_killed_does_not_count(world):
    world.bot()
    world.fill().close()
    first = world.snapshot()
    run = next(tag for tag in world.restic.snapshots[0]["tags"] if tag.startswith("run=")).split("=")[1]
    world.cluster.patch("PersistentVolumeClaim", "bot-golf-clawdbot", {"metadata": {"annotations": {pods.RUN: run}}},
                        NAMESPACE)
    assert world.snapshot()["snapshot"] != first["snapshot"]
    assert f"home/bots/golf/rejected/{run}" in world.s3.keys


def test_a_lost_connection_says_nothing_of_the_snapshot(world, monkeypatch):
    world.bot()
    world.fill().close()
    run = world.cluster.exec

    def cut(namespace, pod, argv, *more):
        done = run(namespace, pod, argv, *more)
        return Done(1, "", "") if "backup" in argv else done

    monkeypatch.setattr(world.cluster, "exec", cut)
    with pytest.raises(FleetError) as caught:
        world.snapshot()
    assert caught.value.code == "connection_lost"
    claim = world.cluster.get("PersistentVolumeClaim", "bot-golf-clawdbot", NAMESPACE)
    assert claim["metadata"]["annotations"][pods.RUN]


def test_what_is_not_ours_or_not_there_is_refused(world):
    with pytest.raises(FleetError) as caught:
        world.snapshot()
    assert caught.value.code == "path_missing"
    world.bot()
    world.cluster.objects["Deployment", NAMESPACE, "bot-golf"]["metadata"]["labels"][FLEET] = "other"
    with pytest.raises(FleetError) as caught:
        world.snapshot()
    assert caught.value.code == "foreign_object"


def test_an_image_without_restic_is_named(world):
    world.bot()
    world.cluster.has_restic = False
    with pytest.raises(FleetError) as caught:
        world.snapshot()
    assert caught.value.code == "restic_missing" and "registry/bot:1" in caught.value.message
    assert names(world.cluster, "Job") == []


# The Job

def bench(**more):
    values = {"bot": "golf", "fleet": "home", "namespace": NAMESPACE, "image": "i", "read_only": True, "user": 1000,
              "mounts": {"/a": "claim", "/b": None}, "environment": {"RESTIC_PASSWORD": "hidden-word"},
              "reach": job.Reach(("203.0.113.5", "2001:db8::5"), 9000, "s3.example.org"), **more}
    return job.Bench(**values)


def test_the_job_has_no_more_rights_than_it_needs(world):
    with job.opened(world.cluster, bench()) as session:
        made = world.cluster.get("Job", "bot-golf-backup", NAMESPACE)
        secret = next(one for key, one in world.cluster.objects.items() if key[0] == "Secret")
        policy = next(one for key, one in world.cluster.objects.items() if key[0] == "NetworkPolicy")
    run = made["metadata"]["labels"][job.RUN]
    pod = made["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert session.pod == "bot-golf-backup-x" and "hidden-word" not in json.dumps([made, policy])
    assert container["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]
    assert secret["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
    assert policy["spec"] == {
        "podSelector": {"matchLabels": {job.RUN: run}}, "policyTypes": ["Ingress", "Egress"], "egress": [{
            "to": [{"ipBlock": {"cidr": "203.0.113.5/32"}}, {"ipBlock": {"cidr": "2001:db8::5/128"}}],
            "ports": [{"protocol": "TCP", "port": 9000}]}]}
    # What Pod Security calls restricted.
    assert pod["securityContext"] == {
        "runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"},
        "fsGroup": 1000, "fsGroupChangePolicy": "OnRootMismatch"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                            "capabilities": {"drop": ["ALL"]}}
    assert "clawops.fleet/bot" not in made["spec"]["template"]["metadata"]["labels"]
    assert (made["spec"]["ttlSecondsAfterFinished"], made["spec"]["backoffLimit"]) == (0, 0)
    assert world.cluster.objects == {}


def test_a_second_job_waits_in_vain_and_one_that_was_never_started_is_removed(world, monkeypatch):
    now = datetime.datetime.now(datetime.timezone.utc)
    obj = {"kind": "Job", "metadata": {"name": "bot-golf-backup", "namespace": NAMESPACE,
                                       "creationTimestamp": now.isoformat()}, "spec": {"suspend": True}}
    world.cluster.put(obj)
    monkeypatch.setattr(job.time, "sleep", lambda seconds: None)
    with pytest.raises(FleetError) as caught, job.opened(world.cluster, bench()):
        pass
    assert caught.value.code == "busy"
    obj["metadata"]["creationTimestamp"] = (now - datetime.timedelta(minutes=9)).isoformat()
    world.cluster.put(obj)
    with job.opened(world.cluster, bench()):
        pass
    assert world.cluster.objects == {}


def test_a_pod_that_does_not_start_is_named_and_nothing_of_it_stays(world):
    world.cluster.state = {"terminated": {"exitCode": 1}}
    with pytest.raises(FleetError) as caught, job.opened(world.cluster, bench()):
        pass
    assert caught.value.code == "job_failed" and "quota" in caught.value.message
    assert world.cluster.objects == {}


# Programs for pods

def test_a_program_runs_where_nothing_is_installed_and_its_failure_comes_back(tmp_path):
    def run(verb, **arguments):
        done = subprocess.run([sys.executable, "-I", "-c", volumes.LAUNCHER], capture_output=True, check=True,
                              input=volumes.program(verb, **arguments), env={}, cwd="/")
        return volumes.answer_of(done.stdout.decode())

    (tmp_path / "x").write_text("x")
    with pytest.raises(FleetError) as caught:
        run("prepare", volumes={"state": str(tmp_path)}, size=0, overwrite=False)
    assert caught.value.code == "target_not_empty"
    with pytest.raises(FleetError) as caught:
        run("prepare", volumes={"state": str(tmp_path)}, size=1 << 60, overwrite=True)
    assert caught.value.code == "disk_full" and caught.value.details["needed"] == 1 << 60
    assert run("discard", directory=str(tmp_path / "x")) is None and not (tmp_path / "x").exists()


def test_files_that_were_moved_aside_return_from_each_point_of_an_exchange(tmp_path, monkeypatch):
    rename, left = os.rename, [0]

    def dying(source, target):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        rename(source, target)

    volume = tmp_path / "volume"
    for steps in range(5):
        volume.mkdir()
        for name in ("one", "two"):
            (volume / name).write_text("old")
        volumes.prepare({"state": str(volume)}, 0, True)
        tree = volume / ".clawops/restore/x"
        tree.mkdir()
        for name in ("one", "three"):
            (tree / name).write_text("new")
        left[0] = steps
        monkeypatch.setattr(os, "rename", dying)
        with contextlib.suppress(KeyboardInterrupt):
            volumes.exchange({"state": str(volume)}, {"state": "/x"})
        monkeypatch.setattr(os, "rename", rename)
        if steps < 4:
            volumes._undo(str(volume))
            assert {path.name: path.read_text() for path in volume.iterdir() if path.is_file()} == {
                "one": "old", "two": "old"}
        else:
            volumes.settle({"state": str(volume)})
            assert {path.name: path.read_text() for path in volume.iterdir()} == {"one": "new", "three": "new"}
        subprocess.run(["rm", "-rf", volume], check=True)
