#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_repair
short_description: Unlocks and repairs the repositories of bots
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Removes locks that no living restic holds, and repairs what M(clawops.fleet.backup_check) has found.
  - A living restic renews its lock every five minutes. A lock is stale when it is older than thirty by the clock of the
    S3 service; neither clocks, names nor processes of hosts count, so that a living one is never removed.
  - Where the bucket keeps versions, V(rewind) brings back what was deleted, overwritten or damaged, and loses nothing.
    The other repairs leave out what can't be read.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.backup
  - clawops.fleet.backup.either
attributes:
  idempotent:
    support: partial
    details:
      - V(unlock) and V(rewind) of O(steps) are; the others are work that is done each time.
options:
  steps:
    description:
      - What to do, in this order. V(rewind) makes every object of the repository what it was at O(rewind).
      - V(unlock) removes stale locks, V(index) makes the index anew from what is there,
        V(packs) saves what can be read of O(packs) and removes them, V(snapshots) puts snapshots without what is lost
        in place of those that had it; they get new ids.
    type: list
    elements: str
    choices: [rewind, unlock, index, packs, snapshots]
    default: [unlock]
  packs:
    description: Ids of damaged objects, for the step V(packs).
    type: list
    elements: str
    default: []
  rewind:
    description: A time with its zone, such as V(2026-11-21T07:00:00Z), for the step V(rewind). What came into the
      bucket later is deleted, and stays there as a version.
    type: str
  place:
    description: Directory of this machine where copies of damaged objects are left, one directory for each bot.
    type: path
    default: /var/lib/clawops/repair
"""

EXAMPLES = r"""
- name: Undo what somebody did to a repository since the morning
  clawops.fleet.backup_repair:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_prune_access_key }}"
    secret_key: "{{ fleet_backup_prune_secret_key }}"
    password: "{{ fleet_backup_password }}"
    steps: [rewind]
    rewind: "2026-11-21T07:00:00Z"
    bots:
      - name: alpha
  delegate_to: localhost

- name: Remove the lock of a restic that crashed
  clawops.fleet.backup_repair:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_prune_access_key }}"
    secret_key: "{{ fleet_backup_prune_secret_key }}"
    password: "{{ fleet_backup_password }}"
    bots:
      - name: alpha
  delegate_to: localhost
"""

RETURN = r"""
spaces:
  description: One entry for each space, as V(bots) has them, with C(space) in place of C(bot).
  returned: with O(spaces)
  type: list
  elements: dict
  contains: {}
vms:
  description: One entry for each VM, as V(bots) has them, with C(vm) in place of C(bot).
  returned: with O(vms)
  type: list
  elements: dict
  contains: {}
bots:
  description: One entry for each bot.
  returned: with O(bots)
  type: list
  elements: dict
  contains:
    bot:
      description: Name of the bot.
      type: str
      returned: always
      sample: alpha
    exists:
      description: Whether there is a repository.
      type: bool
      returned: always
    removed_locks:
      description: Ids of the locks that were removed.
      type: list
      elements: str
      returned: always
    locks:
      description: The locks that are there.
      type: list
      elements: dict
      returned: always
      contains:
        id:
          description: Id of the lock.
          type: str
          returned: always
        age:
          description: Seconds since it was written.
          type: int
          returned: always
        stale:
          description: Whether nobody holds it.
          type: bool
          returned: always
    rewound:
      description: How many objects were brought back or taken away.
      type: int
      returned: always
    repaired:
      description: Ids of the snapshots that took the place of damaged ones.
      type: list
      elements: str
      returned: always
    output:
      description: What restic said.
      type: list
      elements: str
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
      sample: locks of alpha
    action:
      description: What was done to it, such as V(delete).
      type: str
      sample: delete
"""

import typing as t

from ..module_utils._backup import arguments, upkeep
from ..module_utils._errors import FleetError
from ..module_utils._module import QuietModule
from ..module_utils._plan import run


def repairs(params: t.Mapping[str, t.Any], check_mode: bool) -> upkeep.Repairs:
    store = arguments.store(params)
    accesses = [arguments.access(params, store, bot) for bot in arguments.listed(params)]
    return upkeep.Repairs(accesses, params["steps"], params["packs"], params["place"], params["parallel"],
                          params["rewind"], check_mode)


def main() -> None:
    module = QuietModule(argument_spec=arguments.either(
        steps={"type": "list", "elements": "str", "choices": ["rewind", "unlock", "index", "packs", "snapshots"],
               "default": ["unlock"]}, rewind={"type": "str"},
        packs={"type": "list", "elements": "str", "default": []},
        place={"type": "path", "default": "/var/lib/clawops/repair"}),
        supports_check_mode=True, **arguments.EITHER)
    try:
        verb = repairs(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(**error.result())
    run(module, verb.plan, verb.apply, verb.facts)


if __name__ == "__main__":
    main()
