# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What is told of a guest, in the results of modules and to the inventory."""

from __future__ import annotations

import concurrent.futures
import contextlib
import typing as t

from .._errors import FleetError
from .._ownership import FLEET, PREFIX
from . import definition, names, observe, wait
from .client import Host
from .observe import Json, Parts

_WORKERS = 16
_T = t.TypeVar("_T")
_R = t.TypeVar("_R")


def describe(name: str, parts: Parts, host: Host) -> Json:
    """One guest as it is."""
    record, key = parts.record, parts.host_key
    addresses = _addresses(name, parts, host)
    return {
        "name": name, "state": parts.state,
        "uuid": None if parts.inactive is None else parts.inactive.findtext("uuid"),
        "address": addresses[0] if addresses else None, "addresses": addresses,
        "host_key": {"fingerprint": key.fingerprint, "public": key.public} if key else None,
        "disks": [{"name": disk, "path": str(names.disk(name, disk)), "size": size,
                   "target": None if parts.inactive is None else definition.target(parts.inactive, disk)}
                  for disk, size in sorted(parts.disks.items(), key=lambda entry: (entry[0] != names.ROOT, entry[0]))],
        "generation": record.get("generation"), "image": record.get("image"), "autostart": parts.autostart,
        "first_boot_over": bool(record.get("first_boot_over")),
    }


def _addresses(name: str, parts: Parts, host: Host) -> list[str]:
    """The fixed ones, then what the guest or its network's leases say."""
    networks = (parts.record.get("spec") or {}).get("networks") or []
    found = [str(network["address"]).partition("/")[0] for network in networks if network.get("address")]
    if parts.active and parts.domain is not None:
        with contextlib.suppress(FleetError), host.doing("look for addresses"):
            macs = [names.mac(name, index) for index in range(max(len(networks), 1))]
            found += wait.addresses(parts.domain, macs)
    return list(dict.fromkeys(found))


def listing(host: Host, fleet: str | None = None, only: t.Collection[str] | None = None) -> list[Json]:
    """The guests of this host with their effective descriptions: of one fleet or of all, of these names or of any."""
    owned = observe.owned(host)
    wanted = [name for name in sorted({*owned, *observe.recorded()})
              if (only is None or name in only) and owned.get(name, {}).get(f"{PREFIX}/vm", name) == name]
    found = at_once(lambda name: _entry(host, name, owned.get(name, {})), wanted)
    return [entry for entry in found if entry and fleet in (None, entry["fleet"])]


def at_once(look: t.Callable[[_T], _R], subjects: t.Sequence[_T]) -> list[_R]:
    """Guest agents that don't answer are waited for together."""
    with concurrent.futures.ThreadPoolExecutor(max(1, min(_WORKERS, len(subjects)))) as pool:
        return list(pool.map(look, subjects))


def _entry(host: Host, name: str, marks: t.Mapping[str, str]) -> Json | None:
    parts, problem = _look(host, name)
    if parts.inactive is not None and not marks:
        # Somebody else's domain has the name of a guest that was once here.
        return None
    return {**describe(name, parts, host), "fleet": marks.get(FLEET) or parts.record.get("fleet"),
            "spec": parts.record.get("spec"), "problem": problem}


def _look(host: Host, name: str) -> tuple[Parts, str | None]:
    """One guest that can't be described is told of, and hides no other."""
    try:
        return observe.one(host, name), None
    except FleetError as error:
        if error.code == "libvirt_unreachable":
            raise
        return Parts(state="unknown", record=observe.Record(name).read()), error.message
