#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: ufw_docker_user
short_description: The policy for published container ports, beside UFW
version_added: 0.1.0
description:
  - Ports that Docker publishes bypass UFW. This module closes them to everything that comes from outside, and opens
    those that are listed, in both IP families.
  - The rules stand in the chain C(CLAWOPS-USER), to which C(DOCKER-USER) jumps first. Rules of others in
    C(DOCKER-USER) stay and come after it.
  - Connections that are established, come from a container bridge, from a trusted interface, or are allowed, go on to
    Docker's own rules. Everything else that the host would forward is dropped, also what is not meant for a container.
    A host that routes for guests too lists their bridges, such as C(virbr+), in O(trusted_interfaces).
  - The live rules are loaded in one transaction for each IP family, without a reload of UFW or Docker. Files in
    C(/etc/clawops/firewall), a drop-in of C(docker.service) and UFW's C(after.init) bring them back after each start
    of Docker and of UFW.
  - Whether the jumps from C(FORWARD) to C(DOCKER-USER) and on to C(CLAWOPS-USER) come first is checked, reported and
    repaired by itself.
  - Where Docker does not filter IPv6 (RV(ipv6_engine=proxy), as with Docker before 27 unless it is switched on), a
    published port is reached over IPv6 through C(docker-proxy), which is a program of the host. Then UFW's default for
    incoming traffic closes it, and M(clawops.fleet.ufw_host) opens it.
options:
  state:
    description: V(absent) takes rules, jumps and files out again.
    type: str
    choices: [present, absent]
    default: present
  allow:
    description: What may reach published ports from outside. The whole list; what is not in it is closed.
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description: The published port (not the container's), or a range such as V(8000-8010).
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
  trusted_interfaces:
    description: Interfaces from which everything may come. A V(+) at the end stands for any ending.
    type: list
    elements: str
    default: []
  bridges:
    description:
      - Interfaces that are bridges of containers. A V(+) at the end stands for any ending.
      - An interface with the default route is refused here.
    type: list
    elements: str
    default: [docker0, br-+, cb-+, cs-+]
requirements:
  - iptables on the host
extends_documentation_fragment:
  - clawops.fleet.attributes
seealso:
  - module: clawops.fleet.ufw_host
author:
  - clawops.fleet maintainers (@clawops)
"""

EXAMPLES = r"""
- name: Nothing from outside reaches a container
  clawops.fleet.ufw_docker_user:

- name: HTTPS for everybody, a range for the office
  clawops.fleet.ufw_docker_user:
    allow:
      - port: 443
        comment: front door
      - port: 8000-8010
        sources: [192.0.2.0/24, "2001:db8::/32"]
    trusted_interfaces: [tailscale0]

- name: Take the policy out again
  clawops.fleet.ufw_docker_user:
    state: absent
"""

RETURN = r"""
rules:
  description: The rules of the chain, in order, for each IP family of the host.
  returned: success
  type: dict
  contains:
    ipv4:
      description: The IPv4 rules.
      type: list
      elements: str
    ipv6:
      description: The IPv6 rules. Not there if the host has no IPv6.
      type: list
      elements: str
  sample: {"ipv4": ["--ctstate ESTABLISHED,RELATED -j RETURN", "-i docker0 -j RETURN", "-j DROP"]}
ipv6_engine:
  description:
    - V(filtered) if Docker filters IPv6 by itself, V(proxy) if published ports are reached over IPv6 through
      C(docker-proxy) and UFW's rules for incoming traffic decide, V(disabled) if the host has no IPv6.
    - V(unknown) in check mode if iptables is not installed yet.
  returned: success
  type: str
  sample: proxy
actions:
  description: What was changed, or would be changed in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: A file, the chain, or one of the jumps.
      type: str
    action:
      description: V(create), V(update) or V(delete).
      type: str
plan_complete:
  description: False in check mode if iptables is not installed yet.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._errors import FleetError
from ..module_utils._firewall.docker_user import BRIDGES, DockerUser, parse_policy
from ..module_utils._firewall.host import Host
from ..module_utils._firewall.rules import ALLOW_OPTIONS
from ..module_utils._plan import run


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "allow": {"type": "list", "elements": "dict", "default": [], "options": ALLOW_OPTIONS},
            "trusted_interfaces": {"type": "list", "elements": "str", "default": []},
            "bridges": {"type": "list", "elements": "str", "default": list(BRIDGES)},
        },
        supports_check_mode=True,
    )
    try:
        policy = parse_policy(module.params)
    except FleetError as error:
        module.fail_json(**error.result())
        return
    firewall = DockerUser(Host(), policy if module.params["state"] == "present" else None)
    run(module, firewall.plan, firewall.apply, firewall.facts)


if __name__ == "__main__":
    main()
