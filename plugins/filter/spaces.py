# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What spaces are to be, where they go, and what their bridges reach."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ..module_utils._docker import names, placement
from ..module_utils._docker.space import Space, parse
from ..module_utils._docker.space import templates_of as merged
from ..module_utils._errors import FleetError

Values = t.Mapping[str, t.Any]
PREFIX = "space_"
BACKUP = "space_backup"
BACKUP_SECRETS = ("access_key", "secret_key", "password")
BACKUP_TAKEN = ("exclude", *BACKUP_SECRETS)
BACKUP_KEYS = ("enabled", *BACKUP_TAKEN, "previous_access_key", "previous_password")
#: What a space of network mode lan reaches beyond the internet. What no container may reach stays out of reach.
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")


def space_templates(own: Values | None = None) -> dict[str, dict[str, t.Any]]:
    """All templates by name: the collection's, and the own ones over them."""
    try:
        return merged(own)
    except FleetError as error:
        raise AnsibleFilterError(error.result()["msg"]) from None


def space_descriptions(spaces: t.Iterable[Values], templates: Values | None = None,
                       only: t.Collection[str] | None = None, state: str | None = None) -> list[dict[str, t.Any]]:
    """The descriptions out of host variables, without the prefix space_. A bad one is refused before a play writes."""
    found = []
    for hostvars in spaces:
        name = hostvars["inventory_hostname"]
        if only is not None and name not in only:
            continue
        own = {key[len(PREFIX):]: hostvars[key] for key in hostvars if key.startswith(PREFIX) and key != BACKUP}
        if own.get("name", name) != name:
            raise AnsibleFilterError(f"{name}: space_name is {own['name']}. Spaces of group spaces have no other name.")
        description = {**own, "name": name, **({"state": state} if state else {})}
        _parsed(description, templates)
        found.append(description)
    return found


def _parsed(description: Values, templates: Values | None) -> Space:
    try:
        return parse(description, templates)
    except FleetError as error:
        raise AnsibleFilterError(f"{description.get('name')}: {error.result()['msg']}") from None


def place_spaces(spaces: t.Iterable[Values], hosts: placement.Answers, templates: Values | None = None,
                 overcommit: float = 1.0) -> dict[str, dict[str, str]]:
    """The host of each space, and why some have none yet."""
    parsed = [_parsed(description, templates) for description in spaces]
    try:
        placed = placement.place(parsed, hosts, float(overcommit))
    except FleetError as error:
        raise AnsibleFilterError(error.result()["msg"]) from None
    return {"hosts": placed.hosts, "waiting": placed.waiting}


def place_space(space: Values, hosts: placement.Answers, templates: Values | None = None,
                overcommit: float = 1.0) -> str:
    """The host of one space."""
    placed = place_spaces([space], hosts, templates, overcommit)
    for name, reason in placed["waiting"].items():
        raise AnsibleFilterError(f"{name}: {reason}")
    return placed["hosts"].get(space["name"], "")


def spaces_on(spaces: t.Iterable[Values], host: str, placed: t.Mapping[str, t.Mapping[str, str]]
              ) -> list[dict[str, t.Any]]:
    """The descriptions of the spaces that were placed on the host, as its modules take them."""
    return [{key: value for key, value in space.items() if key != "on"} for space in spaces
            if placed["hosts"].get(space["name"]) == host]


def space_reach(spaces: t.Iterable[Values], templates: Values | None = None) -> list[dict[str, t.Any]]:
    """A rule of network_guard for the bridge of each space that reaches more or less than all. Takes host variables.

    Spaces that are to be absent have theirs, too: it must not go before they have gone.
    """
    parsed = [_parsed(description, templates) for description in space_descriptions(spaces, templates)]
    return [{"interface": names.bridge(space.name), "allow": list(PRIVATE) if space.network == "lan" else [],
             "block": list(space.block)}
            for space in parsed
            if space.network == "lan" or (space.network == "internet" and space.block)]


def space_backups(spaces: t.Iterable[Values], templates: Values | None = None,
                  only: t.Collection[str] | None = None) -> list[dict[str, t.Any]]:
    """Spaces that have a volume and whose backup is on, for the modules. Takes host variables."""
    found = []
    for hostvars in spaces:
        name, settings = hostvars["inventory_hostname"], dict(hostvars.get(BACKUP) or {})
        typo = next((key for key in sorted(settings) if key not in BACKUP_KEYS), None)
        if typo:
            raise AnsibleFilterError(f"{name}: {BACKUP}.{typo} is not known. Use one of: {', '.join(BACKUP_KEYS)}.")
        described = space_descriptions([hostvars], templates, only)
        parsed = [_parsed(one, templates) for one in described]
        if settings.get("enabled", True) and any(one.workspace.in_volume and one.state != "absent" for one in parsed):
            found.append({"name": name, **{key: settings[key] for key in BACKUP_TAKEN if key in settings}})
    return found


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "place_space": place_space,
            "place_spaces": place_spaces,
            "space_backups": space_backups,
            "space_descriptions": space_descriptions,
            "space_reach": space_reach,
            "space_templates": space_templates,
            "spaces_on": spaces_on,
        }
