#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_instance
short_description: A KVM guest, from a cloud image
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Brings one guest of this VM host to what is said here. Its root disk begins as a cloud image, and cloud-init sets it
    up at its first boot, from a seed that is removed afterwards.
  - Its SSH host key is made before that and returned, so that nobody has to trust a first connection.
  - What differs is found by comparing what this module writes of a definition with what libvirt has. Devices that
    somebody else attached stay.
  - What can be changed while the guest runs is. What can't is written to its definition and waits for a restart, which
    is made with O(restart) only.
  - A domain of the same name that isn't this fleet's is an error, and stays untouched.
  - Without KVM guests are emulated, which is slow.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.vm
  - clawops.fleet.vm.fleet
  - clawops.fleet.vm.description
seealso:
  - module: clawops.fleet.vm_fleet
  - module: clawops.fleet.vm_instance_info
"""

EXAMPLES = r"""
- name: A guest with a fixed address
  clawops.fleet.vm_instance:
    fleet: home
    name: zap
    image:
      path: /srv/images/debian-13-genericcloud-amd64.qcow2
    networks:
      - address: 192.168.213.7/24
        gateway: 192.168.213.1
        nameservers: [192.168.213.1]
    user:
      authorized_keys: ["{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"]
  register: guest

- name: More memory, even if that takes a restart
  clawops.fleet.vm_instance:
    fleet: home
    name: zap
    image:
      path: /srv/images/debian-13-genericcloud-amd64.qcow2
    memory: 8Gi
    restart: true

- name: Remove a guest with its disks
  clawops.fleet.vm_instance:
    fleet: home
    name: zap
    state: absent
    purge_data: true
"""

RETURN = r"""
vm:
  description: The guest as it is.
  returned: success
  type: dict
  contains:
    name:
      description: Name of the guest.
      type: str
      sample: zap
    state:
      description: V(running), V(paused), V(stopped) or V(absent).
      type: str
      sample: running
    uuid:
      description: UUID of its domain, null where there is none.
      type: str
      sample: 6e1b0b3c-6f0a-5b7e-9d53-0d3a6f0f6c11
    address:
      description: The first of its addresses, null where none is known.
      type: str
      sample: 192.168.213.107
    addresses:
      description: Its fixed addresses, then those that it or its network tells of while it runs.
      type: list
      elements: str
      sample: [192.168.213.107]
    host_key:
      description: Its SSH host key, which was made before its first start. Null where the VM host has none.
      type: dict
      sample: {fingerprint: "SHA256:uNiVztksCsDhcc0u9e8BrrHXfU1rLuNN2BgcTwkbnX0", public: ssh-ed25519 AAAA...}
    disks:
      description: Its disks, the root disk first, with sizes in bytes. The target is null where none is attached.
      type: list
      elements: dict
      sample: [{name: root, path: /var/lib/clawops/vms/zap/root.qcow2, size: 10737418240, target: vda}]
    generation:
      description: Which installation it is.
      type: int
      sample: 1
    image:
      description: SHA-256 digest of the image that its root disk was made of.
      type: str
      sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    autostart:
      description: Whether it starts with its host.
      type: bool
      sample: true
    first_boot_over:
      description: Whether cloud-init is done with it, and its seed removed.
      type: bool
      sample: true
    changed:
      description: Whether this guest was changed.
      type: bool
      sample: true
    pending:
      description: What waits for a restart, because it can't be changed while the guest runs.
      type: list
      elements: str
      sample: ["memory: 2Gi -> 4Gi"]
    restart_required:
      description: Whether something is pending.
      type: bool
      sample: false
    actions:
      description: What was done to this guest, or would be in check mode.
      type: list
      elements: dict
      sample: [{subject: power of zap, action: start}]
restart_required:
  description: Whether something is pending.
  returned: success
  type: bool
  sample: false
plan_complete:
  description: Whether everything could be observed; false only in check mode, where libvirt isn't there yet.
  returned: success
  type: bool
  sample: true
actions:
  description: What was done, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: What it concerns.
      type: str
      sample: guest zap
    action:
      description: V(create), V(update), V(delete), V(fetch), V(start), V(stop), V(restart), V(pause), V(resume) or
        V(finish).
      type: str
      sample: create
failure:
  description: What went wrong.
  returned: failure
  type: dict
  sample: {code: cloud_init_failed, message: "...", hint: "...", details: {}}
"""

from ..module_utils._libvirt.arguments import COMMON, FLEET, VM, manage
from ..module_utils._module import DiscreetModule


def main() -> None:
    module = DiscreetModule(argument_spec={**VM, **FLEET, **COMMON}, supports_check_mode=True)
    vm = {name: module.params[name] for name in VM}
    manage(module, [vm], lambda values: {"vm": next(iter(values["vms"]), None),
                                         "restart_required": values["restart_required"]})


if __name__ == "__main__":
    main()
