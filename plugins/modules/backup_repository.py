#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_repository
short_description: Encrypted backup repositories of bots in an S3 bucket
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Makes the bucket and one restic repository for every bot, and verifies that the password opens it.
  - Returns for each bot the least policy that its own S3 key needs.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.backup
  - clawops.fleet.backup.bots
options:
  create_bucket:
    description: Make the bucket when it is missing. With V(false) a missing one is an error.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Give two bots their repositories
  clawops.fleet.backup_repository:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_access_key }}"
    secret_key: "{{ fleet_backup_secret_key }}"
    password: "{{ fleet_backup_password }}"
    bots:
      - name: alpha
      - name: bravo
        password: "{{ bravo_backup_password }}"
"""

RETURN = r"""
repositories:
  description: One entry for each bot.
  returned: success
  type: list
  elements: dict
  contains:
    bot:
      description: Name of the bot.
      type: str
      returned: always
      sample: alpha
    id:
      description: Id of the repository; null in check mode when it would be made.
      type: str
      returned: always
    url:
      description: Where it is, as restic takes it.
      type: str
      returned: always
      sample: s3:https://s3.example.org:9000/backups/home/bots/alpha/
    policy:
      description: The S3 policy to attach to the bot's key. It reaches the bot's prefix only,
        and deletes nothing but locks and half-done snapshots.
      type: dict
      returned: always
"""

import typing as t

from ..module_utils._backup import arguments, verbs
from ..module_utils._errors import FleetError
from ..module_utils._module import QuietModule
from ..module_utils._plan import run


def repositories(params: t.Mapping[str, t.Any], check_mode: bool) -> verbs.Repositories:
    store = arguments.store(params)
    accesses = [arguments.access(params, store, bot) for bot in params["bots"]]
    return verbs.Repositories(accesses, store, params["create_bucket"], check_mode, params["parallel"])


def main() -> None:
    module = QuietModule(argument_spec=arguments.spec(create_bucket={"type": "bool", "default": True}),
                         supports_check_mode=True)
    try:
        verb = repositories(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(**error.result())
    run(module, verb.plan, verb.apply, verb.facts)


if __name__ == "__main__":
    main()
