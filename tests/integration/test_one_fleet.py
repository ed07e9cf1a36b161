# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One inventory for two machines and a cluster: what is lost there comes back, and a bot moves from one to another."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import uuid

import boto3
import pytest
from bed import dockerhost, minio, net
from botocore.config import Config
from kubernetes_bed import PLANTED, REGISTRY, Site
from managed import Managed

pytestmark = pytest.mark.full
CONTAINERS, PROCESSES = dockerhost.DEFAULT[0], "birch"
MODEL = net.v4("model")
PROVIDER = {"baseUrl": f"http://{MODEL}:8080/v1", "api": "openai-completions", "apiKey": "${BOX_API_KEY}",
            "models": [{"id": "stub", "name": "stub", "contextWindow": 128000, "maxTokens": 4096}]}
CONFIG = {"models": {"providers": {"box": PROVIDER}}, "agents": {"defaults": {"model": {"primary": "box/stub"}}}}
OPENCLAW = ["node", "/opt/openclaw/lib/node_modules/openclaw/openclaw.mjs"]
PASSWORD = "planted-repository-7e15"
BOT, POD, SPACE = "mover", "percher", "nest"
WORK = "set -e; mkdir -p 'a b'; echo of-the-space > 'a b/work'; ln -sf 'a b/work' link; head -c 3M /dev/urandom > blob"
DIGESTS = "find . -type f -exec sha256sum {} + | sort; readlink link"


class World(Site):
    """Two machines and a cluster, and one bot that is on one of them."""

    def __init__(self, folder):
        self.spaces, self.others = {}, {}
        Managed.bed("up", f"dockerhost:{CONTAINERS}", f"dockerhost:{PROCESSES}", "minio", "model")
        self.hosts = {name: Managed(name) for name in (CONTAINERS, PROCESSES)}
        restic = folder / "restic"
        self.hosts[CONTAINERS].inside("command -v restic || { apt-get -qy update && apt-get -qy install restic; }")
        subprocess.run(["docker", "cp", f"{self.hosts[CONTAINERS].container}:/usr/bin/restic", restic], check=True)
        keys, store = dockerhost.ssh_folder(), json.loads(minio.credentials().read_text())
        bucket = f"clawops-migrate-{uuid.uuid4().hex[:8]}"
        self.bucket = boto3.resource(
            "s3", endpoint_url=f"http://{net.v4('minio')}:9000", region_name="us-east-1",
            aws_access_key_id=store["access_key"], aws_secret_access_key=store["secret_key"],
            config=Config(s3={"addressing_style": "path"})).Bucket(bucket)
        way = {"ansible_user": "root", "ansible_python_interpreter": "/usr/bin/python3", "ansible_ssh_pipelining": True,
               "ansible_ssh_private_key_file": str(keys / "id_ed25519"), "docker_host_source": "distribution",
               "ansible_ssh_common_args": f"-o UserKnownHostsFile={keys / 'known_hosts'}",
               "network_guard_allow": [{"purpose": "model", "destinations": [MODEL], "ports": [8080]}]}
        self.machines = {name: {"ansible_host": net.v4(name), **way} for name in self.hosts}
        # Debian 12 has one that is too old.
        subprocess.run(["docker", "cp", restic, f"{self.hosts[PROCESSES].container}:/usr/local/bin/"], check=True)
        self.machines[PROCESSES] |= dict.fromkeys(("backup_restic", "restore_restic"), "/usr/local/bin/restic")
        self.bot = {"bot_resources": {"memory": "1536Mi", "cpus": "1.5", "storage": "1Gi"}, "bot_config": CONFIG}
        super().__init__(folder, {}, cluster_registry=REGISTRY, cluster_gateway_image="",
                         cluster_allowed_destinations=[MODEL], backup_restic=str(restic), restore_restic=str(restic))
        del self.vars["fleet_keystore"], self.vars["fleet_keystore_key_file"]
        self.vars |= {"fleet_api_keys": {"BOX_API_KEY": PLANTED}, "fleet_backup_password": PASSWORD,
                      "fleet_backup": {"endpoint": f"http://{net.v4('minio')}:9000", "bucket": bucket},
                      "fleet_backup_access_key": store["access_key"], "fleet_backup_secret_key": store["secret_key"]}
        self.place(CONTAINERS)

    def place(self, on, **more):
        """What the operator writes."""
        runtime = {"bot_runtime": "host"} if on == PROCESSES else {}
        self.on, self.bot_hosts = on, {BOT: {"bot_on": on, **runtime, **self.bot, **more}, **self.others}
        self.describe()

    def describe(self):
        groups = {"clusters": {"hosts": self.clusters}, "bots": {"hosts": self.bot_hosts},
                  "docker_hosts": {"hosts": self.machines}, "spaces": {"hosts": self.spaces}}
        text = json.dumps({"all": {"vars": self.vars, "children": groups}})
        (self.folder / "inventory/hosts.yml").write_text(text)

    def argv(self, book, *words, **variables):
        return ["ansible-playbook", f"clawops.fleet.{book}", *words, "--extra-vars", json.dumps(variables)]

    def play(self, book, *words, fails=False, **variables):
        done = subprocess.run(self.argv(book, *words, **variables), env=self.env, capture_output=True, text=True,
                              check=False, stdin=subprocess.DEVNULL)
        said = done.stdout + done.stderr
        assert bool(done.returncode) == fails, said[-6000:]
        assert PASSWORD not in said and PLANTED not in said
        return said

    def migrate(self, *words, **variables):
        return self.play("migrate", *words, fleet_only=[BOT], **variables)

    def kill(self, after):
        process = subprocess.Popen(self.argv("migrate", fleet_only=[BOT]), env=self.env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(after)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def running(self):
        """Where it runs."""
        found = [name for name, host in self.hosts.items()
                 if "ActiveState=active" in host.inside(f"systemctl show --property=ActiveState openclaw@{BOT}")
                 or host.inside(f"docker ps --quiet --filter name=^bot-{BOT}$ 2>/dev/null", check=False).strip()]
        pods = self.bed.cluster.list("Pod", self.namespaces[1], f"app=bot-{BOT}")
        return found + (["harbor"] if pods else [])

    def say(self, words, bot=BOT):
        told = ["agent", "--agent", "main", "--message", words, "--json"]
        if self.bot_hosts[bot]["bot_on"] == "harbor":
            pod, = self.bed.cluster.list("Pod", self.namespaces[1], f"app=bot-{bot}")
            done = self.bed.cluster.exec(self.namespaces[1], pod["metadata"]["name"], [*OPENCLAW, *told])
            assert done.rc == 0, done
            return done.out
        return self.play("ask", fleet_bot=bot, fleet_message=words)

    def in_space(self, script):
        return self.hosts[CONTAINERS].inside(
            f"docker exec -i -w /workspace clawdspace-{SPACE} sh -s", script.encode())

    def forget(self):
        """What the machines have of the bot and the space."""
        self.hosts[CONTAINERS].inside(
            f"docker rm -f clawdspace-{SPACE}; docker volume rm clawdspace-vol-{SPACE}; "
            f"docker network rm clawdspace-{SPACE}; rm -rf /var/lib/clawops/spaces/{SPACE}", check=False)
        for host in self.hosts.values():
            host.inside(f"systemctl disable --now openclaw@{BOT}; docker rm -f bot-{BOT}; rm -rf /opt/openclaw/{BOT} "
                        f"/var/lib/clawops/*/{BOT} /var/lib/clawops/*/{BOT}.* /etc/clawops/credentials/bot-{BOT}.env "
                        f"/var/lib/clawops/locks/backup-{BOT} /etc/systemd/system/openclaw@{BOT}.service; "
                        "systemctl daemon-reload", check=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("migrate"))
    made.forget()
    made.play("machines", machines_kind="docker_hosts")
    yield made
    made.forget()
    made.discard()
    made.bucket.objects.all().delete()
    made.bucket.delete()


def test_what_is_lost_comes_back_from_bucket_and_inventory(world):
    """A bot in a container, one in a pod, and a space, with real conversations and files."""
    world.others = {POD: {"bot_on": "harbor", **world.bot}}
    world.spaces = {SPACE: {"space_on": CONTAINERS, "space_network": {"mode": "none"}, "space_idle": {"after": 0}}}
    world.place(CONTAINERS)
    there = {"fleet_target": f"{CONTAINERS},harbor"}
    world.play("bots", **there)
    world.play("spaces", **there)
    said = {BOT: "the rail hides in the reed", POD: "the tern dives at noon"}
    for bot, words in said.items():
        world.say(f"remember: {words}", bot)
    world.in_space(WORK)
    work = world.in_space(DIGESTS)
    assert "of-the-space" in world.in_space("cat link") and len(work.splitlines()) == 3

    table = world.play("backup", **there)
    for row in (rf"{BOT} +{CONTAINERS} +ok", rf"{POD} +harbor +ok", rf"space {SPACE} +{CONTAINERS} +ok"):
        assert re.search(row, table), table[-3000:]
    table = world.play("restore_drill", **there)
    assert len(re.findall(rf"(?:{BOT}|{POD}|space {SPACE}) +{CONTAINERS} +ok", table)) == 3, table[-3000:]

    world.forget()
    for namespace in world.namespaces:
        world.bed.cluster.delete({"kind": "Namespace", **world.bed.cluster.get("Namespace", namespace)})
    end = time.monotonic() + 120
    while any(world.bed.cluster.get("Namespace", namespace) for namespace in world.namespaces):
        assert time.monotonic() < end
        time.sleep(1)
    assert world.running() == []

    world.play("restore", **there)
    assert world.running() == [CONTAINERS]
    for bot, words in said.items():
        assert words in world.say("recall", bot)
    assert world.in_space(DIGESTS) == work
    world.play("spaces", **there, fleet_only=[SPACE], fleet_state="absent", purge_data=True)
    world.play("bots", **there, fleet_only=[POD], fleet_state="absent", purge_data=True)
    world.others, world.spaces = {}, {}
    world.place(CONTAINERS)


def downtime(said):
    return float(re.search(rf"{BOT} .* moved +([\d.]+) s", said).group(1))


def test_a_conversation_goes_along(world):
    world.say("remember: the swift sleeps aloft")
    world.place("harbor")
    said = world.play("bots", fails=True)
    assert "clawops.fleet.migrate" in said and f"the data are on {CONTAINERS}" in said
    assert f"goes from {CONTAINERS} to harbor" in world.migrate("--check")
    assert world.running() == [CONTAINERS]

    told = []
    for on in ("harbor", PROCESSES, CONTAINERS):
        if on == PROCESSES:
            world.place(CONTAINERS)
            assert "the data are on harbor" in world.play("machines", machines_kind="docker_hosts", fails=True)
        world.place(on)
        if on == PROCESSES:
            said = world.play("machines", fleet_target=on, fails=True)
            assert "the data are on harbor" in said
        said = world.migrate()
        told.append(f"-> {on}: {downtime(said)} s")
        assert world.running() == [on]
        answer = world.say("recall")
        assert "the swift sleeps aloft" in answer, answer
    assert f"on {CONTAINERS} already" in world.migrate()
    print(*told, sep="\n")
    aside = f"/var/lib/clawops/bots/{BOT}.moved"
    assert world.hosts[PROCESSES].inside(f"ls -d {aside}-*").strip()
    record = f"/var/lib/clawops/instances/{BOT}.json"
    assert world.hosts[CONTAINERS].inside(f"ls -A /var/lib/clawops/moves; ls {record}").strip() == record
    world.play("machines", machines_kind="docker_hosts")
    assert world.running() == [CONTAINERS]


def test_what_fails_at_the_target_is_taken_back(world):
    world.place("harbor", bot_env={"NODE_OPTIONS": "--no-such-option"})
    said = world.migrate(fails=True)
    assert re.search(rf"{BOT} +{CONTAINERS} +harbor +rolled back +[\d.]+ s", said), said[-3000:]
    assert world.running() == [CONTAINERS]
    world.place(CONTAINERS)
    assert "the swift sleeps aloft" in world.say("recall")
    assert world.bed.cluster.list("PersistentVolumeClaim", world.namespaces[1], f"app=bot-{BOT}") == []


@pytest.mark.parametrize("bad, words", [
    ({"bot_runtime": "host"}, "desktop on cluster: pod"), ({"bot_version": "2026.1.1"}, "upgrade it then"),
    ({"bot_backup": {"enabled": False}}, "by way of its backup")])
def test_what_can_not_be_is_refused_while_it_runs(world, bad, words):
    world.place("harbor", **bad)
    said = world.migrate(fails=True)
    assert words in said and "Nothing was touched" in said
    assert world.running() == [CONTAINERS]


def test_a_move_that_was_killed_goes_on(world):
    for after in (20, 50):
        world.place(PROCESSES)
        world.kill(after)
        assert len(world.running()) <= 1
    end = time.monotonic() + 240
    while True:
        time.sleep(10)  # what the killed run left on the machines comes to its end
        done = subprocess.run(world.argv("migrate", fleet_only=[BOT]), env=world.env, capture_output=True, text=True,
                              check=False, stdin=subprocess.DEVNULL)
        assert len(world.running()) == 1
        if not done.returncode:
            break
        assert time.monotonic() < end, done.stdout[-3000:]
    assert world.running() == [PROCESSES]
    assert "the swift sleeps aloft" in world.say("recall")


def test_a_move_that_was_killed_is_taken_back(world):
    world.place(CONTAINERS)
    world.kill(40)
    assert len(world.running()) <= 1
    time.sleep(20)
    world.place(PROCESSES)
    done = subprocess.run(world.argv("migrate", fleet_only=[BOT]), env=world.env, capture_output=True, text=True,
                          check=False, stdin=subprocess.DEVNULL)
    if done.returncode:  # it had started there already
        assert "may have gone on" in done.stdout
        for on in (CONTAINERS, PROCESSES):
            world.place(on)
            world.migrate()
    assert world.running() == [PROCESSES]
    assert "the swift sleeps aloft" in world.say("recall")
