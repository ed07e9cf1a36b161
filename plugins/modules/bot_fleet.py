#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: bot_fleet
short_description: OpenClaw bots of a Kubernetes cluster
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Brings all bots of a cluster to what the list says. Each is a Deployment with its Service, volumes, Secret,
    ConfigMap, ServiceAccount and NetworkPolicy, all named C(bot-NAME...).
  - Foreign objects with the names of a bot's objects are an error that names them, and stay untouched.
  - Reads each kind once and writes only what differs, by server-side apply with the field manager C(clawops.fleet).
  - The server is asked about every update, dry, before the first write. In check mode it is asked about everything
    that differs.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.kubernetes
  - clawops.fleet.kubernetes.fleet
  - clawops.fleet.kubernetes.bots
notes:
  - With a local connection its work is done in Ansible's own process, which saves the start of another one. It is a
    module as any other where the task has C(become), C(async) or an C(environment), and where the Python of Ansible
    lacks the package C(kubernetes).
attributes:
  idempotent:
    support: partial
    details:
      - A bot with state V(restarted) is restarted each time.
options:
  only:
    description: Touch only the bots of these names.
    type: list
    elements: str
  prune:
    description: Remove bots of this fleet that are in the cluster and not in the list. Does nothing beside O(only).
    type: bool
    default: false
  hold_new:
    description: Leave out the bots that neither run nor have volumes in the cluster yet, and return their names. Then
      one can look whether they stand elsewhere.
    type: bool
    default: false
  max_unavailable:
    description: How many running bots a change may stop at a time. By default it takes them all at once.
    type: int
seealso:
  - module: clawops.fleet.bot_instance
"""

EXAMPLES = r"""
- name: Two desktops and a gateway
  clawops.fleet.bot_fleet:
    fleet: home
    gateway_image: registry.example.org/openclaw-gateway:2026.9.6-0123456789ab
    desktop_image: registry.example.org/openclaw-desktop:2026.9.6-0123456789ab
    max_unavailable: 1
    bots:
      - name: alpha
        version: 2026.9.6
        profile: desktop
        allowed_sources: [192.0.2.0/24]
      - name: bravo
        version: 2026.9.6
        profile: desktop
        state: stopped
      - name: charlie
        version: 2026.9.6
        resources:
          memory: 3Gi
"""

RETURN = r"""
bots:
  description: The bots that are present, whatever changed.
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
    changed:
      description: Whether this bot was changed.
      type: bool
      sample: false
removed:
  description: Names of the bots that were removed.
  returned: success
  type: list
  elements: str
  sample: []
held:
  description: Names of the bots that O(hold_new) left out.
  returned: success
  type: list
  elements: str
  sample: []
plan_complete:
  description: Whether everything could be observed; false only in check mode, where a namespace isn't there yet.
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
      sample: Deployment claworc/bot-alpha
    action:
      description: V(create), V(update), V(delete) or V(restart).
      type: str
      sample: create
failure:
  description: What went wrong. With several bots C(details.bots) has a result for each.
  returned: failure
  type: dict
  sample: {code: not_ready, message: "...", hint: "...", details: {}}
"""

from ansible.module_utils.basic import env_fallback

from ..module_utils._kubernetes.arguments import fleet_options, manage
from ..module_utils._module import QuietModule


def main() -> None:
    module = QuietModule(argument_spec=fleet_options(env_fallback), supports_check_mode=True)
    manage(module, module.params["bots"])


if __name__ == "__main__":
    main()
