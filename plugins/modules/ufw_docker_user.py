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
  - Whether the jumps from C(FORWARD) to C(DOCKER-USER), on to C(CLAWOPS-USER), and from C(INPUT) to C(CLAWOPS-PROXY)
    come first is checked, reported and repaired by itself.
  - Over IPv6 a published port is often reached through C(docker-proxy), which is a program of the host, so that the
    connection comes through C(INPUT). There the chain C(CLAWOPS-PROXY) opens what O(allow) lists, and the default of
    the host's firewall closes the rest.
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
      interface:
        description:
          - The interface through which they come. A V(+) at the end stands for any ending; a name without it must
            exist. Empty means through any.
        type: str
      comment:
        description: One line without quotes that is kept with the rule.
        type: str
        default: ""
  trusted_interfaces:
    description:
      - Interfaces from which everything may come. A V(+) at the end stands for any ending; a name without it must
        exist.
      - They open nothing in C(INPUT), where the host's own services are reached too. For a port that C(docker-proxy)
        serves over IPv6, use the O(allow[].interface) of an entry.
    type: list
    elements: str
    default: []
  bridges:
    description:
      - Interfaces that are bridges of containers or guests. A V(+) at the end stands for any ending.
      - An interface with the default route is refused here.
    type: list
    elements: str
    default: [docker0, br-+, cb-+, cs-+, virbr+]
notes:
  - If INPUT of IPv6 is open by default on a host with Docker, the module refuses (code C(open_input)) instead of
    closing the published ports by number. Which ports these are changes with each container, and a list would be
    outdated with the next one. Switch UFW on first, or use M(clawops.fleet.ufw_host) before this module.
  - An entry of O(allow) also opens its port over IPv6 to a program of the host that listens there instead of
    C(docker-proxy).
  - Docker's rules must stand where C(iptables) of the host looks. If they are in C(iptables-legacy) and C(iptables) is
    C(iptables-nft), or the other way round (C(two_worlds)), or Docker uses its own backend for nftables
    (C(unsupported_backend)), the module refuses.
  - A run holds a lock from its first look to its last write. Of two runs at once, the policy of the second one stands,
    whole.
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
      - port: 9000
        interface: tailscale0
        comment: administration
    trusted_interfaces: [wg+]

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
    ipv6_input:
      description: The rules for what C(docker-proxy) serves. Not there if the host has no IPv6.
      type: list
      elements: str
  sample: {"ipv4": ["--ctstate ESTABLISHED,RELATED -j RETURN", "-i docker0 -j RETURN", "-j DROP"]}
ipv6_engine:
  description:
    - V(filtered) if Docker filters IPv6 by itself, as it does since version 27, for networks that have IPv6.
    - V(proxy) if all published ports are reached over IPv6 through C(docker-proxy).
    - V(none) if no engine has made rules yet, V(disabled) if the host has no IPv6.
    - V(unknown) in check mode if iptables is not installed yet.
  returned: success
  type: str
  sample: proxy
problems:
  description:
    - What others left on the host that weakens the policy, one sentence each, also given as warnings. It is not mended.
    - A broken C(after.rules) of UFW, one that declares C(:DOCKER-USER), or IPv6 that lets in by default on a host that
      has no engine yet.
  returned: success
  type: list
  elements: str
  sample: []
actions:
  description: What was changed, or would be changed in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: A file, a chain, one of the jumps, or C(docker.service) if systemd has to read its files again.
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
from ..module_utils._firewall.docker_user import manage
from ..module_utils._firewall.docker_user_rules import BRIDGES, parse_policy
from ..module_utils._firewall.host import Host
from ..module_utils._firewall.rules import PUBLISHED_OPTIONS


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "allow": {"type": "list", "elements": "dict", "default": [], "options": PUBLISHED_OPTIONS},
            "trusted_interfaces": {"type": "list", "elements": "str", "default": []},
            "bridges": {"type": "list", "elements": "str", "default": list(BRIDGES)},
        },
        supports_check_mode=True,
    )
    try:
        policy = parse_policy(module.params)
        manage(module, Host(), policy if module.params["state"] == "present" else None)
    except FleetError as error:
        module.fail_json(**error.result())


if __name__ == "__main__":
    main()
