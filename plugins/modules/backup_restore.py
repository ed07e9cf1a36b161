#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_restore
short_description: Bots' data out of a snapshot
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Restores directories of bots onto the managed host, whatever machine made the snapshot. Directories go by their
    role, and files are given to the bot's user on this host.
  - The data are put together beside the target, on the same file system, checked against the manifest, and switched
    into place by renaming. Set-id bits, file capabilities and devices don't come back.
  - That is done where nobody but root can exchange a directory on the way, and no symbolic link is followed that others
    could have put into the way of the switch. Where no such place is on the same mount, this fails with V(target_open).
  - Nothing is written unless all bots of the list can be served.
  - A directory that holds data is not replaced unless O(bots[].overwrite) says so, and then a snapshot of it is taken
    first, see O(safety). A restore that was interrupted may be repeated without consent.
  - The bot's gateway gets a new token, but for one that the inventory says.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.backup
  - clawops.fleet.backup.targets
  - clawops.fleet.backup.safety
attributes:
  idempotent:
    support: partial
    details:
      - With O(bots[].overwrite) the data are restored each time.
options:
  stop:
    description: Stop the bot's units right before the switch. Nothing is started again by this module.
    type: bool
    default: false
  keep_previous:
    description: Keep replaced directories as C({path}.before-restore-{time}).
    type: bool
    default: false
  state_dir:
    description: Where records and locks are.
    type: path
    default: /var/lib/clawops
"""

EXAMPLES = r"""
- name: Bring a bot's data back
  clawops.fleet.backup_restore:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_access_key }}"
    secret_key: "{{ fleet_backup_secret_key }}"
    password: "{{ fleet_backup_password }}"
    bots:
      - name: alpha
        paths:
          - {role: state, path: /var/lib/clawops/bots/alpha, owner: bot-alpha}

- name: Go back to the evening before, with what is there now in a snapshot
  clawops.fleet.backup_restore:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_access_key }}"
    secret_key: "{{ fleet_backup_secret_key }}"
    password: "{{ fleet_backup_password }}"
    stop: true
    bots:
      - name: alpha
        time: "2026-11-20T20:00:00+01:00"
        overwrite: true
        paths:
          - {role: state, path: /var/lib/clawops/bots/alpha, owner: bot-alpha}
"""

RETURN = r"""
restored:
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
    snapshot:
      description: Id of the snapshot that the target holds, or would hold.
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
    places:
      description: Directory of each role.
      type: dict
      returned: always
      sample: {state: /var/lib/clawops/bots/alpha}
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
      sample: bot alpha
    action:
      description: What was done to it, such as V(restore).
      type: str
      sample: restore
"""

import typing as t

from ..module_utils._backup import arguments, verbs
from ..module_utils._backup.host import STATE, Place
from ..module_utils._backup.model import ROLES
from ..module_utils._bot_backup import BotTarget
from ..module_utils._errors import FleetError
from ..module_utils._module import QuietModule
from ..module_utils._plan import run


def restores(params: t.Mapping[str, t.Any], check_mode: bool) -> verbs.Restores:
    store = arguments.store(params)
    wishes = []
    for bot in params["bots"]:
        name = bot["name"]
        units = bot["units"] if bot["units"] is not None else [
            "openclaw.service" if name == "openclaw" else f"openclaw@{name}.service"]
        target = BotTarget(name, [Place(**path) for path in bot["paths"]], units, params["stop"],
                           params["keep_previous"], params["state_dir"])
        access = arguments.access(params, store, bot, target.runner)
        wishes.append(arguments.wish(access, target, bot, params["safety"]))
    return verbs.Restores(wishes, check_mode, params["parallel"], params["host"] or "")


def main() -> None:
    path = {"role": {"type": "str", "required": True, "choices": list(ROLES)},
            "path": {"type": "str", "required": True}, "owner": {"type": "str", "required": True},
            "group": {"type": "str"}}
    bot = {**arguments.CHOICE, "units": {"type": "list", "elements": "str"},
           "paths": {"type": "list", "elements": "dict", "required": True, "options": path}}
    module = QuietModule(argument_spec=arguments.spec(
        bot, **arguments.SAFETY, stop={"type": "bool", "default": False},
        keep_previous={"type": "bool", "default": False}, state_dir={"type": "path", "default": STATE}),
        supports_check_mode=True)
    try:
        verb = restores(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(**error.result())
    run(module, verb.plan, verb.apply, verb.facts)


if __name__ == "__main__":
    main()
