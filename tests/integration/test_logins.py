# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who may log in to a host, and who tried too often."""

from __future__ import annotations

import json
import re
import subprocess
import time

import pytest
from bed import net
from managed import Managed

pytestmark = pytest.mark.full
HOST = "alder"
ADDRESS = net.v4(HOST)
# A command's way onto the network from another machine.
STRANGER = "ip", "netns", "exec", net.namespace("outside")
OWN = "/etc/fail2ban/jail.d/own.local"


class Logins(Managed):
    """The host's role by itself, and strangers who knock."""

    def __init__(self, box, folder):
        super().__init__(HOST)
        self.env, self.playbook = box.env, folder / "logins.yml"
        role = {"name": "Its firewall", "ansible.builtin.import_role": {"name": "clawops.fleet.host_firewall"}}
        play = {"name": "Logins", "hosts": HOST, "become": True, "tasks": [role]}
        self.playbook.write_text(json.dumps([play]))

    def apply(self, **variables):
        return subprocess.run(["ansible-playbook", self.playbook, "--extra-vars", json.dumps(variables)], env=self.env,
                              capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    def changed(self, **variables):
        done = self.apply(**variables)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return int(re.search(r"changed=(\d+)", done.stdout)[1])

    def knock(self, *place):
        """A login that fails, from a place on the network; what ssh says."""
        known = ["-Fnone", "-oBatchMode=yes", "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null"]
        return subprocess.run([*place, "ssh", *known, "-oIdentityFile=none", "-oConnectTimeout=3",
                               f"nobody-knows@{ADDRESS}"], capture_output=True, text=True, check=False).stderr

    def served(self, *place):
        return "Permission denied" in self.knock(*place)


@pytest.fixture
def logins(box, tmp_path):
    host = Logins(box, tmp_path)
    try:
        yield host
    finally:
        host.inside(f"rm -f {OWN}")
        assert host.apply().returncode == 0


def test_who_fails_to_log_in_is_banned_but_for_the_controller(logins):
    wanted = {"host_firewall_fail2ban": True, "host_firewall_fail2ban_max_retry": 3, "host_firewall_sshd": True}
    assert logins.changed(**wanted) > 0
    assert logins.changed(**wanted) == 0
    assert "(publickey)" in logins.knock()
    deadline = time.monotonic() + 60
    while logins.served(*STRANGER):
        assert time.monotonic() < deadline, logins.inside("fail2ban-client status sshd")
    assert all(logins.served() for _time in range(4))
    logins.changed()
    assert logins.served(*STRANGER)
    assert "inactive" in logins.inside("systemctl is-active fail2ban", check=False)


def test_settings_that_something_overrides_are_refused_and_loaded_when_it_is_gone(logins):
    main = "/etc/ssh/sshd_config"
    logins.inside(f"cp -a {main} {main}.own; sed -i '1i PasswordAuthentication yes' {main}; systemctl reload ssh")
    try:
        assert "password" in logins.knock()
        refused = logins.apply(host_firewall_sshd=True)
        assert refused.returncode == 2 and "would still take passwords" in refused.stdout
    finally:
        logins.inside(f"mv {main}.own {main}")
    assert logins.changed(host_firewall_sshd=True) > 0
    assert "(publickey)" in logins.knock()


def test_a_jail_that_would_not_load_is_refused_and_a_later_one_is_loaded(logins):
    assert logins.changed(host_firewall_fail2ban=True) > 0
    logins.inside(f"printf '[own]\\nenabled = true\\nfilter = not-there\\n' >{OWN}")
    refused = logins.apply(host_firewall_fail2ban=True, host_firewall_fail2ban_max_retry=9)
    assert refused.returncode == 2 and "not-there" in refused.stdout
    assert logins.inside("fail2ban-client get sshd maxretry").strip() == "5"
    logins.inside(f"rm {OWN}")
    assert logins.changed(host_firewall_fail2ban=True, host_firewall_fail2ban_max_retry=9) > 0
    assert logins.inside("fail2ban-client get sshd maxretry").strip() == "9"
