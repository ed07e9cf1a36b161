# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: api_keys
short_description: The API keys that a bot gets
version_added: 0.1.0
author: clawops.fleet maintainers (@clawops)
description:
  - Returns one mapping for each bot, from names of environment variables to keys.
  - The bot's own key goes before the fleet's. Its own ones are C(bot_api_keys) and what the keystore holds for it,
    the fleet's ones are O(fleet_keys) and what the keystore holds for all. In both cases a variable goes before the
    keystore.
  - A keystore is a text that is encrypted by Fernet, in a file or in a Secret of a cluster. The program
    C(scripts/keystore) of the repository makes and changes it.
  - The playbooks that bring up bots, on whatever they run, ask this lookup; setting O(keystore) and O(key) is enough.
options:
  _terms:
    description: Names of bots of the inventory.
    type: list
    elements: str
    required: true
  fleet_keys:
    description: Keys for every bot that has no own one.
    type: raw
    vars:
      - name: fleet_api_keys
  keystore:
    description: Path of the keystore, or V(secret:NAMESPACE/NAME). None means that only variables count.
    type: str
    env:
      - name: CLAWOPS_KEYSTORE
    vars:
      - name: fleet_keystore
  key:
    description: Key of the keystore; or several, divided by blanks, the newest first.
    type: str
    env:
      - name: CLAWOPS_KEYSTORE_KEY
    vars:
      - name: fleet_keystore_key
  key_file:
    description: Path of a file with the key, instead of O(key).
    type: path
    env:
      - name: CLAWOPS_KEYSTORE_KEY_FILE
    vars:
      - name: fleet_keystore_key_file
  kubeconfig:
    description: Kubeconfig of the cluster with the Secret.
    type: raw
    vars:
      - name: cluster_kubeconfig
      - name: fleet_keystore_kubeconfig
  context:
    description: Context in that kubeconfig.
    type: str
    vars:
      - name: cluster_context
      - name: fleet_keystore_context
notes:
  - What it returns is secret. Hand it to options that are not logged, or set C(no_log).
requirements:
  - cryptography
"""

EXAMPLES = r"""
- name: Keep the keys of a bot for the following tasks
  ansible.builtin.set_fact:
    alpha_keys: "{{ lookup('clawops.fleet.api_keys', 'alpha') }}"
  no_log: true
"""

RETURN = r"""
_list:
  description: The keys of each bot, in the order of the names.
  type: list
  elements: dict
"""

import pathlib
import typing as t

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

from ..module_utils import _keystore as keystore
from ..module_utils._errors import FleetError


class LookupModule(LookupBase):  # type: ignore[misc]
    """Own keys before the fleet's."""

    def run(self, terms: list[str], variables: dict[str, t.Any] | None = None, **kwargs: t.Any) -> list[dict[str, str]]:
        variables = variables or {}
        self.set_options(var_options=variables, direct=kwargs)
        try:
            store = self._keystore()
        except FleetError as error:
            raise AnsibleLookupError(error.result()["msg"]) from None
        fleet = self._given("fleet_keys") or {}
        return [store.effective(name, self._own(name, variables), fleet) for name in terms]

    def _given(self, option: str) -> t.Any:
        """An option that came from a variable may still be a template."""
        value = self.get_option(option)
        return self._templar.template(value) if self._templar else value

    def _keystore(self) -> keystore.Keystore:
        location = self._given("keystore")
        if not location:
            return keystore.Keystore()
        return keystore.load(keystore.place(location, self._cluster), location, self._key())

    def _key(self) -> str:
        path = self._given("key_file")
        try:
            return self._given("key") or (pathlib.Path(path).expanduser().read_text() if path else "")
        except OSError as error:
            raise FleetError("no_keystore_key", f"The key file {path} can't be read: {error.strerror}.") from None

    def _cluster(self) -> t.Any:
        from ..module_utils._ssh.tunnel import cluster_of

        return cluster_of(self._given("kubeconfig"), self._given("context"))

    @staticmethod
    def _own(name: str, variables: dict[str, t.Any]) -> dict[str, str]:
        hostvars = variables.get("hostvars") or {}
        if name not in hostvars:
            raise AnsibleLookupError(f"There is no bot {name} in the inventory.")
        return hostvars[name].get("bot_api_keys") or {}
