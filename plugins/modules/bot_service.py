#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: bot_service
short_description: OpenClaw bots as systemd services of a Docker host or guest
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Gives every bot of the list its configuration, credentials, loopback port, Compose project or process,
    and systemd unit, and starts it.
  - Takes the whole list of a host in one call. Ports are sticky and come from the registry of the host.
  - The configuration is judged by OpenClaw itself before it lands.
    A bot counts as started when the body of C(/readyz) says so.
  - A bot that belongs to somebody else, or another release than the one that runs,
    is an error before anything is written.
extends_documentation_fragment:
  - clawops.fleet.attributes
attributes:
  idempotent:
    support: partial
    details:
      - A bot with state V(restarted) is restarted each time.
options:
  bots:
    description: The bots of this host.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the bot, 1 to 28 of C(a-z0-9-).
        type: str
        required: true
      version:
        description: Release of OpenClaw, exact.
        type: str
        required: true
      profile:
        description: What kind of bot it is. V(gateway) is the one that runs on hosts today.
        type: str
        default: gateway
      runtime:
        description: V(container), driven by Compose, or V(host), a hardened unit. The default depends on O(substrate).
        type: str
      state:
        description: V(absent) keeps the data unless O(purge_data).
        type: str
        choices: [started, stopped, restarted, absent]
        default: started
      port:
        description: Loopback port of the gateway, instead of the lowest free one of 19100 to 19499.
        type: int
      config:
        description: Merged over what the collection needs in C(openclaw.json). Secrets stand in it as C(${NAME}).
        type: dict
        default: {}
      env:
        description: Environment variables that are no secrets.
        type: dict
        default: {}
      api_keys:
        description: Secret environment variables, such as C(ANTHROPIC_API_KEY).
        type: dict
        default: {}
      gateway_token:
        description: Token of the gateway. By default one is made and kept on the host.
        type: str
      resources:
        description: V(memory), V(cpus) and V(storage), such as C(2Gi), C(1.5) and C(10Gi).
        type: dict
        default: {}
  installations:
    description:
      - For each release the C(prefix) where it was unpacked, and the C(image) that was built of it.
      - With C(node), bots with runtime V(host) run on that program instead of the release's own Node.js.
    type: dict
    required: true
  fleet:
    description: Name of the fleet.
    type: str
    required: true
  substrate:
    description: What the host is.
    type: str
    choices: [docker_host, vm]
    default: docker_host
  only:
    description: Touch only the bots of these names.
    type: list
    elements: str
  prune:
    description: Remove bots of the collection that are on the host and not in the list.
    type: bool
    default: false
  upgrade:
    description: Allow a bot to change its release.
    type: bool
    default: false
  purge_data:
    description: Delete the data of bots that are or become absent, too.
    type: bool
    default: false
  timeout:
    description: Seconds that a bot may take to become ready. In a guest without KVM, ten times as many.
    type: int
    default: 180
"""

EXAMPLES = r"""
- name: Two bots on this host
  clawops.fleet.bot_service:
    fleet: home
    installations:
      2026.9.6:
        prefix: /opt/clawops/openclaw/2026.9.6
        image: clawops/openclaw:0123456789abcdef
    bots:
      - name: alpha
        version: 2026.9.6
      - name: bravo
        version: 2026.9.6
        runtime: host
        resources:
          memory: 3Gi
"""

RETURN = r"""
bots:
  description: The bots that are present, whatever changed.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the bot.
      type: str
      sample: alpha
    version:
      description: Release of OpenClaw.
      type: str
      sample: 2026.9.6
    runtime:
      description: How it runs.
      type: str
      sample: container
    port:
      description: Loopback port of the gateway.
      type: int
      sample: 19100
    url:
      description: Where the gateway answers on the host.
      type: str
      sample: http://127.0.0.1:19100
    unit:
      description: The systemd unit.
      type: str
      sample: openclaw@alpha.service
    user:
      description: The system user.
      type: str
      sample: bot-alpha
    state_dir:
      description: Directory of its data.
      type: str
      sample: /var/lib/clawops/bots/alpha
    config:
      description: Path of its configuration.
      type: str
      sample: /opt/openclaw/alpha/config/openclaw.json
    state:
      description: The state that was asked for.
      type: str
      sample: started
plan_complete:
  description: Whether everything could be observed; false only in check mode.
  returned: success
  type: bool
  sample: true
actions:
  description: What was done, or would be in check mode.
  returned: success
  type: list
  elements: dict
  contains:
    subject:
      description: What it concerns.
      type: str
      sample: openclaw@alpha.service
    action:
      description: The verb.
      type: str
      sample: create
"""

from ..module_utils._bot import parse_all
from ..module_utils._module import QuietModule
from ..module_utils._openclaw.host import Host, Settings
from ..module_utils._openclaw.render import Installation
from ..module_utils._plan import Plan, run
from ..module_utils._process import run as run_program

BOT = {
    "name": {"type": "str", "required": True},
    "version": {"type": "str", "required": True},
    "profile": {"type": "str", "default": "gateway"},
    "runtime": {"type": "str"},
    "state": {"type": "str", "choices": ["started", "stopped", "restarted", "absent"], "default": "started"},
    "port": {"type": "int"},
    "config": {"type": "dict", "default": {}},
    "env": {"type": "dict", "default": {}},
    "api_keys": {"type": "dict", "default": {}, "no_log": True},
    "gateway_token": {"type": "str", "no_log": True},
    "resources": {"type": "dict", "default": {}},
}


def _host(p: dict) -> Host:
    only = p["only"]
    listed = [bot for bot in p["bots"] if only is None or bot["name"] in only]
    installations = {version: Installation(places["prefix"], places.get("image"), places.get("node"))
                     for version, places in p["installations"].items()}
    settings = Settings(p["fleet"], installations, p["prune"] and only is None, p["upgrade"], p["purge_data"],
                        p["timeout"])
    return Host(run_program, parse_all(listed, p["substrate"]), settings)


def main() -> None:
    module = QuietModule(
        argument_spec={
            "bots": {"type": "list", "elements": "dict", "required": True, "options": BOT},
            "installations": {"type": "dict", "required": True},
            "fleet": {"type": "str", "required": True},
            "substrate": {"type": "str", "choices": ["docker_host", "vm"], "default": "docker_host"},
            "only": {"type": "list", "elements": "str"},
            "prune": {"type": "bool", "default": False},
            "upgrade": {"type": "bool", "default": False},
            "purge_data": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )
    hosts: list[Host] = []

    def plan() -> Plan:
        hosts.append(_host(module.params))
        return hosts[0].plan()

    def facts() -> dict:
        if not module.check_mode:
            hosts[0].wait()
        return hosts[0].facts()

    def apply(decided: Plan) -> dict:
        hosts[0].apply(decided)
        return facts()

    run(module, plan, apply, facts)


if __name__ == "__main__":
    main()
