# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A policy that shuts Ansible out goes back by itself, and nothing is open on the way."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from bed import dockerhost, net

pytestmark = pytest.mark.full
HOST = "alder"
ADDRESS, KEYS = net.v4(HOST), dockerhost.ssh_folder()
CLOSED = 7777
SSH, WEB, WRONG = {"port": "ssh", "comment": "SSH"}, {"port": 8443}, {"port": 22, "sources": ["192.0.2.1"]}
JUMP = (f"ssh -o UserKnownHostsFile={KEYS}/known_hosts -o StrictHostKeyChecking=yes -o ConnectTimeout=4 "
        f"-i {KEYS}/id_ed25519 -W %h:%p root@{ADDRESS}")
# Reached through itself, a host sees Ansible on loopback, and can't know what a policy means for the controller.
THROUGH_ITSELF = {"ansible_host": "127.0.0.1",
                  "ansible_ssh_extra_args": f'-o HostKeyAlias={ADDRESS} -o ProxyCommand="{JUMP}"'}


def argv(*allow, variables=None):
    arguments = {"allow": allow, "confirm_timeout": 15}
    return ["ansible", HOST, "-b", "-m", "clawops.fleet.ufw_host", "-a", json.dumps(arguments),
            "-e", json.dumps(variables or {})]


def apply(box, *allow, variables=None):
    done = subprocess.run(argv(*allow, variables=variables), env=box.env, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def on_host(*command):
    return subprocess.run(["docker", "exec", net.container(HOST), *command], capture_output=True, text=True,
                          check=False).stdout


def is_open(port):
    try:
        socket.create_connection((ADDRESS, port), timeout=0.3).close()
    except TimeoutError:
        return False
    except ConnectionRefusedError:  # by the host itself: the firewall let it through
        return True
    return True


@contextlib.contextmanager
def watched():
    """While the block runs, the closed port is closed all the time."""
    answers, done = [], threading.Event()

    def watch():
        while not done.is_set():
            answers.append(is_open(CLOSED))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    assert len(answers) > 5 and not any(answers)


@pytest.fixture
def calm(box):
    """The host lets SSH in, and nothing else; afterwards no trace of a trial is left."""
    apply(box, SSH)
    assert (is_open(22), is_open(CLOSED)) == (True, False)
    yield box
    apply(box, SSH)
    assert on_host("sh", "-c", "ls -d /run/clawops/firewall* /run/systemd/transient/clawops-firewall*; true") == ""


def test_a_policy_that_shuts_ansible_out_goes_back(calm):
    with watched():
        said = apply(calm, WRONG, variables=THROUGH_ITSELF)
    assert "the host took it back" in said
    assert is_open(22) and "192.0.2.1" not in on_host("iptables-save") + on_host("cat", "/etc/ufw/user.rules")


def test_a_policy_that_would_shut_ansible_out_is_refused(calm):
    for allow in (WRONG, {"port": 2222}, {"port": "ssh", "interface": "eth7"}):
        assert "this policy would close port 22" in apply(calm, allow)


def test_a_controller_that_dies_on_the_way_changes_nothing(calm):
    with watched():
        # All processes of the controller end with their namespace.
        run = ["unshare", "--pid", "--fork", "--kill-child", *argv(WRONG, variables=THROUGH_ITSELF)]
        controller = subprocess.Popen(run, env=calm.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _wait in range(100):
            if "192.0.2.1" in on_host("iptables-save"):
                break
            time.sleep(0.2)
        controller.kill()
        controller.wait()
        assert not is_open(22)
        time.sleep(18)
        assert is_open(22)
        assert "CHANGED" in apply(calm, SSH, WEB)
        assert "SUCCESS" in apply(calm, SSH, WEB)


def test_two_policies_at_once_end_as_one_of_them(calm):
    both = [subprocess.Popen(argv(SSH, {"port": port}), env=calm.env, stdout=subprocess.DEVNULL)
            for port in (8001, 8002)]
    assert [one.wait() for one in both] == [0, 0]
    assert on_host("iptables-save").count("--dport 800") == 1
