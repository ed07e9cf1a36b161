#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_fleet
short_description: All guests of a VM host
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Brings all guests of a host to what the list says, as M(clawops.fleet.vm_instance) does with one.
  - Nothing is written when one of the guests can't be what it is to be. Where one fails later, the others go on, and
    the task fails with a table.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.vm
  - clawops.fleet.vm.fleet
  - clawops.fleet.vm.vms
options:
  only:
    description: Touch only the guests of these names.
    type: list
    elements: str
  prune:
    description: Remove guests of this fleet that are on the host and not in the list, but none beside O(only).
    type: bool
    default: false
  parallel:
    description: How many guests are worked on at a time.
    type: int
    default: 4
  boots:
    description: How many of these may boot at a time.
    type: int
    default: 2
seealso:
  - module: clawops.fleet.vm_instance
  - module: clawops.fleet.vm_instance_info
"""

EXAMPLES = r"""
- name: The guests of this host
  clawops.fleet.vm_fleet:
    fleet: home
    share_paths: [/srv/shared]
    vms:
      - name: zap
        image:
          url: https://images.example.org/debian-13-genericcloud-amd64.qcow2
          sha256: "{{ debian_image_sha256 }}"
        memory: 4Gi
        cpus: 4
        firmware: uefi
        disks:
          - name: data
            size: 50Gi
        shares:
          - path: /srv/shared/zap
        user:
          authorized_keys: ["{{ lookup('ansible.builtin.file', '~/.ssh/id_ed25519.pub') }}"]
      - name: old
        state: absent
"""

RETURN = r"""
vms:
  description: The guests as they are, removed ones too.
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
  description: Whether something is pending at any of the guests.
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
  description: What went wrong. With several guests C(details.vms) has a result for each.
  returned: failure
  type: dict
  sample: {code: cloud_init_failed, message: "...", hint: "...", details: {}}
"""

from ..module_utils._libvirt.arguments import COMMON, FLEET, VM, manage
from ..module_utils._module import DiscreetModule


def main() -> None:
    module = DiscreetModule(
        argument_spec={
            "vms": {"type": "list", "elements": "dict", "required": True, "options": VM},
            "only": {"type": "list", "elements": "str"},
            "prune": {"type": "bool", "default": False},
            "parallel": {"type": "int", "default": 4},
            "boots": {"type": "int", "default": 2},
            **FLEET,
            **COMMON,
        },
        supports_check_mode=True,
    )
    manage(module, module.params["vms"])


if __name__ == "__main__":
    main()
