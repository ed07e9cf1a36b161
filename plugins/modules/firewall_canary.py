#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_canary
short_description: Listeners on a host for M(clawops.fleet.firewall_probe)
version_added: 0.1.0
description:
  - A port where nobody listens answers nobody, with or without a firewall. This module listens for a while, so that a
    closed port is the firewall's doing.
  - A transient systemd unit, C(clawops-canary.service), listens as a program of the host. A container,
    C(clawops-canary), publishes its ports on all addresses of both IP families.
  - Both listen over TCP and UDP, hold no data, run without privileges, and end after O(lifetime) even if nobody ends
    them. The container is made of the host's own C(/usr), read-only; no registry is needed.
options:
  state:
    description: V(absent) ends the listeners and removes the image.
    type: str
    choices: [present, absent]
    default: present
  host_port:
    description: Where the program of the host listens. Without it, or with V(0), there is none.
    type: int
  host_allow:
    description: >-
      The policy for the host's own ports, as of O(clawops.fleet.ufw_host#module:allow). It says what to expect.
    type: list
    elements: dict
    default: []
  published_port:
    description: Which port the container publishes. Without it, or with V(0), there is no container.
    type: int
  published_allow:
    description:
      - The policy for published ports, as of O(clawops.fleet.ufw_docker_user#module:allow). It says what to expect.
      - Of each protocol, the first port in it that everybody may reach is published, too, unless it is in use.
    type: list
    elements: dict
    default: []
  lifetime:
    description: Seconds after which the listeners end by themselves.
    type: int
    default: 300
requirements:
  - C(/usr/bin/python3) and systemd on the host, and Docker for O(published_port), without which nothing is published
extends_documentation_fragment:
  - clawops.fleet.attributes
seealso:
  - module: clawops.fleet.firewall_probe
author:
  - clawops.fleet maintainers (@clawops)
"""

EXAMPLES = r"""
- name: Listen on two ports that the firewall closes, and on 443
  clawops.fleet.firewall_canary:
    host_port: 61998
    published_port: 61999
    published_allow:
      - port: 443

- name: End the listeners
  clawops.fleet.firewall_canary:
    state: absent
"""

RETURN = r"""
targets:
  description: The ports, and what the policy says about them.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: V(host) or V(published).
      type: str
    port:
      description: The port.
      type: int
    protocol:
      description: V(tcp) or V(udp).
      type: str
    expect:
      description: V(open) or V(closed). Null if it depends on who connects.
      type: str
    ipv4:
      description: Whether it answers on the host itself over IPv4.
      type: bool
    ipv6:
      description: Whether it answers on the host itself over IPv6.
      type: bool
actions:
  description: What was changed, or would be changed in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: The unit, the container or the image.
      type: str
    action:
      description: V(create), V(update) or V(delete).
      type: str
plan_complete:
  description: Always true.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._errors import FleetError
from ..module_utils._firewall.canary import Canary, parse
from ..module_utils._firewall.host import Host
from ..module_utils._plan import run


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "host_port": {"type": "int"},
            "host_allow": {"type": "list", "elements": "dict", "default": []},
            "published_port": {"type": "int"},
            "published_allow": {"type": "list", "elements": "dict", "default": []},
            "lifetime": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    try:
        wanted = parse(module.params)
    except FleetError as error:
        module.fail_json(**error.result())
        return
    canary = Canary(Host(), wanted)
    run(module, canary.plan, canary.apply, canary.facts)


if __name__ == "__main__":
    main()
