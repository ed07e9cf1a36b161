#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vm_restore
short_description: Disks of guests out of a snapshot
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Restores the disks of guests onto the managed host, whatever host made the snapshot, together with the variables of
    the firmware, the SSH host key and the record of each guest. M(clawops.fleet.vm_fleet) then defines and boots the
    guest as it was, with the same addresses of its network cards; cloud-init does not run anew.
  - The disks are put together beside the folder of the guest, verified, and take its place in one step.
    They are images of their own, whatever they stood on.
  - The guest must be shut off, or not be there. Disks that are there are not replaced unless O(vms[].overwrite) says
    so. A restore that was interrupted may be repeated without it.
  - Nothing is written unless all guests of the list can be served.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.backup
  - clawops.fleet.backup.vm_targets
  - clawops.fleet.backup.libvirt
attributes:
  idempotent:
    support: partial
    details:
      - With O(vms[].overwrite) the disks are restored each time.
options:
  keep_previous:
    description: Keep the replaced folder as C(/var/lib/clawops/vms/{name}.before-restore-{time}).
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Bring the disks of a guest back
  clawops.fleet.vm_restore:
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
restored:
  description: One entry for each guest.
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
      description: Id of the snapshot that the disks come from, or would come from.
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
      description: The folder of the guest.
      type: dict
      returned: always
      sample: {disks: /var/lib/clawops/vms/zap}
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
      description: The previous folder, with O(keep_previous).
      type: list
      elements: str
      returned: always
    safety:
      description: Always null; O(keep_previous) keeps what is replaced.
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
      sample: vm zap
    action:
      description: What was done to it, such as V(restore).
      type: str
      sample: restore
"""

import typing as t

from ..module_utils._backup import arguments, verbs
from ..module_utils._errors import FleetError
from ..module_utils._guest_backup import GuestTarget
from ..module_utils._libvirt.client import URI, Host
from ..module_utils._module import QuietModule
from ..module_utils._plan import run


def restores(params: t.Mapping[str, t.Any], check_mode: bool) -> verbs.Restores:
    store, libvirt = arguments.store(params), Host(params["libvirt_uri"])
    wishes = []
    for vm in params["vms"]:
        target = GuestTarget(libvirt, vm["name"], store.fleet, params["keep_previous"])
        wishes.append(arguments.wish(arguments.access(params, store, vm, target.runner), target, vm))
    return verbs.Restores(wishes, check_mode, params["parallel"])


def main() -> None:
    module = QuietModule(argument_spec=arguments.spec(
        arguments.CHOICE, kind="vm", keep_previous={"type": "bool", "default": False},
        libvirt_uri={"type": "str", "default": URI}), supports_check_mode=True)
    try:
        verb = restores(module.params, module.check_mode)
    except FleetError as error:
        module.fail_json(**error.result())
    run(module, verb.plan, verb.apply, verb.facts)


if __name__ == "__main__":
    main()
