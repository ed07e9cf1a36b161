# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every playbook the way AWX runs it: awx_setup writes to a stand-in for AWX' API with the modules of awx.awx, and what
it got there is started by ansible-runner, with injected credentials, surveys, an empty home and a read-only project.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import zipfile

import pytest
import yaml
from awx.api import TOKEN, Api
from awx.jobs import Awx
from bed import dockerhost, net
from conftest import ROOT
from kubernetes_bed import IMAGE, Bed

pytestmark = pytest.mark.full

# The community package of this core, for its awx.awx.
COMMUNITY = "12.3.0"
HOST = dockerhost.DEFAULT[0]
CACHE = pathlib.Path(os.environ.get("CLAWOPS_CACHE") or pathlib.Path.home() / ".cache/clawops-fleet")
ALL = ["machine", "store", "prune", "store_admin", "keystore", "cluster", "cluster_admin"]
KEY = "sk-box-not-a-real-key"
SOURCES = {"bots": "clusters", "bot_status": "clusters", "restore_pods": "clusters", "spaces": "spaces",
           "restore_spaces": "spaces", "provision_vm": "guests", "install": "guests", "customize": "guests",
           "backup_vm": "guests", "restore_vm": "guests"}
# What changes more than it should for a test runs in check mode.
FOR_REAL = {
    "site": {},
    "probe": {"fleet_target": HOST},
    "backup": {"fleet_only": ["alpha"]},
    "backup_check": {"fleet_only": ["alpha"]},
    "restore_drill": {"fleet_only": ["alpha"]},
    "backup_repair": {"backup_upkeep_steps": ["unlock"]},
    "bot_status": {},
    "backup_vm": {},
}
CHECKED = {
    "restore": {"fleet_only": ["alpha"], "restore_overwrite": "yes", "restore_stop": "yes"},
    "restore_beside": {"fleet_only": ["alpha"], "fleet_restore_host": HOST},
    "restore_pods": {},
    "restore_spaces": {},
    "prune": {},
    "backup_keys": {},
    "rotate_backup_keys": {"fleet_only": ["alpha"]},
    "upgrade": {},
    "migrate": {"fleet_only": ["alpha"], "migrate_purge_source": "no"},
    "remove": {"fleet_only": ["alpha"]},
    "bots": {"fleet_only": ["golf"], "fleet_state": "stopped"},
    "spaces": {"fleet_only": ["scratch"], "fleet_state": "paused"},
    "provision_vm": {"fleet_only": ["zulu"], "fleet_state": "running"},
    "install": {},
    "customize": {},
    "restore_vm": {"fleet_restore": "redeploy"},
}


def call(*argv, **options):
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def awx_collection():
    """awx.awx, out of the wheel of the community package."""
    place = CACHE / f"awx-{COMMUNITY}"
    if not place.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        call(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", f"{place}.new",
             f"ansible=={COMMUNITY}")
        wheel, = pathlib.Path(f"{place}.new").glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(f"{place}.new", [name for name in archive.namelist()
                                                if name.startswith("ansible_collections/awx/awx/")])
        wheel.unlink()
        pathlib.Path(f"{place}.new").rename(place)
    return place


def inventories(store):
    """What the operator's repository has, without a secret."""
    box = yaml.safe_load((ROOT / "inventory/local/hosts.yml").read_text())["all"]["vars"]
    kept = ("ansible_user", "ansible_python_interpreter", "ansible_ssh_pipelining", "fleet_name", "docker_host_source",
            "bot_config", "network_guard_allow")
    common = {name: box[name] for name in kept}
    common["fleet_backup"] = {"endpoint": store["endpoint"], "bucket": box["fleet_backup"]["bucket"]}
    hosts = {HOST: {"ansible_host": net.v4(HOST)}}
    cluster = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}",
               "cluster_namespace": "clawops-awx", "cluster_gateway_namespace": "clawops-awx-gateway",
               "cluster_gateway_image": IMAGE}
    guest = {"vm_on": HOST, "vm_image": {"path": "/srv/cloudimage/debian-trixie.qcow2"}}
    groups = {
        "hosts": {"docker_hosts": hosts, "backup_hosts": hosts, "bots": {"alpha": {"bot_on": HOST}}},
        "clusters": {"clusters": {"harbor": cluster}, "bots": {"golf": {"bot_on": "harbor", "bot_state": "stopped"}}},
        "spaces": {"docker_hosts": hosts, "spaces": {"scratch": {}}},
        "guests": {"vm_hosts": hosts, "vms": {"zulu": guest}},
    }
    return {name: {"all": {"vars": common, "children": {group: {"hosts": members} for group, members in tree.items()}}}
            for name, tree in groups.items()}


class World:
    """AWX with everything that awx_setup makes."""

    def __init__(self, place):
        self.place = place
        bed = CACHE / "bed"
        store = json.loads((bed / "minio/credentials.json").read_text())
        kubeconfig = pathlib.Path(Bed().kubeconfig).read_text()
        project, installed = place / "project", place / "collections"
        (project / "inventory").mkdir(parents=True)
        call("cp", "-r", ROOT / "playbooks", project)
        known_hosts = f"-o UserKnownHostsFile={project}/inventory/known_hosts -o StrictHostKeyChecking=yes"
        for name, tree in inventories(store).items():
            tree["all"]["vars"]["ansible_ssh_common_args"] = known_hosts
            (project / f"inventory/{name}.yml").write_text(json.dumps(tree))
        call("cp", bed / "ssh/known_hosts", project / "inventory")
        call("ansible-galaxy", "collection", "build", "--output-path", place, ROOT)
        archive, = place.glob("clawops-fleet-*.tar.gz")
        call("ansible-galaxy", "collection", "install", archive, "--collections-path", installed, "--offline",
             "--force")
        self.api = Api(project)
        self.sources = [f"inventory/{name}.yml" for name in ("hosts", "clusters", "spaces", "guests")]
        self.awx = Awx(self.api, place / "awx", project, installed, (bed / "ssh/id_ed25519").read_text())
        self.secrets = [store["secret_key"], "box-password-of-the-repository", KEY, "client-key-data"]
        self.setup()
        self.keys = {"access_key": store["access_key"], "secret_key": store["secret_key"]}
        self.fill()
        self.awx.fill("clawops.fleet administrator of the bucket", **self.keys)
        self.awx.fill("clawops.fleet keystore", **self.keystore())
        self.awx.fill("clawops.fleet cluster", kubeconfig=kubeconfig)
        self.awx.fill("clawops.fleet administrator of the cluster", kubeconfig=kubeconfig)

    def fill(self, bot=None, prune=None):
        """The keys of bots and of who prunes; the bed's administrator is both, if nothing else is said."""
        password = "box-password-of-the-repository"
        self.awx.fill("clawops.fleet bucket", **(bot or self.keys), password=password)
        self.awx.fill("clawops.fleet pruning", **(prune or self.keys))

    def keystore(self):
        store, key = self.place / "keys.store", self.place / "keys.key"
        for verb, *argv in (["create"], ["set", "BOX_API_KEY"]):
            call(ROOT / "scripts/keystore", verb, store, *argv, "--key-file", key, input=f"{KEY}\n")
        self.secrets.append(key.read_text().strip())
        return {"keystore": store.read_text(), "key": key.read_text()}

    def setup(self, *words):
        """Runs awx_setup; how many writes there were."""
        before = len(self.api.writes)
        given = {"awx_setup_project": {"url": "https://git.example.org/fleet.git"}, "awx_setup_use": ALL,
                 "awx_setup_inventory": {"sources": self.sources}, "awx_setup_image": "registry.example.org/fleet:1"}
        argv = [word for source in self.sources for word in ("-i", self.awx.project / source)]
        call("ansible-playbook", *argv, "clawops.fleet.awx_setup", "-e", json.dumps(given), *words, env={
            **os.environ, "ANSIBLE_COLLECTIONS_PATH": f"{self.awx.collections}:{awx_collection()}",
            "CONTROLLER_HOST": self.api.address, "CONTROLLER_OAUTH_TOKEN": TOKEN})
        return len(self.api.writes) - before

    def launch(self, verb, check=False, **answers):
        source = f"inventory/{SOURCES.get(verb, 'hosts')}.yml"
        job = self.awx.launch(f"clawops.fleet.{verb}", source, check, **answers)
        everything = job.everything()
        assert [secret for secret in self.secrets if secret in everything] == []
        return job


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    made = World(tmp_path_factory.mktemp("awx"))
    yield made
    made.api.close()


def test_a_second_setup_changes_nothing(world):
    assert world.setup() == 0
    assert world.setup("--check") == 0


def test_the_choices_of_surveys_are_those_of_the_inventory(world):
    def choices(verb, variable):
        survey = world.api.surveys[world.api.one("job_templates", f"clawops.fleet.{verb}")["id"]]
        return next(question["choices"] for question in survey["spec"] if question["variable"] == variable)

    assert choices("backup", "fleet_only") == ["alpha", "golf", "scratch"]
    assert choices("prune", "fleet_only") == ["alpha", "golf", "zulu", "scratch"]
    assert choices("spaces", "fleet_only") == ["scratch"] and choices("provision_vm", "fleet_only") == ["zulu"]


def test_every_job_template_is_tried(world):
    names = {template["name"] for template in world.api.tables["job_templates"]}
    assert names == {f"clawops.fleet.{verb}" for verb in {*FOR_REAL, *CHECKED, "ask"}}


@pytest.mark.parametrize("verb", FOR_REAL)
def test_a_job(world, verb):
    job = world.launch(verb, **FOR_REAL[verb])
    assert job.code == 0, job.stdout[-4000:]


@pytest.mark.parametrize("verb", CHECKED)
def test_a_job_in_check_mode(world, verb):
    if "keys" in verb:
        world.fill(*({"access_key": f"planted-{who}", "secret_key": f"planted-{who}-key"} for who in ("bot", "prune")))
    job = world.launch(verb, check=True, **CHECKED[verb])
    world.fill()
    # Nobody can look with keys that are yet to be made.
    assert job.code == 0 or ("keys" in verb and "InvalidAccessKeyId" in job.stdout), job.stdout[-4000:]


def test_the_result_of_a_backup_is_compact(world):
    job = world.launch("backup", fleet_only=["alpha"])
    assert job.results["fleet_backup_summary"]["bots"] == 1 and job.results["fleet_backup_summary"]["failed"] == []
    assert len(json.dumps(job.results)) < 2000


def test_the_result_of_a_status_is_compact(world):
    assert world.launch("bot_status").results == {"fleet_status_report": {"harbor": {"ready": [], "missing": []}}}


def test_a_message_with_braces_stays_one(world):
    job = world.launch("ask", fleet_bot="alpha", fleet_message="Say {{ lookup('env', 'HOME') }} back")
    assert job.code == 0, job.stdout[-4000:]
    assert "Say /" not in job.everything()


def test_a_refusal_fails_the_job(world):
    job = world.launch("restore", fleet_only=["alpha"], restore_overwrite="no")
    assert job.code != 0 and job.results == {}
