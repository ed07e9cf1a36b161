# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Real connections on the loopback, and how answers are judged."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import socket
import subprocess
import sys
import threading
import time

import pytest
from ansible_collections.clawops.fleet.plugins.filter import firewall as filters
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._firewall import canary, probe
from ansible_collections.clawops.fleet.plugins.module_utils._firewall.host import Host
from ansible_collections.clawops.fleet.plugins.module_utils._ownership import MANAGED, SPEC
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished

QUICK = probe.Patience(0.2, 1)


def entry(address="127.0.0.1", port=22, expect="open", **more):
    return {"address": address, "port": port, "expect": expect, **more}


def check(address="127.0.0.1", port=22, expect="open", protocol="tcp"):
    return probe.Check("it", ipaddress.ip_address(address), port, protocol, expect)


def refused(remedy):
    """A foreseen failure whose message or hint has this in it."""
    return pytest.raises(FleetError, check=lambda error: remedy in error.result()["msg"])


def answer(one, kind):
    return probe.Answer(one, kind, "", 1)


def parameters(*checks, **more):
    return {"checks": list(checks), "timeout": 0.2, "retries": 0, "netns": None, "container": None, "notes": [],
            "skip_unroutable": False, **more}


@contextlib.contextmanager
def listening(kind):
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        yield sock, sock.getsockname()[1]


# -- questions -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("change, remedy", [
    ({"address": "alder"}, "not a name"),
    ({"address": "192.0.2.0/24"}, "not a name"),
    ({"port": 0}, "1 to 65535"),
    ({"port": 70000}, "1 to 65535"),
    ({"source": "::1"}, "same family"),
    ({"payload": "00"}, "Only a check over udp"),
    ({"protocol": "udp", "payload": "no hex"}, "hexadecimal"),
    ({"protocol": "udp", "payload": "00" * 1401}, "hexadecimal"),
])
def test_a_bad_check_is_refused_by_name(change, remedy):
    with refused(remedy) as caught:
        probe.parse_checks("checks", [entry(), {**entry(port=23), **change}])
    assert caught.value.code == "bad_value"
    assert caught.value.message.startswith("checks[1].")


def test_the_same_question_twice_is_refused():
    with refused("twice"):
        probe.parse_checks("checks", [entry(), entry(expect="closed")])


@pytest.mark.parametrize("timeout, retries", [(0, 0), (61, 0), (1, -1), (1, 11)])
def test_patience_has_limits(timeout, retries):
    with pytest.raises(FleetError):
        probe.parse_patience(timeout, retries)


def test_each_family_needs_a_control():
    with refused("over IPv6 expects open") as caught:
        probe.parse_checks("checks", [entry(), entry("::1", expect="closed")])
    assert caught.value.code == "missing_control"


def test_a_mapped_address_is_ipv4_on_the_wire():
    checks = probe.parse_checks("checks", [entry(), entry("::ffff:169.254.169.254", 80, "closed")])
    assert [one.family for one in checks] == [4, 4]


def test_no_checks_are_no_proof():
    with refused("at least one"):
        probe.parse_checks("checks", [])


# -- answers -------------------------------------------------------------------------------------------------------

def test_tcp_open_and_refused():
    with listening(socket.SOCK_STREAM) as (_sock, port):
        assert probe.ask(check(port=port), QUICK).answer == "open"
    assert probe.ask(check(port=port), QUICK).answer == "refused"


def test_udp_is_open_when_a_datagram_comes_back_and_silence_is_asked_again():
    with listening(socket.SOCK_DGRAM) as (sock, port):
        silent = probe.ask(check(port=port, protocol="udp"), QUICK)
        assert (silent.answer, silent.attempts) == ("filtered", 2)

        def serve():
            for _attempt in range(3):
                data, peer = sock.recvfrom(100)
            sock.sendto(data, peer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert probe.ask(check(port=port, protocol="udp"), QUICK).answer == "open"
        thread.join()
    assert probe.ask(check(port=port, protocol="udp"), QUICK).answer == "refused"


def test_a_lost_packet_is_no_answer(monkeypatch):
    replies = iter([("filtered", "x"), ("unreachable", "x"), ("open", "connected")])
    monkeypatch.setattr(probe, "_attempt", lambda *_: next(replies))
    assert probe.ask(check(), probe.Patience(1, 2)) == probe.Answer(check(), "open", "connected", 3)


@pytest.mark.parametrize("number, kind", [
    (errno.ECONNREFUSED, "refused"), (errno.EHOSTUNREACH, "unreachable"), (errno.ENETUNREACH, "unreachable"),
    (errno.EACCES, "unreachable"), (errno.ETIMEDOUT, "filtered"), (errno.EPERM, "failed"),
    (errno.EADDRNOTAVAIL, "failed"),
])
def test_errors_of_the_kernel(monkeypatch, number, kind):
    def fail(*_):
        raise OSError(number, "why")

    monkeypatch.setattr(probe, "_connect", fail)
    assert probe.ask(check(), probe.Patience(1, 0)).answer == kind


def test_what_could_not_be_sent_is_right_for_nobody():
    assert not answer(check(expect="closed"), "failed").expected
    assert not answer(check(expect="open"), "failed").expected


def test_a_source_that_is_not_ours_is_no_closed_port():
    one = probe.parse_checks("checks", [entry(), entry(port=23, expect="closed", source="192.0.2.1")])[1]
    assert probe.ask(one, QUICK).answer == "failed"


# -- verdicts ------------------------------------------------------------------------------------------------------

def test_an_open_port_is_named():
    report = probe.Report("here", (answer(check(), "open"), answer(check(port=8080, expect="closed"), "open")))
    failure = report.failure()
    assert failure.code == "wrong_answer"
    assert failure.message == "Open and must be closed: 127.0.0.1 8080/tcp."
    assert report.result()["msg"].endswith(report.table())
    assert "WRONG  it    127.0.0.1  8080/tcp  closed    open" in report.table()


def test_closed_answers_of_a_family_without_a_working_control_prove_nothing():
    report = probe.Report("here", (answer(check(), "open"), answer(check("::1"), "filtered"),
                                   answer(check("::1", 80, "closed"), "filtered")))
    failure = report.failure()
    assert failure.code == "control_failed"
    assert "over IPv6" in failure.message and "prove nothing" in failure.message
    assert [row["verdict"] for row in report.rows()] == ["right", "wrong", "unproved"]


def test_all_right():
    report = probe.Report("here", (answer(check(), "open"), answer(check(port=80, expect="closed"), "refused")), ("n",))
    assert report.failure() is None
    assert report.table().endswith("\nn")


def test_probe_of_the_loopback():
    with listening(socket.SOCK_STREAM) as (_sock, port), listening(socket.SOCK_STREAM) as (leak, other):
        params = parameters(entry(port=port), entry(port=other, expect="closed"))
        assert probe.probe(params, Host()).failure().code == "wrong_answer"
        leak.close()
        assert probe.probe(params, Host()).failure() is None


def test_a_family_without_a_route_is_left_out_and_noted(monkeypatch):
    monkeypatch.setattr(probe, "has_route", lambda one: one.family == 4)
    with listening(socket.SOCK_STREAM) as (_sock, port):
        params = parameters(entry(port=port), entry("::1", port), skip_unroutable=True)
        report = probe.probe(params, Host())
    assert [one.check.family for one in report.answers] == [4]
    assert report.notes == ("IPv6: not probed, there is no route to it from here.",)
    monkeypatch.setattr(probe, "has_route", lambda one: False)
    with refused("no route"):
        probe.probe(params, Host())


# -- places --------------------------------------------------------------------------------------------------------

def machine(out, rc=0):
    return Host(lambda argv, **_: Finished(rc, out, ""), lambda program: program)


def test_the_namespace_of_a_container_is_that_of_its_process():
    assert probe.namespace_of(None, "bot-alpha", machine("123\n")) == "/proc/123/ns/net"
    assert probe.namespace_of("lan", None, machine("")) == "/run/netns/lan"
    assert probe.namespace_of(None, None, machine("")) is None


@pytest.mark.parametrize("netns, container", [("../../proc/1/ns/net", None), (None, "--all"), ("", None)])
def test_names_are_names(netns, container):
    with refused("letters, digits"):
        probe.namespace_of(netns, container, machine(""))


def test_a_stopped_container_is_no_place():
    with refused("does not run"):
        probe.namespace_of(None, "bot-alpha", machine("0\n"))


def test_a_missing_namespace_is_an_error_with_a_remedy(tmp_path):
    with refused("can't be entered"), probe.inside(str(tmp_path / "none")):
        pass


# -- the canary ----------------------------------------------------------------------------------------------------

def wanted(**more):
    return canary.parse({"state": "present", "host_port": 61998, "host_allow": [], "published_port": 61999,
                         "published_allow": [], "lifetime": 300, **more})


class Machine:
    """systemd and Docker as far as the canary uses them."""

    def __init__(self):
        self.unit = self.container = None
        self.image = False
        self.calls: list[str] = []

    def __call__(self, argv, stdin=None, env=None, timeout=None):
        words = list(argv)
        if words[:2] == ["systemctl", "show"]:
            state = "active" if self.unit else "inactive"
            return Finished(0, f"ActiveState={state}\nDescription={self.unit}\n", "")
        if words[:3] == ["docker", "container", "inspect"]:
            return Finished(0, self.container, "") if self.container else Finished(1, "", "No such container")
        if words[:3] == ["docker", "image", "inspect"]:
            return Finished(0 if self.image else 1, "", "")
        self.calls.append(" ".join(words[:2]))
        if words[:2] == ["docker", "import"]:
            self.image = True
        if words[:3] == ["docker", "image", "rm"]:
            self.image = False
        if words[0] == "systemd-run":
            self.unit = next(word for word in words if word.startswith("--description")).partition("=")[2]
        if words[:2] == ["systemctl", "stop"]:
            self.unit = None
        if words[:2] == ["docker", "run"]:
            labels = dict(word.split("=", 1)[1].split("=") for word in words if word.startswith("--label"))
            self.own(labels)
            self.published = [word for word in words if word.startswith("--publish")]
        if words[:2] == ["docker", "rm"]:
            self.container = None
        return Finished(0, "", "")

    def own(self, labels):
        self.container = json.dumps([{"Config": {"Labels": labels}, "State": {"Running": True}}])

    def canary(self, desired, busy=()):
        def ask(one, patience):
            return answer(one, "open" if self.unit or self.container else "refused")

        return canary.Canary(Host(self, lambda program: program), desired, ask,
                             lambda port, protocol: (port, protocol) not in busy, wait=0.1)

    def bring(self, desired, **more):
        one = self.canary(desired, **more)
        plan = one.plan()
        return one.apply(plan) if plan.changed else None


def test_the_listeners_come_stay_and_go():
    host = Machine()
    targets = host.bring(wanted())["targets"]
    assert [(one["kind"], one["port"], one["protocol"], one["expect"]) for one in targets] == [
        ("host", 61998, "tcp", "closed"), ("host", 61998, "udp", "closed"),
        ("published", 61999, "tcp", "closed"), ("published", 61999, "udp", "closed")]
    assert host.calls == ["docker rm", "systemd-run --quiet", "docker import", "docker run"]
    host.calls.clear()
    assert host.bring(wanted()) is None
    assert host.calls == []
    host.bring(canary.NOTHING)
    assert (host.unit, host.container, host.image) == (None, None, False)
    assert host.bring(canary.NOTHING) is None


def test_a_port_that_everybody_may_reach_is_published_too():
    host = Machine()
    targets = host.bring(wanted(published_allow=[
        {"port": 25, "sources": ["192.0.2.1"]}, {"port": "8000-8010"}, {"port": 53, "protocol": "udp"}]))["targets"]
    opened = [(one["port"], one["protocol"]) for one in targets if one["expect"] == "open"]
    assert opened == [(8000, "tcp"), (53, "udp")]
    assert host.published == ["--publish=61999:61000/tcp", "--publish=61999:61000/udp", "--publish=8000:61000/tcp",
                              "--publish=53:61000/udp"]


def test_a_port_in_use_is_left_to_its_user():
    host = Machine()
    host.bring(wanted(published_allow=[{"port": 443}]), busy=[(443, "tcp")])
    assert host.published == ["--publish=61999:61000/tcp", "--publish=61999:61000/udp"]
    with refused("Something uses 61998/udp on this host; choose another"):
        Machine().bring(wanted(), busy=[(61998, "udp")])


def test_a_start_that_fails_leaves_nothing():
    host = Machine()
    with refused("Something uses 61999/tcp"):
        host.bring(wanted(), busy=[(61999, "tcp")])
    assert host.calls[-2:] == ["systemctl stop", "docker rm"]
    assert (host.unit, host.container) == (None, None)


def test_what_is_not_ours_stays():
    host = Machine()
    host.own({"a": "b"})
    for desired in (wanted(), canary.NOTHING):
        with refused("not managed"):
            host.bring(desired)
    host = Machine()
    host.unit = "my own canary"
    with refused("not managed"):
        host.bring(canary.NOTHING)
    assert host.calls == []


def test_an_old_container_of_ours_is_replaced():
    host = Machine()
    host.own({MANAGED: "true", SPEC: "old"})
    host.bring(wanted())
    assert wanted().specs["published"] in host.container


@pytest.mark.parametrize("allow, verdict", [
    ([], "closed"), ([{"port": 81}], "closed"), ([{"port": "70-90", "protocol": "udp"}], "closed"),
    ([{"port": "70-90"}], "open"), ([{"port": 80, "sources": ["192.0.2.1"]}], None),
    ([{"port": 80, "interface": "eth1"}], None), ([{"port": 80, "sources": ["192.0.2.1"]}, {"port": 80}], "open"),
])
def test_what_a_policy_says_about_a_port(allow, verdict):
    assert canary.expected(80, "tcp", allow) == verdict


@pytest.mark.parametrize("change", [{"host_port": 80}, {"published_port": 70000}, {"lifetime": 1},
                                    {"host_port": 61999},
                                    {"published_allow": [{"port": "9-8"}]}])
def test_bad_canaries_are_refused(change):
    with pytest.raises(FleetError):
        wanted(**change)


def test_the_program_answers_and_ends_by_itself():
    with listening(socket.SOCK_STREAM) as (_sock, port):
        pass
    process = subprocess.Popen([sys.executable, "-I", "-c", canary._PROGRAM, "3", str(port)])
    try:
        for protocol in ("tcp", "udp"):
            one, end = check(port=port, protocol=protocol), time.monotonic() + 3
            while not probe.ask(one, probe.Patience(0.1, 0)).expected:
                assert time.monotonic() < end
        assert process.wait(20) == 0
    finally:
        process.kill()


# -- filters -------------------------------------------------------------------------------------------------------

def target(**more):
    return {"kind": "published", "port": 61999, "protocol": "tcp", "expect": "closed", "ipv4": True, "ipv6": True,
            **more}


def test_addresses_come_from_the_name_and_then_from_the_default_routes():
    facts = {"default_ipv4": {"address": "10.0.0.2"}, "default_ipv6": {"address": "2001:db8::2"}}
    assert filters.probe_addresses("192.0.2.1", facts) == ["192.0.2.1", "2001:db8::2"]
    assert filters.probe_addresses("127.0.0.1", {"default_ipv4": {}}) == []


def test_checks_from_outside():
    ssh = [{"name": "SSH", "port": "22"}]
    found = filters.probe_checks([target(), target(port=443, expect=None), target(port=53, ipv6=False)],
                                 ["192.0.2.1", "2001:db8::1"], ssh)
    assert [(one["address"], one["port"], one["expect"]) for one in found["checks"]] == [
        ("192.0.2.1", 22, "open"), ("2001:db8::1", 22, "open"), ("192.0.2.1", 61999, "closed"),
        ("192.0.2.1", 53, "closed"), ("2001:db8::1", 61999, "closed")]
    assert found["notes"] == ["Not probed, because the answer depends on who connects: 443/tcp.",
                              "Not probed, because nothing answers on the host itself over IPv6: 53/tcp."]
    found = filters.probe_checks([], ["192.0.2.1"], ssh)
    assert found["notes"] == ["IPv6: not probed, no address of the host is known."]


def test_a_control_that_the_canary_serves_is_asked_once():
    found = filters.probe_checks([target(port=443, expect="open")], ["192.0.2.1"], [{"port": 443}])
    assert len(found["checks"]) == 1


def test_checks_from_a_container():
    store = filters.probe_allowed([
        {"purpose": "backup", "destinations": ["192.0.2.5/32", "10.0.0.0/8"], "ports": [9000, "1-2"]},
        {"purpose": "dns", "destinations": ["192.0.2.6"], "ports": [53], "protocol": "udp"}], "https://minio.example.org")
    assert store == [{"name": "backup", "address": "192.0.2.5", "port": 9000, "protocol": "tcp"}]
    assert filters.probe_allowed([], "http://192.0.2.7:9000")[0]["port"] == 9000
    found = filters.probe_container_checks([target(), target(kind="host", port=61998)], ["172.17.0.1", "2001:db8::1"],
                                           store, [{"port": 22}], 22)
    assert [(one["address"], one["port"], one["expect"]) for one in found["checks"]] == [
        ("192.0.2.5", 9000, "open"), ("172.17.0.1", 61998, "closed"), ("169.254.169.254", 80, "closed"),
        ("::ffff:169.254.169.254", 80, "closed")]
    assert found["notes"] == ["IPv6: not probed, nothing is named that has to answer."]
