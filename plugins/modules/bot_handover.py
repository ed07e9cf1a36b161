#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: bot_handover
short_description: A machine's end of a bot's move
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Holds a bot of a Docker host or guest while it moves to or from there, takes it back, or lets it go.
    The playbook C(clawops.fleet.migrate) uses it.
  - A bot that is marked here is not started by M(clawops.fleet.bot_service). Without O(purge_data), data that stay
    behind are put aside as C({path}.moved-{time}).
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.handover
seealso:
  - module: clawops.fleet.pod_handover
"""

EXAMPLES = r"""
- name: Stop a bot that goes elsewhere
  clawops.fleet.bot_handover:
    name: alpha
    fleet: home
    state: held
    source: alder
    target: harbor
"""

RETURN = r"""
move:
  description: The mark; C(role) is V(departing), V(arriving) or V(left). Null if there is none.
  returned: success
  type: dict
  contains:
    role:
      description: Which end this is.
      type: str
      sample: departing
    source:
      description: Where the bot comes from.
      type: str
      sample: alder
    target:
      description: Where it goes.
      type: str
      sample: harbor
    since:
      description: Since when, in seconds of the epoch.
      type: float
      sample: 1789000000.0
    ran:
      description: Whether it starts again if it is taken back.
      type: bool
      sample: true
conversations:
  description: How much was said here so far.
  returned: success
  type: dict
  contains:
    sessions:
      description: How many conversations there are.
      type: int
      sample: 12
    records:
      description: How many records they have together.
      type: int
      sample: 482
plan_complete:
  description: Whether everything could be observed.
  returned: success
  type: bool
  sample: true
actions:
  description: What was done, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: What it concerns.
      type: str
      sample: openclaw@alpha.service
    action:
      description: The verb.
      type: str
      sample: stop
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._handover import OPTIONS, Wish
from ..module_utils._openclaw.handover import End
from ..module_utils._plan import run
from ..module_utils._process import run as run_program


def main() -> None:
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    end = End(run_program, Wish.of(module.params))
    run(module, end.plan, end.apply, end.facts)


if __name__ == "__main__":
    main()
