#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_snapshot
short_description: Encrypted, deduplicated snapshots of running bots
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Backs up the directories of bots on the managed host, each into its own repository.
  - SQLite databases are recognised by their content, copied by SQLite's online backup while the bot goes on writing,
    checked, and stored in place of the live files. Everything else is read where it is.
  - As root this reads from a private view of the host that has nothing but the directories of that bot, its staging
    directory, restic's cache and what every program needs. A link that somebody puts into a bot's directory meanwhile
    leads to nothing of the host or of another bot. Where root may not mount (C(CAP_SYS_ADMIN)), or where the way to a
    directory has a symbolic link that others than root could have put there, the bot fails with V(not_confined).
  - The failure of one bot does not stop the others; the task then fails with the list of what became of each.
  - A snapshot that lacks a file that could not be read does not count, and is removed again.
  - Snapshots are never removed by this module.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.backup
  - clawops.fleet.backup.sources
attributes:
  idempotent:
    support: none
    details:
      - A snapshot is an event. Each run makes one, which adds next to nothing when nothing changed.
options:
  substrate:
    description: What the host is, for the manifest.
    type: str
    default: docker_host
  host:
    description: Name of the host in tags and manifest. The default is its own host name.
    type: str
  state_dir:
    description: Where staging directories and locks are.
    type: path
    default: /var/lib/clawops
"""

EXAMPLES = r"""
- name: Back up a bot
  clawops.fleet.backup_snapshot:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_access_key }}"
    secret_key: "{{ fleet_backup_secret_key }}"
    password: "{{ fleet_backup_password }}"
    bots:
      - name: alpha
        paths:
          - {role: state, path: /var/lib/clawops/bots/alpha}
          - {role: config, path: /opt/openclaw/alpha/config}
"""

RETURN = r"""
snapshots:
  description: One entry for each bot. Empty in check mode.
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
      description: Id of the snapshot.
      type: str
      returned: always
    files:
      description: Number of files in it.
      type: int
      returned: always
    bytes:
      description: Size of what was backed up.
      type: int
      returned: always
    bytes_added:
      description: What the bucket grew by.
      type: int
      returned: always
    databases:
      description: Number of SQLite databases.
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
      sample: snapshot alpha
    action:
      description: What was done to it, such as V(create).
      type: str
      sample: create
"""

import platform
import typing as t

from ..module_utils._backup import arguments, verbs
from ..module_utils._backup.host import REGENERABLE, STATE, HostSource, Tree
from ..module_utils._backup.model import ROLES
from ..module_utils._errors import FleetError
from ..module_utils._module import QuietModule
from ..module_utils._plan import run


def _tree(role: str, path: str, exclude: list[str] | None) -> Tree:
    return Tree(role, path, REGENERABLE.get(role, ()) if exclude is None else tuple(exclude))


def snapshots(params: t.Mapping[str, t.Any], check_mode: bool) -> verbs.Snapshots:
    store = arguments.store(params)
    host = params["host"] or platform.node()
    jobs = []
    for bot in params["bots"]:
        trees = [_tree(**path) for path in bot["paths"]]
        source = HostSource(bot["name"], store.fleet, host, trees, params["substrate"], bot["version"],
                            params["state_dir"], params["timeout"])
        jobs.append(verbs.Job(arguments.access(params, store, bot, source.runner), source))
    return verbs.Snapshots(jobs, host, check_mode, params["parallel"])


def main() -> None:
    path = {"role": {"type": "str", "required": True, "choices": list(ROLES)},
            "path": {"type": "str", "required": True}, "exclude": {"type": "list", "elements": "str"}}
    bot = {"version": {"type": "str", "default": ""},
           "paths": {"type": "list", "elements": "dict", "required": True, "options": path}}
    module = QuietModule(argument_spec=arguments.spec(
        bot, substrate={"type": "str", "default": "docker_host"}, host={"type": "str"},
        state_dir={"type": "path", "default": STATE}), supports_check_mode=True)
    try:
        verb = snapshots(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(**error.result())
    run(module, verb.plan, verb.apply, verb.facts)


if __name__ == "__main__":
    main()
