# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: vms
short_description: Guests of the inventory with what their VM hosts know about them
version_added: 0.1.0
author: clawops.fleet maintainers (@clawops)
description:
  - Asks all VM hosts of the inventory at once which guests they have, and enriches the hosts of group C(vms). Both are
    declared by other sources of the inventory that come before this one. In a directory that is the order of the file
    names.
  - A guest with an address is connected to by its pinned host key, as the user of its C(vm_user), and through its VM
    host unless its first network is a bridge. What the VM host's variables hold is looked up by the run that connects.
    It is neither in the guest's variables nor in the cache. A guest that has an C(ansible_host) of its own keeps it,
    and is connected to as its own variables say.
  - Through a VM host leads C(ssh) with a key or an agent. It can't ask for a password.
  - Every guest gets the variable C(fleet_observed), what M(clawops.fleet.vm_instance_info) says of it, with C(host)
    for where that is. Its C(state) is V(absent) if every VM host answered and none has it.
  - Guests of the fleet that are not in the inventory become hosts of group C(undeclared), if their names are such of
    guests. A guest that stands elsewhere than its C(vm_on) says is told of, and not connected to.
  - A VM host is connected to as plays do it, by the same variables and settings. Who logs in as somebody else than root
    becomes root, by C(ansible_become_method). A host that doesn't answer in time is a warning. Nothing is installed
    there, and nothing stays.
extends_documentation_fragment:
  - constructed
  - inventory_cache
options:
  plugin:
    description: Marks a file as one of this plugin. Its name ends with C(vms.yml) or C(vms.yaml).
    type: str
    required: true
    choices: [clawops.fleet.vms]
  timeout:
    description: How many seconds a VM host has to answer. All are asked at the same time.
    type: int
    default: 10
"""

EXAMPLES = r"""
# inventory/observed_vms.yml, beside inventory/hosts.yml
plugin: clawops.fleet.vms
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/ansible-inventory
cache_timeout: 300
keyed_groups:
  - key: fleet_observed.state
    prefix: vms
groups:
  to_restart: fleet_observed.restart_required | default(false)
"""

import json
import shlex
import typing as t

from ansible.errors import AnsibleError

from ..plugin_utils import _guests
from ..plugin_utils._observed import HostsInventory, Vars, trusted
from ..plugin_utils._remote import Remote

WAY = ("ansible_host", "ansible_user", "ansible_ssh_common_args", "ansible_control_path")


class InventoryModule(HostsInventory):
    """Asks all VM hosts at once."""

    NAME = "clawops.fleet.vms"
    GROUP, ON = "vms", "VM host"

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache=cache)
        self._read_config_data(path)
        declared = self._declared(path)
        found = self._cached(path, cache, self._look)
        for name, values in declared.items():
            self._enrich(name, values, found)
        for host in sorted(found):
            for name in sorted(set(found[host]) - set(declared)):
                self._add_undeclared(name, host, found[host][name])

    def _look(self) -> tuple[Vars, bool]:
        hosts = self._members("vm_hosts")
        found = self._ask(hosts, _vms)
        return found, set(found) == set(hosts)

    def _enrich(self, name: str, values: Vars, found: t.Mapping[str, t.Mapping[str, Vars]]) -> None:
        standing = [host for host in sorted(found) if name in found[host]]
        wanted = values.get("vm_on")
        host = wanted if wanted in standing or not standing else standing[0]
        if len(standing) > 1:
            self.display.warning(f"Guest {name} stands on {', '.join(standing)}. Taken is the one on {host}.")
        if standing:
            # A host that claims the guest of another one is heard, and not followed.
            self._found(name, str(host), found[str(host)][name], follow=wanted in (None, host))
        elif set(self._members("vm_hosts")) <= set(found):
            self._observed(name, {"name": name, "state": "absent"})
        self._construct(name)

    def _found(self, name: str, host: str, seen: Vars, follow: bool = True) -> None:
        self._observed(name, {**seen, "host": host})
        if follow and seen.get("address") and "ansible_host" not in self._values(name):
            way = f"(hostvars['{name}'] | clawops.fleet.vm_way(hostvars['{host}']))"
            self._set(name, {variable: trusted("{{ " + way + "." + variable + " }}") for variable in WAY})

    def _add_undeclared(self, name: str, host: str, seen: Vars) -> None:
        if self._undeclared(name, {"vm_on": host}, f"VM host {host} has a guest"):
            self._found(name, host, seen)
            self._construct(name)


def _vms(remote: Remote, fleet: str | None) -> dict[str, Vars]:
    """The guests of a host by name. One without libvirt was never prepared for any."""
    said = remote(f"python3 -c {shlex.quote(_guests.LAUNCHER)}", _guests.program(fleet))
    if said.rc:
        raise AnsibleError(said.err.strip() or f"python3 ended with {said.rc}")
    answer = json.loads(said.out)
    if "msg" in answer:
        raise AnsibleError(answer["msg"])
    return {vm["name"]: vm for vm in answer["vms"]}
