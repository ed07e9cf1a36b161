# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's own firewall against UFW's files."""

from __future__ import annotations

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._firewall import ufw
from ansible_collections.clawops.fleet.plugins.module_utils._firewall.host import Host
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished

DEFAULTS = """\
IPV6=yes
DEFAULT_INPUT_POLICY="{incoming}"
DEFAULT_OUTPUT_POLICY="ACCEPT"
DEFAULT_FORWARD_POLICY="DROP"
"""
SSH = [{"port": 22, "comment": "SSH"}]


def policy(allow=None):
    return ufw.parse_policy({"allow": SSH if allow is None else allow,
                             "incoming": "deny", "outgoing": "allow", "routed": "deny"})


def line(port, source, comment):
    return f"\n### tuple ### allow tcp {port} 0.0.0.0/0 any {source} in comment={comment.encode().hex()}\n-A x\n"


class Machine:
    """UFW's files below a directory, and its commands recorded."""

    def __init__(self, root, active=False, incoming="DROP", rules="", rules6=""):
        self.root, self.active = root, active
        self.calls: list[str] = []
        for path, text in {"etc/default/ufw": DEFAULTS.format(incoming=incoming),
                           "etc/ufw/ufw.conf": f"ENABLED={'yes' if active else 'no'}\n",
                           "etc/ufw/user.rules": rules, "etc/ufw/user6.rules": rules6}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)

    def __call__(self, argv, stdin=None, env=None, timeout=None):
        if argv[:2] == ["iptables", "-S"]:
            return Finished(0 if self.active else 1, "", "")
        self.calls.append(" ".join(argv) + (f" <<< {stdin}" if stdin else ""))
        return Finished(0, "", "")

    def firewall(self, wanted=None):
        return ufw.Ufw(Host(self, lambda program: program, self.root), wanted or policy())


def test_ssh_is_permitted_before_the_firewall_starts(tmp_path):
    machine = Machine(tmp_path)
    one = machine.firewall()
    one.apply(one.plan())
    assert machine.calls == ["ufw allow proto tcp from 0.0.0.0/0 to any port 22 comment clawops.fleet: SSH",
                             "ufw allow proto tcp from ::/0 to any port 22 comment clawops.fleet: SSH",
                             "ufw --force enable"]


def test_nothing_to_do(tmp_path):
    machine = Machine(tmp_path, active=True, rules=line(22, "0.0.0.0/0", "clawops.fleet: SSH"),
                      rules6=line(22, "::/0", "clawops.fleet: SSH").replace("0.0.0.0/0", "::/0"))
    assert not machine.firewall().plan().changed


def test_a_rule_of_somebody_else_that_permits_the_same_stays_theirs(tmp_path):
    plain = "\n### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\n"
    machine = Machine(tmp_path, active=True, rules=plain, rules6=plain.replace("0.0.0.0/0", "::/0"))
    assert not machine.firewall().plan().changed
    assert not machine.firewall(policy([])).plan().changed


def test_a_rule_of_ours_that_is_no_longer_listed_goes_after_the_new_ones_came(tmp_path):
    machine = Machine(tmp_path, active=True, rules=line(2222, "10.0.0.5", "clawops.fleet"))
    one = machine.firewall(policy([{"port": 22, "sources": ["10.0.0.5"]}]))
    one.apply(one.plan())
    assert machine.calls == ["ufw allow proto tcp from 10.0.0.5 to any port 22 comment clawops.fleet",
                             "ufw delete allow proto tcp from 10.0.0.5 to any port 2222"]


def test_a_running_firewall_gets_its_default_in_one_transaction(tmp_path):
    machine = Machine(tmp_path, active=True, incoming="ACCEPT")
    one = machine.firewall(policy([]))
    one.apply(one.plan())
    programs = [call.split(" <<<")[0] for call in machine.calls]
    assert programs == ["iptables-restore --noflush", "ip6tables-restore --noflush"]
    assert ":INPUT DROP [0:0]\n-F ufw6-reject-input\n-F ufw6-track-input\n" in machine.calls[1]
    assert 'DEFAULT_INPUT_POLICY="DROP"' in (tmp_path / "etc/default/ufw").read_text()
    assert not machine.firewall(policy([])).plan().changed


def test_ipv6_can_not_be_switched_on_under_way(tmp_path):
    machine = Machine(tmp_path, active=True)
    defaults = tmp_path / "etc/default/ufw"
    defaults.write_text(defaults.read_text().replace("IPV6=yes", "IPV6=no"))
    with pytest.raises(FleetError, match="IPV6"):
        machine.firewall().plan()


def test_without_ufw_the_plan_is_incomplete(tmp_path):
    one = ufw.Ufw(Host(Machine(tmp_path), lambda program: None, tmp_path), policy())
    assert not one.plan().complete


def test_foreign_lines_are_not_read_as_permissions():
    foreign = ["deny tcp 22 0.0.0.0/0 any 0.0.0.0/0 in", "allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in_eth0",
               "route:allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in", "allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 OpenSSH - in",
               "allow tcp 22 192.0.2.1 any 0.0.0.0/0 in", "allow tcp 22 0.0.0.0/0 99 0.0.0.0/0 in"]
    assert ufw.parse_rules("".join(f"### tuple ### {line}\n" for line in foreign)) == {}
