#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: bot_instance
short_description: One OpenClaw bot of a Kubernetes cluster
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Brings one bot to what is said here. It is a Deployment with its Service, volumes, Secret, ConfigMap,
    ServiceAccount and NetworkPolicy, all named C(bot-NAME...).
  - For more than one bot use M(clawops.fleet.bot_fleet), which takes hardly longer for all of them.
  - Foreign objects with the names of a bot's objects are an error that names them, and stay untouched.
  - Reads each kind once and writes only what differs, by server-side apply with the field manager C(clawops.fleet).
  - The server is asked about every update, dry, before the first write. In check mode it is asked about everything
    that differs.
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.kubernetes
  - clawops.fleet.kubernetes.fleet
  - clawops.fleet.kubernetes.bot
attributes:
  idempotent:
    support: partial
    details:
      - A bot with state V(restarted) is restarted each time.
seealso:
  - module: clawops.fleet.bot_fleet
"""

EXAMPLES = r"""
- name: A bot with a desktop
  clawops.fleet.bot_instance:
    fleet: home
    name: alpha
    version: 2026.9.6
    profile: desktop
    desktop_image: registry.example.org/openclaw-desktop:2026.9.6-0123456789ab

- name: It goes, with its data
  clawops.fleet.bot_instance:
    fleet: home
    name: alpha
    version: 2026.9.6
    state: absent
    purge_data: true
"""

RETURN = r"""
bot:
  description: The bot, or null where it is absent.
  returned: success
  type: dict
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

from ..module_utils._kubernetes.arguments import BOT, FLEET, manage
from ..module_utils._kubernetes.client import kubernetes_options
from ..module_utils._module import QuietModule


def main() -> None:
    module = QuietModule(
        argument_spec={**BOT, **FLEET, **kubernetes_options(env_fallback)},
        supports_check_mode=True,
    )
    bot = {name: module.params[name] for name in BOT}
    manage(module, [bot], lambda values: {"bot": next(iter(values["bots"]), None)})


if __name__ == "__main__":
    main()
