# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What the modules for bots in a cluster take, and what they do with it: one bot is a fleet of one."""

from __future__ import annotations

import typing as t

from .. import _plan
from .._bot import network, parse_all
from .._errors import FleetError, bad_value
from .._ports import pair_band
from .client import Cluster, Json, kubernetes_options
from .manifests import Site
from .reconcile import Fleet, Settings

_VOLUME = {"name": {"type": "str", "required": True}, "mount_path": {"type": "path", "required": True},
           "claim": {"type": "str"}, "config_map": {"type": "str"}, "secret": {"type": "str", "no_log": False},
           "empty_dir": {"type": "str"}, "read_only": {"type": "bool"}}
BOT: dict[str, Json] = {
    "name": {"type": "str", "required": True},
    "version": {"type": "str", "required": True},
    "profile": {"type": "str", "choices": ["gateway", "desktop"], "default": "gateway"},
    "runtime": {"type": "str", "choices": ["pod"], "default": "pod"},
    "state": {"type": "str", "choices": ["present", "started", "stopped", "restarted", "absent"],
              "default": "started"},
    "port": {"type": "int"},
    "image": {"type": "str"},
    "config": {"type": "dict", "default": {}},
    "live_config": {"type": "bool", "default": False},
    "env": {"type": "dict", "default": {}},
    "api_keys": {"type": "dict", "default": {}, "no_log": True},
    "gateway_token": {"type": "str", "no_log": True},
    "resources": {"type": "dict", "default": {}},
    "volume_sizes": {"type": "dict", "default": {}},
    "storage_class": {"type": "str"},
    "extra_volumes": {"type": "list", "elements": "dict", "default": [], "options": _VOLUME,
                      "mutually_exclusive": [["claim", "config_map", "secret", "empty_dir"]],
                      "required_one_of": [["claim", "config_map", "secret", "empty_dir"]]},
    "node_selector": {"type": "dict", "default": {}},
    "tolerations": {"type": "list", "elements": "dict", "default": []},
    "allowed_sources": {"type": "list", "elements": "str", "default": []},
    "allow_passwordless": {"type": "bool", "default": False, "no_log": False},
}
FLEET: dict[str, Json] = {
    "fleet": {"type": "str", "required": True},
    "namespace": {"type": "str", "default": "claworc"},
    "gateway_namespace": {"type": "str", "default": "claworc-gateway"},
    "gateway_image": {"type": "str"},
    "desktop_image": {"type": "str"},
    "image_pull_secrets": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "band_first": {"type": "int", "default": 30100},
    "band_last": {"type": "int", "default": 30199},
    "allowed_destinations": {"type": "list", "elements": "str", "default": []},
    "upgrade": {"type": "bool", "default": False},
    "purge_data": {"type": "bool", "default": False},
    "adopt": {"type": "bool", "default": False},
    "force_conflicts": {"type": "bool", "default": False},
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 300},
}


def fleet_options(fallback: t.Callable[..., t.Any]) -> Json:
    """The argument spec of bot_fleet."""
    return {"bots": {"type": "list", "elements": "dict", "required": True, "options": BOT},
            "only": {"type": "list", "elements": "str"}, "prune": {"type": "bool", "default": False},
            "hold_new": {"type": "bool", "default": False}, "max_unavailable": {"type": "int"},
            **FLEET, **kubernetes_options(fallback)}


class Module(_plan.Warner, t.Protocol):
    """The part of AnsibleModule that manage() needs."""

    params: Json
    _diff: bool


def _fleet(module: Module, bots: t.Iterable[t.Mapping[str, t.Any]]) -> Fleet:
    p = module.params
    only, most = p.get("only"), p.get("max_unavailable")
    if most is not None and most < 1:
        raise bad_value("max_unavailable", most, "Give 1 or more, or leave it out.")
    settings = Settings(
        band=pair_band(p["band_first"], p["band_last"]), prune=bool(p.get("prune")) and only is None,
        hold_new=bool(p.get("hold_new")), upgrade=p["upgrade"], purge_data=p["purge_data"], adopt=p["adopt"],
        force_conflicts=p["force_conflicts"], max_unavailable=most, wait=p["wait"], timeout=p["timeout"],
        check=module.check_mode, diff=module._diff)
    site = Site(p["fleet"], p["namespace"], p["gateway_namespace"], p["gateway_image"], p["desktop_image"],
                tuple(network("allowed_destinations", one) for one in p["allowed_destinations"]),
                tuple(p["image_pull_secrets"]))
    parsed = parse_all(bots, "cluster")
    return Fleet(Cluster.of(p), site, [bot for bot in parsed if only is None or bot.name in only], settings)


def manage(module: Module, bots: t.Iterable[t.Mapping[str, t.Any]],
           shape: t.Callable[[Json], Json] = lambda values: values) -> None:
    """Runs one module to its end. shape makes the module's return values of those of a fleet."""
    fleets: list[Fleet] = []

    def plan() -> _plan.Plan:
        fleets.append(_fleet(module, bots))
        return fleets[0].plan()

    def apply(decided: _plan.Plan) -> Json:
        return shape(fleets[0].apply(decided))

    def facts() -> Json:
        fleets[0].wait()
        return shape(fleets[0].facts())

    _plan.run(module, plan, apply, facts)


def read_only(module: Module, answer: t.Callable[[Cluster], Json]) -> None:
    """The end of a module that only looks."""
    try:
        values = answer(Cluster.of(module.params))
    except FleetError as error:
        module.fail_json(**error.result())
        return
    module.exit_json(changed=False, **values)
