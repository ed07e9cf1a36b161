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
  - A running UFW is never stopped, reloaded or enabled again. Rules and policies are loaded in one transaction for each
    IP family, so established connections through a port that stays open live on.
  - A change is on trial at first. It is in force, but UFW's files hold the previous state until this module got in
    again over a new connection within O(confirm_timeout). Otherwise, also when Ansible dies or the host is rebooted,
    the previous state comes back by itself. If UFW was off or let everything in before, what comes back is closed but
    for SSH from everywhere on the port over which Ansible is connected, and for rules of others.
  - A policy that would close the SSH port for the address from which Ansible is connected is refused.
  - While a change of another run is on trial, this module waits.
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
        description:
          - The port, or a range such as V(8000-8010).
          - V(ssh) stands for the port over which Ansible is connected, or 22 if it is not connected by SSH.
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
      interface:
        description: Where it must come in. A V(+) at the end stands for any ending. Any interface if not set.
        type: str
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
  confirm_timeout:
    description: Seconds, at most 600, that a new connection has to confirm a change. 0 changes without a trial.
    type: int
    default: 60
requirements:
  - ufw on the host
  - systemd on the host, unless O(confirm_timeout=0)
extends_documentation_fragment:
  - clawops.fleet.attributes
seealso:
  - module: clawops.fleet.ufw_docker_user
  - module: clawops.fleet.firewall_confirmation
author:
  - clawops.fleet maintainers (@clawops)
"""

EXAMPLES = r"""
- name: SSH only
  clawops.fleet.ufw_host:
    allow:
      - port: ssh
        comment: SSH

- name: SSH from the office, a range from one network card, and Tailscale
  clawops.fleet.ufw_host:
    allow:
      - port: 22
        sources: [192.0.2.0/24, "2001:db8::/32"]
      - port: 8000-8010
        interface: eth1
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
    interface:
      description: Where it must come in; empty means anywhere.
      type: str
connection:
  description: The SSH connection over which Ansible came, as the host sees it. Empty if there is none.
  returned: success
  type: dict
  contains:
    address:
      description: The address from which Ansible is connected.
      type: str
    port:
      description: The port of the host.
      type: int
    password:
      description: Whether Ansible has a password for this connection.
      type: bool
  sample: {"address": "192.0.2.7", "password": false, "port": 22}
trial:
  description: The trial that the change went through; empty if nothing was changed, or if O(confirm_timeout=0).
  returned: success
  type: str
  sample: 0c5d2e7f4a7b9c31
confirm_timeout:
  description: The seconds that a new connection had.
  returned: success
  type: int
actions:
  description: What was changed, or would be changed in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: A rule, a default policy, what is in force of them, or the firewall as such.
      type: str
    action:
      description: V(create), V(update) or V(delete).
      type: str
plan_complete:
  description: False in check mode if ufw is not installed yet.
  returned: success
  type: bool
"""

import contextlib

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._errors import FleetError, bad_value
from ..module_utils._firewall.confirm import LONGEST, ssh_connection, turn
from ..module_utils._firewall.host import Host
from ..module_utils._firewall.rules import PUBLISHED_OPTIONS
from ..module_utils._firewall.ufw import Ufw, parse_policy
from ..module_utils._plan import run


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "allow": {"type": "list", "elements": "dict", "default": [], "options": PUBLISHED_OPTIONS},
            "incoming": {"type": "str", "choices": ["allow", "deny"], "default": "deny"},
            "outgoing": {"type": "str", "choices": ["allow", "deny"], "default": "allow"},
            "routed": {"type": "str", "choices": ["allow", "deny"], "default": "deny"},
            "confirm_timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    host, seconds = Host(), module.params["confirm_timeout"]
    try:
        if not 0 <= seconds <= LONGEST:
            raise bad_value("confirm_timeout", seconds, f"Write seconds, from 0 to {LONGEST}.")
        connection = ssh_connection(host)
        firewall = Ufw(host, parse_policy(module.params, connection), connection, seconds)
        with contextlib.nullcontext() if module.check_mode else turn(host):
            run(module, firewall.plan, firewall.apply, firewall.facts)
    except FleetError as error:
        module.fail_json(**error.result())


if __name__ == "__main__":
    main()
