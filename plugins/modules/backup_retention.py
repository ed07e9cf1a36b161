#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_retention
short_description: Forgets old snapshots of bots and frees their room
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Forgets the snapshots that the rules don't keep, of any host, and prunes the repository. Snapshots of runs that
    turned out incomplete are forgotten first; the rules then come to their turn in the next run.
  - Works on the bucket alone. It needs a key that may delete, which no machine of a bot should have;
    M(clawops.fleet.backup_repository) makes one.
  - Does nothing to a bot whose history is suspect, and names the snapshots - those dated in the future, those whose
    date is not when they came into the bucket, those that are gone without this module, and those that counted before
    and are marked as incomplete now. What it knew of a history stands in the bucket at
    C({fleet}/admin/bots/{name}.json).
  - The failure of one bot does not stop the others; the task then fails with the list of what became of each.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.backup
  - clawops.fleet.backup.either
options:
  keep_within:
    description: For how long snapshots are kept, by kind, such as C(all=7d, daily=30d, monthly=1y). C(all) keeps every
      snapshot so long, C(hourly), C(daily), C(weekly), C(monthly) and C(yearly) the last one of each.
      Times are written as in V(1y6m14d12h), and count back from the newest snapshot.
    type: dict
    required: true
  keep_last:
    description: The last so many snapshots are kept whatever their age.
    type: int
    default: 3
  trust_dates:
    description: Don't compare the dates of snapshots with those of their objects; for a bucket that was copied.
    type: bool
    default: false
  forget:
    description: Ids of snapshots, or their first 8 or more digits, that are to go whatever the rules say.
    type: list
    elements: str
    default: []
  accept:
    description: Ids of snapshots that the sanity check named and that are right, or rightly gone.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Keep all of a week, one of each day of a month, and one of each month of a year
  clawops.fleet.backup_retention:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_prune_access_key }}"
    secret_key: "{{ fleet_backup_prune_secret_key }}"
    password: "{{ fleet_backup_password }}"
    keep_within: {all: 7d, daily: 1m, monthly: 1y}
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
    kept:
      description: How many snapshots stay.
      type: int
      returned: always
    removed:
      description: Ids of the snapshots that went, or would go.
      type: list
      elements: str
      returned: always
    bytes:
      description: Size of the repository.
      type: int
      returned: always
    bytes_freed:
      description: What the bucket shrank by. Versions that it keeps of deleted objects are not counted.
      type: int
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
      sample: snapshots of alpha
    action:
      description: What was done to it, such as V(prune).
      type: str
      sample: prune
"""

import typing as t

from ..module_utils._backup import arguments, upkeep
from ..module_utils._errors import FleetError
from ..module_utils._module import QuietModule
from ..module_utils._plan import run


def retentions(params: t.Mapping[str, t.Any], check_mode: bool) -> upkeep.Retentions:
    store = arguments.store(params)
    rules = upkeep.Rules(params["keep_within"], params["keep_last"], params["trust_dates"], tuple(params["forget"]),
                         tuple(params["accept"])).check()
    accesses = [arguments.access(params, store, bot) for bot in arguments.listed(params)]
    return upkeep.Retentions(accesses, rules, check_mode, params["parallel"])


def main() -> None:
    ids = {"type": "list", "elements": "str", "default": []}
    module = QuietModule(argument_spec=arguments.either(
        keep_within={"type": "dict", "required": True}, keep_last={"type": "int", "default": 3},
        trust_dates={"type": "bool", "default": False}, forget=ids, accept=ids),
        supports_check_mode=True, **arguments.EITHER)
    try:
        verb = retentions(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(**error.result())
    run(module, verb.plan, verb.apply, verb.facts)


if __name__ == "__main__":
    main()
