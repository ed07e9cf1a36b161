#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_kubeconfig
short_description: A kubeconfig for a service account
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Writes a kubeconfig with a token of a service account that ends, readable by its owner alone.
  - A file that does is left as it is. A new token is made when the one in the file ends soon, or when cluster or
    account are others.
options:
  service_account:
    description: Name of the service account.
    type: str
    default: claworc-manager
  namespace:
    description: Its namespace.
    type: str
    default: claworc
  path:
    description: The file. One that this module did not write is refused.
    type: path
    required: true
  days:
    description: For how many days the token is asked to be good. The server may give less.
    type: int
    default: 90
  renew_days:
    description: How many days before its end a token is replaced.
    type: int
    default: 30
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.kubernetes
"""

EXAMPLES = r"""
- name: Access for the machine that manages the bots
  clawops.fleet.cluster_kubeconfig:
    kubeconfig: ~/.kube/admin
    path: ~/.kube/claworc-manager
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
  sample: /home/me/.kube/claworc-manager
expires:
  description: When its token ends, in UTC. Null in check mode if there is none yet.
  returned: success
  type: str
  sample: "2026-12-31T23:59:59Z"
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
      sample: /home/me/.kube/claworc-manager
    action:
      description: V(create) or V(update).
      type: str
      sample: create
"""

from ansible.module_utils.basic import AnsibleModule, env_fallback

from ..module_utils._kubernetes.access import Access, Wanted
from ..module_utils._kubernetes.client import Cluster, kubernetes_options
from ..module_utils._plan import Plan, run


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **kubernetes_options(env_fallback),
            "service_account": {"type": "str", "default": "claworc-manager"},
            "namespace": {"type": "str", "default": "claworc"},
            "path": {"type": "path", "required": True},
            "days": {"type": "int", "default": 90},
            "renew_days": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    p = module.params
    wanted = Wanted(p["service_account"], p["namespace"], p["path"], p["days"], p["renew_days"])
    made: list[Access] = []

    def plan() -> Plan:
        made.append(Access(Cluster.of(p), wanted))
        return made[0].plan()

    def facts() -> dict:
        return made[0].facts()

    def apply(decided: Plan) -> dict:
        made[0].apply()
        return facts()

    run(module, plan, apply, facts)


if __name__ == "__main__":
    main()
