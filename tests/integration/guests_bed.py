# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A VM host of the test bed, and guests on it without any system in them."""

from __future__ import annotations

import os
import pathlib
import subprocess
import xml.etree.ElementTree as ET

import yaml
from bed import dockerhost, net, vmhost
from managed import Managed

HOST = vmhost.DEFAULT[0]
EMPTY, BIGGER = "/srv/guests/empty.qcow2", "/srv/guests/bigger.qcow2"
STATE, IMAGES = "/var/lib/clawops/vms", "/var/lib/clawops/images"
FIXED, GATEWAY = "192.168.213.9/24", "192.168.213.1"
SECRET = "planted-6d1f0c7e5a"
QUIET = {"memory": "64Mi", "cpus": 1, "disk": "64Mi", "state": "stopped", "restart": False, "networks": [{}],
         "image": {"path": EMPTY}, "wait": {"until": "none"}}
PLAY = [{"hosts": "all", "become": True, "roles": ["clawops.fleet.vm_host"]}]


class Oak(Managed):
    """A VM host. Without KVM a guest may boot for minutes."""

    seconds = 1800

    def fleet(self, *vms, check=False, **options):
        result = self.start("vm_fleet", self.wanted(*vms, _ansible_check_mode=check, **options))
        assert not result.get("killed")
        return result

    @staticmethod
    def wanted(*vms, **options):
        return {"fleet": "faults", "share_paths": ["/srv/shared"], "timeout": 2, "purge_data": True,
                "vms": [{**QUIET, "name": "fault-a", **vm} for vm in vms], **options}

    def made(self, *vms, **options):
        """The changes; check mode foretells them, and afterwards there are none."""
        foretold = actions(self.fleet(*vms, check=True, **options))
        made = actions(self.fleet(*vms, **options))
        assert foretold == made
        self.settled(*vms, **options)
        return made

    def settled(self, *vms, **options):
        for check in (False, True):
            assert actions(self.fleet(*vms, check=check, **options)) == []

    def xml(self, name="fault-a", live=False):
        return ET.fromstring(self.inside(f"virsh dumpxml {name} {'' if live else '--inactive'}"))  # noqa: S314

    def files(self, name="fault-a"):
        return sorted(self.inside(f"ls -A {STATE}/{name} 2>/dev/null", check=False).split())

    def clear(self):
        """Guests of these tests, and what others made for them."""
        names = [f"fault-{letter}" for letter in "abcdef"]
        self.inside("for name in fault-x fault-y; do virsh destroy $name; virsh undefine $name; done; "
                    f"rm -rf {STATE}/fault-x /srv/shared/out", check=False)
        failed = self.fleet(*({"name": name, "state": "absent"} for name in names)).get("failed")
        assert not failed


def actions(result):
    assert not result.get("failed"), result
    return [f"{one['action']} {one['subject']}" for one in result["actions"]]


def prepared(folder: pathlib.Path) -> Oak:
    """The host, with libvirt as the role leaves it, and nothing of earlier tests."""
    Managed.bed("up", f"vmhost:{HOST}", "cloudimage")
    keys = dockerhost.ssh_folder()
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {HOST: {
        "ansible_host": net.v4(HOST), "ansible_user": "root", "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_private_key_file": str(keys / "id_ed25519"),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={keys / 'known_hosts'} -o StrictHostKeyChecking=yes"}}}}))
    (folder / "play.yml").write_text(yaml.safe_dump(PLAY))
    done = subprocess.run(["ansible-playbook", "-i", folder / "hosts.yml", folder / "play.yml"], capture_output=True,
                          text=True, check=False, stdin=subprocess.DEVNULL, timeout=900,
                          env={**os.environ, "ANSIBLE_NOCOLOR": "1"})
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    host = Oak(HOST)
    host.install()
    host.inside(f"mkdir -p /srv/guests /srv/shared/files; qemu-img create -q -f qcow2 {EMPTY} 64M; "
                f"qemu-img create -q -f qcow2 {BIGGER} 1G")
    host.clear()
    return host
