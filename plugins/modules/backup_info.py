#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_info
short_description: The snapshots of bots
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Lists the snapshots of bots, and how old the newest one is.
extends_documentation_fragment:
  - clawops.fleet.attributes.info
  - clawops.fleet.backup
  - clawops.fleet.backup.either
"""

EXAMPLES = r"""
- name: List the snapshots of a bot
  clawops.fleet.backup_info:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_access_key }}"
    secret_key: "{{ fleet_backup_secret_key }}"
    password: "{{ fleet_backup_password }}"
    bots:
      - name: alpha
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
    repository:
      description: Where its repository is.
      type: str
      returned: always
    exists:
      description: Whether the repository exists.
      type: bool
      returned: always
    newest_age:
      description: Seconds since the newest snapshot, but for those taken by restores; null when there is none.
      type: int
      returned: always
    snapshots:
      description: The snapshots, oldest first.
      type: list
      elements: dict
      returned: always
      contains:
        id:
          description: Id of the snapshot.
          type: str
          returned: always
        time:
          description: When it was made.
          type: str
          returned: always
        host:
          description: The host that made it.
          type: str
          returned: always
        tags:
          description: Its tags.
          type: list
          elements: str
          returned: always
        bytes:
          description: Size of the data in it.
          type: int
          returned: always
        files:
          description: Number of files in it.
          type: int
          returned: always
        safety:
          description: Whether it is of data that a restore replaced. Such a one is restored by its id alone.
          type: bool
          returned: always
"""

import typing as t

from ..module_utils._backup import arguments, verbs
from ..module_utils._errors import FleetError
from ..module_utils._module import QuietModule


def collect(params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    store = arguments.store(params)
    return verbs.info([arguments.access(params, store, bot) for bot in arguments.listed(params)], params["parallel"])


def main() -> None:
    module = QuietModule(argument_spec=arguments.either(), supports_check_mode=True, **arguments.EITHER)
    try:
        found = collect(module.params)
    except FleetError as error:
        module.fail_json(**error.result())
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
