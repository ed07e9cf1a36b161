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
  - Returns for each bot the least policy that its own S3 key needs. With the key of an administrator of MinIO it makes
    these keys, too. Such a key has no business on the machine of a bot; run this on one that no bot reaches.
  - The failure of one bot does not stop the others; the task then fails with the list of what became of each.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.backup
  - clawops.fleet.backup.either
options:
  create_bucket:
    description: Make the bucket when it is missing. With V(false) a missing one is an error.
    type: bool
    default: true
  repositories:
    description: With V(false) only bucket and keys are seen to.
    type: bool
    default: true
  admin_access_key:
    description:
      - Access key of a user of MinIO who may manage users, policies and this bucket. Every bot that has an
        O(bots[].access_key) of its own then gets this user, with its secret and its policy.
      - Other services have no such API. There, make the keys with the policies that this module returns.
    type: str
  admin_secret_key:
    description: Secret key that goes with O(admin_access_key).
    type: str
  prune_access_key:
    description: Access key of the user that prunes, checks and repairs. It is made with O(admin_access_key).
    type: str
  prune_secret_key:
    description: Secret key that goes with O(prune_access_key).
    type: str
  revoke:
    description: Access keys of users of MinIO that are removed, because others took their place.
    type: list
    elements: str
    default: []
  versioning:
    description: Whether the bucket keeps what is deleted or overwritten. Left out, it stays as it is.
      No key but the administrator's removes old versions.
    type: bool
  keep_deleted:
    description: After how many days deleted and overwritten versions of this fleet's objects end. Left out, that stays
      as it is; without such a rule they stay for good.
    type: int
  object_lock:
    description: Nobody deletes a version of an object before it is so old. Most services want a bucket that was made
      with this on, as this module then does.
    type: dict
    suboptions:
      mode:
        description: V(governance) lets an administrator overrule it, V(compliance) nobody.
        type: str
        choices: [governance, compliance]
        default: governance
      days:
        description: How many days.
        type: int
        required: true
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

- name: Give a bot a key of its own, which can't destroy what it has written
  clawops.fleet.backup_repository:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    admin_access_key: "{{ fleet_backup_admin_access_key }}"
    admin_secret_key: "{{ fleet_backup_admin_secret_key }}"
    versioning: true
    keep_deleted: 30
    bots:
      - name: alpha
        access_key: "{{ alpha_backup_access_key }}"
        secret_key: "{{ alpha_backup_secret_key }}"
        password: "{{ alpha_backup_password }}"
  delegate_to: localhost
"""

RETURN = r"""
repositories:
  description: One entry for each bot, VM or space.
  returned: success
  type: list
  elements: dict
  contains:
    bot:
      description: Name of the bot.
      type: str
      returned: with O(bots)
      sample: alpha
    vm:
      description: Name of the VM.
      type: str
      returned: with O(vms)
    space:
      description: Name of the space.
      type: str
      returned: with O(spaces)
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
      description: The S3 policy of the bot's key. It reaches the bot's prefix only, and deletes nothing but locks.
      type: dict
      returned: always
prune_policy:
  description: The S3 policy of the key that prunes, checks and repairs.
  returned: success
  type: dict
  contains: {}
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
      sample: repository alpha
    action:
      description: What was done to it, such as V(create).
      type: str
      sample: create
"""

import typing as t

from ..module_utils._backup import arguments, verbs
from ..module_utils._errors import FleetError
from ..module_utils._module import QuietModule
from ..module_utils._plan import run


def repositories(params: t.Mapping[str, t.Any], check_mode: bool) -> verbs.Repositories:
    store = arguments.store(params)
    accesses = [arguments.access(params, store, bot) for bot in arguments.listed(params)]
    return verbs.Repositories(accesses, store, params["create_bucket"], check_mode, params["parallel"],
                              arguments.rights(params, store), arguments.history(params, store),
                              arguments.owner(params, store), params["repositories"])


def main() -> None:
    lock = {"mode": {"type": "str", "choices": ["governance", "compliance"], "default": "governance"},
            "days": {"type": "int", "required": True}}
    secret = {"type": "str", "no_log": True}
    module = QuietModule(argument_spec=arguments.either(
        create_bucket={"type": "bool", "default": True}, repositories={"type": "bool", "default": True},
        admin_access_key=secret, admin_secret_key=secret,
        prune_access_key=secret, prune_secret_key=secret,
        revoke={"type": "list", "elements": "str", "default": [], "no_log": True}, versioning={"type": "bool"},
        keep_deleted={"type": "int"}, object_lock={"type": "dict", "options": lock}),
        supports_check_mode=True, **arguments.EITHER)
    try:
        verb = repositories(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(**error.result())
    run(module, verb.plan, verb.apply, verb.facts)


if __name__ == "__main__":
    main()
