# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What the modules for guests take, and what they do with it: one guest is a fleet of one."""

from __future__ import annotations

import typing as t

from .. import _audit, _plan
from .._errors import FleetError, bad_value
from .._ownership import check_name
from . import names
from .client import Host
from .decide import Settings
from .facts import listing
from .observe import Json
from .reconcile import Guests
from .spec import CPU_MODES, DISK_MODES, FIRMWARES, STATES, WAITS, parse_all

COMMON: dict[str, Json] = {
    "libvirt_uri": {"type": "str"},
    "actor": {"type": "str"},
    "job": {"type": "str"},
}
VM: dict[str, Json] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": list(STATES), "default": "running"},
    "generation": {"type": "int"},
    "image": {"type": "dict", "options": {
        "path": {"type": "path"}, "url": {"type": "str"}, "sha256": {"type": "str"}}},
    "memory": {"type": "str"},
    "memory_max": {"type": "str"},
    "cpus": {"type": "int"},
    "cpus_max": {"type": "int"},
    "disk": {"type": "str"},
    "disk_mode": {"type": "str", "choices": list(DISK_MODES)},
    "firmware": {"type": "str", "choices": list(FIRMWARES)},
    "secure_boot": {"type": "bool"},
    "tpm": {"type": "bool"},
    "machine": {"type": "str"},
    "cpu": {"type": "dict", "options": {
        "mode": {"type": "str", "choices": list(CPU_MODES)}, "disable": {"type": "list", "elements": "str"}}},
    "networks": {"type": "list", "elements": "dict", "options": {
        "network": {"type": "str"}, "bridge": {"type": "str"}, "address": {"type": "str"},
        "gateway": {"type": "str"}, "nameservers": {"type": "list", "elements": "str"}}},
    "disks": {"type": "list", "elements": "dict", "options": {
        "name": {"type": "str", "required": True}, "size": {"type": "str", "required": True}}},
    "shares": {"type": "list", "elements": "dict", "options": {
        "path": {"type": "path", "required": True}, "tag": {"type": "str"}, "mount": {"type": "str"},
        "read_only": {"type": "bool"}}},
    "devices": {"type": "list", "elements": "str"},
    "autostart": {"type": "bool"},
    "user": {"type": "dict", "options": {
        "name": {"type": "str"},
        "authorized_keys": {"type": "list", "elements": "str", "no_log": False}}},
    "user_data": {"type": "dict", "no_log": True},
    "wait": {"type": "dict", "options": {
        "until": {"type": "str", "choices": list(WAITS)}, "timeout": {"type": "int"}}},
    "restart": {"type": "bool", "default": False},
}
FLEET: dict[str, Json] = {
    "fleet": {"type": "str", "required": True},
    "share_paths": {"type": "list", "elements": "path", "default": []},
    "purge_data": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 120},
}


class Module(_plan.Warner, t.Protocol):
    """The part of AnsibleModule that is needed."""

    params: Json


def _given(value: t.Any) -> t.Any:
    """Without what nobody said; user data are as they are."""
    if isinstance(value, dict):
        return {key: one if key == "user_data" else _given(one) for key, one in value.items() if one is not None}
    return [_given(one) for one in value] if isinstance(value, list) else value


def manage(module: Module, vms: t.Iterable[t.Mapping[str, t.Any]],
           shape: t.Callable[[Json], Json] = lambda values: values) -> None:
    """Runs one module to its end. shape makes the module's return values of those of a fleet."""
    p = module.params
    works: list[Guests] = []

    def plan() -> _plan.Plan:
        guests = parse_all(map(_given, vms))
        for option in ("timeout", "parallel", "boots"):
            if p.get(option, 1) < 1:
                raise bad_value(option, p[option], "Give 1 or more.")
        for path in p["share_paths"]:
            if not path.startswith("/") or path.rstrip("/") == "":
                raise bad_value("share_paths", path, "Give absolute paths below /.")
        only = None if p.get("only") is None else [check_name("only", name) for name in p["only"]]
        result = _plan.Plan()
        host = _host(module, result)
        if host is None:
            return result
        settings = Settings(p["fleet"], p["purge_data"], tuple(p["share_paths"]), float(p["timeout"]))
        works.append(Guests(host, guests, settings, _audit.Origin.of(p["actor"], p["job"]), only,
                            bool(p.get("prune")), p.get("parallel", 1), p.get("boots", 1)))
        result.changes += works[0].plan().changes
        return result

    def facts() -> Json:
        for note in works[0].notes if works else ():
            module.warn(f"{note}.")
        return shape(works[0].facts() if works else {"vms": [], "restart_required": False})

    def apply(decided: _plan.Plan) -> Json:
        works[0].apply(decided)
        return facts()

    _plan.run(module, plan, apply, facts)


def _host(module: Module, plan: _plan.Plan) -> Host | None:
    """In check mode a host may have no libvirt yet."""
    host = Host(module.params["libvirt_uri"])
    try:
        with host.doing("describe its host"):
            host.platform  # noqa: B018 - that it answers
        return host
    except FleetError as error:
        if not module.check_mode or error.code not in ("libvirt_unreachable", "missing_library", "no_emulator"):
            raise
        plan.cannot_see(error.message)
        return None


def inform(module: Module) -> None:
    """The module that only looks."""
    p = module.params
    try:
        only = None if p["names"] is None else [check_name("names", name) for name in p["names"]]
        with Host(p["libvirt_uri"]) as host:
            vms = listing(host, p["fleet"], only)
            about = {"kvm": host.platform.kvm, "libvirt": host.platform.version}
    except FleetError as error:
        # Where there never was a guest, nobody needs libvirt to say so: before a first run, for instance.
        if error.code not in ("libvirt_unreachable", "missing_library") or names.STATE.is_dir():
            module.fail_json(**error.result())
            return
        vms, about = [], {}
    module.exit_json(changed=False, vms=vms, host=about)
