#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: pod_snapshot
short_description: Encrypted, deduplicated snapshots of bots in a Kubernetes cluster
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Backs up the volumes of bots, each into its own repository. Runs where the API server and the bucket are reached,
    and needs restic there, too.
  - A bot that runs makes copies of its SQLite databases itself, in a directory of its own volume. A Job on its node
    mounts the volumes, for reading only, and runs restic. For a bot that is stopped the Job does both.
  - The secrets are in a Secret of the Job, which is gone with it, and never reach the bot. A network policy lets the
    Job reach the bucket and nothing else. It ends with whoever started it, and one Job at a time works on a bot.
  - The failure of one bot does not stop the others; the task then fails with the list of what became of each.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.backup
  - clawops.fleet.backup.cluster
  - clawops.fleet.backup.pod_sources
attributes:
  idempotent:
    support: none
    details:
      - A snapshot is an event. Each run makes one, which adds next to nothing when nothing changed.
options:
  cluster:
    description: Name of the cluster in tags and manifest.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Back up a bot
  clawops.fleet.pod_snapshot:
    kubeconfig: ~/.kube/claworc-manager
    cluster: harbor
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_access_key }}"
    secret_key: "{{ fleet_backup_secret_key }}"
    password: "{{ fleet_backup_password }}"
    bots:
      - name: delta
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
      sample: delta
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

import typing as t

from ..module_utils._backup import arguments, verbs
from ..module_utils._backup.host import REGENERABLE
from ..module_utils._errors import FleetError
from ..module_utils._module import QuietModule
from ..module_utils._plan import run
from ..module_utils._pod_backup import CLUSTER, PodRunner, PodSource, ways


def snapshots(params: t.Mapping[str, t.Any], check_mode: bool) -> verbs.Snapshots:
    store = arguments.store(params)
    common, jobs = ways(params, store), []
    for bot in params["bots"]:
        runner = PodRunner(store.ca_cert)
        access = arguments.access(params, store, bot, runner)
        exclude = REGENERABLE["state"] if bot["exclude"] is None else bot["exclude"]
        source = PodSource(common, bot["name"], runner, access.repository.env, params["cluster"], exclude)
        jobs.append(verbs.Job(access, source))
    return verbs.Snapshots(jobs, params["cluster"], check_mode, params["parallel"])


def main() -> None:
    module = QuietModule(argument_spec=arguments.spec(
        {"exclude": {"type": "list", "elements": "str"}}, **CLUSTER,
        cluster={"type": "str", "required": True}), supports_check_mode=True)
    try:
        verb = snapshots(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(**error.result())
    run(module, verb.plan, verb.apply, verb.facts)


if __name__ == "__main__":
    main()
