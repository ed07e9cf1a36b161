#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_check
short_description: Whether the backups of bots are sound
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Checks the structure of repositories, and reads a part of their data, which changes from day to day, or all of it.
  - Fails when something is damaged, and names the objects in the bucket and the files that they belong to.
  - Works on the bucket alone, with the key that prunes or with the bots' own.
extends_documentation_fragment:
  - clawops.fleet.attributes.info
  - clawops.fleet.backup
  - clawops.fleet.backup.either
options:
  read_data:
    description: V(none) checks the structure, V(part) reads one of O(parts) of the data besides, V(all) all of it.
    type: str
    choices: [none, part, all]
    default: part
  parts:
    description: In how many parts, 1 to 255, the data are read.
    type: int
    default: 30
  part:
    description: Which part. The default is another one each day, so that a daily check has read all in O(parts) days.
    type: int
"""

EXAMPLES = r"""
- name: Check a thirtieth of the data, and another one tomorrow
  clawops.fleet.backup_check:
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
    sound:
      description: Whether nothing was found. With V(false) the task fails, and the entries are in RV(failure).
      type: bool
      returned: always
    read:
      description: Which part of the data was read.
      type: str
      returned: always
      sample: 7/30
    problems:
      description: What restic has found.
      type: list
      elements: str
      returned: always
    packs:
      description: Ids of the damaged objects, which are in the bucket at C({fleet}/bots/{name}/data/).
      type: list
      elements: str
      returned: always
    files:
      description: The files that are hit, with their snapshots.
      type: list
      elements: str
      returned: always
    duration:
      description: Seconds.
      type: float
      returned: always
failure:
  description: What went wrong, for programs.
  returned: failure
  type: dict
  contains:
    code:
      description: V(repository_damaged), or what kept the check from being done.
      type: str
    message:
      description: The same in words.
      type: str
    hint:
      description: What to do.
      type: str
    details:
      description: With RV(bots) in RV(failure.details).
      type: dict
"""

import typing as t

from ..module_utils._backup import arguments, upkeep
from ..module_utils._errors import FleetError
from ..module_utils._module import QuietModule


def check(params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    store = arguments.store(params)
    reading = upkeep.Reading(params["read_data"], params["parts"], params["part"]).check()
    accesses = [arguments.access(params, store, bot) for bot in arguments.listed(params)]
    return upkeep.Checks(accesses, reading, params["parallel"]).run()


def main() -> None:
    module = QuietModule(argument_spec=arguments.either(
        read_data={"type": "str", "choices": ["none", "part", "all"], "default": "part"},
        parts={"type": "int", "default": 30}, part={"type": "int"}),
        supports_check_mode=True, **arguments.EITHER)
    try:
        found = check(module.params)
    except FleetError as error:
        module.fail_json(**error.result())
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
