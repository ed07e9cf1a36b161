# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The firewall of a host in the lab: what gets through, also while it changes, dies, or is tampered with.

Everything is judged by what witnesses behind the firewall saw; see firewall/attacks.yml.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import time

import pytest
from firewall.world import ATTACKS, World
from managed import HOSTS

MODULES = ["ufw_host", "ufw_docker_user", "network_guard"]
# Closed and open in both policies between which the tests go to and fro.
PUBLISHED = [("tcp", "host4", 8080), ("tcp", "host6", 8080), ("udp", "host4", 5300), ("udp", "host6", 5300),
             ("tcp", "web4", 80), ("tcp", "six6", 80)]
SERVICES = [("tcp", "host4", 7000), ("tcp", "host6", 7000), ("udp", "host4", 7000)]
OPEN = [("tcp", "host4", 8081), ("tcp", "host6", 8081), ("tcp", "host4", 7001), ("tcp", "host6", 7001)]
FORBIDDEN = [("tcp", "gateway4", 7000), ("udp", "gateway4", 7000), ("tcp", "169.254.169.254", 80),
             ("tcp", "10.213.0.77", 80)]
PERMITTED = [("tcp", "198.51.100.7", 443), ("tcp", "10.213.0.5", 9000)]
# From the bridge with exceptions of its own; other targets than above, because reports go by them.
FORBIDDEN_THERE = [("tcp", "198.51.100.8", 443), ("tcp", "fd00:ec2::254", 80), ("tcp", "wide_gateway4", 7000)]
PERMITTED_THERE = [("tcp", "10.213.0.78", 80)]
# What somebody does by hand, and the module that has to say so and to mend it.
TAMPERED = {
    "jump to our chain": ("ufw_docker_user", "iptables -D DOCKER-USER -j CLAWOPS-USER"),
    "jump to Docker's chain v6": ("ufw_docker_user", "ip6tables -D FORWARD -j DOCKER-USER"),
    "our chain flushed": ("ufw_docker_user", "iptables -F CLAWOPS-USER"),
    "a rule before ours": ("ufw_docker_user", "iptables -I CLAWOPS-USER 1 -p tcp -j RETURN"),
    "our boot file": ("ufw_docker_user", "rm /etc/clawops/firewall/rules.v6"),
    "our drop-in": ("ufw_docker_user", "rm /etc/systemd/system/docker.service.d/clawops-firewall.conf"),
    "table deleted": ("network_guard", "nft delete table inet clawops"),
    "all tables flushed": ("network_guard", "nft flush table inet clawops"),
    "a rule in the table": ("network_guard", "nft insert rule inet clawops forward accept"),
    "the guard's boot file": ("network_guard", "rm /etc/clawops/firewall/guard.nft"),
    "permission deleted": ("ufw_host", "ufw delete allow proto tcp from any to any port 7001"),
    "default policy": ("ufw_host", "ufw default allow incoming"),
}


@pytest.fixture(scope="module", params=HOSTS)
def furnished(request, tmp_path_factory):
    here = World(request.param, tmp_path_factory.mktemp("world"))
    here.bed("up", f"dockerhost:{here.host}", "lab")
    try:
        here.play()
        here.isolate()
        here.furnish()
        here.apply()
        yield here
    finally:
        here.clear()


@pytest.fixture
def world(furnished, request):
    failed = request.session.testsfailed
    yield furnished
    if request.session.testsfailed != failed:
        furnished.apply()


def defended(world, group):
    """The list was sent once: all controls arrived, and no attack did."""
    arrived = world.attack(group)
    lost = [entry["name"] for entry in ATTACKS[group]["controls"] if not arrived[entry["name"]]]
    through = [entry["name"] for entry in ATTACKS[group]["attacks"] if arrived[entry["name"]]]
    assert (lost, through) == ([], [])


@contextlib.contextmanager
def guarded(world, closed, inside=True):
    """While the block runs, closed ports are closed all the time, and open ones are really tried."""
    with contextlib.ExitStack() as stack:
        reports = [stack.enter_context(world.watched([*closed, *OPEN]))]
        if inside:
            reports.append(stack.enter_context(world.watched([*FORBIDDEN, *PERMITTED], "peer")))
            reports.append(stack.enter_context(world.watched([*FORBIDDEN_THERE, *PERMITTED_THERE], "wide")))
        yield
    answers = {name: times for report in reports for name, times in report["answers"].items()}
    controls = {f"{via} {to} {port}" for via, to, port in [*OPEN, *PERMITTED, *PERMITTED_THERE]}
    assert {name: len(times) for name, times in answers.items() if times and name not in controls} == {}
    assert [name for name, times in answers.items() if name in controls and len(times) < 10] == []


# -- the attack list --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ATTACKS)
def test_no_attack_arrives_and_what_is_allowed_does(world, group):
    defended(world, group)


def test_without_our_rules_attacks_arrive_and_the_next_run_says_so_and_mends_it(world):
    with world.bare():
        wrong = [f"{entry['name']}: {arrived[entry['name']]}" for group in ATTACKS for arrived in [world.attack(group)]
                 for entry in ATTACKS[group]["attacks"]
                 if entry.get("bare") != "any" and arrived[entry["name"]] == (entry.get("bare") == "lost")]
    assert wrong == []
    planned = world.apply(check=True)
    assert set(planned) == {"ufw_docker_user", "network_guard"}
    assert world.apply() == planned
    assert world.apply(check=True) == {}


def test_the_roles_say_the_same_over_ssh(world):
    world.inside("touch /var/lib/apt/lists; touch -c /var/lib/apt/periodic/update-success-stamp")  # no mirror in here
    assert world.changes(world.play("--check")) == 0


def test_a_bridge_that_reaches_the_lan_does_so_over_ipv6(world):
    """UFW forwards none of it by itself, so that without this nothing is left for the guard to refuse."""
    sent = [{"name": to, "from": "wide", "via": "tcp", "to": to, "port": 80}
            for to in ("fd13:c1a0:beef::77", "fd13:c1a0:bee2::77", "fd00:ec2::254", "64:ff9b::a9fe:a9fe")]
    world.inside("ip6tables -I FORWARD 1 -i cs-wide -j ACCEPT")
    try:
        arrived = world.attack("inside", sent)
    finally:
        world.inside("ip6tables -D FORWARD -i cs-wide -j ACCEPT")
    assert [to for to, reached in arrived.items() if reached] == ["fd13:c1a0:beef::77"]


# -- while it changes -------------------------------------------------------------------------------------------------


def test_the_watcher_sees_a_moment(world):
    """Opened by hand for a fifth of a second: seen at every closed target, and at no other time."""
    with world.watched([*PUBLISHED, *SERVICES]) as outside, world.watched(FORBIDDEN, "peer") as inside:
        time.sleep(0.5)
        began = time.time()
        world.inside("""
            for tool in iptables ip6tables; do
                $tool -I CLAWOPS-USER 1 -j RETURN; $tool -I INPUT 1 -j ACCEPT; $tool -I FORWARD 1 -j ACCEPT
            done
            for chain in leaving arriving; do nft insert rule inet clawops $chain accept; done
            sleep 0.2
            for chain in leaving arriving; do
                nft delete rule inet clawops $chain handle "$(nft -a list chain inet clawops $chain |
                    sed -n 's/^\t\taccept # handle //p' | head -n 1)"
            done
            for tool in iptables ip6tables; do
                $tool -D CLAWOPS-USER -j RETURN; $tool -D INPUT -j ACCEPT; $tool -D FORWARD -j ACCEPT
            done""")
        ended = time.time()
        time.sleep(0.5)
    for report in (outside, inside):
        assert [name for name, times in report["answers"].items() if not times] == []
        assert [at for times in report["answers"].values() for at in times if not began < at < ended + 0.3] == []
    assert world.apply(check=True) == {}


def test_an_apply_opens_nothing_and_cuts_nothing(world):
    with guarded(world, [*PUBLISHED, *SERVICES]), world.held(OPEN) as held:
        for changed in (True, False):
            assert set(world.apply(changed=changed)) == set(MODULES)
    assert {name: talk["error"] for name, talk in held.items() if talk["error"]} == {}
    assert min(talk["exchanges"] for talk in held.values()) > 10
    assert max(talk["slowest"] for talk in held.values()) < 3


def test_a_container_that_starts_during_an_apply_is_closed_from_its_first_packet(world):
    late = [("tcp", "host4", 8088), ("tcp", "host6", 8088), ("udp", "host4", 5388), ("udp", "host6", 5388)]
    with guarded(world, late, inside=False), concurrent.futures.ThreadPoolExecutor() as pool:
        applies = pool.submit(lambda: [world.apply(changed=changed) for changed in (True, False)])
        for number in range(3):
            world.inside(world.run(f"late{number}", "bridge", ["8088:80", "5388:53/udp"], "80"))
            time.sleep(0.3)
            world.inside(f"docker rm -f lab-late{number}")
        applies.result()


@pytest.mark.parametrize("name", MODULES)
def test_two_at_once_end_in_one_policy(world, name):
    policies = [world.policy(changed)[name] for changed in (False, True)]
    with guarded(world, [*PUBLISHED, *SERVICES]), concurrent.futures.ThreadPoolExecutor() as pool:
        for _round in range(3):
            results = list(pool.map(lambda policy: world.start(name, policy), policies))
            assert any(not result.get("failed") for result in results), results
            left = [world.module(name, check=True, **policy)["actions"] for policy in policies]
            assert sorted(map(bool, left)) == [False, True], (results, left)
    world.apply()


# -- when it is killed ------------------------------------------------------------------------------------------------

DEATHS = [{}, {"die_after": 0.004}, {"die_after": 0.004, "whole_group": True}]


def killed(world, name, deaths):
    """Dies on its way to the other policy, then gets there; to and fro."""
    kills = 0
    with guarded(world, [*PUBLISHED, *SERVICES]):
        for number, death in enumerate(deaths):
            policy = world.policy(changed=number % 2 == 0)[name]
            kills += bool(world.start(name, policy, **death).get("killed"))
            world.module(name, **policy)
            assert world.module(name, check=True, **policy)["actions"] == [], death
    assert world.inside("find /etc/clawops /etc/ufw /etc/systemd/system /usr/local/lib/clawops -name '.*'") == ""
    world.apply()
    assert world.apply(check=True) == {}
    return kills


def steps(world, name):
    """How many there are on the way, at least."""
    there, back = (len(world.start(name, world.policy(changed)[name])["steps"]) for changed in (True, False))
    return min(there, back)


@pytest.mark.parametrize("name", MODULES)
def test_killed_at_some_points_it_opens_nothing_and_converges(world, name):
    count = steps(world, name)
    deaths = [{"die_at": count * part // 5 or 1, **DEATHS[part % 3]} for part in range(1, 5)]
    assert killed(world, name, deaths) >= 3


@pytest.mark.full
@pytest.mark.parametrize("name", MODULES)
def test_killed_at_every_point_it_opens_nothing_and_converges(world, name):
    points = [{"die_at": at, **death} for at in range(1, steps(world, name) + 1) for death in DEATHS]
    kills = sum(killed(world, name, points[first:first + 40]) for first in range(0, len(points), 40))
    assert kills > len(points) / 2  # some die too late, the more the faster the machine is


@pytest.mark.full
def test_a_trial_that_nobody_confirms_goes_back_and_opens_nothing(world):
    trial = {**world.policy(changed=True)["ufw_host"], "confirm_timeout": 3}
    with guarded(world, [*PUBLISHED, *SERVICES]):
        for death in ({}, {"die_at": 12}, {"die_at": 20, "die_after": 0.004}):
            world.start("ufw_host", trial, **death)
            time.sleep(5)
            assert world.module("ufw_host", check=True, **world.policy()["ufw_host"])["actions"] == [], death


# -- when others meddle -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", TAMPERED)
def test_tampering_is_reported_and_mended(world, what):
    name, command = TAMPERED[what]
    world.inside(command)
    assert name in world.apply(check=True)
    assert name in world.apply()
    assert world.apply(check=True) == {}


def test_a_reload_of_ufw_and_a_restart_of_docker_open_nothing(world):
    # UFW itself lets all in while it reloads, and over IPv6 docker-proxy is a program of the host.
    with guarded(world, [target for target in PUBLISHED if target[1] != "host6"]):
        world.inside("ufw reload")
        time.sleep(0.5)
    with guarded(world, PUBLISHED, inside=False):  # what runs in a container would be cut off
        world.inside("systemctl restart docker")
        time.sleep(1)
    assert world.apply(check=True) == {}
    for group in ATTACKS:
        defended(world, group)


def test_all_of_it_stands_after_a_reboot(world):
    world.reboot()
    assert world.apply(check=True) == {}
    for group in ATTACKS:
        defended(world, group)
