# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's own logic: what the attacker sends is what the witness tells, and the attack list holds together."""

from __future__ import annotations

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests/integration")]

from bed import __main__ as cli
from bed import job, lab, net, witness
from firewall import attacker, world

OWN, PEER = b"\2\0\0\0\0\1", "02:00:00:00:00:02"
V4 = {"via": "udp", "source": "10.213.0.77", "to": "172.17.0.2", "port": 53, "sport": 20000, "mac": PEER,
      "mark": "clawops-lab:t-1;"}
V6 = {**V4, "source": "fd13::77", "to": "fd13::2"}


@pytest.mark.parametrize("payload", [V4, V6, {**V4, "vlan": 0}, {**V6, "padded": True}])
def test_a_datagram_is_told_as_it_was_sent(payload):
    (frame,) = attacker.frames(payload, OWN)
    assert witness.describe(frame) == {"from": payload["source"], "to": payload["to"], "protocol": 17, "port": 53,
                                       "sport": 20000, "mark": "clawops-lab:t-1;"}


@pytest.mark.parametrize(("flags", "kind"), [(0x02, "opening"), (0x12, "answer"), (0x18, "data")])
def test_connections_are_told_by_their_first_packets(flags, kind):
    (frame,) = attacker.frames({**V4, "via": "tcp", "flags": flags}, OWN)
    assert witness.describe(frame)["kind"] == kind
    (frame,) = attacker.frames({**V4, "via": "tcp", "flags": flags, "mark": ""}, OWN)
    assert (witness.describe(frame) is None) == (kind == "data")


@pytest.mark.parametrize("via", ["icmp", "sctp", "gre", "ipip"])
def test_other_protocols_are_told_by_their_mark(via):
    (frame,) = attacker.frames({**V4, "via": via, "inner": {"to": "172.17.0.3"}}, OWN)
    assert witness.describe(frame)["mark"] == V4["mark"]


def test_an_error_that_quotes_a_packet_is_no_arrival():
    (frame,) = attacker.frames({**V4, "via": "icmp"}, OWN)
    at = 14 + 20
    assert witness.describe(frame[:at] + b"\3" + frame[at + 1:]) is None


@pytest.mark.parametrize("payload", [V4, V6])
def test_fragments_carry_it_all_and_only_the_first_has_ports(payload):
    frames = attacker.frames({**payload, "fragment": 16}, OWN)
    assert len(frames) == 2
    assert witness.describe(frames[0]) == {"from": payload["source"], "to": payload["to"], "protocol": 17, "port": 53,
                                           "sport": 20000}
    assert witness.describe(frames[1]) is None  # the mark is cut in two; the listener behind puts it together


def test_checksums_are_those_of_the_kernel():
    (packet,) = attacker.packets(V4)
    assert attacker.checksum(packet[:20]) == 0
    pseudo = packet[12:20] + bytes([0, 17]) + packet[24:26]
    assert attacker.checksum(pseudo + packet[20:]) == 0


def test_only_the_payload_itself_proves_its_arrival():
    payload = {**V4, "via": "tcp"}
    assert world._proves({"mark": V4["mark"]}, payload)
    assert world._proves({"protocol": 6, "kind": "opening", "sport": 20000}, payload)
    assert world._proves({"protocol": 6, "kind": "answer", "port": 20000, "sport": 80}, payload)
    assert not world._proves({"protocol": 6, "kind": "answer", "port": 80, "sport": 20000}, payload)
    assert not world._proves({"protocol": 17, "kind": "datagram", "sport": 20000, "mark": None}, V4)


def test_the_attack_list_holds_together():
    vantages = {"neighbour", "trusted", "second", *world.CONTAINERS}
    for group in world.ATTACKS.values():
        entries = group["controls"] + group["attacks"]
        assert len({entry["name"] for entry in entries}) == len(entries)
        assert {entry["from"] for entry in entries} <= vantages
        assert {entry.get("bare", "arrives") for entry in entries} <= {"arrives", "lost", "any"}
        proved = [entry for entry in group["attacks"] if "bare" not in entry]
        assert group["controls"]
        assert len(proved) >= 30


def test_an_empty_lab_and_a_half_built_one_get_the_same():
    whole, rest = list(lab._steps([])), list(lab._steps(["lan", "lan2"]))
    assert [step for step in whole if step not in rest] == ["link add lan type bridge", "link add lan2 type bridge"]
    assert "address replace 10.213.0.1/24 dev lan nodad" in whole
    assert "address replace fd13:c1a0:bee2::77/64 dev lan2 nodad" in whole
    assert whole[-1] == "route replace local ::/0 dev lo table main"


def test_the_lab_takes_no_address_of_a_host():
    assert not set(lab.LAST) & {net.LAST[host] for host in cli.dockerhost.INSTANCES}


def test_a_host_in_the_lab_is_known_by_its_cable(monkeypatch):
    monkeypatch.setattr(lab, "_ip", lambda *words: '[{"ifname": "lo"}, {"ifname": "cb-alder"}, {}]')
    assert lab.isolated() == ["alder"]


def test_a_host_that_is_down_is_not_isolated(monkeypatch):
    monkeypatch.setattr(lab.engine, "inspect", lambda *words: None)
    with pytest.raises(job.BedError, match="testbed up dockerhost:alder"):
        lab.isolate(job.Job("t"), "alder")


def test_verbs_say_what_they_want():
    with pytest.raises(job.BedError, match="name the hosts"):
        cli.move([], lab.isolate)
    with pytest.raises(job.BedError, match="relay ADDRESS PORT"):
        cli.relay(["10.213.0.11"])


def test_ports_are_listed_and_ranged():
    assert witness.ports("80,8100-8102") == [80, 8100, 8101, 8102]
