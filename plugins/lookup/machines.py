# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: machines
short_description: The machines of the fleet that a play is for
version_added: 0.1.0
author: clawops.fleet maintainers (@clawops)
description:
  - Names the Docker hosts and the running guests that a pattern selects, for the C(hosts) of a play.
  - Hosts of group C(clusters) are none of them, but for O(kind=clusters).
  - A guest runs if its C(vm_state) says so, which is the default.
  - In check mode a guest that is yet to be made is left out. So is a host of group C(fleet_silent), into which a run of
    site puts machines that did not answer.
options:
  _terms:
    description: A pattern of hosts, such as C(fleet_target). One that fits no host of the inventory is refused.
    type: list
    elements: str
    required: true
  kind:
    description: Only the hosts of these groups. By default those of V(docker_hosts) and V(vms).
    type: list
    elements: str
    choices: [clusters, docker_hosts, vm_hosts, vms]
"""

EXAMPLES = r"""
- name: Every machine that may have bots
  hosts: "{{ query('clawops.fleet.machines', fleet_target | default('all')) }}"
"""

RETURN = r"""
_list:
  description: Names of hosts, each once.
  type: list
  elements: str
"""

import typing as t

from ansible.errors import AnsibleLookupError
from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase

MACHINES = ("docker_hosts", "vms")
SILENT = "fleet_silent"


class LookupModule(LookupBase):  # type: ignore[misc]
    """Looks into the inventory alone."""

    def run(self, terms: list[str], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        values = variables or {}
        groups, hostvars = values.get("groups") or {}, values.get("hostvars") or {}
        chosen = {name for term in terms for name in self._matching(term, values)}
        kinds = self.get_option("kind") or MACHINES
        found = dict.fromkeys(name for group in kinds for name in groups.get(group, ()))
        others = {*groups.get(SILENT, ()), *(groups.get("clusters", ()) if "clusters" not in kinds else ())}
        return [name for name in found if name in chosen and name not in others
                and (name not in groups.get("vms", ()) or _runs(hostvars.get(name) or {}))]

    def _matching(self, pattern: str, variables: dict[str, t.Any]) -> list[str]:
        lookup = lookup_loader.get("ansible.builtin.inventory_hostnames", loader=self._loader, templar=self._templar)
        found = t.cast("list[str]", lookup.run([pattern], variables))
        if not found and pattern != "all" and variables["groups"].get("all"):
            raise AnsibleLookupError(f"fleet_target: no host of the inventory is meant by {pattern!r}.")
        return found


def _runs(guest: t.Mapping[str, t.Any]) -> bool:
    return (guest.get("vm_state") or "running") == "running" and not guest.get("fleet_guest_pending")
