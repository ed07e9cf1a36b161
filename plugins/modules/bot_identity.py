#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: bot_identity
short_description: SSH keys of bots
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Each bot has an ED25519 key pair for the user that logs in, and an ED25519 host key that is made beforehand, pinned,
    and the same after each restart. They are kept in the Secret C(bot-{name}-ssh) of a cluster, or in the directory
    C(bot-{name}-ssh) of a host.
  - Asks the SSH server of a bot that runs for the host key that it really presents, and fails unless it is the pinned
    one.
  - Returns public keys and known_hosts lines, never a private key.
  - In a cluster the SSH server is reached through the API server. No port of it is open to anybody.
options:
  bots:
    description: Names of the bots that have, or are to have, an SSH server.
    type: list
    elements: str
    required: true
  namespace:
    description: Namespace of their pods.
    type: str
    default: claworc
  addresses:
    description: With O(store=files), address and port of the SSH server of each bot that has one, by its name.
    type: dict
    default: {}
  state:
    description:
      - V(present) makes what is missing.
      - V(rotated) gives the bot another key, each time. A new user key is accepted beside the old one, is tried by a
        login, and only then the old one goes. A new host key is pinned beside the old one until the SSH server presents
        it. If that was cut off, the next V(rotated) or V(present) is safe, and a host key's rotation goes on.
      - V(absent) revokes the key. Without its host key a bot can't be reached by SSH, because nobody would know it.
    type: str
    choices: [present, rotated, absent]
    default: present
  key:
    description: Which key O(state=rotated) and O(state=absent) are about. The other one stays.
    type: str
    choices: [user, host]
    default: user
  store:
    description: Where identities are kept, in Secrets of a cluster or in files of this host.
    type: str
    choices: [kubernetes, files]
    default: kubernetes
  directory:
    description: Directory for O(store=files).
    type: path
    default: /etc/clawops/credentials
  user:
    description: The user that logs in.
    type: str
    default: openclaw
  verify:
    description: Ask the SSH servers of bots that run. Without it, rotation does not try the new key.
    type: bool
    default: true
  timeout:
    description: Seconds until a bot has to accept its new key and to refuse its old one.
    type: int
    default: 120
  fleet:
    description: Name of the fleet.
    type: str
    required: true
extends_documentation_fragment:
  - clawops.fleet.attributes
  - clawops.fleet.kubernetes
attributes:
  idempotent:
    support: partial
    details:
      - O(state=rotated) makes a new key each time.
requirements:
  - cryptography
  - paramiko, with O(verify=true)
"""

EXAMPLES = r"""
- name: Keys for two bots
  clawops.fleet.bot_identity:
    fleet: home
    bots: [alpha, bravo]

- name: A new key for one of them, tried before the old one goes
  clawops.fleet.bot_identity:
    fleet: home
    bots: [alpha]
    state: rotated

- name: Another host key
  clawops.fleet.bot_identity:
    fleet: home
    bots: [alpha]
    state: rotated
    key: host
"""

RETURN = r"""
identities:
  description: The identities, in the order of O(bots). Those that do not exist are left out.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the bot.
      type: str
      sample: alpha
    user_public_key:
      description: The public key that may log in. Null if it was revoked.
      type: str
      sample: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN... bot-alpha
    user_fingerprint:
      description: Its fingerprint.
      type: str
      sample: SHA256:2kS3...
    host_public_key:
      description: The public host key.
      type: str
      sample: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIM... bot-alpha
    host_fingerprint:
      description: Its fingerprint.
      type: str
      sample: SHA256:9fQz...
    known_hosts:
      description: The line that pins the host key, and in the middle of its rotation one more. Use it with
        C(HostKeyAlias=bot-{name}). Null if the host key was revoked.
      type: str
      sample: bot-alpha ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIM...
    verified:
      description: Whether the SSH server was asked and presented this host key.
      type: bool
      sample: true
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
      sample: SSH identity of alpha
    action:
      description: The verb.
      type: str
      sample: create
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, env_fallback

from ..module_utils._errors import bad_value
from ..module_utils._kubernetes.client import Cluster, kubernetes_options
from ..module_utils._ownership import check_name
from ..module_utils._plan import Plan, run
from ..module_utils._ssh.files import DIRECTORY, Files
from ..module_utils._ssh.identity import Identities, Owner, Settings, Store
from ..module_utils._ssh.secrets import Secrets


def _owners(p: dict[str, t.Any]) -> list[Owner]:
    names = [check_name("bots", name) for name in p["bots"]]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise bad_value("bots", twice, "Name each bot once.")
    return [Owner(name, p["namespace"], str(p["addresses"].get(name) or "")) for name in names]


def _store(p: dict[str, t.Any]) -> Store:
    if p["store"] == "files":
        return Files(p["directory"], p["user"])
    return Secrets(Cluster.of(p), p["fleet"], p["user"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **kubernetes_options(env_fallback),
            "bots": {"type": "list", "elements": "str", "required": True},
            "namespace": {"type": "str", "default": "claworc"},
            "addresses": {"type": "dict", "default": {}},
            "state": {"type": "str", "choices": ["present", "rotated", "absent"], "default": "present"},
            "key": {"type": "str", "choices": ["user", "host"], "default": "user", "no_log": False},
            "store": {"type": "str", "choices": ["kubernetes", "files"], "default": "kubernetes"},
            "directory": {"type": "path", "default": DIRECTORY},
            "user": {"type": "str", "default": "openclaw"},
            "verify": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 120},
            "fleet": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    p = module.params
    made: list[Identities] = []

    def plan() -> Plan:
        owners = _owners(p)
        made.append(Identities(_store(p), owners, Settings(p["state"], p["key"], p["verify"], p["timeout"])))
        return made[0].plan()

    def facts() -> dict[str, t.Any]:
        made[0].verify()
        return made[0].facts()

    def apply(decided: Plan) -> dict[str, t.Any]:
        made[0].apply(decided)
        return facts()

    run(module, plan, apply, facts)


if __name__ == "__main__":
    main()
