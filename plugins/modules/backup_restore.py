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
  - Nothing is written unless all bots of the list can be served.
  - A directory that holds data is not replaced unless O(bots[].overwrite) says so.
    A restore that was interrupted may be repeated without it.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.backup
  - clawops.fleet.backup.targets
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
    changed:
      description: Whether this run restored it.
      type: bool
      returned: always
    kept:
      description: The previous directories, with O(keep_previous).
      type: list
      elements: str
      returned: always
    duration:
      description: Seconds.
      type: float
      returned: always
"""

import typing as t

from ..module_utils._backup import arguments, verbs
from ..module_utils._backup.host import STATE, HostTarget, Place
from ..module_utils._backup.model import ROLES
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
        target = HostTarget(name, [Place(**path) for path in bot["paths"]], units, params["stop"],
                            params["keep_previous"], params["state_dir"])
        wishes.append(verbs.Wish(arguments.access(params, store, bot, target.runner), target, bot["snapshot"],
                                 bot["overwrite"]))
    return verbs.Restores(wishes, check_mode, params["parallel"])


def main() -> None:
    path = {"role": {"type": "str", "required": True, "choices": list(ROLES)},
            "path": {"type": "str", "required": True}, "owner": {"type": "str", "required": True},
            "group": {"type": "str"}}
    bot = {"snapshot": {"type": "str", "default": "latest"}, "overwrite": {"type": "bool", "default": False},
           "units": {"type": "list", "elements": "str"},
           "paths": {"type": "list", "elements": "dict", "required": True, "options": path}}
    module = QuietModule(argument_spec=arguments.spec(
        bot, stop={"type": "bool", "default": False}, keep_previous={"type": "bool", "default": False},
        state_dir={"type": "path", "default": STATE}), supports_check_mode=True)
    try:
        verb = restores(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(**error.result())
    run(module, verb.plan, verb.apply, verb.facts)


if __name__ == "__main__":
    main()
