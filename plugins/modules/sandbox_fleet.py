#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_fleet
short_description: All sandboxed spaces of a Docker host
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Brings all spaces of a host to what the list says, as M(clawops.fleet.sandbox_space) does with one.
  - Reads each kind of object once and writes only what differs, to several spaces at a time.
  - Nothing is written when one of the spaces can't be what it is to be. Where the engine fails at one, the others go
    on, and the task fails with a table.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.space
  - clawops.fleet.space.fleet
  - clawops.fleet.space.spaces
options:
  only:
    description: Touch only the spaces of these names.
    type: list
    elements: str
  prune:
    description: Remove spaces of this fleet that are on the host and not in the list, but none beside O(only).
    type: bool
    default: false
seealso:
  - module: clawops.fleet.sandbox_space
  - module: clawops.fleet.sandbox_space_info
"""

EXAMPLES = r"""
- name: The spaces of this host
  clawops.fleet.sandbox_fleet:
    fleet: home
    templates:
      big:
        resources:
          memory: 8Gi
          cpus: 4
    spaces:
      - name: alpha
      - name: bravo
        template: big
      - name: charlie
        template: offline
        state: stopped
"""

RETURN = r"""
spaces:
  description: The spaces as they are, removed ones too.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the space.
      type: str
      sample: scratch
    state:
      description: V(created), V(started), V(paused), V(stopped), V(absent), or V(dead) where the engine gave it up.
      type: str
      sample: started
    asleep:
      description: Whether it is paused or stopped because it was idle.
      type: bool
      sample: false
    container:
      description: Name of its container.
      type: str
      sample: clawdspace-scratch
    id:
      description: Id of its container, null where there is none.
      type: str
      sample: 3f4e8d1a9b0c
    image:
      description: Image of its container.
      type: str
      sample: clawops-sandbox:latest
    volume:
      description: Name of its volume, null where there is none.
      type: str
      sample: clawdspace-vol-scratch
    network:
      description: Name of its network, null where there is none.
      type: str
      sample: clawdspace-scratch
    bridge:
      description: The bridge of its network.
      type: str
      sample: cs-0a1b2c3d
    address:
      description: Its address on the bridge while it runs.
      type: str
      sample: 172.20.0.2
    changed:
      description: Whether this space was changed.
      type: bool
      sample: true
    pending:
      description: What is not as described because it takes a new container, and O(spaces[].recreate) isn't said.
      type: list
      elements: str
      sample: []
    actions:
      description: What was done to this space, or would be in check mode.
      type: list
      elements: dict
      sample: [{subject: space scratch, action: start}]
plan_complete:
  description: Whether everything could be observed; false only in check mode, where the engine isn't there yet.
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
      sample: container clawdspace-scratch
    action:
      description: V(create), V(recreate), V(update), V(delete), V(adopt), V(pull), V(start), V(stop), V(pause) or
        V(unpause).
      type: str
      sample: create
failure:
  description: What went wrong. With several spaces C(details.spaces) has a result for each.
  returned: failure
  type: dict
  sample: {code: needs_recreate, message: "...", hint: "...", details: {}}
"""

from ..module_utils._docker.arguments import COMMON, FLEET, SPACE, manage
from ..module_utils._module import QuietModule


def main() -> None:
    module = QuietModule(
        argument_spec={
            "spaces": {"type": "list", "elements": "dict", "required": True, "options": SPACE},
            "only": {"type": "list", "elements": "str"},
            "prune": {"type": "bool", "default": False},
            **FLEET,
            **COMMON,
        },
        supports_check_mode=True,
    )
    manage(module, module.params["spaces"])


if __name__ == "__main__":
    main()
