# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: bots
short_description: Bots of the inventory with what their clusters know about them
version_added: 0.1.0
author: clawops.fleet maintainers (@clawops)
description:
  - Enriches the hosts of group C(bots) whose C(bot_on) is a host of group C(clusters). Both are declared by other
    sources of the inventory that come before this one. In a directory that is the order of the file names.
  - A bot with a desktop becomes reachable by ssh. Its private key and its pinned host key are fetched by the run that
    connects, with P(clawops.fleet.bot_ssh#lookup), so that neither is in the inventory or its cache. The connection
    goes through the API server of the cluster; no port is open for it.
  - Every bot gets the variable C(fleet_observed), what P(clawops.fleet.bots#inventory) saw of it. Its C(state) is
    V(absent) if nothing was found.
  - Bots of the fleet that are in a cluster and not in the inventory become hosts of group C(undeclared).
  - A cluster that can't be reached is a warning. Its bots are still reachable by ssh as soon as it is back.
  - A cluster is described by the variables C(cluster_kubeconfig), C(cluster_context), C(cluster_namespace) and
    C(cluster_gateway_namespace), the fleet by C(fleet_name).
extends_documentation_fragment:
  - constructed
  - inventory_cache
options:
  plugin:
    description: Marks a file as one of this plugin. Its name ends with C(bots.yml) or C(bots.yaml).
    type: str
    required: true
    choices: [clawops.fleet.bots]
  user:
    description: The user that ssh logs in as.
    type: str
    default: openclaw
requirements:
  - kubernetes >= 28, or its parts PyYAML and websocket-client
"""

EXAMPLES = r"""
# inventory/observed_bots.yml, beside inventory/hosts.yml
plugin: clawops.fleet.bots
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/ansible-inventory
cache_timeout: 300
groups:
  running: fleet_observed.ready | default(false)
keyed_groups:
  - key: fleet_observed.profile
    prefix: profile
"""

import typing as t

from ansible.errors import AnsibleError
from ansible.module_utils.common.text.converters import to_native

from ..module_utils._errors import FleetError
from ..module_utils._kubernetes import facts
from ..module_utils._ssh import tunnel
from ..plugin_utils._observed import ObservedInventory, Vars, trusted

NAMESPACE = "claworc"
GATEWAY_NAMESPACE = "claworc-gateway"
SETTINGS = ("cluster_kubeconfig", "cluster_context", "cluster_namespace", "cluster_gateway_namespace", "fleet_name")


class InventoryModule(ObservedInventory):
    """Reads each cluster once."""

    NAME = "clawops.fleet.bots"
    GROUP = "bots"

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache=cache)
        self._read_config_data(path)
        declared = self._declared(path)
        found = self._cached(path, cache, self._look)
        clusters = self._members("clusters")
        for name, values in declared.items():
            if values.get("bot_on") in clusters:
                self._enrich(name, values, found.get(values["bot_on"]))
        for cluster, seen in found.items():
            here = {name for name, values in declared.items() if values.get("bot_on") == cluster}
            for name in sorted(set(seen) - here):
                self._add_undeclared(name, cluster, seen[name])

    # -- what there is -------------------------------------------------------------------------------------------

    def _look(self) -> tuple[Vars, bool]:
        """For each cluster that answered, its bots by name; and whether all did."""
        names = self._members("clusters")
        found = {name: bots for name, bots in ((name, self._read(name)) for name in names) if bots is not None}
        return found, len(found) == len(names)

    def _read(self, name: str) -> dict[str, Vars] | None:
        try:
            settings = self._settings(name, SETTINGS)
            namespaces = (settings.get("cluster_namespace") or NAMESPACE,
                          settings.get("cluster_gateway_namespace") or GATEWAY_NAMESPACE)
            cluster = tunnel.cluster_of(settings.get("cluster_kubeconfig"), settings.get("cluster_context"))
            bots = facts.read(cluster, namespaces, settings.get("fleet_name"), None)
        except (FleetError, AnsibleError) as error:
            said = error.result()["msg"] if isinstance(error, FleetError) else to_native(error)
            self.display.warning(f"Cluster {name} was not asked for its bots: {said}")
            return None
        return {bot["name"]: bot for bot in bots}

    # -- what becomes of it --------------------------------------------------------------------------------------

    def _enrich(self, name: str, values: Vars, seen: t.Mapping[str, Vars] | None) -> None:
        if seen is not None:
            self._observed(name, seen.get(name) or {"name": name, "state": "absent"})
        if values.get("bot_profile") == "desktop":
            self._connect(name, str(values["bot_on"]))
        self._construct(name)

    def _connect(self, name: str, cluster: str) -> None:
        way = f"lookup('clawops.fleet.bot_ssh', '{name}')"
        self._set(name, {
            "ansible_connection": "ssh",
            "ansible_host": f"{name}.{cluster}",
            "ansible_port": 22,
            "ansible_user": self.get_option("user"),
            "ansible_ssh_private_key_file": trusted("{{ " + way + ".private_key_file }}"),
            "ansible_ssh_common_args": trusted("{{ " + way + ".common_args }}"),
        })

    def _add_undeclared(self, name: str, cluster: str, seen: Vars) -> None:
        values = {"bot_on": cluster, "bot_profile": seen["profile"]}
        if not self._undeclared(name, values, f"Cluster {cluster} has a bot"):
            return
        self._observed(name, seen)
        if seen["profile"] == "desktop":
            self._connect(name, cluster)
        self._construct(name)
