#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: network_guard
short_description: What containers and guests can't reach, whatever else is permitted
version_added: 0.1.0
description:
  - Containers and guests behind the bridges of O(bridges) reach neither the services of the host, nor metadata services
    of clouds, nor the networks that the host stands in, nor each other, in both IP families and also through ports that
    the host publishes. They reach the internet, their resolvers, and what is allowed.
  - The rules stand in the nftables table C(inet clawops), which belongs to this module as a whole. It is replaced in
    one transaction and only ever refuses; what it lets pass is up to the rules of Docker, libvirt and UFW. Traffic from
    outside to published ports, and from the host to its containers, passes with its replies.
  - C(clawops-guard.service) loads the table before Docker and libvirt, which do not start without it. A start of Docker
    loads it again, and so does each action on C(nftables.service), which flushes everybody's tables. Where it was
    flushed by hand, the next run says so and repairs it.
  - Containers on the same bridge are kept apart where the kernel shows bridged packets to the firewall. The module
    loads C(br_netfilter) and sets its switches, also for the boot; where the kernel has none, RV(same_bridge) says so.
    Networks of the kinds host, macvlan and ipvlan do not pass a bridge and are not guarded.
  - Connections that were open before the guard came stay open.
options:
  state:
    description: V(absent) takes rules, files and units out again. Logs that were written stay.
    type: str
    choices: [present, absent]
    default: present
  bridges:
    description:
      - Interfaces that are bridges of containers and guests. A V(+) at the end stands for any ending.
      - An interface with the default route or with a network card in it is refused here.
    type: list
    elements: str
    default: [docker0, br-+, cb-+, cs-+, virbr+]
  host_services:
    description:
      - Services of the host that containers and guests may use.
      - DNS and DHCP are among them by themselves where a program of the host serves them.
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
      comment:
        description: One line without quotes that is kept with the rule.
        type: str
        default: ""
  allow:
    description:
      - Destinations that are open although they lie in a refused network, each for a purpose.
      - An address of the host, of a container or of a guest counts by where a connection ends, after the host has
        translated published ports.
    type: list
    elements: dict
    default: []
    suboptions:
      purpose:
        description: One word that is kept with the rules.
        type: str
        required: true
      destinations:
        description: Addresses and networks of both IP families.
        type: list
        elements: str
        required: true
      ports:
        description: Ports and ranges.
        type: list
        elements: str
        required: true
      protocol:
        description: The transport protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
  reach:
    description:
      - What single bridges reach beyond the others, and what they don't reach although the others do.
      - The order of the list has no meaning. A bridge that is not there yet may be named.
    type: list
    elements: dict
    default: []
    suboptions:
      interface:
        description: The name of one bridge that O(bridges) covers.
        type: str
        required: true
      allow:
        description:
          - Networks that are open although they are private. Metadata services, link-local and loopback networks, the
            host's own addresses, other guarded bridges and foreign resolvers stay refused, whatever is listed.
        type: list
        elements: str
        default: []
      block:
        description:
          - Networks that are refused although they may be the internet. This goes before everything that is allowed by
            O(allow), O(host_services) and O(reach[].allow), also before resolvers.
        type: list
        elements: str
        default: []
  resolvers:
    description:
      - Addresses of the resolvers that containers and guests may ask.
      - If empty, the host's own as Docker hands them to containers, which is why bots find their names. Where the host
        has only resolvers on its loopback, these are Docker's fallback V(8.8.8.8) and V(8.8.4.4).
    type: list
    elements: str
    default: []
  foreign_dns:
    description:
      - Whether containers and guests may ask other resolvers of the internet, on ports 53 and 853. Data leaves by DNS
        unseen, so they may not.
    type: bool
    default: false
  log:
    description:
      - Whether refused packets are written to C(/var/log/clawops/firewall.json) by ulogd2, ten per second at most. The
        limit concerns the log alone.
    type: bool
    default: true
requirements:
  - nftables and iproute2 on the host
  - ulogd2 with its JSON output on the host, if O(log=true)
extends_documentation_fragment:
  - clawops.fleet.attributes
seealso:
  - module: clawops.fleet.ufw_docker_user
    description: The opposite direction, from outside to published ports.
author:
  - clawops.fleet maintainers (@clawops)
"""

EXAMPLES = r"""
- name: Containers reach the internet and nothing else
  clawops.fleet.network_guard:

- name: They may use a model in the LAN and a proxy on the host
  clawops.fleet.network_guard:
    allow:
      - purpose: model
        destinations: [192.168.10.6, "fd00:10::6"]
        ports: [8080]
    host_services:
      - port: 3128
        comment: proxy

- name: The containers of one network may talk to each other
  clawops.fleet.network_guard:
    allow:
      - purpose: wiki
        destinations: [10.201.4.0/28]
        ports: [1-65535]

- name: One bridge reaches a part of the LAN, another one not all of the internet
  clawops.fleet.network_guard:
    reach:
      - interface: cs-1b2c3d4e
        allow: [192.168.10.0/24, "fd00:10::/64"]
      - interface: cs-5f607182
        block: [198.51.100.0/24, "2001:db8:7::/48"]

- name: Take the guard out again
  clawops.fleet.network_guard:
    state: absent
"""

RETURN = r"""
allowed:
  description: What is allowed, the resolvers first. Empty in check mode if a program is not installed yet.
  returned: success
  type: list
  elements: dict
  contains:
    purpose:
      description: What for.
      type: str
    destinations:
      description: Networks of both IP families.
      type: list
      elements: str
    ports:
      description: Ports and ranges.
      type: list
      elements: str
    protocol:
      description: The transport protocol.
      type: str
  sample: [{"purpose": "resolver", "destinations": ["192.0.2.53/32"], "ports": ["53", "853"], "protocol": "udp"}]
host_services:
  description: What of the host is open, also what was found to be served.
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
    comment:
      description: What it is.
      type: str
reach:
  description: The exceptions of single bridges, in the order of their names.
  returned: success
  type: list
  elements: dict
  contains:
    interface:
      description: The bridge.
      type: str
    allow:
      description: Networks that it reaches beyond the others.
      type: list
      elements: str
    block:
      description: Networks that it does not reach.
      type: list
      elements: str
refused:
  description: The networks that are refused unless something in them is allowed, also public ones on the host's links.
  returned: success
  type: list
  elements: str
  sample: [10.0.0.0/8, 169.254.0.0/16]
same_bridge:
  description: What happens between two containers on the same bridge.
  returned: success
  type: dict
  contains:
    ipv4:
      description: V(refused), or V(open) where the switches C(net.bridge.bridge-nf-call-iptables) and
        C(net.bridge.bridge-nf-filter-vlan-tagged) are not on or not there.
      type: str
    ipv6:
      description: The same, with C(net.bridge.bridge-nf-call-ip6tables).
      type: str
actions:
  description: What was changed, or would be changed in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: A file, a unit, or the table.
      type: str
    action:
      description: V(create), V(update) or V(delete).
      type: str
plan_complete:
  description: False in check mode if a program is not installed yet.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._errors import FleetError
from ..module_utils._firewall.guard import Guard
from ..module_utils._firewall.guard_policy import (
    BRIDGES,
    PERMIT_OPTIONS,
    REACH_OPTIONS,
    SERVICE_OPTIONS,
    parse_policy,
)
from ..module_utils._firewall.host import Host
from ..module_utils._plan import run


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "bridges": {"type": "list", "elements": "str", "default": list(BRIDGES)},
            "host_services": {"type": "list", "elements": "dict", "default": [], "options": SERVICE_OPTIONS},
            "allow": {"type": "list", "elements": "dict", "default": [], "options": PERMIT_OPTIONS},
            "reach": {"type": "list", "elements": "dict", "default": [], "options": REACH_OPTIONS},
            "resolvers": {"type": "list", "elements": "str", "default": []},
            "foreign_dns": {"type": "bool", "default": False},
            "log": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    try:
        policy = parse_policy(module.params)
    except FleetError as error:
        module.fail_json(**error.result())
        return
    guard = Guard(Host(), policy if module.params["state"] == "present" else None)
    run(module, guard.plan, guard.apply, guard.facts)


if __name__ == "__main__":
    main()
