# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an inventory says: groups, variables as a run would see them, and how ssh gets to a host."""

from __future__ import annotations

import functools
import json
import pathlib
import shlex
import subprocess
import sys
import threading
import types
import typing as t

from plugins.module_utils._errors import FleetError

OPTIONS = ("host", "port", "remote_user", "private_key_file", "ssh_args", "ssh_common_args", "ssh_extra_args",
           "ssh_executable", "host_key_checking")
#: How ansible-inventory marks a text that is no template, such as what a host has said of itself.
UNSAFE = "__ansible_unsafe"
Vars = dict[str, t.Any]


class Inventory:
    """The output of ansible-inventory --list."""

    def __init__(self, listed: t.Mapping[str, t.Any]) -> None:
        self.groups = listed
        self.hostvars: t.Mapping[str, Vars] = (listed.get("_meta") or {}).get("hostvars") or {}
        self._one_at_a_time = threading.RLock()  # Ansible's loader of plugins is not made for threads

    @classmethod
    def read(cls, sources: t.Iterable[str]) -> Inventory:
        beside = pathlib.Path(sys.executable).with_name("ansible-inventory")
        program = str(beside) if beside.exists() else "ansible-inventory"
        argv = [program, "--list", *(word for source in sources for word in ("-i", source))]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise FleetError("no_ansible", "ansible-inventory is not installed.", "Install ansible-core.") from None
        if done.returncode:
            raise FleetError("no_inventory", f"The inventory can't be read: {done.stderr.strip()}",
                             "Name it with -i, in ANSIBLE_INVENTORY or in ansible.cfg.")
        return cls(json.loads(done.stdout))

    def members(self, group: str) -> list[str]:
        found = self.groups.get(group) or {}
        names = list(found.get("hosts", ()))
        for child in found.get("children", ()):
            names += self.members(child)
        return list(dict.fromkeys(names))

    def get(self, host: str, variable: str) -> t.Any:
        return self._rendered(host, (self.hostvars.get(host) or {}).get(variable))

    def _rendered(self, host: str, value: t.Any) -> t.Any:
        if not isinstance(value, str) or "{" not in value:
            return _mapped(value, str, str)
        try:
            with self._one_at_a_time:
                return _templar(json.dumps({**self.hostvars[host], "inventory_hostname": host}))(value)
        except ImportError:
            raise FleetError("no_ansible", f"{host} has templates among its variables, and this Python has no Ansible.",
                             "Run this program with the Python of ansible-core.") from None

    def is_local(self, host: str) -> bool:
        return self.get(host, "ansible_connection") in ("local", "ansible.builtin.local")

    def connection(self, host: str, without: t.Collection[str] = ()) -> Vars:
        """What the inventory says about connections to a host."""
        return {name: self.get(host, name) for name in self.hostvars.get(host) or {} if name.startswith("ansible_")
                and not name.endswith(("password", "pass")) and name not in without}

    def ssh(self, host: str, way: t.Mapping[str, t.Any] = types.MappingProxyType({})) -> tuple[list[str], str]:
        """The program with its options, and the name of the host: as the connection plugin would call it.

        What is in way goes before what the inventory says.
        """
        known = {**self.connection(host, way), **way}
        with self._one_at_a_time:
            found = _connection({**known, "inventory_hostname": host})
        argv = [found["ssh_executable"] or "ssh", "-o", "LogLevel=ERROR"]
        for name in ("ssh_args", "ssh_common_args", "ssh_extra_args"):
            argv += shlex.split(found[name] or "")
        if found["host_key_checking"] is False:
            argv += ["-o", "StrictHostKeyChecking=no"]
        for option, name in (("Port", "port"), ("User", "remote_user"), ("IdentityFile", "private_key_file")):
            if found[name]:
                argv += ["-o", f"{option}={found[name]}"]
        return argv, str(found["host"] or host)


@functools.cache
def _templar(variables: str) -> t.Callable[[str], t.Any]:
    from ansible.parsing.dataloader import DataLoader
    from ansible.template import Templar

    _plugins()
    # What hosts have said of themselves is no template of the operator's.
    known = {name: _mapped(value, *((_unsafe, _unsafe) if name == "fleet_observed" else (_trusted, _unsafe)))
             for name, value in json.loads(variables).items()}
    templar = Templar(loader=DataLoader(), variables=known)
    return lambda value: templar.template(_trusted(value))


def _mapped(value: t.Any, text: t.Callable[[str], t.Any], unsafe: t.Callable[[str], t.Any]) -> t.Any:
    """All that is in it, with other texts in the place of those with and without a mark."""
    if isinstance(value, dict):
        return unsafe(value[UNSAFE]) if UNSAFE in value else {
            key: _mapped(one, text, unsafe) for key, one in value.items()}
    if isinstance(value, list):
        return [_mapped(one, text, unsafe) for one in value]
    return text(value) if isinstance(value, str) else value


def _trusted(value: str) -> str:
    """The inventory is the operator's own. Before core 2.19 every text is taken for a template."""
    try:
        from ansible.template import trust_as_template
    except ImportError:
        return value
    return t.cast(str, trust_as_template(value))


def _unsafe(value: str) -> str:
    from ansible.utils.unsafe_proxy import wrap_var

    return t.cast(str, wrap_var(value))


@functools.cache
def _plugins() -> None:
    from ansible.plugins.loader import init_plugin_loader

    init_plugin_loader()


def _connection(variables: Vars) -> Vars:
    """The options of the ssh plugin: from variables, the environment and ansible.cfg, in Ansible's own order."""
    try:
        from ansible import constants
        from ansible.plugins.loader import connection_loader
    except ImportError:
        raise FleetError("no_ansible", "This Python has no Ansible.",
                         "Run this program with the Python of ansible-core.") from None
    _plugins()
    plugin = connection_loader.get("ansible.builtin.ssh", class_only=True)
    return {name: constants.config.get_config_value(name, plugin_type="connection", plugin_name=plugin._load_name,
                                                    variables=variables) for name in OPTIONS}
