# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Is a container as it is wanted? Field by field, so that the answer can be read."""

from __future__ import annotations

import typing as t

from .client import Json

Differences = dict[str, tuple[t.Any, t.Any]]
#: What a running container can change, by the name that an operator knows.
_LIVE = {"Memory": "memory", "NanoCpus": "cpus", "PidsLimit": "pids", "RestartPolicy": "restart"}
_SWAP = "MemorySwap"


def live(wanted: Json, found: Json, counts_swap: t.Callable[[], bool] = lambda: True) -> Differences:
    """Differences of the limits: name -> (found, wanted)."""
    desired, observed = wanted["HostConfig"], found["HostConfig"]
    result = {word: (_readable(field, observed.get(field)), _readable(field, desired[field]))
              for field, word in _LIVE.items() if _plain(field, desired[field]) != _plain(field, observed.get(field))}
    # Without swap accounting the engine writes down -1 whatever it was asked for.
    swap = observed.get(_SWAP)
    if swap != desired[_SWAP] and "memory" not in result and (swap != -1 or counts_swap()):
        result["memory with swap"] = (swap, desired[_SWAP])
    return result


def fixed(wanted: Json, found: Json) -> Differences:
    """Differences that only a new container takes away."""
    result: Differences = {}
    for field, value in wanted.items():
        if field != "HostConfig":
            _compare(result, field, value, found["Config"].get(field))
    for field, value in wanted["HostConfig"].items():
        if field not in _LIVE and field != _SWAP:
            _compare(result, field, value, found["HostConfig"].get(field))
    return result


def _compare(result: Differences, field: str, desired: t.Any, observed: t.Any) -> None:
    if field == "Labels":
        observed = {key: (observed or {}).get(key) for key in desired}
    if field == "Env":
        # The image adds its own. What is wanted no more shows in the label with the digest.
        observed = [entry for entry in observed or [] if entry in desired]
    wanted, seen = _plain(field, desired), _plain(field, observed)
    if wanted != seen:
        result[field] = (seen, wanted)


def _plain(field: str, value: t.Any) -> t.Any:
    """The same for the same meaning: engines differ in how they write down nothing."""
    if field == "Mounts":
        return sorted([mount.get("Type"), mount.get("Source"), mount.get("Target"), bool(mount.get("ReadOnly"))]
                      for mount in value or [])
    if field == "DeviceRequests":
        return [[request.get("Count"), request.get("Capabilities")] for request in value or []]
    if field == "RestartPolicy":
        return (value or {}).get("Name") or "no"
    if field in ("Env", "SecurityOpt", "CapDrop"):
        return sorted(value or [])
    return value or None


def _readable(field: str, value: t.Any) -> t.Any:
    return (value or 0) / 1e9 if field == "NanoCpus" else _plain(field, value)


def shown(differences: Differences) -> tuple[Json, Json]:
    """Before and after, for a diff."""
    return ({field: pair[0] for field, pair in differences.items()},
            {field: pair[1] for field, pair in differences.items()})
