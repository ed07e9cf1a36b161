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
attributes:
  idempotent:
    support: partial
    details:
      - A bot with state V(restarted) is restarted each time.
options:
  bots:
    description: The bots of this cluster.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the bot, 1 to 28 of C(a-z0-9-).
        type: str
        required: true
      version:
        description: Release of OpenClaw that the image has, exact.
        type: str
        required: true
      profile:
        description: V(gateway) is OpenClaw alone, without privileges. V(desktop) has a browser and a terminal as well,
          on two pages at a pair of NodePorts, and is privileged.
        type: str
        choices: [gateway, desktop]
        default: gateway
      runtime:
        description: In a cluster a bot is a pod.
        type: str
        choices: [pod]
        default: pod
      state:
        description:
          - V(started) and V(stopped) say whether it runs, V(present) leaves that as it is and starts a new one.
          - V(restarted) restarts it each time.
          - V(absent) keeps its volumes unless O(purge_data).
        type: str
        choices: [present, started, stopped, restarted, absent]
        default: started
      port:
        description: The even port of the pair of a V(desktop) bot, instead of the lowest free one of the band.
        type: int
      image:
        description: Image of this bot, instead of that of its profile.
        type: str
      config:
        description: Merged over what the collection needs in C(openclaw.json). Secrets stand in it as C(${NAME}). A
          change restarts the bot.
        type: dict
        default: {}
      live_config:
        description: Let the bot go on when its O(bots[].config) changes, and wait until the new one has reached its
          pod. The gateway follows the file by itself, and decides what of it needs a restart.
        type: bool
        default: false
      env:
        description: Environment variables that are no secrets.
        type: dict
        default: {}
      api_keys:
        description: Secret environment variables, such as C(ANTHROPIC_API_KEY). They land in the Secret
          C(bot-NAME-keys). A change restarts the bot.
        type: dict
        default: {}
      gateway_token:
        description: Token of the gateway. By default one is made and kept in the Secret.
        type: str
      resources:
        description: V(memory), V(cpus) and V(storage), such as C(2Gi), C(1.5) and C(10Gi). Storage is the size of each
          volume. It can grow, where the storage class allows it, and never shrink.
        type: dict
        default: {}
      volume_sizes:
        description: Sizes of single volumes, V(clawdbot), V(clawd), V(chrome) and V(homebrew). A V(gateway) bot has
          V(clawdbot), and V(clawd) only where it has a size here.
        type: dict
        default: {}
      storage_class:
        description: Storage class of the volumes, instead of the cluster's default.
        type: str
      extra_volumes:
        description: Further volumes. Paths of the node are not among them.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name of the volume.
            type: str
            required: true
          mount_path:
            description: Where the bot finds it.
            type: path
            required: true
          claim:
            description: Name of a PersistentVolumeClaim.
            type: str
          config_map:
            description: Name of a ConfigMap.
            type: str
          secret:
            description: Name of a Secret.
            type: str
          empty_dir:
            description: Size of a volume that lives as long as the pod.
            type: str
          read_only:
            description: Whether the bot may only read it.
            type: bool
      node_selector:
        description: Labels of the nodes on which it may run.
        type: dict
        default: {}
      tolerations:
        description: Taints of nodes that it tolerates, written as in a pod.
        type: list
        elements: dict
        default: []
      allowed_sources:
        description: Addresses and networks from which the pages of a V(desktop) bot may be reached. Empty means from
          everywhere. It needs a network plugin that enforces policies.
        type: list
        elements: str
        default: []
      allow_passwordless:
        description: Pages of a V(desktop) bot without a password. By default one is made and kept as C(VNC_PASSWORD) in
          the Secret C(bot-NAME-keys).
        type: bool
        default: false
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

from ..module_utils._kubernetes.arguments import BOT, FLEET, manage
from ..module_utils._kubernetes.client import kubernetes_options
from ..module_utils._module import QuietModule


def main() -> None:
    module = QuietModule(
        argument_spec={
            "bots": {"type": "list", "elements": "dict", "required": True, "options": BOT},
            "only": {"type": "list", "elements": "str"},
            "prune": {"type": "bool", "default": False},
            "hold_new": {"type": "bool", "default": False},
            "max_unavailable": {"type": "int"},
            **FLEET,
            **kubernetes_options(env_fallback),
        },
        supports_check_mode=True,
    )
    manage(module, module.params["bots"])


if __name__ == "__main__":
    main()
