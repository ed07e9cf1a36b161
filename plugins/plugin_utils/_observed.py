# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What the inventory plugins share: they enrich declared hosts with what was seen, and no place makes them fail."""

from __future__ import annotations

import functools
import typing as t

from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.inventory.helpers import get_group_vars
from ansible.module_utils.common.text.converters import to_native
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.unsafe_proxy import wrap_var
from ansible.utils.vars import combine_vars
from ansible.vars.plugins import get_vars_from_inventory_sources

from ..module_utils._ownership import NAME
from ._remote import Remote, at_once

Vars = dict[str, t.Any]
OBSERVED = "fleet_observed"
UNDECLARED = "undeclared"


def trusted(template: str) -> str:
    """A template that is evaluated by the run. Before core 2.19 all are."""
    try:
        from ansible.template import trust_as_template
    except ImportError:
        return template
    return t.cast(str, trust_as_template(template))


class ObservedInventory(BaseInventoryPlugin, Constructable, Cacheable):  # type: ignore[misc]
    """A plugin for the hosts of one group, with the name that files of it end with."""

    GROUP = ""

    def verify_file(self, path: str) -> bool:
        return super().verify_file(path) and path.endswith((f"{self.GROUP}.yml", f"{self.GROUP}.yaml"))

    # -- what is declared ----------------------------------------------------------------------------------------

    def _declared(self, path: str) -> dict[str, Vars]:
        declared = {name: self._values(name) for name in self._members(self.GROUP)}
        if not declared:
            self.display.warning(f"{path}: no host is in group {self.GROUP} yet. "
                                 "Name this source after the one that has them.")
        return declared

    def _members(self, group: str) -> list[str]:
        found = self.inventory.groups.get(group)
        return [host.name for host in found.get_hosts()] if found else []

    def _values(self, name: str) -> Vars:
        """The variables of a host, those of group_vars and host_vars included, as they were written."""
        host = self.inventory.hosts[name]
        sources = getattr(self.inventory, "processed_sources", [])
        # Other groups are its children only when all sources have been read.
        every = [self.inventory.groups["all"]]
        groups = [group for group in host.get_groups() if group not in every]

        def beside(entities: list[t.Any]) -> Vars:
            return t.cast(Vars, get_vars_from_inventory_sources(self.loader, sources, entities, "all"))

        values: Vars = {}
        for part in (get_group_vars(every), get_group_vars(groups), beside(every), beside(groups), host.get_vars(),
                     beside([host])):
            values = combine_vars(values, part)
        return t.cast(Vars, values)

    def _settings(self, name: str, keys: t.Iterable[str]) -> Vars:
        """Those variables of a host that it has, evaluated."""
        values = self._values(name)
        self.templar.available_variables = values
        return {key: self.templar.template(values[key]) for key in keys if values.get(key) is not None}

    # -- what was seen -------------------------------------------------------------------------------------------

    def _cached(self, path: str, cache: bool, look: t.Callable[[], tuple[Vars, bool]]) -> Vars:
        """What look has found; for the next time, too, if it says that this is the whole picture."""
        key = self.get_cache_key(path)
        if cache and self.get_option("cache") and key in self._cache:
            return t.cast(Vars, self._cache[key])
        found, whole = look()
        if whole and self.get_option("cache"):
            self._cache[key] = found
        return found

    # -- what becomes of it --------------------------------------------------------------------------------------

    def _set(self, name: str, variables: Vars) -> None:
        for variable, value in variables.items():
            self.inventory.set_variable(name, variable, value)

    def _observed(self, name: str, seen: Vars) -> None:
        """Words from elsewhere are never templates."""
        self._set(name, {OBSERVED: wrap_var(seen)})

    def _undeclared(self, name: str, variables: Vars, whose: str) -> bool:
        """Adds a host that nobody declared. False if it can't have the name: whose says by what it is not.

        The name is somebody else's word: it must not be a template's end, nor the controller or a group of ours.
        """
        if not NAME.fullmatch(name) or name in C.LOCALHOST or name in self.inventory.groups:
            self.display.warning(f"{whose} {name!r}, which is no name for one.")
            return False
        if name in self.inventory.hosts:
            self.display.warning(f"{whose} {name}, which the inventory has elsewhere.")
            return False
        self.inventory.add_group(UNDECLARED)
        self.inventory.add_host(name, group=UNDECLARED)
        self._set(name, variables)
        return True

    def _construct(self, name: str) -> None:
        strict, values = self.get_option("strict"), self._values(name)
        self._set_composite_vars(self.get_option("compose"), values, name, strict=strict)
        values = self._values(name)
        self._add_host_to_composed_groups(self.get_option("groups"), values, name, strict=strict, fetch_hostvars=False)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), values, name, strict=strict,
                                       fetch_hostvars=False)


class HostsInventory(ObservedInventory):
    """A plugin that asks the hosts of another group, all at once. It has an option timeout."""

    #: What those hosts are called.
    ON = ""

    def _ask(self, hosts: t.Sequence[str], ask: t.Callable[[Remote, t.Any], dict[str, Vars]]
             ) -> dict[str, dict[str, Vars]]:
        """For each host that answered, what is on it, by name. ask gets a host and the name of its fleet."""
        questions = {host: question for host, question in ((host, self._question(host, ask)) for host in hosts)
                     if question}
        # A second more than a connection has, so that it can say itself what was wrong.
        answers = at_once(questions, self.get_option("timeout") + 1)
        found: dict[str, dict[str, Vars]] = {}
        for host, answer in answers.items():
            if isinstance(answer, Exception):
                self._not_asked(host, answer)
            else:
                found[host] = {name: seen for name, seen in answer.items() if isinstance(name, str)}
        return found

    def _question(self, host: str, ask: t.Callable[[Remote, t.Any], dict[str, Vars]]
                  ) -> t.Callable[[], dict[str, Vars]] | None:
        """Templates are evaluated here, before there are threads."""
        values = {**self._values(host), "inventory_hostname": host}
        self.templar.available_variables = values
        try:
            remote = Remote(values, self.templar.template, self.get_option("timeout"))
            return functools.partial(ask, remote, self.templar.template(values.get("fleet_name")))
        except AnsibleError as error:
            self._not_asked(host, error)
            return None

    def _not_asked(self, host: str, reason: object) -> None:
        self.display.warning(f"{self.ON} {host} was not asked for its {self.GROUP}: {to_native(reason).strip()}")
