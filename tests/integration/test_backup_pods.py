# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bots of the bed's cluster and spaces of a Docker host: backed up, lost, and brought back."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import uuid

import boto3
import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes import job
from bed import dockerhost, engine, minio, net
from bed.job import Job
from botocore.config import Config
from kubernetes_bed import REGISTRY, Bed, Fleet, Site, decoded, desktop, gateway
from managed import Managed

HERE = pathlib.Path(__file__).parent
HOST = os.environ.get("CLAWOPS_TEST_DOCKER_HOST", dockerhost.DEFAULT[0])
PASSWORD = "planted-repository-4c81"
# Answers as a bot does, and has what backups need.
RECIPE = """FROM {base}
RUN apt-get -q update && apt-get -qy install --no-install-recommends restic python3 busybox-static && apt-get clean \\
    && mkdir -p /srv /opt/openclaw/bin && echo hello >/srv/index.html && useradd --uid 1000 openclaw \\
    && printf '#!/bin/sh\\nexec busybox wget -q -O /dev/null http://127.0.0.1:18789/\\n' \\
        >/opt/openclaw/bin/openclaw-ready \\
    && chmod 755 /opt/openclaw/bin/openclaw-ready
ENTRYPOINT ["sh", "-c", "trap 'exit 0' TERM; for port in 6081 6082 18789; do busybox httpd -p $port -h /srv; done; \\
while :; do sleep 1 & wait $!; done"]
"""
# Files with all kinds of names, and a database that somebody goes on writing to.
FILL = """
import os, sqlite3, sys, time
top = sys.argv[1]
os.makedirs(f"{top}/a b/deep", exist_ok=True)
for number in range(200):
    with open(f"{top}/a b/{number}\\n\\u00e4", "w") as file:
        file.write(str(number) * 50)
os.symlink("a b", f"{top}/link")
os.link(f"{top}/a b/0\\n\\u00e4", f"{top}/hard")
with open(f"{top}/sparse", "wb") as file:
    file.truncate(8 << 20)
os.chmod(f"{top}/hard", 0o640)
database = sqlite3.connect(f"{top}/live.sqlite", isolation_level=None)
database.execute("pragma journal_mode=wal")
database.execute("pragma wal_autocheckpoint=0")
database.execute("create table turns (words)")
database.executemany("insert into turns values (?)", [(str(number),) for number in range(1000)])
if os.fork() == 0:
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    time.sleep(600)
os._exit(0)
"""
# Everything but the database, with its kind, its rights and its content; of the database what is in it.
SUM = """
import hashlib, json, os, sqlite3, stat, sys
top, found = sys.argv[1], []
for folder, folders, files in os.walk(top):
    for name in sorted(folders + files):
        path = os.path.join(folder, name)
        if "live.sqlite" in name or path == f"{top}/lost+found":
            continue
        facts = os.lstat(path)
        content = os.readlink(path) if stat.S_ISLNK(facts.st_mode) else ""
        if stat.S_ISREG(facts.st_mode):
            with open(path, "rb") as file:
                content = hashlib.sha256(file.read()).hexdigest()
        found.append([os.path.relpath(path, top), oct(facts.st_mode), content])
database = sqlite3.connect(f"{top}/live.sqlite")
turns = [row[0] for row in database.execute("select words from turns")]
print(json.dumps([sorted(found), turns, database.execute("pragma integrity_check").fetchone()]))
"""
STATE = "/home/openclaw/.openclaw"


@pytest.fixture(scope="session")
def image():
    """The image of the bots, in the registry."""
    made = Job("test-pods")
    built = engine.build_image(made, "pod", RECIPE.format(base=dockerhost.image(made, "trixie")))
    tag = f"{REGISTRY}/clawops-test/pod:{built.rpartition(':')[2]}"
    for argv in (["docker", "tag", built, tag], ["docker", "push", "--quiet", tag]):
        subprocess.run(argv, check=True, capture_output=True)
    return tag


@pytest.fixture(scope="session")
def restic(image, tmp_path_factory):
    """restic for this machine, whose distribution may have one that is too old."""
    path = tmp_path_factory.mktemp("restic") / "restic"
    argv = ["docker", "run", "--rm", "--network=none", "--entrypoint=cat", image, "/usr/bin/restic"]
    path.write_bytes(subprocess.run(argv, check=True, capture_output=True).stdout)
    path.chmod(0o755)
    return str(path)


class Store:
    """A bucket of our own in the bed's store."""

    def __init__(self):
        found = json.loads(minio.credentials().read_text())
        self.keys = {name: found[name] for name in ("access_key", "secret_key")}
        self.endpoint, self.bucket = f"http://{net.v4('minio')}:9000", f"test-pods-{uuid.uuid4().hex[:8]}"
        config = Config(s3={"addressing_style": "path"})
        self.client = boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", config=config,
                                   aws_access_key_id=self.keys["access_key"],
                                   aws_secret_access_key=self.keys["secret_key"])

    def names(self, prefix=""):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def discard(self):
        with contextlib.suppress(self.client.exceptions.NoSuchBucket):
            for name in self.names():
                self.client.delete_object(Bucket=self.bucket, Key=name)
            self.client.delete_bucket(Bucket=self.bucket)


@pytest.fixture
def store():
    made = Store()
    yield made
    made.discard()


@pytest.fixture(scope="module")
def bed():
    return Bed()


class World(Fleet):
    """Bots in namespaces of their own, and their repositories."""

    def __init__(self, bed, tmp_path, image, restic, store):
        super().__init__(bed, tmp_path)
        self.image, self.store = image, store
        self.where = {"endpoint": store.endpoint, "bucket": store.bucket, "fleet": self.fleet, **store.keys,
                      "password": PASSWORD, "restic": restic}

    def common(self):
        return {**super().common(), "gateway_image": self.image, "desktop_image": self.image}

    def pods(self, module, *bots, **more):
        more = {**({"cluster": "bed"} if module == "pod_snapshot" else {}), **self.where, **more}
        return self.module(module, namespace=self.namespace, gateway_namespace=self.gateways,
                           bots=[{"name": bot} if isinstance(bot, str) else bot for bot in bots], **more)

    def repositories(self, *bots):
        values = {**self.where, "bots": [{"name": bot} for bot in bots]}
        path = self.tmp_path / "repositories.json"
        path.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": values}))
        argv = [sys.executable, "-m", "ansible_collections.clawops.fleet.plugins.modules.backup_repository", str(path)]
        done = subprocess.run(argv, env=self.env(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout

    def inside(self, namespace, pod, program, *words):
        done = self.bed.cluster.exec(namespace, pod, ["python3", "-c", program, *words])
        assert done.rc == 0, done
        return done.out

    def left(self, namespace):
        """What belongs to backups."""
        return [name for kind in ("Job", "Secret", "NetworkPolicy", "Pod") for name in self.names(kind, namespace)
                if "-backup" in name]


@pytest.fixture
def world(bed, tmp_path, image, restic, store):
    made = World(bed, tmp_path, image, restic, store)
    yield made
    made.discard()


@pytest.mark.parametrize("make", [gateway, pytest.param(desktop, marks=pytest.mark.full)])
def test_a_bot_comes_back_from_the_bucket(world, make):
    bot, cluster = make("golf"), world.bed.cluster
    namespace = world.namespace if make is desktop else world.gateways
    pod = world.run(bots=[bot])["bots"][0]["pod"]
    world.repositories("golf")
    as_user = f"import os; os.getuid() or (os.setgid(1000), os.setuid(1000))\n{FILL}"
    world.inside(namespace, pod, as_user, STATE)
    before = json.loads(world.inside(namespace, pod, SUM, STATE))
    token = decoded(cluster.get("Secret", "bot-golf-keys", namespace))["OPENCLAW_GATEWAY_TOKEN"]

    taken = world.pods("pod_snapshot", "golf")["snapshots"]
    assert [(one["bot"], one["databases"]) for one in taken] == [("golf", 1)]
    world.until(lambda: world.left(namespace) == [])
    assert world.inside(namespace, pod, "import os, sys; print(os.listdir(sys.argv[1]))", STATE).count("clawops") == 0
    told = json.dumps([cluster.list(kind, namespace) for kind in ("Pod", "Deployment", "Event", "ConfigMap")])
    assert PASSWORD not in told and world.store.keys["secret_key"] not in told

    refused = world.pods("pod_restore", "golf", fails=True)
    assert refused["failure"]["code"] == "bot_running"
    world.run(bots=[{**bot, "state": "absent"}], purge_data=True)
    world.until(lambda: world.names("PersistentVolumeClaim", namespace) == [], 60)
    world.run(bots=[{**bot, "state": "stopped"}])
    assert world.pods("pod_restore", "golf", check=True)["changed"]
    assert world.pods("pod_restore", "golf")["changed"]
    assert not world.pods("pod_restore", "golf")["changed"]
    pod = world.run(bots=[bot])["bots"][0]["pod"]
    assert json.loads(world.inside(namespace, pod, SUM, STATE)) == before
    assert decoded(cluster.get("Secret", "bot-golf-keys", namespace))["OPENCLAW_GATEWAY_TOKEN"] != token


@pytest.mark.full
def test_data_are_replaced_only_by_consent_and_taken_from_a_stopped_bot_too(world):
    bot = gateway("golf")
    pod = world.run(bots=[bot])["bots"][0]["pod"]
    world.repositories("golf")
    world.inside(world.gateways, pod, FILL, STATE)
    before = json.loads(world.inside(world.gateways, pod, SUM, STATE))
    world.run(bots=[{**bot, "state": "stopped"}])
    assert world.pods("pod_snapshot", "golf")["snapshots"][0]["databases"] == 1
    pod = world.run(bots=[bot])["bots"][0]["pod"]
    world.inside(world.gateways, pod, f"open('{STATE}/later', 'w').write('x')")
    refused = world.pods("pod_restore", "golf", stop=True, fails=True)
    assert refused["failure"]["code"] == "target_not_empty"
    done, = world.pods("pod_restore", {"name": "golf", "overwrite": True}, stop=True)["restored"]
    pod = world.run(bots=[bot])["bots"][0]["pod"]
    assert json.loads(world.inside(world.gateways, pod, SUM, STATE)) == before
    world.run(bots=[{**bot, "state": "stopped"}])
    early = {"name": "golf", "overwrite": True, "time": "2020-01-01T00:00:00Z"}
    assert world.pods("pod_restore", early, fails=True)["failure"]["code"] == "snapshot_missing"
    # What was replaced is in a snapshot, which nothing takes for the newest.
    back, = world.pods("pod_restore", {"name": "golf", "overwrite": True, "snapshot": done["safety"]})["restored"]
    pod = world.run(bots=[bot])["bots"][0]["pod"]
    assert world.inside(world.gateways, pod, f"print(open('{STATE}/later').read())").strip() == "x"
    world.run(bots=[{**bot, "state": "stopped"}])
    last, = world.pods("pod_restore", {"name": "golf", "overwrite": True})["restored"]
    assert last["snapshot"] == done["snapshot"] and len({done["safety"], back["safety"], last["safety"]}) == 3
    world.until(lambda: world.left(world.gateways) == [])


@pytest.mark.full
def test_what_was_killed_leaves_nothing_and_is_repeated(world):
    bot = gateway("golf")
    pod = world.run(bots=[bot])["bots"][0]["pod"]
    world.repositories("golf")
    world.inside(world.gateways, pod, FILL, STATE)
    arguments = {**world.where, "cluster": "bed", "namespace": world.namespace, "gateway_namespace": world.gateways,
                 "bots": [{"name": "golf"}]}
    process = subprocess.Popen(world.argv("pod_snapshot", **arguments), env=world.env(), stdout=subprocess.DEVNULL,
                               start_new_session=True)
    world.until(lambda: world.names("Secret", world.gateways) != ["bot-golf-keys"])
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert world.pods("pod_snapshot", "golf", fails=True)["failure"]["code"] == "busy"
    world.until(lambda: world.left(world.gateways) == [], job.PATIENCE + 60)
    assert world.pods("pod_snapshot", "golf")["snapshots"]


@pytest.mark.full
def test_the_job_reaches_the_bucket_and_nothing_else(world):
    world.run(bots=[gateway("golf", state="stopped")])
    reach = job.Reach((net.v4("minio"),), 9000, "bucket.example.org")
    bench = job.Bench("golf", world.fleet, world.gateways, world.image, {"/srv/empty": None}, True, 1000, reach, {})
    probe = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
    with job.opened(world.bed.cluster, bench) as session:
        time.sleep(3)  # until the node knows of its policy

        def reaches(host, port):
            return session.run(["python3", "-c", probe, host, str(port)]).rc == 0

        assert reaches("bucket.example.org", 9000)
        assert not any(reaches(*place) for place in ((net.v4("model"), 8080), (net.v4("kubernetes"), 6443),
                                                     (net.v4("outside"), 80)))
        with pytest.raises(FleetError) as caught, job.opened(world.bed.cluster, bench):
            pass
        assert caught.value.code == "busy"


class Whole(Site):
    """An inventory with a cluster, a Docker host, a pod bot and a space, and the verbs on it."""

    def __init__(self, folder, image, restic, store):
        keys = dockerhost.ssh_folder()
        self.machine = {"ansible_host": net.v4(HOST), "ansible_user": "root",
                        "ansible_python_interpreter": "/usr/bin/python3",
                        "ansible_ssh_private_key_file": str(keys / "id_ed25519"), "ansible_ssh_pipelining": True,
                        "ansible_ssh_common_args": f"-o UserKnownHostsFile={keys / 'known_hosts'}"}
        super().__init__(folder, cluster_gateway_image=image, backup_restic=restic, restore_restic=restic)
        for name in ("fleet_keystore", "fleet_keystore_key_file"):
            del self.vars[name]
        self.vars |= {"docker_host_source": "distribution", "fleet_backup_password": PASSWORD,
                      "fleet_backup": {"endpoint": store.endpoint, "bucket": store.bucket},
                      "fleet_backup_access_key": store.keys["access_key"],
                      "fleet_backup_secret_key": store.keys["secret_key"],
                      }
        self.describe()

    def describe(self):
        spaces = {"bench": {"space_network": {"mode": "none"}, "space_idle": {"after": 0}}}
        groups = {"clusters": {"hosts": self.clusters}, "bots": {"hosts": self.bot_hosts},
                  "docker_hosts": {"hosts": {HOST: self.machine}}, "spaces": {"hosts": spaces}}
        text = json.dumps({"all": {"vars": self.vars, "children": groups}})
        (self.folder / "inventory/hosts.yml").write_text(text)

    def play(self, book, fails=False, **variables):
        argv = ["ansible-playbook", book, "--extra-vars", json.dumps(variables)]
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert bool(done.returncode) == fails, done.stdout[-6000:] + done.stderr[-2000:]
        assert PASSWORD not in done.stdout + done.stderr
        return done.stdout

    def pod(self):
        return self.observed()["pod"]


@pytest.mark.full
def test_a_fleet_is_rebuilt_from_bucket_and_inventory(tmp_path, image, restic, store, bed):
    Managed.bed("up", f"dockerhost:{HOST}", "minio")
    whole, host = Whole(tmp_path, image, restic, store), Managed(HOST)
    space = ["docker", "exec", "-i", host.container, "docker", "exec", "clawdspace-bench", "python3", "-c"]

    def in_space(program):
        return subprocess.run([*space, program, "/workspace"], check=True, capture_output=True, text=True).stdout

    def in_pod(program):
        done = bed.cluster.exec(whole.namespaces[1], whole.pod(), ["python3", "-c", program, STATE])
        assert done.rc == 0, done
        return done.out

    def forget_space():
        host.inside("docker rm -f clawdspace-bench; docker volume rm clawdspace-vol-bench; "
                    "docker network rm clawdspace-bench; rm -rf /var/lib/clawops/spaces", check=False)

    try:
        forget_space()
        whole.play(str(HERE / "spaces/site.yml"))
        whole.play("clawops.fleet.bots")
        in_pod(FILL)
        in_space(FILL)
        before = [json.loads(run(SUM)) for run in (in_pod, in_space)]

        said = whole.play("clawops.fleet.backup")
        assert re.search(r"golf +harbor +ok", said) and re.search(rf"space bench +{HOST} +ok", said), said[-3000:]
        look = {"fleet_only": ["golf", "bench"], "fleet_restore_host": HOST, "fleet_restore_into": "/srv/look"}
        whole.play("clawops.fleet.restore_beside", **look)
        assert [json.loads(host.inside(f"python3 - /srv/look/{place}", SUM.encode()))
                for place in ("bots/golf/state", "spaces/bench/volume")] == before
        said = whole.play("clawops.fleet.backup", fails=True, fleet_backup_password="planted-wrong")
        assert said.count("FAILED") >= 2

        for namespace in whole.namespaces:
            bed.cluster.delete({"kind": "Namespace", **bed.cluster.get("Namespace", namespace)})
        forget_space()
        end = time.monotonic() + 120
        while any(bed.cluster.get("Namespace", namespace) for namespace in whole.namespaces):
            assert time.monotonic() < end
            time.sleep(1)

        for book in ("restore_pods", "restore_spaces", "bots", "spaces"):
            whole.play(f"clawops.fleet.{book}")
        assert [json.loads(run(SUM)) for run in (in_pod, in_space)] == before
    finally:
        forget_space()
        host.inside("rm -rf /srv/look", check=False)
        whole.discard()
