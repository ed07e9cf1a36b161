#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: bot_service_info
short_description: What the bots of a Docker host or guest are
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Returns facts about the bots that stand on the managed host, none of them secret.
extends_documentation_fragment:
  - clawops.fleet.attributes.info
options:
  names:
    description: Only bots of these names.
    type: list
    elements: str
  fleet:
    description: Only bots of this fleet.
    type: str
seealso:
  - module: clawops.fleet.bot_instance_info
"""

EXAMPLES = r"""
- name: Ask for the bots
  clawops.fleet.bot_service_info:
    fleet: home
  register: found

- name: Name those that do not run
  ansible.builtin.debug:
    msg: "{{ found.bots | rejectattr('active') | map(attribute='name') }}"
"""

RETURN = r"""
bots:
  description: The bots, by name. With O(names) also those of which there are only data.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the bot.
      type: str
      sample: alpha
    version:
      description: Release of OpenClaw, null where there is no record of the bot.
      type: str
      sample: 2026.9.6
    runtime:
      description: How it runs.
      type: str
      sample: container
    port:
      description: Loopback port of the gateway.
      type: int
      sample: 19100
    unit:
      description: The systemd unit.
      type: str
      sample: openclaw@alpha.service
    state:
      description: V(started) if it runs or does so at the next boot, V(stopped), or V(absent) where there is no unit.
      type: str
      sample: started
    active:
      description: Whether it runs.
      type: bool
      sample: true
    has_data:
      description: Whether its state is here.
      type: bool
      sample: true
    move:
      description: That it is being moved; C(role) is V(departing) or V(arriving). Null if it is not.
      type: dict
      sample: null
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._errors import FleetError
from ..module_utils._openclaw.handover import describe
from ..module_utils._process import run as run_program


def main() -> None:
    module = AnsibleModule(argument_spec={"names": {"type": "list", "elements": "str"}, "fleet": {"type": "str"}},
                           supports_check_mode=True)
    try:
        found = describe(run_program, module.params["fleet"], module.params["names"])
    except FleetError as error:
        module.fail_json(**error.result())
    module.exit_json(changed=False, bots=found)


if __name__ == "__main__":
    main()
