#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_restore
short_description: The volumes of spaces out of a snapshot
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Restores the volumes of spaces on the managed host, whatever host made the snapshot. The space must be there and
    must not run; files are given to whom its volume belongs.
  - The data are put together beside the volume, checked against the manifest, and switched into place by renaming.
    Set-id bits, file capabilities and devices don't come back.
  - That is done where nobody but root can exchange a directory on the way, and no symbolic link is followed that others
    could have put into the way of the switch. Where no such place is on the same mount, this fails with V(target_open).
  - A volume that holds data is not replaced unless O(spaces[].overwrite) says so, and then a snapshot of it is taken
    first, see O(safety). A restore that was interrupted may be repeated without consent.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.backup
  - clawops.fleet.backup.engine
  - clawops.fleet.backup.space_targets
  - clawops.fleet.backup.safety
attributes:
  idempotent:
    support: partial
    details:
      - With O(spaces[].overwrite) the data are restored each time.
options:
  stop:
    description: Stop spaces right before the switch. Nothing is started again by this module.
    type: bool
    default: false
  keep_previous:
    description: Keep the replaced directory of a volume beside, as C({path}.before-restore-{time}).
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Bring the data of a space back
  clawops.fleet.sandbox_restore:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_access_key }}"
    secret_key: "{{ fleet_backup_secret_key }}"
    password: "{{ fleet_backup_password }}"
    spaces:
      - name: scratch
"""

RETURN = r"""
restored:
  description: One entry for each space.
  returned: success
  type: list
  elements: dict
  contains:
    space:
      description: Name of the space.
      type: str
      returned: always
      sample: scratch
    snapshot:
      description: Id of the snapshot that the target holds, or would hold.
      type: str
      returned: always
    time:
      description: When it was made.
      type: str
      returned: always
    host:
      description: The host or cluster that made it.
      type: str
      returned: always
    places:
      description: Where each role is.
      type: dict
      returned: always
      sample: {volume: /var/lib/docker/volumes/clawdspace-vol-scratch/_data}
    files:
      description: Number of files in the snapshot.
      type: int
      returned: always
    bytes:
      description: Size of what is in it.
      type: int
      returned: always
    changed:
      description: Whether this run restored it.
      type: bool
      returned: always
    kept:
      description: The previous directories, with O(keep_previous).
      type: list
      elements: str
      returned: always
    safety:
      description: Id of the snapshot of what was replaced; null when nothing was there, and without O(safety).
      type: str
      returned: always
    duration:
      description: Seconds.
      type: float
      returned: always
plan_complete:
  description: Whether everything could be observed; false only in check mode, where an earlier step was not taken.
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
      sample: space scratch
    action:
      description: What was done to it, such as V(restore).
      type: str
      sample: restore
"""

import typing as t

from ..module_utils._backup import arguments, verbs
from ..module_utils._docker.client import connect
from ..module_utils._errors import FleetError
from ..module_utils._module import QuietModule
from ..module_utils._plan import run
from ..module_utils._space_backup import SpaceTarget


def restores(params: t.Mapping[str, t.Any], check_mode: bool) -> verbs.Restores:
    store, engine = arguments.store(params), connect(params["docker_host"])
    wishes = []
    for space in params["spaces"]:
        target = SpaceTarget(engine.twin(), space["name"], store.fleet, params["stop"], params["keep_previous"])
        access = arguments.access(params, store, space, target.runner)
        wishes.append(arguments.wish(access, target, space, params["safety"]))
    return verbs.Restores(wishes, check_mode, params["parallel"], params["host"] or "")


def main() -> None:
    module = QuietModule(argument_spec=arguments.spec(
        arguments.CHOICE, "space", **arguments.SAFETY, docker_host={"type": "str"},
        stop={"type": "bool", "default": False}, keep_previous={"type": "bool", "default": False}),
        supports_check_mode=True)
    try:
        verb = restores(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(**error.result())
    run(module, verb.plan, verb.apply, verb.facts)


if __name__ == "__main__":
    main()
