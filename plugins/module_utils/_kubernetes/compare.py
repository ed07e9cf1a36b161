# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Is an object as it is wanted? What the server and others added to it doesn't count.

What we wanted once and want no more is not seen here, but in the label with the hash of the description.
"""

from __future__ import annotations

import typing as t

_KEYS = ("mountPath", "containerPort", "name")


def _key(items: list[t.Any]) -> str | None:
    """By what the elements of a list are known; None where the list counts as one value."""
    return next((key for key in _KEYS if items and all(isinstance(item, dict) and key in item for item in items)), None)


def covers(desired: t.Any, observed: t.Any) -> bool:
    """Whether all that is desired is there."""
    if desired == observed:
        return True
    if isinstance(desired, dict):
        found = observed if isinstance(observed, dict) else None
        return (not desired and observed is None) or (
            found is not None and all(covers(value, found.get(key)) for key, value in desired.items()))
    if not isinstance(desired, list):
        return False
    if not isinstance(observed, list):
        return not desired and observed is None
    key = _key(desired)
    if key is None:
        return len(desired) == len(observed) and all(map(covers, desired, observed))
    named = {item.get(key): item for item in observed if isinstance(item, dict)}
    return all(covers(item, named.get(item[key])) for item in desired)


def part(desired: t.Any, observed: t.Any) -> t.Any:
    """The observed values of what is desired, for a diff."""
    if isinstance(desired, dict) and isinstance(observed, dict):
        return {key: part(value, observed[key]) for key, value in desired.items() if key in observed}
    if isinstance(desired, list) and isinstance(observed, list):
        key = _key(desired)
        if key:
            wanted = {item[key]: item for item in desired}
            return [part(wanted[item[key]], item) for item in observed if item.get(key) in wanted]
    return observed
