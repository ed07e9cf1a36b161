#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_objects
short_description: Single objects of a cluster
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Brings objects of a cluster to what they are described as, by server-side apply, in the order of the list.
  - Reads first. What is as it should be is not written, and what the server would refuse is found before the first
    write.
  - Everything that it makes carries the labels of the fleet. Objects without them are refused unless O(adopt=true).
  - Meant for what a cluster needs before its first bot. For bots there is M(clawops.fleet.bot_fleet).
options:
  objects:
    description: Manifests. V(apiVersion) may be left out.
    type: list
    elements: dict
    required: true
  absent:
    description: Objects that are to go, each with V(kind), V(metadata.name) and V(metadata.namespace).
    type: list
    elements: dict
    default: []
  adopt:
    description: Take over objects of the same name that the fleet did not make.
    type: bool
    default: false
  force_conflicts:
    description: Take over fields that somebody else has set.
    type: bool
    default: false
  fleet:
    description: Name of the fleet.
    type: str
    required: true
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.kubernetes
"""

EXAMPLES = r"""
- name: A namespace
  clawops.fleet.cluster_objects:
    fleet: home
    objects:
      - kind: Namespace
        metadata:
          name: claworc
          labels:
            pod-security.kubernetes.io/enforce: privileged
"""

RETURN = r"""
plan_complete:
  description: Whether everything could be observed; false only in check mode.
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
      sample: Namespace claworc
    action:
      description: V(create), V(update) or V(delete).
      type: str
      sample: create
"""

from ansible.module_utils.basic import env_fallback

from ..module_utils._kubernetes.client import Cluster, kubernetes_options
from ..module_utils._kubernetes.objects import Objects
from ..module_utils._module import QuietModule
from ..module_utils._plan import Plan, run


def main() -> None:
    module = QuietModule(
        argument_spec={
            **kubernetes_options(env_fallback),
            "objects": {"type": "list", "elements": "dict", "required": True},
            "absent": {"type": "list", "elements": "dict", "default": []},
            "adopt": {"type": "bool", "default": False},
            "force_conflicts": {"type": "bool", "default": False},
            "fleet": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    p = module.params
    made: list[Objects] = []

    def plan() -> Plan:
        made.append(Objects(Cluster.of(p), p["fleet"], p["adopt"], p["force_conflicts"]))
        return made[0].plan(p["objects"], p["absent"])

    def apply(decided: Plan) -> dict:
        made[0].apply()
        return {}

    run(module, plan, apply)


if __name__ == "__main__":
    main()
