# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What single bridges reach: which rule a connection meets first."""

from __future__ import annotations

import ipaddress
import re

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._firewall import guard_policy, guard_rules, nft
from ansible_collections.clawops.fleet.plugins.module_utils._firewall.guard_host import Surroundings

SEEN = Surroundings(("10.213.0.0/24", "203.0.113.0/24"), ("eth0",), ("10.213.0.53",), ())
PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"]
LAN, PLAIN = "cs-11111111", "cs-22222222"


def policy(*reach, **values):
    return guard_policy.parse_policy({"bridges": list(guard_policy.BRIDGES), "host_services": [], "allow": [],
                                      "resolvers": [], "foreign_dns": False, "log": True, **values,
                                      "reach": list(reach)})


def rules(*reach, **values):
    return nft.parse_listing(guard_rules.render(policy(*reach, **values), SEEN))


def _meets(rule: str, packet: dict[str, str]) -> bool:
    """Whether a rule of this table concerns an opening packet."""
    words = dict(re.findall(r'(iifname|oifname|ip daddr|ip6 daddr|tcp dport|udp dport|icmpv6 type) "?([^" ]+)', rule))
    for word, wanted in words.items():
        if word in ("iifname", "oifname"):
            found = packet[word]
            if not (found.startswith(wanted[:-1]) if wanted.endswith("*") else found == wanted):
                return False
        elif word in ("ip daddr", "ip6 daddr"):
            address, network = ipaddress.ip_address(packet["to"]), ipaddress.ip_network(wanted)
            if address.version != network.version or address not in network:
                return False
        elif word != f"{packet['via']} dport" or wanted != packet["port"]:
            return False
    return "ct state" not in rule and "fib saddr" not in rule


def verdict(chains: nft.Blocks, chain: str, packet: dict[str, str]) -> str | None:
    for rule in chains[f"chain {chain}"]:
        if rule.startswith("type ") or not _meets(rule, packet):
            continue
        plain = re.sub(r' comment ".*"', "", rule)
        if plain.endswith("goto refuse"):
            return "refused"
        if plain.endswith("accept"):
            return "open"
        jump = re.search(r"(jump|goto) (\w+)$", plain)
        if jump:
            found = verdict(chains, jump[2], packet)
            if found or jump[1] == "goto":
                return found
    return None


def forwarded(chains, to, interface=LAN, out="eth0", via="tcp", port="443"):
    return verdict(chains, "forward", {"iifname": interface, "oifname": out, "to": to, "via": via, "port": port})


def arriving(chains, to, interface=LAN, port="443"):
    return verdict(chains, "input", {"iifname": interface, "oifname": "", "to": to, "via": "tcp", "port": port})


def test_without_exceptions_a_private_network_is_refused_and_the_internet_open():
    chains = rules()
    assert (forwarded(chains, "192.168.7.7"), forwarded(chains, "fd00::7")) == ("refused", "refused")
    assert (forwarded(chains, "8.8.8.8"), forwarded(chains, "2606:4700::1111")) == ("open", "open")


@pytest.mark.parametrize("address", ["10.213.0.66", "192.168.7.7", "172.20.0.1", "100.64.0.9", "fd13:c1a0:beef::66"])
def test_a_bridge_with_allowances_reaches_private_networks_and_others_do_not(address):
    chains = rules({"interface": LAN, "allow": PRIVATE})
    assert forwarded(chains, address) == "open"
    assert forwarded(chains, address, interface=PLAIN) == "refused"


@pytest.mark.parametrize("address", [
    "169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "127.0.0.1", "0.0.0.1", "224.0.0.251",
    "255.255.255.255", "fd00:ec2::254", "fd20:ce::254", "fe80::1", "ff02::1", "::1", "::ffff:169.254.169.254",
    "64:ff9b::169.254.169.254", "64:ff9b:1::1", "2002:a9fe:a9fe::1",
])
def test_metadata_loopback_and_link_local_are_refused_whatever_is_allowed(address):
    chains = rules({"interface": LAN, "allow": ["0.0.0.0/0", "::/0"]})
    assert forwarded(chains, address) == "refused"


def test_private_networks_are_not_reached_in_another_form():
    assert forwarded(rules({"interface": LAN, "allow": PRIVATE}), "64:ff9b::10.0.0.1") == "refused"


@pytest.mark.parametrize("out", ["docker0", "br-0123456789ab", "cb-12345678", PLAIN, LAN, "virbr0"])
def test_other_guarded_bridges_are_refused_whatever_is_allowed(out):
    chains = rules({"interface": LAN, "allow": ["0.0.0.0/0", "::/0"]})
    assert forwarded(chains, "172.20.0.3", out=out) == "refused"
    assert forwarded(chains, "172.20.0.3") == "open"


def test_the_host_itself_is_refused_whatever_is_allowed():
    chains = rules({"interface": LAN, "allow": ["0.0.0.0/0", "::/0"]})
    assert arriving(chains, "10.213.0.11") == arriving(chains, "fd13:c1a0:beef::11") == "refused"


def test_allowances_open_no_foreign_resolver():
    chains = rules({"interface": LAN, "allow": PRIVATE})
    assert forwarded(chains, "192.168.7.1", via="udp", port="53") == "refused"
    assert forwarded(chains, "10.213.0.53", via="udp", port="53") == "open"


@pytest.mark.parametrize(("network", "inside", "outside"), [
    ("198.51.100.0/24", "198.51.100.7", "198.51.101.7"), ("2001:db8:7::/48", "2001:db8:7::1", "2001:db8:8::1")])
def test_a_blocked_network_is_refused_for_its_bridge_alone(network, inside, outside):
    chains = rules({"interface": LAN, "block": [network]})
    assert (forwarded(chains, inside), forwarded(chains, outside)) == ("refused", "open")
    assert forwarded(chains, inside, interface=PLAIN) == "open"


def test_what_is_blocked_stands_before_all_that_is_allowed():
    model = {"purpose": "model", "destinations": ["10.213.0.6"], "ports": ["8080"], "protocol": "tcp"}
    chains = rules({"interface": LAN, "allow": PRIVATE, "block": ["10.0.0.0/8"]}, allow=[model],
                   host_services=[{"port": "3128"}])
    assert forwarded(chains, "10.213.0.6", port="8080") == "refused"
    assert forwarded(chains, "10.213.0.6", port="8080", interface=PLAIN) == "open"
    assert forwarded(chains, "10.213.0.53", via="udp", port="53") == "refused"
    assert arriving(chains, "10.213.0.11", port="3128") == "refused"
    assert arriving(chains, "10.213.0.11", port="3128", interface=PLAIN) == "open"
    assert forwarded(chains, "192.168.7.7") == "open"


def test_the_chains_are_there_without_exceptions_so_that_none_comes_or_goes():
    """A chain that goes means a table that is made anew, with a moment without rules."""
    without, having = rules(), rules({"interface": LAN, "allow": PRIVATE, "block": ["198.51.100.0/24"]})
    assert list(without) == list(having)
    assert (without["chain blocked"], without["chain reached"]) == ([], [])
    assert not nft.is_strange(without, having)
    assert not nft.is_strange(having, without)


def test_the_order_of_the_list_means_nothing():
    one, other = {"interface": LAN, "allow": ["10.0.0.0/8", "fc00::/7"]}, {"interface": PLAIN, "block": ["10.0.0.0/8"]}
    turned = {**one, "allow": one["allow"][::-1]}
    assert guard_rules.render(policy(one, other), SEEN) == guard_rules.render(policy(other, turned), SEEN)


@pytest.mark.parametrize(("reach", "named"), [
    ([{"interface": "cs-+", "allow": ["10.0.0.0/8"]}], "reach[0].interface"),
    ([{"interface": "eth0", "allow": ["10.0.0.0/8"]}], "reach[0].interface"),
    ([{"interface": 'cs-1" accept', "allow": ["10.0.0.0/8"]}], "reach[0].interface"),
    ([{"interface": "cs-a-name-that-is-too-long", "allow": ["10.0.0.0/8"]}], "reach[0].interface"),
    ([{"interface": LAN, "allow": ["10.0.0.1/8"]}], "reach[0].allow"),
    ([{"interface": LAN, "allow": ["lan"]}], "reach[0].allow"),
    ([{"interface": LAN, "allow": ["10.0.0.0/8", "10.0.0.0/8"]}], "reach[0].allow"),
    ([{"interface": LAN, "allow": ["169.254.169.254"]}], "reach[0].allow"),
    ([{"interface": LAN, "allow": ["fe80::/64"]}], "reach[0].allow"),
    ([{"interface": LAN, "block": ["fd00::1/8"]}], "reach[0].block"),
    ([{"interface": LAN, "block": ["::ffff:10.0.0.0/104"]}], "reach[0].block"),
    ([{"interface": LAN, "block": ["fd00::1", "fd00::1"]}], "reach[0].block"),
    ([{"interface": LAN}], "reach[0]"),
    ([{"interface": LAN, "allow": ["10.0.0.0/8"]}, {"interface": LAN, "block": ["fd00::/8"]}], "reach[1].interface"),
])
def test_bad_input_is_one_error_that_names_the_parameter(reach, named):
    with pytest.raises(FleetError) as error:
        policy(*reach)
    assert error.value.code == "bad_value"
    assert error.value.details["parameter"] == named
    assert error.value.hint
