#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_drill_info
short_description: When restores of bots or spaces were proved last
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Reads what M(clawops.fleet.backup_drill_record) has written into the bucket, and fails when that is too long ago.
extends_documentation_fragment:
  - clawops.fleet.attributes.info
  - clawops.fleet.backup
  - clawops.fleet.backup.either
options:
  max_age:
    description: Within how many days a drill of each must have passed. Without one that passed, the time counts from
      the making of the repository, and without a repository nothing counts. V(0) never fails.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Fail if no restore of alpha was proved for two weeks
  clawops.fleet.backup_drill_info:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_prune_access_key }}"
    secret_key: "{{ fleet_backup_prune_secret_key }}"
    password: "{{ fleet_backup_password }}"
    max_age: 14
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
  description: One entry for each VM, as V(bots) has them, with C(vm) in place of C(bot). Disks are not drilled.
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
    drilled:
      description: When the last drill was, or null.
      type: str
      returned: always
    ok:
      description: Whether it passed, or null.
      type: bool
      returned: always
    code:
      description: Why it did not, or null.
      type: str
      returned: always
    passed:
      description: When one passed last, or null.
      type: str
      returned: always
    age:
      description: Seconds since then, or null.
      type: int
      returned: always
    late:
      description: Whether that is longer ago than O(max_age). The task fails then, and the entries are in RV(failure).
      type: bool
      returned: always
failure:
  description: What went wrong, for programs.
  returned: failure
  type: dict
  contains:
    code:
      description: V(drill_overdue), or what kept it from being known.
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

from ..module_utils._backup import arguments, proof
from ..module_utils._backup.bucket import connect
from ..module_utils._errors import FleetError, bad_value
from ..module_utils._module import QuietModule


def look(params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    store, days = arguments.store(params), params["max_age"]
    if days < 0:
        raise bad_value("max_age", days, "Give a number of days, or 0.")
    bucket = connect(store, params["access_key"] or "", params["secret_key"] or "")
    rows = proof.proofs(bucket, [one["name"] for one in arguments.listed(params)], days)
    proof.check(rows, store.kind, days)
    return {f"{store.kind}s": rows}


def main() -> None:
    module = QuietModule(argument_spec=arguments.either(max_age={"type": "int", "default": 0}),
                         supports_check_mode=True, **arguments.EITHER)
    try:
        found = look(module.params)
    except FleetError as error:
        module.fail_json(**error.result())
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
