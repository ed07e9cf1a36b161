# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the modules for backups of guests take of their descriptions."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

SECRETS = ("access_key", "secret_key", "password")
KEYS = ("enabled", *SECRETS, "previous_access_key", "previous_password")


def vm_backups(guests: t.Iterable[t.Mapping[str, t.Any]], only: t.Collection[str] | None = None
               ) -> list[dict[str, t.Any]]:
    """Guests whose vm_backup is on, for the modules; with only, those that are named, whatever it says."""
    found = []
    for guest in guests:
        settings = dict(guest.get("backup") or {})
        typo = next((key for key in sorted(settings) if key not in KEYS), None)
        if typo:
            raise AnsibleFilterError(f"{guest['name']}: vm_backup.{typo} is not known. Use one of: {', '.join(KEYS)}.")
        on = settings.get("enabled", False) and guest.get("state") != "absent"
        if on if only is None else guest["name"] in only:
            found.append({"name": guest["name"], **{key: settings[key] for key in SECRETS if key in settings}})
    return found


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"vm_backups": vm_backups}
