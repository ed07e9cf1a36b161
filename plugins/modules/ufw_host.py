#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: ufw_host
short_description: What may reach the host itself, by UFW
version_added: 0.1.0
description:
  - Sets UFW's default policies, opens the listed ports in both IP families, and switches UFW on.
  - Permissions are in force before UFW is switched on, so that the connection over which this module runs survives.
  - A running UFW is never stopped, reloaded or enabled again; each change goes to the live rules and to UFW's files.
  - Rules that this module makes carry a comment that starts with C(clawops.fleet). Such rules are removed when they
    are no longer listed. Rules of others stay as they are; one that already permits the same is taken as it is.
options:
  allow:
    description: What may come in. The whole list of this module's own rules.
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description: The port, or a range such as V(8000-8010).
        type: str
        required: true
      protocol:
        description: The transport protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
      sources:
        description: Addresses and networks that may connect, of both IP families. Empty means from everywhere.
        type: list
        elements: str
        default: []
      comment:
        description: One line without quotes that is kept with the rule.
        type: str
        default: ""
  incoming:
    description: What happens to other incoming traffic.
    type: str
    choices: [allow, deny]
    default: deny
  outgoing:
    description: What happens to outgoing traffic.
    type: str
    choices: [allow, deny]
    default: allow
  routed:
    description: What happens to traffic that the host would forward.
    type: str
    choices: [allow, deny]
    default: deny
requirements:
  - ufw on the host
extends_documentation_fragment:
  - clawops.fleet.attributes
seealso:
  - module: clawops.fleet.ufw_docker_user
author:
  - clawops.fleet maintainers (@clawops)
"""

EXAMPLES = r"""
- name: SSH only
  clawops.fleet.ufw_host:
    allow:
      - port: "{{ ansible_port | default(22) }}"
        comment: SSH

- name: SSH from the office, and Tailscale
  clawops.fleet.ufw_host:
    allow:
      - port: 22
        sources: [192.0.2.0/24, "2001:db8::/32"]
      - port: 41641
        protocol: udp
"""

RETURN = r"""
allowed:
  description: What this module lets in.
  returned: success
  type: list
  elements: dict
  contains:
    port:
      description: The port or range.
      type: str
    protocol:
      description: The transport protocol.
      type: str
    sources:
      description: Networks that may connect; empty means everybody.
      type: list
      elements: str
actions:
  description: What was changed, or would be changed in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: A rule, a default policy, or the firewall as such.
      type: str
    action:
      description: V(create), V(update) or V(delete).
      type: str
plan_complete:
  description: False in check mode if ufw is not installed yet.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._errors import FleetError
from ..module_utils._firewall.host import Host
from ..module_utils._firewall.rules import ALLOW_OPTIONS
from ..module_utils._firewall.ufw import Ufw, parse_policy
from ..module_utils._plan import run


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "allow": {"type": "list", "elements": "dict", "default": [], "options": ALLOW_OPTIONS},
            "incoming": {"type": "str", "choices": ["allow", "deny"], "default": "deny"},
            "outgoing": {"type": "str", "choices": ["allow", "deny"], "default": "allow"},
            "routed": {"type": "str", "choices": ["allow", "deny"], "default": "deny"},
        },
        supports_check_mode=True,
    )
    try:
        policy = parse_policy(module.params)
    except FleetError as error:
        module.fail_json(**error.result())
        return
    firewall = Ufw(Host(), policy)
    run(module, firewall.plan, firewall.apply, firewall.facts)


if __name__ == "__main__":
    main()
