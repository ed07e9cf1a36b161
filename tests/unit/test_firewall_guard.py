# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The network guard against a host that plays nft, ip, ss and systemctl."""

from __future__ import annotations

import ipaddress
import json
import pathlib

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._firewall import (
    guard_host,
    guard_policy,
    guard_rules,
    guard_units,
    nft,
)
from ansible_collections.clawops.fleet.plugins.module_utils._firewall.guard import LIVE, Guard
from ansible_collections.clawops.fleet.plugins.module_utils._firewall.host import Host
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished

ROUTES = [
    {"dst": "default", "gateway": "203.0.113.1", "dev": "eth0", "protocol": "dhcp", "flags": []},
    {"dst": "203.0.113.0/24", "dev": "eth0", "protocol": "kernel", "scope": "link", "flags": []},
    {"dst": "198.51.100.0/24", "gateway": "203.0.113.9", "dev": "eth0", "flags": []},
    {"dst": "0.0.0.0/1", "dev": "tun0", "scope": "link", "flags": []},
    {"dst": "192.0.2.0/28", "dev": "br-0123456789ab", "protocol": "kernel", "scope": "link", "flags": []},
]
ROUTES6 = [{"dst": "2001:db8:1::/64", "dev": "eth0", "protocol": "ra", "flags": []},
           {"type": "unreachable", "dst": "2001:db8:2::/64", "dev": "lo", "flags": []},
           {"dst": "default", "dev": "wan0", "nexthops": [{"via": {"host": "fe80::1"}, "dev": "eth1"}], "flags": []}]
SOCKETS = """\
UNCONN 0 0       127.0.0.53%lo:53  0.0.0.0:* users:(("systemd-resolve",pid=1,fd=2))
UNCONN 0 0             0.0.0.0:123 0.0.0.0:* users:(("ntpd",pid=2,fd=2))
"""
DNSMASQ = """\
UNCONN 0 0       192.168.122.1:53  0.0.0.0:* users:(("dnsmasq",pid=3,fd=2))
UNCONN 0 0      0.0.0.0%virbr0:67  0.0.0.0:* users:(("dnsmasq",pid=3,fd=2))
"""
UNITS = (guard_units.UNIT, guard_units.LOG_UNIT)


class Machine:
    """One host: a kernel with our table or without, and units that are enabled and active or not there."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.calls: list[str] = []
        self.table: str | None = None
        self.running: set[str] = set()
        self.sockets = SOCKETS
        self.programs = {"nft", "ip", "ss", "ulogd", "systemctl", "unshare"}

    def which(self, program):
        return program if program in self.programs else None

    def __call__(self, argv, stdin=None, env=None, timeout=None):
        self.calls.append(" ".join(argv))
        answer = getattr(self, f"_{argv[0]}")(list(argv[1:]), stdin)
        return Finished(0, answer, "") if answer is not None else Finished(1, "", "No such file or directory")

    def _ip(self, argv, _stdin):
        return json.dumps(ROUTES if "-4" in argv else ROUTES6)

    def _ss(self, _argv, _stdin):
        return self.sockets

    def _unshare(self, _argv, stdin):
        return stdin

    def _nft(self, argv, stdin):
        if argv[0] == "--file":
            self.table = stdin[stdin.index("\ntable "):]
        elif argv[0] == "delete":
            self.table = None
        return self.table if argv[0] == "--stateless" else ""

    def _systemctl(self, argv, _stdin):
        if argv[0] == "show":
            states = {True: ("active", "enabled"), False: ("inactive", "")}
            return "\n\n".join("ActiveState={}\nUnitFileState={}\nNeedDaemonReload=no".format(
                *states[unit in self.running]) for unit in argv[2:])
        if argv[0] == "enable":
            self.running.add(argv[2])
        elif argv[0] in ("disable", "stop"):
            self.running.remove(argv[-1])
        return ""

    def guard(self, wanted: guard_policy.Policy | None) -> Guard:
        return Guard(Host(self, self.which, self.root), wanted)

    def apply(self, wanted: guard_policy.Policy | None) -> list[str]:
        one = self.guard(wanted)
        plan = one.plan()
        one.apply(plan)
        return [change.subject for change in plan.changes]


@pytest.fixture
def machine(tmp_path):
    for directory in ("run/systemd/system", "etc/systemd/system/x", "etc/logrotate.d/x", "proc/sys/net/bridge",
                      "etc/sysctl.d/x", "etc/modules-load.d/x",
                      "sys/class/net"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "etc/resolv.conf").write_text("nameserver 192.0.2.53\nnameserver 127.0.0.1\n")
    for switch, value in (("call-iptables", 1), ("call-ip6tables", 1), ("filter-vlan-tagged", 0)):
        (tmp_path / f"proc/sys/net/bridge/bridge-nf-{switch}").write_text(f"{value}\n")
    return Machine(tmp_path)


def params(**values):
    return {"bridges": list(guard_policy.BRIDGES), "host_services": [], "allow": [], "reach": [], "resolvers": [],
            "foreign_dns": False, "log": True, **values}


def policy(**values):
    return guard_policy.parse_policy(params(**values))


def chains(machine, **values) -> nft.Blocks:
    one = machine.guard(policy(**values))
    one.plan()
    return nft.parse_listing(guard_rules.render(one.policy, one.seen))


def covers(networks: list[str], address: str) -> bool:
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(network) for network in networks)


def test_a_second_run_only_reads(machine):
    assert LIVE in machine.apply(policy())
    machine.calls.clear()
    plan = machine.guard(policy()).plan()
    assert plan.changes == []
    assert [call.split()[0] for call in machine.calls] == ["ip", "ip", "ss", "nft", "nft", "unshare", "systemctl"]
    assert all("list table" in call for call in machine.calls if call.startswith("nft"))


def test_the_rules_are_checked_before_anything_is_written(machine, monkeypatch):
    monkeypatch.setattr(Machine, "_nft", lambda self, argv, stdin: None)
    with pytest.raises(FleetError):
        machine.apply(policy())
    assert not (machine.root / "etc/clawops").exists()
    assert not (machine.root / "etc/systemd/system/clawops-guard.service").exists()


def test_a_flushed_table_and_a_changed_rule_are_seen_and_repaired(machine):
    machine.apply(policy())
    good = machine.table
    for damaged in (None, good.replace("\t\tgoto egress\n", "")):
        machine.table = damaged
        assert machine.apply(policy()) == [LIVE]
        assert machine.table == good


def test_rules_are_replaced_and_chains_are_not(machine):
    one = machine.guard(policy())
    one.plan()
    lines = one.transaction.splitlines()
    declared = lines[:lines.index("flush table inet clawops")]
    assert "add chain inet clawops input { type filter hook input priority filter - 10; policy accept; }" in declared
    assert not [line for line in lines if line.startswith("delete") or ("{ " in line and line not in declared)]


@pytest.mark.parametrize("strange", ["\tchain other {\n\t\taccept\n\t}\n", ("priority filter - 10", "priority 0")])
def test_a_table_that_somebody_extended_is_made_anew(machine, strange):
    machine.apply(policy())
    good = machine.table
    machine.table = good.replace(*strange) if isinstance(strange, tuple) else good.replace("}\n", "}\n" + strange, 1)
    one = machine.guard(policy())
    plan = one.plan()
    assert plan.touches(LIVE)
    assert one.transaction.startswith("delete table inet clawops\n")
    one.apply(plan)
    assert machine.table == good


def test_a_boot_file_that_somebody_changed_is_replaced_with_the_table(machine):
    machine.apply(policy())
    (machine.root / guard_units.RULES[1:]).write_text("flush ruleset\n")
    machine.table = None
    assert machine.apply(policy()) == [guard_units.RULES, LIVE]


def test_what_killed_runs_left_goes(machine):
    machine.apply(policy())
    (machine.root / "etc/clawops/firewall/.guard.nft.abcdefgh").touch()
    assert machine.apply(policy()) == ["/etc/clawops/firewall/.guard.nft.abcdefgh"]


def test_absent_leaves_no_trace(machine):
    before = sorted(machine.root.rglob("*"))
    machine.apply(policy())
    assert machine.running == set(UNITS)
    machine.apply(None)
    assert sorted(machine.root.rglob("*")) == sorted(before)
    assert (machine.table, machine.running) == (None, set())
    assert not machine.guard(None).plan().changed


def test_docker_is_out_of_the_unit_before_it_stops(machine):
    machine.apply(policy())
    machine.calls.clear()
    machine.apply(None)
    writing = [call for call in machine.calls if call.startswith("systemctl") and "show" not in call]
    assert writing == [*(f"systemctl disable --now {unit}" for unit in UNITS), "systemctl daemon-reload"]


def test_no_unit_is_started_under_the_lock(machine):
    """clawops-guard.service takes the same lock."""
    held = []

    class Watched(Host):
        def locked(self, directory):
            held.append(len(machine.calls))
            return super().locked(directory)

    one = Guard(Watched(machine, machine.which, machine.root), policy())
    one.apply(one.plan())
    assert [call.split()[0] for call in machine.calls[held[0]:]] == ["nft", *["systemctl"] * 3]


def test_without_a_log_there_is_no_log_unit(machine):
    machine.apply(policy())
    machine.programs.discard("ulogd")
    assert guard_units.LOG_UNIT in machine.apply(policy(log=False))
    assert machine.running == {guard_units.UNIT}
    assert "log prefix" not in machine.table


def test_the_log_stops_before_its_settings_change_so_that_it_starts_with_them(machine):
    machine.apply(policy())
    (machine.root / "etc/clawops/firewall/ulogd.conf").write_text("")
    machine.calls.clear()
    machine.apply(policy())
    assert [call for call in machine.calls if "systemctl" in call and "show" not in call] == [
        f"systemctl stop {guard_units.LOG_UNIT}", f"systemctl enable --now {guard_units.LOG_UNIT}"]


@pytest.mark.parametrize("program", ["nft", "ip", "ulogd"])
def test_without_its_programs_the_plan_is_incomplete(machine, program):
    machine.programs.discard(program)
    one = machine.guard(policy())
    assert not one.plan().complete
    assert one.facts()["allowed"] == []


def test_the_log_is_limited_and_the_refusal_is_not(machine):
    refuse = chains(machine)["chain refuse"]
    assert [line for line in refuse if "limit" in line] == refuse[:1]
    assert refuse[0].startswith("limit rate 10/second") and "group 5" in refuse[0]
    assert refuse[-1] == "reject with icmpx type admin-prohibited"


def test_established_comes_first_and_what_is_not_known_last(machine):
    rules = chains(machine)
    for chain, last in (("leaving", "goto egress"), ("arriving", "goto refuse")):
        assert rules[f"chain {chain}"][0] == "ct state established,related accept"
        assert rules[f"chain {chain}"][-1] == last
    assert rules["chain forward"] == ["type filter hook forward priority filter - 10; policy accept;",
                                      *(f'iifname "{name}" goto leaving'
                                        for name in ("docker0", "br-*", "cb-*", "cs-*", "virbr*"))]


def test_foreign_resolvers_are_refused_unless_they_are_wanted(machine):
    refused = [line.split(" goto refuse")[0] for line in chains(machine)["chain egress"][:-1]]
    assert refused == ["udp dport 53", "udp dport 853", "tcp dport 53", "tcp dport 853"]
    assert chains(machine, foreign_dns=True)["chain egress"] == ["accept"]


@pytest.mark.parametrize("address", [
    "169.254.169.254", "10.1.2.3", "172.31.255.255", "192.168.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192",
    "224.0.0.251",
    "255.255.255.255", "127.0.0.1", "0.0.0.1", "203.0.113.77", "fd00:ec2::254", "fe80::1", "fd13::1",
    "ff02::1", "::ffff:169.254.169.254", "::ffff:0:10.0.0.1", "::169.254.169.254", "64:ff9b::169.254.169.254",
    "64:ff9b::10.0.0.1", "64:ff9b:1::1", "2002:a9fe:a9fe::1", "fec0::1", "2001:db8:1::9",
])
def test_what_is_not_the_internet_is_refused(machine, address):
    machine.apply(policy())
    one = machine.guard(policy())
    one.plan()
    assert covers(one.facts()["refused"], address)


@pytest.mark.parametrize("address", ["8.8.8.8", "198.51.100.7", "192.0.2.1", "172.32.0.1", "100.128.0.1", "169.253.0.1",
                                     "2606:4700::1111", "2001:db8:2::1", "64:ff9b::8.8.8.8"])
def test_the_internet_is_not_refused(machine, address):
    one = machine.guard(policy())
    one.plan()
    assert not covers(one.facts()["refused"], address)


def test_allowed_destinations_are_split_by_family_and_merged(machine):
    entry = {"purpose": "model", "destinations": ["10.0.0.6", "10.0.0.0/29", "fd00::6"], "ports": ["8080", "90-99"]}
    lines = [line for line in chains(machine, allow=[entry])["chain allowed"] if "model" in line]
    assert lines == ['ip daddr 10.0.0.0/29 tcp dport 90-99 accept comment "model"',
                     'ip daddr 10.0.0.0/29 tcp dport 8080 accept comment "model"',
                     'ip6 daddr fd00::6/128 tcp dport 90-99 accept comment "model"',
                     'ip6 daddr fd00::6/128 tcp dport 8080 accept comment "model"']


def resolvers(machine, resolv, systemd=""):
    (machine.root / "etc/resolv.conf").write_text(resolv)
    (machine.root / "run/systemd/resolve").mkdir(parents=True)
    (machine.root / "run/systemd/resolve/resolv.conf").write_text(systemd)
    return guard_host.resolvers(Host(machine, machine.which, machine.root))


@pytest.mark.parametrize(("resolv", "systemd", "found"), [
    ("search lan\nnameserver 10.0.0.1\nnameserver fd00::53\n", "", ("10.0.0.1", "fd00::53")),
    ("nameserver 127.0.0.53\noptions edns0\n", "nameserver 10.0.0.2\n", ("10.0.0.2",)),
    ("nameserver 127.0.0.1\n", "nameserver 10.0.0.2\n", guard_host.ENGINE_RESOLVERS),
    ("nameserver fe80::1%eth0\nnameserver 10.0.0.1\n", "", ("10.0.0.1",)),
    ("nameserver 999.1.1.1\n", "", guard_host.ENGINE_RESOLVERS),
    ("", "", guard_host.ENGINE_RESOLVERS),
])
def test_resolvers_are_those_that_docker_hands_on(machine, resolv, systemd, found):
    assert resolvers(machine, resolv, systemd) == found


def test_listed_resolvers_win(machine):
    assert '192.0.2.53/32' in chains(machine)["chain allowed"][0]
    assert chains(machine, resolvers=["9.9.9.9"])["chain allowed"][0] == \
        'ip daddr 9.9.9.9/32 udp dport 53 accept comment "resolver"'


def test_dns_and_dhcp_are_open_only_where_the_host_serves_them(machine):
    assert guard_host.served(SOCKETS) == ()
    machine.sockets += DNSMASQ
    arriving = chains(machine, host_services=[{"port": "3128", "comment": "proxy"}])["chain arriving"]
    assert [line for line in arriving if " dport " in line] == [
        'tcp dport 3128 accept comment "proxy"', 'udp dport 53 accept comment "DNS"',
        'tcp dport 53 accept comment "DNS"', 'udp dport 67 accept comment "DHCP"']


def test_a_published_port_is_no_service_of_the_host():
    assert guard_host.served('UNCONN 0 0 0.0.0.0:53 0.0.0.0:* users:(("docker-proxy",pid=9,fd=4))\n') == ()
    assert guard_host.served('UNCONN 0 0 [::]:53 [::]:* users:(("unbound",pid=9,fd=4))\n') == (53,)


def test_only_own_links_count_as_neighbourhood(machine):
    seen = guard_host.observe(Host(machine, machine.which, machine.root), policy().guards)
    assert seen.on_link == ("2001:db8:1::/64", "203.0.113.0/24")
    assert seen.uplinks == ("eth0", "eth1")


def test_same_bridge_tells_what_the_kernel_shows(machine):
    (machine.root / "proc/sys/net/bridge/bridge-nf-call-ip6tables").unlink()
    machine.apply(policy())
    assert machine.guard(policy()).facts()["same_bridge"] == {"ipv4": "refused", "ipv6": "open"}


@pytest.mark.parametrize("bridge", ["eth+", "eth1"])
def test_an_uplink_is_no_bridge_of_containers(machine, bridge):
    with pytest.raises(FleetError, match="bridges: 'eth"):
        machine.guard(policy(bridges=["docker0", bridge])).plan()


def test_a_bridge_with_a_network_card_is_no_bridge_of_containers(machine):
    for directory in ("br-lan/brif/enp1s0", "enp1s0/device", "br-app/brif/veth1", "veth1"):
        (machine.root / "sys/class/net" / directory).mkdir(parents=True)
    with pytest.raises(FleetError, match="bridges: 'br-lan'"):
        machine.guard(policy()).plan()


GOOD = {"purpose": "model", "destinations": ["10.0.0.6"], "ports": ["80"], "protocol": "tcp"}


@pytest.mark.parametrize(("values", "named"), [
    ({"bridges": []}, "bridges"),
    ({"bridges": ["br0", "br0"]}, "bridges"),
    ({"bridges": ['br"; flush ruleset']}, "bridges"),
    ({"resolvers": ["dns.example"]}, "resolvers"),
    ({"resolvers": ["10.0.0.0/8"]}, "resolvers"),
    ({"host_services": [{"port": "0"}]}, "host_services[0].port"),
    ({"host_services": [{"port": "70000"}]}, "host_services[0].port"),
    ({"host_services": [{"port": "90-80"}]}, "host_services[0].port"),
    ({"host_services": [{"port": "80", "comment": 'x" accept'}]}, "host_services[0].comment"),
    ({"host_services": [{"port": "80", "comment": "x" * 101}]}, "host_services.comment"),
    ({"host_services": [{"port": "80"}, {"port": "80"}]}, "host_services[1]"),
    ({"allow": [{**GOOD, "purpose": 'x" accept'}]}, "allow[0].purpose"),
    ({"allow": [GOOD, {**GOOD, "destinations": ["10.0.0.1/8"]}]}, "allow[1].destinations"),
    ({"allow": [{**GOOD, "destinations": ["minio.example.org"]}]}, "allow[0].destinations"),
    ({"allow": [{**GOOD, "destinations": []}]}, "allow[0].destinations"),
    ({"allow": [{**GOOD, "ports": []}]}, "allow[0].ports"),
    ({"allow": [{**GOOD, "ports": ["http"]}]}, "allow[0].ports"),
    ({"allow": [GOOD, {**GOOD, "purpose": "other"}, GOOD]}, "allow[2]"),
])
def test_bad_input_is_one_error_that_names_the_parameter(values, named):
    with pytest.raises(FleetError) as error:
        policy(**values)
    assert error.value.code == "bad_value"
    assert error.value.details["parameter"] == named
    assert error.value.hint


def test_tagged_frames_on_the_same_bridge_are_seen(machine):
    switch = machine.root / "proc/sys/net/bridge/bridge-nf-filter-vlan-tagged"
    assert machine.guard(policy()).facts()["same_bridge"] == {"ipv4": "open", "ipv6": "open"}
    assert "net.bridge.bridge-nf-filter-vlan-tagged" in machine.apply(policy())
    assert switch.read_text() == "1\n"
    assert machine.guard(policy()).facts()["same_bridge"] == {"ipv4": "refused", "ipv6": "refused"}
    machine.apply(None)
    assert switch.read_text() == "0\n"
