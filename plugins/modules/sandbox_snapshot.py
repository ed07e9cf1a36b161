#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: sandbox_snapshot
short_description: Encrypted, deduplicated snapshots of the volumes of spaces
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Backs up the volumes of spaces on the managed host, each into its own repository, while the spaces run or sleep.
    Until a space has its snapshot nobody changes it or puts it to sleep.
  - SQLite databases are copied by SQLite's online backup, as their owner, and stored in place of the live files.
    Everything else is read where it is.
  - Volumes are read from a private view of the host, as M(clawops.fleet.backup_snapshot) says. Root needs the
    right to mount (C(CAP_SYS_ADMIN)); without it the space fails with V(not_confined).
  - A space that works on a directory of the host has no volume, and that directory is not backed up.
  - The failure of one space does not stop the others; the task then fails with the list of what became of each.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.backup
  - clawops.fleet.backup.engine
  - clawops.fleet.backup.space_sources
attributes:
  idempotent:
    support: none
    details:
      - A snapshot is an event. Each run makes one, which adds next to nothing when nothing changed.
options:
  host:
    description: Name of the host in tags and manifest. The default is its own host name.
    type: str
"""

EXAMPLES = r"""
- name: Back up a space
  clawops.fleet.sandbox_snapshot:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_access_key }}"
    secret_key: "{{ fleet_backup_secret_key }}"
    password: "{{ fleet_backup_password }}"
    spaces:
      - name: scratch
"""

RETURN = r"""
snapshots:
  description: One entry for each space. Empty in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    space:
      description: Name of the space.
      type: str
      returned: always
      sample: scratch
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
      sample: snapshot scratch
    action:
      description: What was done to it, such as V(create).
      type: str
      sample: create
"""

import platform
import typing as t

from ..module_utils._backup import arguments, verbs
from ..module_utils._docker.client import connect
from ..module_utils._errors import FleetError
from ..module_utils._module import QuietModule
from ..module_utils._plan import run
from ..module_utils._space_backup import SpaceSource


def snapshots(params: t.Mapping[str, t.Any], check_mode: bool) -> verbs.Snapshots:
    store, engine = arguments.store(params), connect(params["docker_host"])
    host, jobs = params["host"] or platform.node(), []
    for space in params["spaces"]:
        source = SpaceSource(engine.twin(), space["name"], store.fleet, host, space["exclude"], params["timeout"])
        jobs.append(verbs.Job(arguments.access(params, store, space, source.runner), source))
    return verbs.Snapshots(jobs, host, check_mode, params["parallel"])


def main() -> None:
    module = QuietModule(argument_spec=arguments.spec(
        {"exclude": {"type": "list", "elements": "str", "default": []}}, "space",
        docker_host={"type": "str"}, host={"type": "str"}), supports_check_mode=True)
    try:
        verb = snapshots(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(**error.result())
    run(module, verb.plan, verb.apply, verb.facts)


if __name__ == "__main__":
    main()
