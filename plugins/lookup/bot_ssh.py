# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: bot_ssh
short_description: What ssh needs to get into a bot's pod
version_added: 0.1.0
author: clawops.fleet maintainers (@clawops)
description:
  - Fetches the key pair of the bot out of its Secret C(bot-{name}-ssh) and puts the private key and a known_hosts file
    with the pinned host key into the temporary directory of this run, readable by its user alone. Ansible removes that
    directory when it ends.
  - Returns one mapping for each bot. The inventory plugin P(clawops.fleet.bots#inventory) gives these values to ssh.
  - The cluster is the one that C(bot_on) of the bot names. Its variables C(cluster_kubeconfig), C(cluster_context) and
    C(cluster_namespace) say how it is reached; without a kubeconfig the environment and the usual places count.
options:
  _terms:
    description: Names of bots of the inventory.
    type: list
    elements: str
    required: true
requirements:
  - websocket-client, which the package kubernetes brings
"""

EXAMPLES = r"""
- name: The known_hosts line of a bot
  ansible.builtin.debug:
    msg: "{{ lookup('ansible.builtin.file', lookup('clawops.fleet.bot_ssh', 'alpha').known_hosts_file) }}"
"""

RETURN = r"""
_list:
  description: Paths and arguments for ssh, in the order of the names.
  type: list
  elements: dict
  contains:
    private_key_file:
      description: Path of the private key.
      type: str
    known_hosts_file:
      description: Path of the file with the pinned host key.
      type: str
    common_args:
      description: Arguments for ssh, sftp and scp.
      type: str
"""

import pathlib
import shlex
import sys
import typing as t

from ansible import constants
from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ..module_utils import _files as files
from ..module_utils import _ssh
from ..module_utils._errors import FleetError
from ..module_utils._ssh import keys, secrets, tunnel

NAMESPACE = "claworc"


class LookupModule(LookupBase):  # type: ignore[misc]
    """One GET for each bot and run."""

    def run(self, terms: list[str], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[dict[str, str]]:
        hostvars = (variables or {}).get("hostvars") or {}
        try:
            return [self._ways(name, hostvars) for name in terms]
        except FleetError as error:
            raise AnsibleLookupError(error.result()["msg"]) from None

    def _ways(self, name: str, hostvars: t.Mapping[str, t.Any]) -> dict[str, str]:
        if name not in hostvars:
            raise AnsibleLookupError(f"There is no bot {name} in the inventory.")
        place = str(hostvars[name].get("bot_on"))
        cluster = hostvars.get(place) or {}
        kubeconfig, context = cluster.get("cluster_kubeconfig"), cluster.get("cluster_context")
        namespace = cluster.get("cluster_namespace") or NAMESPACE
        folder = pathlib.Path(constants.DEFAULT_LOCAL_TMP) / "clawops-ssh" / f"{place}.{name}"
        private, known_hosts = folder / keys.USER, folder / "known_hosts"
        if not known_hosts.exists():
            self._fetch(name, namespace, tunnel.cluster_of(kubeconfig, context), private, known_hosts)
        return {"private_key_file": str(private), "known_hosts_file": str(known_hosts),
                "common_args": _arguments(name, namespace, kubeconfig, context, known_hosts)}

    @staticmethod
    def _fetch(name: str, namespace: str, cluster: t.Any, private: pathlib.Path, known_hosts: pathlib.Path) -> None:
        secret = cluster.get("Secret", secrets.secret_name(name), namespace)
        found = secrets.decoded(secret) if secret else {}
        if not found.get(keys.USER) or not found.get(keys.HOST_PUBLIC):
            raise FleetError("no_identity", f"Bot {name} has no SSH key in {namespace}/{secrets.secret_name(name)}.",
                             "Make it with clawops.fleet.bot_identity, or the playbook clawops.fleet.bots.")
        private.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write(private, found[keys.USER], 0o600)
        files.write(known_hosts, keys.known_hosts(name, found) + "\n", 0o600)


def _arguments(name: str, namespace: str, kubeconfig: t.Any, context: str | None, known_hosts: pathlib.Path) -> str:
    program = pathlib.Path(_ssh.__path__[0])
    argv = [sys.executable, str(program), "--namespace", namespace, "--bot", name]
    argv += ["--kubeconfig", str(kubeconfig)] if kubeconfig else []
    argv += ["--context", context] if context else []
    settings = {"ProxyCommand": shlex.join(argv).replace("%", "%%"), "HostKeyAlias": keys.alias(name),
                "UserKnownHostsFile": known_hosts, "GlobalKnownHostsFile": "/dev/null", "StrictHostKeyChecking": "yes",
                "HostKeyAlgorithms": "ssh-ed25519", "IdentitiesOnly": "yes"}
    return shlex.join([word for key, value in settings.items() for word in ("-o", f"{key}={value}")])
