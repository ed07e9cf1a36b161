# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What is told of a space: in the results of modules and by the program on its host."""

from __future__ import annotations

import typing as t

from .._ownership import FLEET, is_ours
from . import host, names, observe
from .client import Engine, Json
from .observe import Parts
from .state import Record

_WORDS = {"running": "started", "exited": "stopped"}


def describe(name: str, parts: Parts, record: Record) -> Json:
    """One space as it is."""
    container, status = parts.container, observe.status(parts.container)
    config = (container or {}).get("Config") or {}
    networks = ((container or {}).get("NetworkSettings") or {}).get("Networks") or {}
    return {
        "name": name, "state": _WORDS.get(status, status),
        "asleep": container is not None and record.asleep(container) is not None,
        "container": names.container(name), "id": (container or {}).get("Id"),
        "image": config.get("Image"),
        "volume": names.volume(name) if parts.volume else None,
        "network": names.network(name) if parts.network else None,
        "bridge": observe.bridge_of(parts.network),
        "address": (networks.get(names.network(name)) or {}).get("IPAddress") or None,
    }


def listing(engine: Engine, fleet: str | None = None, only: t.Collection[str] | None = None) -> list[Json]:
    """The spaces of this host with their effective descriptions, of one fleet or of all."""
    seen = observe.everything(engine, lambda name: only is None or name in only)
    found = []
    for name in seen.named(fleet):
        if only is not None and name not in only:
            continue
        parts, record = seen.of(name), Record(name)
        labels = ((parts.container or {}).get("Config") or {}).get("Labels") or {}
        found.append({**describe(name, parts, record), "fleet": labels.get(FLEET), "spec": record.spec()})
    return found


def _volumes(engine: Engine, fleet: str | None, only: t.Collection[str] | None) -> list[str]:
    """The spaces that have a volume here, those of which nothing else is left, too."""
    with engine.doing("list volumes"):
        listed = engine.volumes(names.VOLUME_STEM)
    marks = [volume.get("Labels") or {} for volume in listed]
    return sorted(one[names.SPACE] for one in marks if is_ours(one) and names.SPACE in one
                  and fleet in (None, one.get(FLEET)) and (only is None or one[names.SPACE] in only))


def report(engine: Engine | None, fleet: str | None = None, only: t.Collection[str] | None = None) -> Json:
    """What this host has of spaces, and what it offers; without an engine it has none."""
    return {
        "spaces": listing(engine, fleet, only) if engine else [],
        "volumes": _volumes(engine, fleet, only) if engine else [],
        "host": host.capabilities(engine),
    }
