# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


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
