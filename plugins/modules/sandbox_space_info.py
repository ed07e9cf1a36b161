#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_space_info
short_description: What spaces a Docker host has, and what it offers
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Returns the spaces of a host with their effective descriptions, and the capabilities of the host.
extends_documentation_fragment:
  - clawops.fleet.attributes.info
  - clawops.fleet.space
options:
  fleet:
    description: Only spaces of this fleet.
    type: str
  names:
    description: Only spaces of these names.
    type: list
    elements: str
seealso:
  - module: clawops.fleet.sandbox_fleet
"""

EXAMPLES = r"""
- name: What is on this host
  clawops.fleet.sandbox_space_info:
  register: found

- name: The effective description of a space
  ansible.builtin.debug:
    msg: "{{ found.spaces | selectattr('name', 'equalto', 'scratch') | map(attribute='spec') | first }}"
"""

RETURN = r"""
spaces:
  description: The spaces.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the space.
      type: str
      sample: scratch
    state:
      description: V(created), V(started), V(paused), V(stopped), V(absent), or V(dead) where the engine gave it up.
      type: str
      sample: started
    asleep:
      description: Whether it is paused or stopped because it was idle.
      type: bool
      sample: false
    container:
      description: Name of its container.
      type: str
      sample: clawdspace-scratch
    id:
      description: Id of its container, null where there is none.
      type: str
      sample: 3f4e8d1a9b0c
    image:
      description: Image of its container.
      type: str
      sample: clawops-sandbox:latest
    volume:
      description: Name of its volume, null where there is none.
      type: str
      sample: clawdspace-vol-scratch
    network:
      description: Name of its network, null where there is none.
      type: str
      sample: clawdspace-scratch
    bridge:
      description: The bridge of its network.
      type: str
      sample: cs-0a1b2c3d
    address:
      description: Its address on the bridge while it runs.
      type: str
      sample: 172.20.0.2
    fleet:
      description: The fleet that it belongs to.
      type: str
      sample: home
    spec:
      description: The effective description that was applied last, without secrets. Sizes are bytes. Null where it is
        not known.
      type: dict
      sample: {name: scratch, template: default, memory: 2147483648, cpus: 1.0, network: internet}
volumes:
  description: Names of the spaces that have a volume here, those that are absent otherwise, too.
  returned: success
  type: list
  elements: str
  sample: [scratch]
host:
  description: What the host has, and how much of it is free.
  returned: success
  type: dict
  sample: {arch: x86_64, cpus: 8, memory: 33554432000, free: {cpus: 5.0, memory: 17179869184}, spaces: 3}
failure:
  description: What went wrong.
  returned: failure
  type: dict
  sample: {code: engine_unreachable, message: "...", hint: "...", details: {}}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._docker.arguments import COMMON, inform


def main() -> None:
    module = AnsibleModule(
        argument_spec={"fleet": {"type": "str"}, "names": {"type": "list", "elements": "str"}, **COMMON},
        supports_check_mode=True,
    )
    inform(module)


if __name__ == "__main__":
    main()
