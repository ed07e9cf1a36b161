# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A change of UFW on trial: who confirms it, who takes it back, who waits."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.clawops.fleet.plugins.action.ufw_host import ActionModule
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._firewall import confirm, ufw
from ansible_collections.clawops.fleet.plugins.module_utils._firewall.confirm import Confirmation, Connection
from test_firewall_ufw import Machine, block, policy

OLD, NEW = Connection("192.0.2.7 50000 10.0.0.1 22"), Connection("192.0.2.7 50001 10.0.0.1 22")
CALM = {"rules": block(22), "rules6": block(22, 6)}
WIDER = policy([{"port": 22, "comment": "SSH"}, {"port": 443}])


class Host(Machine):
    """With systemd: its transient units, and their scripts."""

    def __init__(self, root, **options):
        super().__init__(root, **{"active": True, **CALM, **options})
        (root / "run/systemd/system").mkdir(parents=True)
        (root / "run/systemd/transient").mkdir()
        self.script = ""

    @property
    def units(self):
        return sorted(path.name for path in (self.root / "run/systemd/transient").iterdir())

    def __call__(self, argv, stdin=None, env=None, timeout=None):
        done = super().__call__(argv, stdin, env, timeout)
        if argv[0] == "systemd-run":
            self.script = argv[-1]
            for kind in ("timer", "service"):
                (self.root / f"run/systemd/transient/{confirm.UNIT}.{kind}").touch()
        if argv[:2] == ["systemctl", "stop"]:
            self.forget()
        return done

    def forget(self):
        for path in (self.root / "run/systemd/transient").iterdir():
            path.unlink()

    def elapse(self):
        """What the timer's script does, with cat in place of what loads."""
        script = self.script.replace("/etc/", f"{self.root}/etc/").replace("/run/", f"{self.root}/run/")
        for tool in ("iptables-restore", "ip6tables-restore"):
            script = script.replace(f"| {tool} --noflush", f"> {self.root}/{tool}")
        done = subprocess.run(["sh", "-euc", script], check=True, capture_output=True, text=True)
        for tool in ("iptables", "ip6tables"):
            self.load(tool, (self.root / f"{tool}-restore").read_text())
        self.forget()
        return done.stdout

    def change(self, wanted=WIDER, connection=OLD):
        one = ufw.Ufw(self.host, wanted, connection, confirm_timeout=30)
        with confirm.turn(self.host, patience=0):
            return one.apply(one.plan())["trial"]

    @property
    def host(self):
        return self.firewall().host

    def confirm(self, trial, connection=NEW, new=True):
        one = Confirmation(self.host, trial, connection, new)
        return one.apply(one.plan())


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def ports(text):
    return [rule.port for rule in ufw.permissions(text)]


def test_a_change_is_in_force_but_not_in_the_files_until_it_is_confirmed(host):
    trial = host.change()
    armed = next(call for call in host.calls if call.startswith("systemd-run"))
    assert "--on-active=30s" in armed and "AccuracySec=1s" in armed
    assert host.calls.index(armed) < host.calls.index("iptables-restore --noflush")
    assert len(ufw.in_force(host.live["iptables"], 4)) == 2
    assert ports(host.text("etc/ufw/user.rules")) == ["22"]
    assert host.confirm(trial) == {"files": ["/etc/ufw/user.rules", "/etc/ufw/user6.rules"]}
    assert ports(host.text("etc/ufw/user6.rules")) == ["22", "443"]
    assert host.units == [] and not (host.root / "run/clawops/firewall-trial").exists()
    assert not host.firewall(WIDER).plan().changed


def test_a_change_that_nobody_confirms_goes_back(host):
    trial = host.change()
    assert "previous state" in host.elapse()
    assert ufw.in_force(host.live["iptables"], 4) == ["--dport 22 -p tcp"]
    assert not (host.root / "run/clawops").exists()
    assert not host.firewall().plan().changed
    with pytest.raises(FleetError, match="not confirmed in time"):
        host.confirm(trial)


def test_what_others_write_meanwhile_is_not_lost(host):
    trial = host.change()
    rules = host.root / "etc/ufw/user.rules"
    rules.write_text(ufw._inserted(rules.read_text(), block(80, comment="theirs"), first=False))
    with pytest.raises(FleetError, match="changed by somebody else"):
        host.confirm(trial)
    host.elapse()
    assert ufw.in_force(host.live["iptables"], 4) == ["--dport 22 -p tcp", "--dport 80 -p tcp"]


def test_a_script_that_comes_too_late_does_nothing(host):
    host.confirm(host.change())
    (host.root / "iptables-restore").write_text("untouched")
    (host.root / "ip6tables-restore").write_text("untouched")
    host.elapse()
    assert (host.root / "iptables-restore").read_text() == "untouched"


@pytest.mark.parametrize("options", [{"active": False}, {"incoming": "ACCEPT"}])
def test_an_open_state_never_comes_back(tmp_path, options):
    host = Host(tmp_path, **options)
    host.change(policy([{"port": 22, "sources": ["192.0.2.0/24"]}]))
    host.elapse()
    assert ":INPUT DROP" in host.live["iptables"] and ":INPUT DROP" in host.live["ip6tables"]
    assert "--dport 22 -p tcp" in ufw.in_force(host.live["iptables"], 4)
    assert 'DEFAULT_INPUT_POLICY="DROP"' in host.text("etc/default/ufw")


def test_only_a_new_connection_confirms(host):
    trial = host.change()
    for connection in (OLD, None):
        with pytest.raises(FleetError, match="proves nothing"):
            host.confirm(trial, connection)
    host.confirm(trial, OLD, new=False)


def test_another_change_is_not_confirmed(host):
    host.change()
    with pytest.raises(FleetError, match="took it back"):
        host.confirm("0123456789abcdef")


def test_whoever_comes_next_waits(host):
    trial = host.change()
    with pytest.raises(FleetError, match="on trial"), confirm.turn(host.host, patience=0, pause=0):
        raise AssertionError
    host.confirm(trial)
    assert host.change(policy()) != trial


def test_what_a_killed_run_left_goes(host):
    shutil.copytree(host.root / "etc", host.root / "run/clawops/firewall-trial")
    unfinished = host.root / "etc/ufw/.user.rules.abcd1234"
    unfinished.touch()
    host.confirm(host.change())
    assert not (host.root / "run/clawops/firewall-trial").exists() and not unfinished.exists()


def test_without_systemd_there_is_no_trial(tmp_path):
    machine = Machine(tmp_path, active=True, **CALM)
    one = ufw.Ufw(machine.firewall().host, WIDER, None, confirm_timeout=30)
    with pytest.raises(FleetError, match="confirm_timeout"):
        one.apply(one.plan())
    assert machine.calls == []


def test_the_script_has_nothing_that_systemd_would_expand():
    assert not set("$%") & set(confirm._revert_script())


# -- the connection ---------------------------------------------------------------------------------------------------

def test_the_connection_is_found_behind_sudo(tmp_path):
    login = b"A=1\0SSH_CONNECTION=fe80::1%eth0 5 fe80::2 22\0"
    for pid, parent, environ in ((30, 20, b"HOME=/root\0"), (20, 10, login), (10, 1, b"")):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/environ").write_bytes(environ)
        (tmp_path / f"proc/{pid}/status").write_text(f"Name:\tx\nPPid:\t{parent}\n")
    found = confirm.ssh_connection(confirm.Host(root=tmp_path), 30)
    assert (str(found.client), found.zone, found.port) == ("fe80::1", "eth0", 22)
    assert confirm.ssh_connection(confirm.Host(root=tmp_path), 10) is None
    assert confirm.ssh_connection(confirm.Host(root=tmp_path), 99) is None


# -- the controller's part --------------------------------------------------------------------------------------------

class Wire:
    """A connection that gets through after some attempts."""

    transport = "ssh"

    def __init__(self, failures=0):
        self.failures, self.resets = failures, 0

    def reset(self):
        self.resets += 1

    def get_option(self, name):
        raise KeyError(name)


@pytest.fixture
def action(monkeypatch):
    one = ActionModule.__new__(ActionModule)
    one._connection = Wire()
    one.answer = {"files": []}
    one.first = {"changed": True, "trial": "abc", "confirm_timeout": 0, "connection": {"port": 22}}

    def execute(module_name, module_args=None, task_vars=None):
        if module_name.endswith("ufw_host"):
            return dict(one.first)
        assert module_args == {"trial": "abc", "new_connection": True}
        if one._connection.resets <= one._connection.failures:
            raise AnsibleConnectionFailure("closed")
        return one.answer

    clock = [0.0]
    monkeypatch.setattr(one, "_execute_module", execute, raising=False)
    monkeypatch.setattr("ansible.plugins.action.ActionBase.run", lambda *args: {})
    monkeypatch.setattr("time.sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    return one


def test_a_change_is_confirmed_over_a_connection_that_was_reset(action):
    action._connection.failures = 2
    result = action.run()
    assert result["changed"] and "failed" not in result and action._connection.resets == 3
    assert json.dumps(result["connection"]) == '{"port": 22, "password": false}'


def test_no_change_needs_no_confirmation(action):
    action.first["trial"] = ""
    action.run()
    assert action._connection.resets == 0


def test_a_change_that_went_back_fails_and_says_why(action):
    action._connection.failures, action.first["confirm_timeout"] = 2, 30
    action.answer = {"failed": True, "msg": "not in time", "failure": {"code": "reverted"}}
    result = action.run()
    assert result["failed"] and result["failure"]["code"] == "reverted" and "met: closed" in result["msg"]


def test_a_host_that_is_gone_fails_in_the_end(action):
    action._connection.failures = 1000
    assert "can't be reached" in action.run()["msg"]
