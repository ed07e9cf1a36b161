#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_password
short_description: Gives the repositories of bots, VMs or spaces another password
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Makes a repository open with its password and no longer with the one of before. The new key is made and tried before
    the old one is removed, and a run that was interrupted is simply repeated.
  - Keys that neither of them opens belong to somebody else, and stay.
  - Needs a key that may delete, as M(clawops.fleet.backup_retention) does.
  - The data are not encrypted anew. Who has the old password and a copy of the old key object can still read what they
    can get at, so that after a theft the S3 key has to change, too.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.backup
  - clawops.fleet.backup.passwords
options:
  previous_password:
    description: The old password of those that have none of their own.
    type: str
"""

EXAMPLES = r"""
- name: Change a bot's password
  clawops.fleet.backup_password:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_prune_access_key }}"
    secret_key: "{{ fleet_backup_prune_secret_key }}"
    bots:
      - name: alpha
        password: "{{ alpha_backup_password }}"
        previous_password: "{{ alpha_backup_previous_password }}"
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
    key:
      description: Id of the key that the password opens; empty in check mode when it would be made.
      type: str
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
      sample: old key of alpha
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


def passwords(params: t.Mapping[str, t.Any], check_mode: bool) -> upkeep.Passwords:
    store = arguments.store(params)
    changes = []
    for bot in arguments.listed(params):
        old = bot["previous_password"] or params["previous_password"]
        previous = arguments.access(params, store, {**bot, "password": old}) if old else None
        changes.append(upkeep.Exchange(arguments.access(params, store, bot), previous))
    return upkeep.Passwords(changes, params["parallel"], check_mode)


def main() -> None:
    secret = {"type": "str", "no_log": True}
    module = QuietModule(argument_spec=arguments.either({"previous_password": secret}, previous_password=secret),
                         supports_check_mode=True, **arguments.EITHER)
    try:
        verb = passwords(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(**error.result())
    run(module, verb.plan, verb.apply, verb.facts)


if __name__ == "__main__":
    main()
