# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Names, their limits, and the guard \"is this ours?\" that stands before every change and deletion."""

from __future__ import annotations

import hashlib
import json
import re
import typing as t

from ._errors import FleetError, bad_value

NAME = re.compile(r"[a-z]([a-z0-9-]{0,26}[a-z0-9])?")
PREFIX = "clawops.fleet"
MANAGED, FLEET, SPEC = f"{PREFIX}/managed", f"{PREFIX}/fleet", f"{PREFIX}/spec"
Kind = t.Literal["bot", "space", "vm"]


def check_name(parameter: str, name: object) -> str:
    """Returns the name, or raises: 28 characters at most, so that every name derived from it fits everywhere."""
    if isinstance(name, str) and NAME.fullmatch(name):
        return name
    raise bad_value(parameter, name, "Use 1 to 28 of a-z, 0-9 and '-', first a letter, last no hyphen.")


def digest(value: t.Any) -> str:
    """Hash of a normalised JSON-able value: the same for the same meaning."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def labels(fleet: str, kind: Kind, name: str, spec: t.Any) -> dict[str, str]:
    """The four labels that everything created by the collection carries."""
    return {MANAGED: "true", FLEET: fleet, f"{PREFIX}/{kind}": name, SPEC: digest(spec)[:16]}


def is_ours(found: t.Mapping[str, str] | None) -> bool:
    return bool(found) and t.cast("t.Mapping[str, str]", found).get(MANAGED) == "true"


def guard(what: str, found: t.Mapping[str, str] | None, kind: Kind, name: str, adopt: bool = False) -> None:
    """Raises unless the object is ours and belongs to this name, or is adopted on purpose."""
    owner = (found or {}).get(f"{PREFIX}/{kind}")
    if adopt or (is_ours(found) and owner == name):
        return
    whose = f"belongs to {kind} {owner}" if owner else "is not managed by this collection"
    raise FleetError("foreign_object", f"{what} exists and {whose}.",
                     "Rename or remove it, or take it over with adopt: true where the module has that option.")


def short_hash(name: str) -> str:
    """8 hex digits of sha256: for bridge names, which have 15 characters at most."""
    return hashlib.sha256(name.encode()).hexdigest()[:8]
