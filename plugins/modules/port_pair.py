#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: port_pair
short_description: Pairs of ports for bots
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Gives each name the lowest free pair of an even and the following odd port of a band, and the same one ever after.
  - Many may ask at once; each gets another pair. A list of names costs as much as one.
  - In the store V(kubernetes) the Service C(bot-NAME-vnc) of the bot is the reservation, and the API server has the
    last word. M(clawops.fleet.bot_fleet) takes it over. In the store V(sqlite), for hosts, it is a row in a file.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.kubernetes
options:
  names:
    description: The bots. Without a name the pairs that are held are returned.
    type: list
    elements: str
    default: []
  state:
    description: V(absent) gives the pairs back. In the store V(kubernetes) that deletes the Services.
    type: str
    choices: [present, absent]
    default: present
  store:
    description: Where pairs are kept.
    type: str
    choices: [sqlite, kubernetes]
    default: sqlite
  path:
    description: The file of the store V(sqlite).
    type: path
    default: /var/lib/clawops/ports.sqlite
  fleet:
    description: Name of the fleet. Required in the store V(kubernetes).
    type: str
  namespace:
    description: Namespace of the Services.
    type: str
    default: claworc
  band_first:
    description: First port of the band, even.
    type: int
    default: 30100
  band_last:
    description: Last port of the band, odd.
    type: int
    default: 30199
"""

EXAMPLES = r"""
- name: Pairs on a host
  clawops.fleet.port_pair:
    names: [alpha, bravo]

- name: Pairs in a cluster
  clawops.fleet.port_pair:
    store: kubernetes
    fleet: home
    names: [alpha, bravo]

- name: Give one back
  clawops.fleet.port_pair:
    names: [alpha]
    state: absent
"""

RETURN = r"""
pairs:
  description: The pair of each name; of all that hold one where no name was given.
  returned: success
  type: dict
  contains:
    NAME:
      description: The pair of that bot.
      type: dict
      contains:
        chrome:
          description: The even port.
          type: int
          sample: 30100
        terminal:
          description: The odd port.
          type: int
          sample: 30101
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
      sample: pair of alpha
    action:
      description: V(create) or V(delete).
      type: str
      sample: create
"""

from ansible.module_utils.basic import AnsibleModule, env_fallback

from ..module_utils._kubernetes.client import kubernetes_options
from ..module_utils._kubernetes.port_pair import manage


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "store": {"type": "str", "choices": ["sqlite", "kubernetes"], "default": "sqlite"},
            "path": {"type": "path", "default": "/var/lib/clawops/ports.sqlite"},
            "fleet": {"type": "str"},
            "namespace": {"type": "str", "default": "claworc"},
            "band_first": {"type": "int", "default": 30100},
            "band_last": {"type": "int", "default": 30199},
            **kubernetes_options(env_fallback),
        },
        required_if=[["store", "kubernetes", ["fleet"]]],
        supports_check_mode=True,
    )
    manage(module)


if __name__ == "__main__":
    main()
