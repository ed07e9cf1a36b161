#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_host
short_description: What a host of KVM guests offers them
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Brings networks and storage pools of libvirt to what the lists say, active and started with the host. Says whether
    guests can use KVM, and if not, why.
  - A network or pool that is there and was not made by this module is refused. What the lists don't name stays as it
    is.
  - A network that running guests are plugged in is defined anew and goes on as it is, because they would lose it.
    RV(restart_required) says so; the next run without such guests starts it anew.
  - It runs on the host itself, as root. The role C(vm_host) installs what it needs.
requirements:
  - python3-libvirt >= 9.0 and iproute2 on the host
extends_documentation_fragment:
  - clawops.fleet.attributes
options:
  networks:
    description: Networks, in which libvirt serves DHCP and DNS.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name in libvirt.
        type: str
        required: true
      bridge:
        description:
          - Name of its bridge, 15 characters at most.
          - The guard of M(clawops.fleet.network_guard) covers those that begin with C(virbr).
        type: str
        required: true
      address:
        description:
          - The host's own address in the network with the prefix length, such as V(192.168.213.1/24).
          - The network must not meet one that the host has a route to.
        type: str
        required: true
      dhcp_first:
        description:
          - First address that DHCP gives out.
          - The default is the first one of the network's upper half. The lower half is left for fixed addresses.
        type: str
      dhcp_last:
        description: Last address that DHCP gives out. The default is the network's last but one.
        type: str
      forward:
        description: Whether guests get out by the host's addresses (V(nat)) or not at all (V(isolated)).
        type: str
        choices: [nat, isolated]
        default: nat
      domain:
        description: DNS domain in which guests find each other by name. None by default.
        type: str
  pools:
    description: Storage pools that are directories.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name in libvirt.
        type: str
        required: true
      path:
        description: The directory, which has to be there.
        type: str
        required: true
  libvirt_uri:
    description: Where libvirt is.
    type: str
    default: qemu:///system
seealso:
  - module: clawops.fleet.network_guard
"""

EXAMPLES = r"""
- name: A network for guests
  clawops.fleet.vm_host:
    networks:
      - name: clawops
        bridge: virbr-clawops
        address: 192.168.213.1/24
    pools:
      - name: clawops
        path: /var/lib/clawops/images
"""

RETURN = r"""
networks:
  description: The networks of the list as they are.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
      sample: clawops
    bridge:
      description: Its bridge.
      type: str
      sample: virbr-clawops
    address:
      description: The host's own address in it.
      type: str
      sample: 192.168.213.1/24
    subnet:
      description: The network.
      type: str
      sample: 192.168.213.0/24
    dhcp:
      description: The first and the last address that DHCP gives out.
      type: str
      sample: 192.168.213.128-192.168.213.254
    forward:
      description: V(nat) or V(isolated).
      type: str
    domain:
      description: The DNS domain, null where there is none.
      type: str
    active:
      description: Whether it is active.
      type: bool
    restart_required:
      description: Whether it still is what an earlier definition said, because running guests are plugged in.
      type: bool
    users:
      description: The running guests that are plugged in.
      type: list
      elements: str
pools:
  description: The pools of the list.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
    path:
      description: Its directory.
      type: str
restart_required:
  description: Whether one of the networks waits for its guests.
  returned: success
  type: bool
virtualization:
  description: What guests run on. Null in check mode where libvirt is not installed yet.
  returned: success
  type: dict
  contains:
    kvm:
      description: Whether they run on the host's processors.
      type: bool
    nested:
      description: Whether guests may have guests of their own.
      type: bool
    domain_type:
      description: libvirt's word for it, V(kvm) or V(qemu).
      type: str
    reason:
      description: Why there is no KVM, and what to do. Empty where there is.
      type: str
actions:
  description: What was changed, or would be changed in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: A network, a pool, or what of it.
      type: str
    action:
      description: V(create) or V(update).
      type: str
plan_complete:
  description: False in check mode if libvirt is not installed yet.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._errors import FleetError
from ..module_utils._libvirt.client import URI, Host
from ..module_utils._libvirt.hosting import Hosting, parse_pools
from ..module_utils._libvirt.networks import FORWARDS, parse_all
from ..module_utils._plan import run

NETWORK_OPTIONS = {
    "name": {"type": "str", "required": True},
    "bridge": {"type": "str", "required": True},
    "address": {"type": "str", "required": True},
    "dhcp_first": {"type": "str"},
    "dhcp_last": {"type": "str"},
    "forward": {"type": "str", "choices": list(FORWARDS), "default": "nat"},
    "domain": {"type": "str"},
}
POOL_OPTIONS = {"name": {"type": "str", "required": True}, "path": {"type": "str", "required": True}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "networks": {"type": "list", "elements": "dict", "default": [], "options": NETWORK_OPTIONS},
            "pools": {"type": "list", "elements": "dict", "default": [], "options": POOL_OPTIONS},
            "libvirt_uri": {"type": "str", "default": URI},
        },
        supports_check_mode=True,
    )
    try:
        networks, pools = parse_all(module.params["networks"]), parse_pools(module.params["pools"])
    except FleetError as error:
        module.fail_json(**error.result())
        return
    with Host(module.params["libvirt_uri"]) as host:
        hosting = Hosting(host, networks, pools, may_be_missing=module.check_mode)
        run(module, hosting.plan, hosting.apply, hosting.facts)


if __name__ == "__main__":
    main()
