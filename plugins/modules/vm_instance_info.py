#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_instance_info
short_description: What guests a VM host has
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Returns the guests of a VM host with their effective descriptions, those without a domain, too, whose disks were
    kept.
extends_documentation_fragment:
  - clawops.fleet.attributes.info
  - clawops.fleet.vm
options:
  fleet:
    description: Only guests of this fleet.
    type: str
  names:
    description: Only guests of these names.
    type: list
    elements: str
seealso:
  - module: clawops.fleet.vm_fleet
"""

EXAMPLES = r"""
- name: What is on this host
  clawops.fleet.vm_instance_info:
  register: found

- name: Where a guest is reached
  ansible.builtin.debug:
    msg: "{{ found.vms | selectattr('name', 'equalto', 'zap') | map(attribute='address') | first }}"
"""

RETURN = r"""
vms:
  description: The guests.
  returned: success
  type: list
  elements: dict
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
    fleet:
      description: The fleet that it belongs to.
      type: str
      sample: home
    spec:
      description: The effective description that was applied last, without secrets. Sizes are bytes. Null where it is
        not known.
      type: dict
      sample: {name: zap, memory: 2147483648, cpus: 2, firmware: bios}
    problem:
      description: Why nothing more is known of it, and its state is V(unknown). Null in general.
      type: str
      sample: null
host:
  description: What the host has. It is empty where there is no libvirt.
  returned: success
  type: dict
  sample: {kvm: true, libvirt: 11003000}
failure:
  description: What went wrong.
  returned: failure
  type: dict
  sample: {code: libvirt_unreachable, message: "...", hint: "...", details: {}}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._libvirt.arguments import COMMON, inform


def main() -> None:
    module = AnsibleModule(
        argument_spec={"fleet": {"type": "str"}, "names": {"type": "list", "elements": "str"}, **COMMON},
        supports_check_mode=True,
    )
    inform(module)


if __name__ == "__main__":
    main()
