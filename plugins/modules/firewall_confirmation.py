#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_confirmation
short_description: Confirms a change of UFW that is on trial
version_added: 0.1.0
description:
  - M(clawops.fleet.ufw_host) puts a change on trial and runs this module over a new connection by itself. There is
    seldom a reason to call it.
  - Writes the change to UFW's files and stops the timer that would take it back.
  - Fails if the change was taken back already, or if it runs over the connection that made the change.
options:
  trial:
    description: Which change, as RV(clawops.fleet.ufw_host#module:trial) names it.
    type: str
    required: true
  new_connection:
    description: Insist on an SSH connection other than that of the change. Makes no difference where there is none.
    type: bool
    default: true
attributes:
  idempotent:
    support: none
    details:
      - A trial is over when it is confirmed. To confirm it again is an error.
extends_documentation_fragment:
  - clawops.fleet.attributes
seealso:
  - module: clawops.fleet.ufw_host
author:
  - clawops.fleet maintainers (@clawops)
"""

EXAMPLES = r"""
- name: Confirm over a new connection
  clawops.fleet.firewall_confirmation:
    trial: "{{ firewall.trial }}"
"""

RETURN = r"""
files:
  description: UFW's files that were written.
  returned: success
  type: list
  elements: str
  sample: [/etc/ufw/user.rules, /etc/ufw/user6.rules]
actions:
  description: What was changed, or would be changed in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: A file, or the timer.
      type: str
    action:
      description: V(update) or V(delete).
      type: str
plan_complete:
  description: Always true.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._errors import FleetError
from ..module_utils._firewall.confirm import DIRECTORY, Confirmation, ssh_connection
from ..module_utils._firewall.host import Host
from ..module_utils._plan import run


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "trial": {"type": "str", "required": True},
            "new_connection": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    host = Host()
    confirmation = Confirmation(host, module.params["trial"], ssh_connection(host), module.params["new_connection"])
    try:
        with host.locked(DIRECTORY):
            run(module, confirmation.plan, confirmation.apply, confirmation.facts)
    except FleetError as error:
        module.fail_json(**error.result())


if __name__ == "__main__":
    main()
