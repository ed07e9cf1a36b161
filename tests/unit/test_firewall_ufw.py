# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's own firewall against UFW's files and a kernel that loads them."""

from __future__ import annotations

import re

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._firewall import ufw
from ansible_collections.clawops.fleet.plugins.module_utils._firewall.confirm import Connection
from ansible_collections.clawops.fleet.plugins.module_utils._firewall.host import Host
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished

DEFAULTS = """\
IPV6=yes
DEFAULT_INPUT_POLICY="{incoming}"
DEFAULT_OUTPUT_POLICY="ACCEPT"
DEFAULT_FORWARD_POLICY="DROP"
"""
RULES = """\
*filter
:{prefix}-user-input - [0:0]
:{prefix}-user-limit - [0:0]
### RULES ###
{blocks}
### END RULES ###

### RATE LIMITING ###
-A {prefix}-user-limit -j REJECT
### END RATE LIMITING ###
COMMIT
"""
PRISTINE = "*filter\n:ufw-user-input - [0:0]\n### RULES ###\n-A ufw-user-limit-accept -j ACCEPT\nCOMMIT\n"
SSH = [{"port": 22, "comment": "SSH"}]
V4 = Connection("192.0.2.7 50000 10.0.0.1 22")


def policy(allow=None, connection=None, **verdicts):
    return ufw.parse_policy({"allow": SSH if allow is None else allow, "incoming": "deny", "outgoing": "allow",
                             "routed": "deny", **verdicts}, connection)


def block(port, version=4, source=None, comment="clawops.fleet: SSH", interface=""):
    anywhere = {4: "0.0.0.0/0", 6: "::/0"}[version]
    return ufw.Rule("tcp", str(port), source or anywhere, interface).block(version, comment)


def jumps(version=4):
    return "".join(f"{line}\n" for direction in ufw.CHAINS for line in ufw.way(version, direction))


class Machine:
    """UFW's files below a directory, its commands recorded, and the kernel's filter table."""

    def __init__(self, root, active=False, incoming="DROP", rules="", rules6="", live=None):
        self.root, self.calls = root, []
        files = {"etc/default/ufw": DEFAULTS.format(incoming=incoming),
                 "etc/ufw/ufw.conf": f"ENABLED={'yes' if active else 'no'}\n",
                 "etc/ufw/user.rules": RULES.format(prefix="ufw", blocks=rules),
                 "etc/ufw/user6.rules": RULES.format(prefix="ufw6", blocks=rules6),
                 "proc/sys/net/ipv6/conf": ""}
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        self.live = {"iptables": "", "ip6tables": ""}
        if active:
            self.start()
        self.live.update(live or {})

    def start(self):
        defaults = ufw.File(0o644, self.text("etc/default/ufw"))
        for tool, version, path in (("iptables", 4, "etc/ufw/user.rules"), ("ip6tables", 6, "etc/ufw/user6.rules")):
            self.load(tool, ufw.transaction(version, ufw.File(0o640, self.text(path)), defaults, ""))

    def load(self, tool, text):
        prefix = {"iptables": "ufw", "ip6tables": "ufw6"}[tool]
        kept = re.findall(rf"^(?::INPUT .*|-A {prefix}-user-input .*)$", text, re.MULTILINE)
        gone = {line.replace("-D", "-A", 1) for line in re.findall(r"^-D .*$", text, re.MULTILINE)}
        kept += [line for line in self.live[tool].splitlines() if re.match("-A [A-Z]+ ", line) and line not in gone]
        kept += re.findall(r"^-A [A-Z]+ .*$", text, re.MULTILINE)
        self.live[tool] = "\n".join([f":{prefix}-user-input - [0:0]", *kept, ""])

    def text(self, path):
        return (self.root / path).read_text()

    def __call__(self, argv, stdin=None, env=None, timeout=None):
        tool, _dash, verb = argv[0].partition("-")
        if verb == "save":
            return Finished(0, self.live[tool], "")
        self.calls.append(" ".join(argv))
        if verb == "restore":
            self.load(tool, stdin)
        if argv[0] == "ufw":
            conf = self.root / "etc/ufw/ufw.conf"
            conf.write_text(conf.read_text().replace("no", "yes"))
            self.start()
        if argv[0] == "ip":
            return Finished(0, "192.0.2.7 dev eth0 src 10.0.0.1 uid 0", "")
        return Finished(0, "", "")

    def firewall(self, wanted=None, connection=None):
        return ufw.Ufw(Host(self, lambda program: program, self.root), wanted or policy(), connection)

    def apply(self, wanted=None, connection=None):
        one = self.firewall(wanted, connection)
        return one.apply(one.plan())


def closed(root, **options):
    options = {"rules": block(22), "rules6": block(22, 6), **options}
    return Machine(root, active=True, **options)


def test_a_firewall_that_was_off_starts_with_ssh_open_and_nothing_else(tmp_path):
    machine = Machine(tmp_path)
    seen = []
    start = machine.start
    machine.start = lambda: (seen.append(machine.text("etc/ufw/user.rules")), start())
    there = Connection("192.0.2.7 50000 10.0.0.1 2222")
    machine.apply(policy([{"port": "ssh"}, {"port": 443}], there), there)
    assert machine.calls == ["ufw --force enable", "iptables-restore --noflush", "ip6tables-restore --noflush"]
    fallback = block(2222, comment="clawops.fleet: SSH until the policy is confirmed")
    assert seen == [RULES.format(prefix="ufw", blocks=fallback)]
    assert list(ufw.permissions(machine.text("etc/ufw/user.rules"))) == [
        ufw.Rule("tcp", "2222", "0.0.0.0/0"), ufw.Rule("tcp", "443", "0.0.0.0/0")]
    assert not machine.firewall(policy([{"port": 2222}, {"port": 443}])).plan().changed


def test_the_file_as_the_package_brings_it(tmp_path):
    machine = Machine(tmp_path)
    for path in ("etc/ufw/user.rules", "etc/ufw/user6.rules"):
        (tmp_path / path).write_text(PRISTINE)
    machine.apply()
    assert f"### RULES ###\n{block(22)}-A ufw-user-limit-accept" in machine.text("etc/ufw/user.rules")
    (tmp_path / "etc/ufw/user.rules").write_text("*filter\nCOMMIT\n")
    with pytest.raises(FleetError, match="no section for rules"):
        machine.apply(policy([{"port": 80}]))


def test_nothing_to_do(tmp_path):
    machine = closed(tmp_path)
    assert not machine.firewall().plan().changed
    assert machine.calls == []


def test_blocks_read_as_ufw_writes_them():
    assert block("8000:8010", 6, "2001:db8::/32", "x", "eth+") == (
        "\n### tuple ### allow tcp 8000:8010 ::/0 any 2001:db8::/32 in_eth+ comment=78\n"
        "-A ufw6-user-input -i eth+ -p tcp -m multiport --dports 8000:8010 -s 2001:db8::/32 -j ACCEPT\n")


def test_only_single_addresses_are_written_without_a_length(tmp_path):
    machine = closed(tmp_path)
    wanted = policy([*SSH, {"port": 80, "sources": ["192.0.2.1", "10.0.0.0/8", "2001:db8::1", "2001:db8::/32"]}])
    machine.apply(wanted)
    assert re.findall(" -s (.*) -j", machine.live["iptables"] + machine.live["ip6tables"]) == [
        "10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "2001:db8::1"]
    machine.live["ip6tables"] = machine.live["ip6tables"].replace("2001:db8::1 ", "2001:db8::1/128 ")
    assert not machine.firewall(wanted).plan().changed


def test_a_rule_of_somebody_else_that_permits_the_same_stays_theirs(tmp_path):
    machine = closed(tmp_path, rules=block(22, comment="office"), rules6=block(22, 6, comment="office"))
    before = machine.text("etc/ufw/user.rules")
    assert not machine.firewall().plan().changed
    machine.apply(policy([{"port": 80}]))
    assert before.splitlines()[4:6] == machine.text("etc/ufw/user.rules").splitlines()[4:6]


def test_rules_that_are_no_longer_listed_go_in_the_transaction_that_brings_the_new_ones(tmp_path):
    machine = closed(tmp_path, rules=block(22) + block(2222, source="10.0.0.5"))
    one = machine.firewall(policy([*SSH, {"port": 22, "sources": ["10.0.0.5"], "interface": "eth1"}]))
    plan = one.plan()
    assert {change.subject: change.action for change in plan.changes} == {
        "allow tcp 22 from 10.0.0.5 on eth1": "create", "allow tcp 2222 from 10.0.0.5": "delete"}
    one.apply(plan)
    assert machine.calls == ["iptables-restore --noflush", "ip6tables-restore --noflush"]
    assert ufw.in_force(machine.live["iptables"], 4) == [
        "--dport 22 -i eth1 -p tcp -s 10.0.0.5", "--dport 22 -p tcp"]
    assert not machine.firewall(one.policy).plan().changed


def test_a_running_firewall_that_was_open_is_closed_but_for_ssh_before_the_rest(tmp_path):
    machine = closed(tmp_path, incoming="ACCEPT")
    machine.apply(policy([*SSH, {"port": 443}]))
    assert machine.calls == 2 * ["iptables-restore --noflush", "ip6tables-restore --noflush"]
    assert ":INPUT DROP" in machine.live["ip6tables"]
    assert 'DEFAULT_INPUT_POLICY="DROP"' in machine.text("etc/default/ufw")


def test_policies_are_set_as_ufw_sets_them():
    assert ufw.live_policy(6, "incoming", "ACCEPT") == [
        ":INPUT ACCEPT [0:0]", "-F ufw6-reject-input", "-F ufw6-track-input",
        "-A ufw6-track-input -p tcp -m conntrack --ctstate NEW -j ACCEPT",
        "-A ufw6-track-input -p udp -m conntrack --ctstate NEW -j ACCEPT",
        "-F ufw6-skip-to-policy-input", "-A ufw6-skip-to-policy-input -j ACCEPT"]
    assert ufw.live_policy(4, "routed", "REJECT")[:2] == [":FORWARD DROP [0:0]", "-F ufw-reject-forward"]
    assert "-A ufw-reject-forward -j REJECT" in ufw.live_policy(4, "routed", "REJECT")


@pytest.mark.parametrize(("live", "subject"), [
    (f":INPUT DROP [0:0]\n{jumps()}", "permissions in force (IPv4)"),
    (f":INPUT ACCEPT [0:0]\n{jumps()}-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT\n",
     "default incoming in force (IPv4)"),
    (f":INPUT DROP [0:0]\n{jumps()}-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT\n"
     "-A ufw-user-input -s 10.0.0.5/32 -p tcp -m tcp --dport 23 -j ACCEPT\n", "permissions in force (IPv4)"),
])
def test_what_somebody_did_to_the_kernel_is_reported_and_mended(tmp_path, live, subject):
    machine = closed(tmp_path, live={"iptables": f":ufw-user-input - [0:0]\n{live}"})
    one = machine.firewall()
    plan = one.plan()
    assert [change.subject for change in plan.changes] == [subject]
    one.apply(plan)
    assert not machine.firewall().plan().changed


@pytest.mark.parametrize("left", ["", "-A INPUT -j ufw-after-input\n-A INPUT -j ufw-before-input\n"])
def test_an_input_chain_that_does_not_lead_to_ufw_is_reported_and_mended(tmp_path, left):
    others = "".join(line for line in jumps().splitlines(keepends=True) if " INPUT " not in line)
    machine = closed(tmp_path, live={"iptables": f":ufw-user-input - [0:0]\n:INPUT DROP [0:0]\n{left}{others}"
                                                 "-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT\n"})
    one = machine.firewall()
    plan = one.plan()
    assert [change.subject for change in plan.changes] == ["INPUT -> UFW (IPv4)"]
    one.apply(plan)
    assert not machine.firewall().plan().changed


def test_ipv6_can_not_be_switched_on_under_way(tmp_path):
    machine = closed(tmp_path)
    defaults = tmp_path / "etc/default/ufw"
    defaults.write_text(defaults.read_text().replace("IPV6=yes", "IPV6=no"))
    with pytest.raises(FleetError, match="IPV6"):
        machine.firewall().plan()


def test_without_ufw_the_plan_is_incomplete(tmp_path):
    one = ufw.Ufw(Host(Machine(tmp_path), lambda program: None, tmp_path), policy())
    assert not one.plan().complete


def test_foreign_lines_are_not_read_as_permissions():
    foreign = ["deny tcp 22 0.0.0.0/0 any 0.0.0.0/0 in", "route:allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in",
               "route:allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in_eth0!out_eth1",
               "allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 out", "allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 OpenSSH - in",
               "allow tcp 22 192.0.2.1 any 0.0.0.0/0 in",
               "allow tcp 22 0.0.0.0/0 99 0.0.0.0/0 in", "allow_log tcp 22 0.0.0.0/0 any 0.0.0.0/0 in"]
    assert ufw.permissions("".join(f"### tuple ### {line}\n" for line in foreign)) == {}


# -- Ansible is not locked out ----------------------------------------------------------------------------------------

def test_the_word_ssh_is_the_port_of_the_connection():
    assert policy([{"port": "ssh"}], Connection("::1 1 ::1 2222")).allow[0].port == "2222"
    assert policy([{"port": "ssh"}]).allow[0].port == "22"


@pytest.mark.parametrize(("connection", "allow", "others"), [
    ("192.0.2.7 5 10.0.0.1 2222", SSH, ""),
    ("192.0.2.7 5 10.0.0.1 22", [{"port": 22, "sources": ["192.0.2.0/30", "2001:db8::/32"]}], ""),
    ("2001:db8:1::7 5 2001:db8::1 22", [{"port": 22, "sources": ["192.0.2.0/24"]}], ""),
    ("192.0.2.7 5 10.0.0.1 22", [{"port": 22, "interface": "eth1"}], ""),
    ("192.0.2.7 5 10.0.0.1 22", [{"port": 22, "protocol": "udp"}], ""),
    ("192.0.2.7 5 10.0.0.1 22", SSH, "deny any any 0.0.0.0/0 any 192.0.2.0/24 in"),
])
def test_a_policy_that_would_close_ssh_for_ansible_is_refused(tmp_path, connection, allow, others):
    foreign = f"\n### tuple ### {others}\n-A ufw-user-input -s 192.0.2.0/24 -j DROP\n" if others else ""
    machine = Machine(tmp_path, active=True, rules=foreign)
    with pytest.raises(FleetError, match="policy would close port"):
        machine.firewall(policy(allow), Connection(connection)).plan()
    assert machine.calls in ([], ["ip -o route get 192.0.2.7"])


@pytest.mark.parametrize(("connection", "allow", "verdicts"), [
    ("192.0.2.7 5 10.0.0.1 22", SSH, {}),
    ("::ffff:192.0.2.7 5 ::ffff:10.0.0.1 22", [{"port": "1-30", "sources": ["192.0.2.0/24"]}], {}),
    ("fe80::1%eth0 5 fe80::2%eth0 22", [{"port": 22, "interface": "eth0"}], {}),
    ("192.0.2.7 5 10.0.0.1 22", [{"port": 22, "interface": "eth+"}], {}),
    ("192.0.2.7 5 10.0.0.1 22", [], {"incoming": "allow"}),
    ("127.0.0.1 5 127.0.0.1 22", [], {}),
])
def test_a_policy_that_lets_ansible_in_is_not_refused(tmp_path, connection, allow, verdicts):
    machine = closed(tmp_path, rules="", rules6="")
    assert machine.firewall(policy(allow, **verdicts), Connection(connection)).plan().complete
