#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: bot_instance_info
short_description: What the bots of a Kubernetes cluster are
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Returns facts about the bots that the collection has put into a cluster, none of them secret.
extends_documentation_fragment:
  - clawops.fleet.attributes.info
  - clawops.fleet.kubernetes
options:
  names:
    description: Only bots of these names.
    type: list
    elements: str
  fleet:
    description: Only bots of this fleet.
    type: str
  namespaces:
    description: Where to look.
    type: list
    elements: str
    default: [claworc, claworc-gateway]
"""

EXAMPLES = r"""
- name: Ask for the bots
  clawops.fleet.bot_instance_info:
    fleet: home
  register: found

- name: Name those that are not ready
  ansible.builtin.debug:
    msg: "{{ found.bots | rejectattr('ready') | map(attribute='name') }}"
"""

RETURN = r"""
bots:
  description: The bots, by name. One of which only volumes are left is there as well.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the bot.
      type: str
      sample: alpha
    namespace:
      description: Where it lives.
      type: str
      sample: claworc
    profile:
      description: What kind of bot it is.
      type: str
      sample: desktop
    version:
      description: Release of OpenClaw.
      type: str
      sample: 2026.9.6
    state:
      description: V(started), V(stopped), or V(absent) where there is no Deployment.
      type: str
      sample: started
    ready:
      description: Whether it answers that it is ready.
      type: bool
      sample: true
    image:
      description: The image.
      type: str
      sample: registry.example.org/openclaw-desktop:2026.9.6-0123456789ab
    ports:
      description: The NodePorts C(chrome) and C(terminal); empty where it has none.
      type: dict
      sample: {chrome: 30100, terminal: 30101}
    urls:
      description: Where its pages are on its node.
      type: dict
      sample: {chrome: "http://192.0.2.7:30100", terminal: "http://192.0.2.7:30101"}
    pod:
      description: Name of the pod, null where there is none.
      type: str
      sample: bot-alpha-6d5f7c9b8-x2x7k
    pod_ip:
      description: Address of the pod.
      type: str
      sample: 10.244.0.7
    node:
      description: Name of its node.
      type: str
      sample: worker-1
    node_ip:
      description: Address of its node.
      type: str
      sample: 192.0.2.7
    volumes:
      description: Its volumes with C(name), C(claim), C(size), C(capacity) and C(phase).
      type: list
      elements: dict
      sample: [{name: clawdbot, claim: bot-alpha-clawdbot, size: 10Gi, capacity: 10Gi, phase: Bound}]
    move:
      description: That it is being moved or has left; C(role) is V(departing), V(arriving) or V(left). Null if neither.
      type: dict
      sample: null
"""

from ansible.module_utils.basic import AnsibleModule, env_fallback

from ..module_utils._kubernetes.arguments import read_only
from ..module_utils._kubernetes.client import kubernetes_options
from ..module_utils._kubernetes.facts import read


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str"},
            "fleet": {"type": "str"},
            "namespaces": {"type": "list", "elements": "str", "default": ["claworc", "claworc-gateway"]},
            **kubernetes_options(env_fallback),
        },
        supports_check_mode=True,
    )
    p = module.params
    read_only(module, lambda cluster: {"bots": read(cluster, p["namespaces"], p["fleet"], p["names"])})


if __name__ == "__main__":
    main()
