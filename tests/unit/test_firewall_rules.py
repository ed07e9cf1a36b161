# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What may be written in an allow list, and what it means in each IP family."""

from __future__ import annotations

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._firewall import rules


@pytest.mark.parametrize("entry", [
    *({"port": port} for port in ("0", "70000", "9-8", "80-", "http", "-1", "1-65536")),
    {"port": "80", "protocol": "icmp"},
    *({"port": "80", "sources": [source]} for source in (
        "10.0.0.1/8", "10.0.0.0/33", "lan", "2001:db8::1/64", "::ffff:192.0.2.1", "::ffff:10.0.0.0/104", "fe80::1%eth0",
        "10.0.0.0-10.0.0.9", "10.0.0.0/8,192.0.2.0/24", "!10.0.0.0/8", "")),
    {"port": "80", "sources": ["10.0.0.0/8", "10.0.0.0/8"]},
    {"port": "80", "sources": ["2001:DB8::/32", "2001:db8:0::/32"]},
    {"port": "80", "sources": ["10.0.0.1", "10.0.0.1/32"]},
    *({"port": "80", "interface": name} for name in ("eth 0", "..", "eth0/x", "sixteen-letters0", "-i lo")),
    *({"port": "80", "comment": text} for text in ('say "hi"', "two\nlines", "-j ACCEPT", "x" * 201)),
], ids=str)
def test_bad_entry_is_one_error_that_names_the_parameter(entry):
    with pytest.raises(FleetError) as caught:
        rules.parse_allow("allow", [{"port": "1"}, entry])
    assert caught.value.code == "bad_value"
    assert caught.value.message.startswith("allow[1].")


def test_duplicates_are_refused_whatever_their_comment():
    same = [{"port": 80, "sources": ["::/0", "10.0.0.0/8"], "comment": "a"},
            {"port": "80-80", "sources": ["10.0.0.0/8", "::/0"]}]
    with pytest.raises(FleetError) as caught:
        rules.parse_allow("allow", same)
    assert "twice" in caught.value.hint


@pytest.mark.parametrize(("one", "other"), [
    ({"port": "80"}, {"port": "80", "sources": ["0.0.0.0/0"]}),
    ({"port": "80", "sources": ["10.0.0.0/8", "192.0.2.0/24"]}, {"port": "80", "sources": ["192.0.2.0/24"]}),
    ({"port": "80", "interface": "eth0"}, {"port": "80", "interface": "eth0", "comment": "again"}),
])
def test_what_is_permitted_twice_is_refused_also_in_part(one, other):
    with pytest.raises(FleetError) as caught:
        rules.parse_allow("allow", [one, {"port": "1"}, other])
    assert caught.value.message.startswith("allow[2]") and "twice" in caught.value.hint


def test_same_port_for_two_protocols_or_sources_is_no_duplicate():
    entries = [{"port": 53}, {"port": 53, "protocol": "udp"}, {"port": 53, "sources": ["10.0.0.0/8"]},
               {"port": 53, "interface": "eth1"}, {"port": "50-60"}]
    assert len(rules.parse_allow("allow", entries)) == 5


def test_sources_are_divided_by_family():
    sources = ["10.0.0.0/8", "2001:DB8::/32", "0.0.0.0/0"]
    (entry,) = rules.parse_allow("allow", [{"port": "8000-8010", "sources": sources}])
    assert entry.port == "8000:8010"
    assert entry.sources_of(4) == [None, "10.0.0.0/8"]
    assert entry.sources_of(6) == ["2001:db8::/32"]


def test_a_source_of_one_family_opens_nothing_in_the_other():
    (entry,) = rules.parse_allow("allow", [{"port": 80, "sources": ["10.0.0.0/8"]}])
    assert entry.sources_of(6) == []


@pytest.mark.parametrize("name", ["", "+", "a b", "eth0;x", "sixteen-letters0", "br-++"])
def test_bad_interface(name):
    with pytest.raises(FleetError, match="trusted_interfaces"):
        rules.parse_interfaces("trusted_interfaces", [name])


def test_interfaces():
    assert rules.parse_interfaces("x", ["eth0.5", "br-+", "fifteen-letters"]) == ("eth0.5", "br-+", "fifteen-letters")
