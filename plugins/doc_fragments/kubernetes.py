# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import textwrap


class ModuleDocFragment:
    """Which cluster, and how bots of a cluster are described."""

    DOCUMENTATION = r"""
options:
  kubeconfig:
    description:
      - Path of a kubeconfig, or its content as a mapping. Without it C(KUBECONFIG) counts, then C(~/.kube/config), and
        inside a pod its service account.
      - Can also be given by the environment variable E(K8S_AUTH_KUBECONFIG).
    type: raw
  context:
    description: The context to use. Can also be given by E(K8S_AUTH_CONTEXT).
    type: str
  host:
    description: Address of the API server, instead of a kubeconfig. Can also be given by E(K8S_AUTH_HOST).
    type: str
  api_key:
    description: Token, together with O(host). Can also be given by E(K8S_AUTH_API_KEY).
    type: str
  ca_cert:
    description: Path of the authority that signed the API server's certificate, together with O(host). Can also be
      given by E(K8S_AUTH_SSL_CA_CERT).
    type: path
    aliases: [ssl_ca_cert]
  client_cert:
    description: Path of a client certificate, together with O(host). Can also be given by E(K8S_AUTH_CERT_FILE).
    type: path
    aliases: [cert_file]
  client_key:
    description: Path of its key. Can also be given by E(K8S_AUTH_KEY_FILE).
    type: path
    aliases: [key_file]
  validate_certs:
    description: V(false) takes any certificate of the API server. Can also be given by E(K8S_AUTH_VERIFY_SSL).
    type: bool
    aliases: [verify_ssl]
  proxy:
    description: HTTP proxy on the way to the API server. Can also be given by E(K8S_AUTH_PROXY).
    type: str
requirements:
  - kubernetes >= 28
"""

    FLEET = r"""
options:
  fleet:
    description: Name of the fleet.
    type: str
    required: true
  namespace:
    description: Where bots of the profile V(desktop) live. Who may create pods there owns the nodes.
    type: str
    default: claworc
  gateway_namespace:
    description: Where bots of the profile V(gateway) live, which need no privileges.
    type: str
    default: claworc-gateway
  gateway_image:
    description: Image of bots of the profile V(gateway).
    type: str
  desktop_image:
    description: Image of bots of the profile V(desktop).
    type: str
  image_pull_secrets:
    description: Names of Secrets with credentials of the registry.
    type: list
    elements: str
    default: []
  band_first:
    description: First port of the band of NodePorts, even.
    type: int
    default: 30100
  band_last:
    description: Last port of the band, odd.
    type: int
    default: 30199
  allowed_destinations:
    description: Private networks that bots may reach; by default they reach name servers and the internet.
      It needs a network plugin that enforces policies.
    type: list
    elements: str
    default: []
  upgrade:
    description: Allow a bot to change its release.
    type: bool
    default: false
  purge_data:
    description: Delete the volumes of bots that are or become absent, too.
    type: bool
    default: false
  adopt:
    description: Take over objects that have the names of a bot's objects and are not managed yet, or by another fleet.
    type: bool
    default: false
  force_conflicts:
    description: Take over fields that others have set in a bot's objects. Without it they are an error that names
      the field and who set it.
    type: bool
    default: false
  wait:
    description: Wait until every bot is what it is to be. Ends at once with the pod's events and last words where that
      can't happen any more.
    type: bool
    default: true
  timeout:
    description: Seconds that a bot may take.
    type: int
    default: 300
"""

    BOT = r"""
options:
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
    description: Let the bot go on when its C(config) changes, and wait until the new one has reached its
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
"""


# The same, in a list.
ModuleDocFragment.BOTS = r"""
options:
  bots:
    description: The bots of this cluster.
    type: list
    elements: dict
    required: true
    suboptions:
""" + textwrap.indent(ModuleDocFragment.BOT.partition("options:\n")[2], "    ")
