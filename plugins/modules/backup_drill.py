#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_drill
short_description: A trial of the newest snapshots of bots or spaces
version_added: 0.1.0
author:
  - clawops.fleet maintainers (@clawops)
description:
  - Restores the newest snapshot of each bot or space, whatever substrate it was taken on, into a folder of the managed
    host that is removed afterwards, and looks whether it is whole.
  - Every file is read back and compared with the checksum of its content in the repository, databases with those of the
    manifest, and the number of files with that of the snapshot. Every SQLite database is opened and gets
    C(PRAGMA integrity_check), as a user without any rights.
  - Of a bot, a gateway of OpenClaw is started on the data, in a container without a network, with a configuration and
    a token of its own, without channels and timers. It has to be ready by its C(/readyz), and to tell the
    last turn of the conversation, which has to be the one in the database.
  - The bots themselves are not touched. What a drill that was killed has left is removed by the next one; two drills
    of the same bot on the same host exclude each other.
  - The failure of one does not stop the others. It is named in the end, and the results of all are in RV(failure).
extends_documentation_fragment:
  - clawops.fleet.attributes.info
  - clawops.fleet.backup
attributes:
  check_mode:
    details:
      - In check mode it is looked up whether there is a snapshot, and nothing is restored.
options:
  bots:
    description: The bots. Give these or O(spaces).
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the bot.
        type: str
        required: true
      access_key:
        description: Access key of this bot, instead of O(access_key).
        type: str
      secret_key:
        description: Secret key of this bot, instead of O(secret_key).
        type: str
      password:
        description: Password of this bot's repository, instead of O(password).
        type: str
      image:
        description: Image with OpenClaw that is on the host, as M(clawops.fleet.openclaw_image) builds it.
          Without one no gateway is started.
        type: str
      version:
        description: Release of OpenClaw in it.
        type: str
      memory:
        description: Memory of the container.
        type: str
        default: 2Gi
      cpus:
        description: Processors of the container.
        type: str
        default: "2"
  spaces:
    description: The spaces.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the space.
        type: str
        required: true
      access_key:
        description: Access key of this space, instead of O(access_key).
        type: str
      secret_key:
        description: Secret key of this space, instead of O(secret_key).
        type: str
      password:
        description: Password of this space's repository, instead of O(password).
        type: str
  place:
    description: Directory below which the folders are made. It has to have room for what one snapshot holds, times
      O(parallel).
    type: path
    default: /var/lib/clawops/drills
  ready_timeout:
    description: Seconds until a gateway has to be ready. On the data of a bot that ran it may have to wait five minutes
      from the snapshot on, until the lease of that bot ends.
    type: int
    default: 420
"""

EXAMPLES = r"""
- name: Prove that alpha can be restored
  clawops.fleet.backup_drill:
    endpoint: https://s3.example.org:9000
    bucket: backups
    fleet: home
    access_key: "{{ fleet_backup_access_key }}"
    secret_key: "{{ fleet_backup_secret_key }}"
    password: "{{ fleet_backup_password }}"
    bots:
      - name: alpha
        image: "{{ openclaw_images.results[0].image }}"
"""

RETURN = r"""
drills:
  description: One entry for each bot or space. When one failed the task fails, and the entries are in RV(failure).
  returned: success
  type: list
  elements: dict
  contains:
    bot:
      description: Name of the bot.
      type: str
      returned: with O(bots)
      sample: alpha
    space:
      description: Name of the space.
      type: str
      returned: with O(spaces)
    ok:
      description: Whether everything is as it should be.
      type: bool
      returned: always
    code:
      description: A word for what is not, such as V(database_damaged), V(files_missing), V(not_ready), V(turn_missing).
      type: str
      returned: when RV(drills[].ok) is V(false)
    why:
      description: The same in words.
      type: str
      returned: when RV(drills[].ok) is V(false)
    snapshot:
      description: Id of the snapshot.
      type: str
      returned: when there is one
    time:
      description: When it was taken.
      type: str
      returned: when there is one
    files:
      description: Number of files that came back.
      type: int
      returned: when RV(drills[].ok) is V(true)
    bytes:
      description: Size of what is in the snapshot.
      type: int
      returned: when RV(drills[].ok) is V(true)
    databases:
      description: Number of SQLite databases that were found sound.
      type: int
      returned: when RV(drills[].ok) is V(true)
    ready:
      description: Seconds until the gateway was ready.
      type: float
      returned: when a gateway was started
    sessions:
      description: Number of conversations.
      type: int
      returned: when a gateway was started
    turn:
      description: The newest message that the gateway told, C(role), C(time) and number of C(characters), or null when
        there is no conversation yet.
      type: dict
      returned: when a gateway was started
      sample: {role: assistant, time: "2026-11-21T10:53:12+00:00", characters: 48}
    duration:
      description: Seconds.
      type: float
      returned: always
failure:
  description: What went wrong, for programs.
  returned: failure
  type: dict
  contains:
    code:
      description: A word for it.
      type: str
    message:
      description: The same in words.
      type: str
    hint:
      description: What to do.
      type: str
    details:
      description: With RV(drills) in RV(failure.details).
      type: dict
"""

import typing as t

from ..module_utils import _bot
from ..module_utils._backup import arguments, drill
from ..module_utils._backup.host import HostRunner
from ..module_utils._bot_drill import GatewayTrial, clear
from ..module_utils._errors import FleetError, bad_value
from ..module_utils._module import QuietModule


def drills(params: t.Mapping[str, t.Any]) -> drill.Drills:
    store = arguments.store(params)
    if params["ready_timeout"] < 1:
        raise bad_value("ready_timeout", params["ready_timeout"], "Give 1 or more.")
    jobs = []
    for one in arguments.listed(params):
        runner = HostRunner()
        jobs.append(drill.Job(arguments.access(params, store, one, runner), runner, _trial(params, one)))
    return drill.Drills(jobs, clear, params["parallel"], params["timeout"], params["place"])


def _trial(params: t.Mapping[str, t.Any], one: t.Mapping[str, t.Any]) -> drill.Trial | None:
    if not one.get("image"):
        return None
    resources = {name: one[name] for name in ("memory", "cpus")}
    bot = _bot.parse({"name": one["name"], "version": one["version"] or _bot.RELEASE, "resources": resources},
                     "docker_host")
    return GatewayTrial(bot, one["image"], params["ready_timeout"])


def main() -> None:
    bot = {**arguments.BOT, "image": {"type": "str"}, "version": {"type": "str"},
           "memory": {"type": "str", "default": "2Gi"}, "cpus": {"type": "str", "default": "2"}}
    listed = {"type": "list", "elements": "dict"}
    module = QuietModule(argument_spec={
        **arguments.COMMON, "bots": {**listed, "options": bot}, "spaces": {**listed, "options": arguments.BOT},
        "place": {"type": "path", "default": drill.PLACE}, "ready_timeout": {"type": "int", "default": 420}},
        supports_check_mode=True, mutually_exclusive=[("bots", "spaces")], required_one_of=[("bots", "spaces")])
    try:
        verb = drills(module.params)
        found = verb.look() if module.check_mode else verb.run()
    except FleetError as error:
        module.fail_json(**error.result())
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
