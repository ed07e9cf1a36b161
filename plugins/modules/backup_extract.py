#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_extract
short_description: A snapshot beside what lives
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Takes snapshots of bots or spaces, whatever machine or cluster they are of, out into folders of the managed host,
    for looking at them, for single files, or for a trial. No bot and no space is touched or looked at.
  - Every file is read back and compared with the checksums in the repository, every database with the manifest. Set-id
    bits, file capabilities and devices don't come along.
  - Nothing is written unless all of the list can be served. Remove the folder to be done with it.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.backup
  - clawops.fleet.backup.folders
"""

EXAMPLES = r"""
- name: Look at what a bot was yesterday
  clawops.fleet.backup_extract:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_access_key }}"
    secret_key: "{{ fleet_backup_secret_key }}"
    password: "{{ fleet_backup_password }}"
    bots:
      - name: alpha
        time: "2026-11-20T20:00:00+01:00"
        into: /srv/look/alpha
"""

RETURN = r"""
extracted:
  description: One entry for each bot or space.
  returned: success
  type: list
  elements: dict
  contains:
    bot:
      description: Name of the bot; C(space) in its place with O(spaces).
      type: str
      returned: always
      sample: alpha
    snapshot:
      description: Id of the snapshot that the folder holds, or would hold.
      type: str
      returned: always
    time:
      description: When it was made.
      type: str
      returned: always
    host:
      description: The host or cluster that made it.
      type: str
      returned: always
    into:
      description: The folder.
      type: str
      returned: always
    places:
      description: Directory of each role.
      type: dict
      returned: always
      sample: {state: /srv/look/alpha/state}
    manifest:
      description: What the snapshot says of itself, with C(fleet), C(bot), C(host), C(substrate), C(bot_version) and
        C(created).
      type: dict
      returned: always
      sample: {bot: alpha, substrate: docker_host, bot_version: 2026.9.6}
    databases:
      description: The SQLite databases, with what the manifest says of each.
      type: list
      elements: dict
      returned: always
      contains:
        role:
          description: Its role.
          type: str
          returned: always
        path:
          description: Where it is now.
          type: str
          returned: always
        sha256:
          description: Its checksum as long as nobody opens it for writing.
          type: str
          returned: always
        size:
          description: Its size.
          type: int
          returned: always
    files:
      description: Number of files in the snapshot.
      type: int
      returned: always
    bytes:
      description: Size of what is in it.
      type: int
      returned: always
    changed:
      description: Whether this run took it out.
      type: bool
      returned: always
    kept:
      description: Always empty.
      type: list
      elements: str
      returned: always
    safety:
      description: Always null.
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

from ..module_utils._backup import arguments
from ..module_utils._backup.extract import Extracts, ScratchTarget, check_apart
from ..module_utils._backup.model import ROLES
from ..module_utils._errors import FleetError
from ..module_utils._module import QuietModule
from ..module_utils._plan import run


def extracts(params: t.Mapping[str, t.Any], check_mode: bool) -> Extracts:
    store, entries = arguments.store(params), arguments.listed(params)
    check_apart([entry["into"] for entry in entries])
    wishes = []
    for entry in entries:
        target = ScratchTarget(entry["name"], entry["into"], entry["roles"], entry["owner"], entry["group"])
        wishes.append(arguments.wish(arguments.access(params, store, entry, target.runner), target, entry))
    return Extracts(wishes, check_mode, params["parallel"])


def main() -> None:
    entry = {"snapshot": arguments.CHOICE["snapshot"], "time": arguments.CHOICE["time"],
             "into": {"type": "str", "required": True},
             "roles": {"type": "list", "elements": "str", "choices": list(ROLES)},
             "owner": {"type": "str", "default": "root"}, "group": {"type": "str"}}
    both = ("bots", "spaces")
    spec = arguments.spec(entry)
    module = QuietModule(argument_spec={**spec, **{name: {**spec["bots"], "required": False} for name in both}},
                         mutually_exclusive=[both], required_one_of=[both], supports_check_mode=True)
    try:
        verb = extracts(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(**error.result())
    run(module, verb.plan, verb.apply, verb.facts)


if __name__ == "__main__":
    main()
