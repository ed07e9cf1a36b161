# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: spaces
short_description: Spaces of the inventory with where they stand and what their Docker hosts know about them
version_added: 0.1.0
author: clawops.fleet maintainers (@clawops)
description:
  - Asks all Docker hosts of the inventory at once which spaces they have, and enriches the hosts of group C(spaces).
    Both are declared by other sources of the inventory that come before this one. In a directory that is the order
    of the file names.
  - A space whose Docker host is known, because it was seen there or by its C(space_on), is connected to with
    P(clawops.fleet.space#connection), through that host and with what connects to it. What a Docker host's
    variables hold, keys and passwords for instance, is looked up by the run that connects. It is neither in the
    space's variables nor in the cache.
  - Every space gets the variable C(fleet_observed), what M(clawops.fleet.sandbox_space_info) says of it, with C(host)
    for where that is. Its C(state) is V(absent) if every host answered and none has it.
  - Spaces of the fleet that are not in the inventory become hosts of group C(undeclared).
  - A host is connected to as plays do it, by the same variables and settings. Who logs in as somebody else than root
    becomes root, by C(ansible_become_method). A host that doesn't answer in time is a warning.
  - Docker hosts may come from Tailscale, too.
extends_documentation_fragment:
  - constructed
  - inventory_cache
options:
  plugin:
    description: Marks a file as one of this plugin. Its name ends with C(spaces.yml) or C(spaces.yaml).
    type: str
    required: true
    choices: [clawops.fleet.spaces]
  hosts_group:
    description: The group of the Docker hosts.
    type: str
    default: docker_hosts
  timeout:
    description: How many seconds a host has to answer. All are asked at the same time.
    type: int
    default: 5
  tailscale_tags:
    description:
      - Machines of the tailnet that have one of these tags become hosts of O(hosts_group), by the name that they have
        in the tailnet, as long as the inventory has no such host.
      - Says who is in the fleet, so it should be a tag that only operators can give. C(tailscale status --json) is
        run on the controller.
    type: list
    elements: str
    default: []
  tailscale_names:
    description: The same for machines by their names, which may have the wildcards V(*), V(?) and V([]).
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
# inventory/observed_spaces.yml, beside inventory/hosts.yml
plugin: clawops.fleet.spaces
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/ansible-inventory
cache_timeout: 300
keyed_groups:
  - key: fleet_observed.host
    prefix: spaces_on
groups:
  asleep: fleet_observed.state | default('') == 'paused'
---
# Docker hosts out of the tailnet
plugin: clawops.fleet.spaces
tailscale_tags: [tag:docker]
"""

import fnmatch
import json
import typing as t

from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.plugins.loader import connection_loader

from ..module_utils import _process
from ..module_utils._errors import FleetError
from ..plugin_utils._observed import HostsInventory, Vars, trusted
from ..plugin_utils._remote import Remote

PROGRAM = "/usr/local/sbin/clawops-space"
NO_PROGRAM = 127
CONNECTION = "clawops.fleet.space"


class InventoryModule(HostsInventory):
    """Asks all hosts at once."""

    NAME = "clawops.fleet.spaces"
    GROUP, ON = "spaces", "Docker host"

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache=cache)
        self._read_config_data(path)
        declared = self._declared(path)
        picture = self._cached(path, cache, self._look)
        self._add_machines(picture["machines"])
        found = picture["spaces"]
        for name, values in declared.items():
            self._enrich(name, values.get("space_on"), found)
        for host in sorted(found):
            for name in sorted(set(found[host]) - set(declared)):
                self._add_undeclared(name, host, found[host][name])

    # -- Docker hosts --------------------------------------------------------------------------------------------

    def _hosts(self) -> list[str]:
        return self._members(self.get_option("hosts_group"))

    def _machines(self) -> dict[str, Vars]:
        """Of the tailnet those that were asked for: address and presence by name."""
        tags, likes = set(self.get_option("tailscale_tags")), self.get_option("tailscale_names")
        if not tags and not likes:
            return {}
        said = _process.must(_process.run, ["tailscale", "status", "--json"], "Asking Tailscale for its machines",
                             timeout=self.get_option("timeout"))
        try:
            status = json.loads(said)
        except ValueError:
            raise FleetError("bad_answer", "The answer of tailscale status is not JSON.") from None
        named = {_name(one): one for one in [status.get("Self") or {}, *(status.get("Peer") or {}).values()]}
        return {name: {"address": one["TailscaleIPs"][0], "online": bool(one.get("Online"))}
                for name, one in named.items() if name and one.get("TailscaleIPs")
                and (tags & set(one.get("Tags") or ()) or any(fnmatch.fnmatchcase(name, like) for like in likes))}

    def _add_machines(self, machines: t.Mapping[str, Vars]) -> None:
        for name in sorted(set(machines) - set(self.inventory.hosts)):
            group = self.inventory.add_group(self.get_option("hosts_group"))
            self.inventory.add_host(name, group=group)
            self._set(name, {"ansible_host": machines[name]["address"]})

    # -- what there is -------------------------------------------------------------------------------------------

    def _look(self) -> tuple[Vars, bool]:
        """The machines of the tailnet; for each host that answered its spaces by name; and whether all have."""
        machines: dict[str, Vars] = {}
        complete = True
        try:
            machines = self._machines()
        except FleetError as error:
            self.display.warning(f"No Docker host was taken from Tailscale: {error.result()['msg']}")
            complete = False
        self._add_machines(machines)
        found = self._ask([name for name in self._hosts() if machines.get(name, {}).get("online", True)], _spaces)
        missing = set(self._hosts()) - set(found)
        for name in sorted(missing & set(machines)):
            if not machines[name]["online"]:
                self._not_asked(name, "Tailscale says that it is offline")
        return {"machines": machines, "spaces": found}, complete and not missing

    # -- what becomes of it --------------------------------------------------------------------------------------

    def _enrich(self, name: str, wanted: str | None, found: t.Mapping[str, t.Mapping[str, Vars]]) -> None:
        standing = [host for host in sorted(found) if name in found[host]]
        host = wanted if wanted in standing or not standing else standing[0]
        if len(standing) > 1:
            self.display.warning(f"Space {name} stands on {', '.join(standing)}. Taken is the one on {host}.")
        if standing and host:
            self._observed(name, {**found[host][name], "host": host})
        elif set(self._hosts()) <= set(found):
            self._observed(name, {"name": name, "state": "absent"})
        # A host that claims the space of another one is heard, and not followed.
        place = wanted or host
        if place in self.inventory.hosts:
            self._connect(name, place)
        self._construct(name)

    def _connect(self, name: str, host: str) -> None:
        """By what leads to the host. Values stay where they are: some are secrets, others say inventory_hostname."""
        connection_loader.get("ssh", class_only=True)
        known = set(C.config.get_plugin_vars("connection", "ssh")) - {"inventory_hostname"}
        way = {variable: trusted("{{ hostvars['" + host + "']['" + variable + "'] }}")
               for variable in sorted(known & set(self._values(host)))}
        own = self._values(name)
        # The home of who logs in to the host is not in the space.
        inside = {} if "ansible_remote_tmp" in own else {"ansible_remote_tmp": "/tmp/.ansible"}  # noqa: S108
        # What is said of all hosts is not meant for spaces, where nobody becomes another user.
        inside |= {"ansible_become": False} if "ansible_become" in own else {}
        self._set(name, {"ansible_host": host, **way, **inside, "ansible_connection": CONNECTION})

    def _add_undeclared(self, name: str, host: str, seen: Vars) -> None:
        if self._undeclared(name, {"space_on": host}, f"Docker host {host} has a space"):
            self._observed(name, {**seen, "host": host})
            self._connect(name, host)
            self._construct(name)


def _name(machine: t.Mapping[str, t.Any]) -> str:
    """What the tailnet calls it: unlike the name that a machine gives itself, no two have the same."""
    return str(machine.get("DNSName") or "").partition(".")[0]


def _spaces(remote: Remote, fleet: str | None) -> dict[str, Vars]:
    """The spaces of a host by name. One without the program was never prepared for any."""
    said = remote(f"{PROGRAM} info --json")
    if said.rc == NO_PROGRAM:
        return {}
    if said.rc:
        raise AnsibleError(said.err.strip() or f"clawops-space ended with {said.rc}")
    spaces = json.loads(said.out)["spaces"]
    return {space["name"]: space for space in spaces if fleet is None or space.get("fleet") in (None, fleet)}
