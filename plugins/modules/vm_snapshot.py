#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_snapshot
short_description: Encrypted, deduplicated snapshots of the disks of guests
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Backs up the disks of guests of the managed host, each guest into its own repository, while they run or not.
  - The disks of a guest are copied as they are at one moment. Its guest agent stops the file systems for that moment;
    without an agent the copy is what a power cut would have left, and the result says so.
  - A copy of each disk is kept beside it, in small files. A running guest hands over what it changed since the last
    copy, by a checkpoint of libvirt's; restic then reads the files that changed. Each snapshot is whole by itself.
  - When it is not certain what changed, because a guest was killed, a disk replaced, or a checkpoint removed, the disk
    is read anew. So is the first time, and the first time after a guest was backed up while it was shut off.
  - The copies take as much room on the host as the guests use. It is checked first.
  - With the disks go the variables of the firmware, the SSH host key and the record of the guest. Other devices, the
    seed and the state of a TPM don't.
  - Checkpoints and jobs of others are left alone. A run that dies leaves neither frozen file systems nor a job.
  - The failure of one guest does not stop the others; the task then fails with the list of what became of each.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.backup
  - clawops.fleet.backup.vms
  - clawops.fleet.backup.libvirt
attributes:
  idempotent:
    support: none
    details:
      - A snapshot is an event. Each run makes one, which adds next to nothing when nothing changed.
options:
  full:
    description: Read the disks anew, even where it is known what changed.
    type: bool
    default: false
  host:
    description: Name of the host in tags and manifest. The default is its own host name.
    type: str
"""

EXAMPLES = r"""
- name: Back up the disks of a guest
  clawops.fleet.vm_snapshot:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_access_key }}"
    secret_key: "{{ fleet_backup_secret_key }}"
    password: "{{ fleet_backup_password }}"
    vms:
      - name: zap
"""

RETURN = r"""
snapshots:
  description: One entry for each guest. Empty in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    vm:
      description: Name of the guest.
      type: str
      returned: always
      sample: zap
    snapshot:
      description: Id of the snapshot.
      type: str
      returned: always
    mode:
      description: How its disks were copied, V(full), V(incremental) or V(unchanged); of several, what took the most.
      type: str
      returned: always
      sample: incremental
    consistency:
      description: V(frozen) when the file systems were at rest, V(crash) when they were not, V(stopped) when the guest
        was shut off.
      type: str
      returned: always
      sample: frozen
    reason:
      description: Why it was not frozen, or not incremental; empty otherwise.
      type: str
      returned: always
    bytes_read:
      description: How much of the disks was read.
      type: int
      returned: always
    disks:
      description: One entry for each disk.
      type: list
      elements: dict
      returned: always
      contains:
        name:
          description: Name of the disk; V(root) is the first one.
          type: str
          returned: always
        mode:
          description: How it was copied.
          type: str
          returned: always
        size:
          description: Its size as the guest sees it.
          type: int
          returned: always
        bytes_read:
          description: How much of it was read.
          type: int
          returned: always
    bytes:
      description: Size of what is in the snapshot.
      type: int
      returned: always
    bytes_added:
      description: What the bucket grew by.
      type: int
      returned: always
    files:
      description: Number of files in it.
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
      sample: snapshot zap
    action:
      description: What was done to it, such as V(create).
      type: str
      sample: create
"""

import platform
import typing as t

from ..module_utils._backup import arguments, verbs
from ..module_utils._errors import FleetError
from ..module_utils._guest_backup import GuestSource
from ..module_utils._libvirt.client import URI, Host
from ..module_utils._module import QuietModule
from ..module_utils._plan import Plan, run


def snapshots(params: t.Mapping[str, t.Any], check_mode: bool) -> verbs.Snapshots:
    store, libvirt = arguments.store(params), Host(params["libvirt_uri"])
    host = params["host"] or platform.node()
    jobs = []
    for vm in params["vms"]:
        source = GuestSource(libvirt, vm["name"], store.fleet, host, params["full"], params["timeout"])
        jobs.append(verbs.Job(arguments.access(params, store, vm, source.runner), source))
    return verbs.Snapshots(jobs, host, check_mode, params["parallel"])


def main() -> None:
    module = QuietModule(argument_spec=arguments.spec(
        kind="vm", full={"type": "bool", "default": False}, host={"type": "str"},
        libvirt_uri={"type": "str", "default": URI}), supports_check_mode=True)
    try:
        verb = snapshots(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(**error.result())

    def apply(plan: Plan) -> dict[str, t.Any]:
        taken = verb.apply(plan)
        for snapshot in taken["snapshots"]:
            del snapshot["databases"]
        return taken

    run(module, verb.plan, apply, verb.facts)


if __name__ == "__main__":
    main()
