#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_space
short_description: A sandboxed space on a Docker host
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Brings one space to what is said here. It is the container C(clawdspace-NAME) with the volume C(clawdspace-vol-NAME)
    at C(/workspace) and a network of its own.
  - It has no capabilities, can't gain any, has a read-only root, a user that isn't root, and limits of memory,
    processors and processes.
  - Limits change while it runs. What takes a new container is refused as long as something would be lost, unless
    O(recreate).
  - Foreign objects with the names of the space's are an error that names them, and stay untouched.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.space
  - clawops.fleet.space.fleet
  - clawops.fleet.space.description
seealso:
  - module: clawops.fleet.sandbox_fleet
  - module: clawops.fleet.sandbox_space_info
"""

EXAMPLES = r"""
- name: A space with a clone of a repository
  clawops.fleet.sandbox_space:
    fleet: home
    name: scratch
    resources:
      memory: 4Gi
      cpus: 2
    repository:
      url: https://git.example.org/team/project.git
      branch: main
    repository_token: "{{ vault_git_token }}"

- name: A space without a network that works on a copy of a directory
  clawops.fleet.sandbox_space:
    fleet: home
    name: audit
    template: offline
    allowed_paths: [/srv/exchange]
    workspace:
      strategy: snapshot
      path: /srv/exchange/project

- name: Remove a space with its files
  clawops.fleet.sandbox_space:
    fleet: home
    name: scratch
    state: absent
    purge_data: true
"""

RETURN = r"""
space:
  description: The space as it is.
  returned: success
  type: dict
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
      description: What is not as described because it takes a new container, and O(recreate) isn't said.
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
    module = QuietModule(argument_spec={**SPACE, **FLEET, **COMMON}, supports_check_mode=True)
    space = {name: module.params[name] for name in SPACE}
    manage(module, [space], lambda values: {"space": next(iter(values["spaces"]), None)})


if __name__ == "__main__":
    main()
