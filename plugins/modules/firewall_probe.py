#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_probe
short_description: Real connections that show what a firewall lets through
version_added: 0.1.0
description:
  - Connects over TCP and UDP, IPv4 and IPv6, from where the module runs, and compares the answers with what is
    expected. A wrong answer fails, with a table of all answers in the message.
  - Each IP family in the list needs a control, a check that expects V(open). Without one, an unreachable host would
    pass for a closed port, so a list without it is refused. If no control of a family answers, the module fails and
    says that the closed answers prove nothing.
  - A closed port is only proved if something listens there. M(clawops.fleet.firewall_canary) can do that.
  - Silence is asked again, so that a lost packet is no answer.
options:
  checks:
    description: What to connect to. They are asked side by side.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What it is, for the table.
        type: str
        default: ""
      address:
        description: An IPv4 or IPv6 address. A link-local one carries its interface, such as V(fe80::1%eth0).
        type: str
        required: true
      port:
        description: The port.
        type: int
        required: true
      protocol:
        description: The transport protocol. Over V(udp), a port is open if a datagram comes back.
        type: str
        choices: [tcp, udp]
        default: tcp
      expect:
        description: >-
          Whether the port has to answer. V(closed) is right for a refusal, for silence and for an unreachable target.
        type: str
        choices: [open, closed]
        required: true
      source:
        description: The address to connect from, one of the machine or namespace that connects.
        type: str
      payload:
        description: >-
          Bytes to send over UDP, in hexadecimal. The default is a query that a DNS server or an echo answers.
        type: str
  netns:
    description: The name of a network namespace to connect from, as of C(ip netns). Needs root.
    type: str
  container:
    description: The name of a running Docker container in whose network namespace to connect. Needs root.
    type: str
  timeout:
    description: Seconds to wait for one answer.
    type: float
    default: 2
  retries:
    description: How often to ask again when no answer came.
    type: int
    default: 2
  skip_unroutable:
    description: Leaves an IP family out, with a note below the table, if there is no route to any of its controls.
    type: bool
    default: false
  notes:
    description: Lines to show below the table, such as what is not probed and why.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - clawops.fleet.attributes.info
seealso:
  - module: clawops.fleet.firewall_canary
author:
  - clawops.fleet maintainers (@clawops)
"""

EXAMPLES = r"""
- name: From the controller, SSH answers and a published port does not
  clawops.fleet.firewall_probe:
    checks:
      - {name: SSH, address: 192.0.2.10, port: 22, expect: open}
      - {name: a database, address: 192.0.2.10, port: 5432, expect: closed}
      - {name: SSH, address: "2001:db8::10", port: 22, expect: open}
      - {name: a database, address: "2001:db8::10", port: 5432, expect: closed}
  delegate_to: localhost
  become: false

- name: From a container, the store answers, and the metadata service and the host do not
  clawops.fleet.firewall_probe:
    container: bot-alpha
    checks:
      - {address: 192.0.2.20, port: 9000, expect: open}
      - {address: 169.254.169.254, port: 80, expect: closed}
      - {address: 172.17.0.1, port: 53, protocol: udp, expect: closed}
"""

RETURN = r"""
answers:
  description: The answers, in the order of the checks. Returned with wrong answers, too.
  returned: when connections were made
  type: list
  elements: dict
  contains:
    name:
      description: What it is.
      type: str
    address:
      description: The address.
      type: str
    port:
      description: The port.
      type: int
    protocol:
      description: V(tcp) or V(udp).
      type: str
    family:
      description: V(ipv4) or V(ipv6). A mapped address is IPv4.
      type: str
    expect:
      description: V(open) or V(closed).
      type: str
    answer:
      description:
        - V(open), V(refused), V(filtered) if nothing came back, or V(unreachable).
        - V(failed) if no packet could be sent, which is right for no check.
      type: str
    reason:
      description: What the answer is based on.
      type: str
    attempts:
      description: How often it was asked.
      type: int
    verdict:
      description: V(right), V(wrong), or V(unproved) if it is as expected but no control of its family answered.
      type: str
table:
  description: The same as a table for people.
  returned: when connections were made
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._errors import FleetError
from ..module_utils._firewall.host import Host
from ..module_utils._firewall.probe import CHECK_OPTIONS, probe


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "checks": {"type": "list", "elements": "dict", "required": True, "options": CHECK_OPTIONS},
            "netns": {"type": "str"},
            "container": {"type": "str"},
            "timeout": {"type": "float", "default": 2},
            "retries": {"type": "int", "default": 2},
            "skip_unroutable": {"type": "bool", "default": False},
            "notes": {"type": "list", "elements": "str", "default": []},
        },
        mutually_exclusive=[("netns", "container")],
        supports_check_mode=True,
    )
    try:
        report = probe(module.params, Host())
    except FleetError as error:
        module.fail_json(**error.result())
        return
    if report.failure():
        module.fail_json(**report.result())
    module.exit_json(changed=False, **report.result())


if __name__ == "__main__":
    main()
