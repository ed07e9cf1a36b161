# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a bot's network policy lets through, tried by real connections in a cluster that enforces it."""

from __future__ import annotations

import contextlib
import subprocess
import uuid

import pytest
from conftest import ROOT
from kubernetes_bed import IMAGE, Bed, Fleet, desktop, gateway

NODE, MODEL = "10.213.0.8", "10.213.0.6"


@pytest.fixture(scope="module")
def bed():
    subprocess.run([ROOT / "scripts/testbed", "up", "model"], check=True, capture_output=True)
    return Bed()


@pytest.fixture
def fleet(bed, tmp_path):
    made = Fleet(bed, tmp_path)
    yield made
    made.discard()


class Outsider:
    """A machine of its own on the bed's network."""

    def __init__(self, address):
        self.address, self.name = address, f"clawops-outsider-{uuid.uuid4().hex[:6]}"

    def __enter__(self):
        argv = ["docker", "run", "--detach", "--name", self.name, "--network", "clawops-bed", "--ip", self.address]
        subprocess.run([*argv, "--entrypoint", "sleep", IMAGE, "600"], check=True, capture_output=True)
        return self

    def __exit__(self, *_ignored):
        subprocess.run(["docker", "rm", "--force", self.name], check=True, capture_output=True)

    def reaches(self, port, address=NODE):
        argv = ["docker", "exec", self.name, "nc", "-w", "3", address, str(port)]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def reaches(fleet, pod, address, port, namespace=None):
    """Whether a connection from a pod comes about."""
    argv = ["sh", "-c", f"nc -w 3 {address} {port} </dev/null"]
    return fleet.bed.cluster.exec(namespace or fleet.namespace, pod, argv).rc == 0


def visitor(fleet, name, namespace):
    """A pod that no policy of a bot's is about."""
    fleet.bed.cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
                              "spec": {"containers": [{"name": "visitor", "image": IMAGE}],
                                       "terminationGracePeriodSeconds": 1}})
    found = {}

    def runs():
        found.update(fleet.bed.cluster.get("Pod", name, namespace))
        return found["status"].get("phase") == "Running"

    fleet.until(runs)
    return found["status"]["podIP"]


def test_the_pages_answer_whom_they_are_for_and_nobody_else(fleet):
    with contextlib.ExitStack() as stack:
        friend, stranger = (stack.enter_context(Outsider(f"10.213.0.{last}")) for last in (91, 92))
        for welcome in (friend, stranger):
            bot = fleet.run(bots=[desktop("alpha", allowed_sources=[welcome.address])])["bots"][0]
            for port in bot["ports"].values():
                fleet.until(lambda who=welcome, port=port: who.reaches(port), 10)
                other = stranger if welcome is friend else friend
                assert not other.reaches(port)
        bot = fleet.run(bots=[desktop("alpha")])["bots"][0]
        for who in (friend, stranger):
            fleet.until(lambda who=who: who.reaches(bot["ports"]["chrome"]), 10)


@pytest.mark.full
def test_bots_do_not_reach_each_other_nor_what_is_private(fleet):
    made = fleet.run(bots=[desktop("alpha", allowed_sources=["192.0.2.1"]), desktop("bravo"), gateway("golf")])["bots"]
    alpha, bravo, golf = made
    for one, other in ((alpha, bravo), (bravo, alpha), (golf, alpha), (bravo, golf)):
        for port in (6081, 18789):
            assert not reaches(fleet, one["pod"], other["pod_ip"], port, one["namespace"])
    there = visitor(fleet, "visitor", fleet.namespace)
    # The visitor is no bot: it shows that the ports are open, and that nothing but a policy stands before them.
    assert reaches(fleet, "visitor", there, 18789) and reaches(fleet, "visitor", bravo["pod_ip"], 6081)
    for bot, port in ((alpha, 6081), (alpha, 18789), (bravo, 18789), (golf, 18789)):
        assert not reaches(fleet, "visitor", bot["pod_ip"], port)
    for bot in made:
        for address, port in ((there, 18789), (NODE, 6443), (MODEL, 8080)):
            assert not reaches(fleet, bot["pod"], address, port, bot["namespace"])
    assert reaches(fleet, "visitor", NODE, 6443) and reaches(fleet, "visitor", MODEL, 8080)


@pytest.mark.full
def test_names_are_resolved_and_an_allowed_destination_is_reached(fleet):
    for destinations, reached in (([], False), ([MODEL], True)):
        bot = fleet.run(bots=[gateway("golf")], allowed_destinations=destinations)["bots"][0]
        asked = ["nslookup", "kubernetes.default.svc.cluster.local"]
        assert fleet.bed.cluster.exec(fleet.gateways, bot["pod"], asked).rc == 0
        assert reaches(fleet, bot["pod"], MODEL, 8080, fleet.gateways) == reached


@pytest.mark.full
def test_where_the_role_denies_by_default_a_pod_without_a_policy_is_alone(site):
    site.call("ansible-playbook", "clawops.fleet.bots", "--tags", "cluster", "--extra-vars", '{"fleet_keystore": ""}')
    fleet = Fleet(site.bed, site.folder)
    try:
        here = visitor(fleet, "alone", site.namespaces[0])
        visitor(fleet, "visitor", fleet.namespace)
        assert reaches(fleet, "visitor", MODEL, 8080)
        assert not reaches(fleet, "visitor", here, 18789)
        assert not reaches(fleet, "alone", MODEL, 8080, site.namespaces[0])
    finally:
        fleet.discard()
