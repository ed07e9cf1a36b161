#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: pod_restore
short_description: Data of bots in a Kubernetes cluster out of a snapshot
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Restores the volumes of bots, whatever machine or cluster made the snapshot. What a snapshot has for a volume goes
    by its role, and files are given to the user of the pod. Deployment and volumes must be there, be they empty.
  - The bot must be stopped, or is with O(stop). A Job mounts its volumes and runs restic; the data are put together
    beside what is in them, checked against the manifest, and then exchanged. The next run undoes an exchange that was
    cut short. The rights of the Job are those that M(clawops.fleet.pod_snapshot) tells of.
  - The bot's gateway gets a new token with its next start. Its SSH keys and its configuration are not touched.
  - Volumes that hold data are not replaced unless O(bots[].overwrite) says so, and then a snapshot of them is taken
    first, see O(safety). A restore that was interrupted may be repeated without consent.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.backup
  - clawops.fleet.backup.cluster
  - clawops.fleet.backup.pod_targets
  - clawops.fleet.backup.safety
attributes:
  idempotent:
    support: partial
    details:
      - With O(bots[].overwrite) the data are restored each time.
options:
  stop:
    description: Stop bots that run. Nothing is started again by this module.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Bring a bot's data back
  clawops.fleet.pod_restore:
    kubeconfig: ~/.kube/claworc-manager
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
      sample: delta
    snapshot:
      description: Id of the snapshot that the target holds, or would hold.
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
    places:
      description: Where each role is.
      type: dict
      returned: always
      sample: {state: PersistentVolumeClaim claworc-gateway/bot-delta-clawdbot}
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
      description: Always empty.
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
from ..module_utils._errors import FleetError
from ..module_utils._module import QuietModule
from ..module_utils._plan import run
from ..module_utils._pod_backup import CLUSTER, PodRunner, PodTarget, ways


def restores(params: t.Mapping[str, t.Any], check_mode: bool) -> verbs.Restores:
    store = arguments.store(params)
    common, wishes = ways(params, store), []
    for bot in params["bots"]:
        runner = PodRunner(store.ca_cert)
        access = arguments.access(params, store, bot, runner)
        target = PodTarget(common, bot["name"], runner, access.repository.env, params["stop"], bot["overwrite"])
        wishes.append(arguments.wish(access, target, bot, params["safety"]))
    return verbs.Restores(wishes, check_mode, params["parallel"], params["host"] or "")


def main() -> None:
    spec = arguments.spec(arguments.CHOICE, **CLUSTER, **arguments.SAFETY, stop={"type": "bool", "default": False})
    module = QuietModule(argument_spec=spec, supports_check_mode=True)
    try:
        verb = restores(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(**error.result())
    run(module, verb.plan, verb.apply, verb.facts)


if __name__ == "__main__":
    main()
