# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Ansible costs by itself, and what the collection adds to that."""

from __future__ import annotations

from box import BOT, Box
from measure import Row, longer, more, pairs
from place import Broken, Task, has_changed

PAIRS, ROUNDS = 3, 15
PING: Task = {"name": "Ping", "ansible.builtin.ping": {}}


def run(box: Box) -> list[Row]:
    box.up()
    box.later(box.verb, "remove", fleet_only=[BOT], purge_data=True)
    box.verb("site")
    return [site(box), *modules(box)]


def site(box: Box) -> Row:
    def again() -> float:
        played = box.verb("site")
        if has_changed(played):
            raise Broken(f"site changed something:\n{played.output[-3000:]}")
        return played.seconds

    times = pairs(PAIRS, again, lambda: box.tasks(PING).seconds)
    return longer("site, one bot, nothing to change; one ping", *times)


def modules(box: Box) -> list[Row]:
    """On the host, each module as Ansible runs it: what starting, importing and reading adds to an empty module."""
    programs = {"ping": box.module("ansible.builtin.ping", {}).check}
    for name, arguments in (("ufw_docker_user", {}), ("ufw_host", {"allow": [{"port": "22"}]})):
        programs[name] = box.module(f"clawops.fleet.{name}", arguments).check
    times = box.clock(ROUNDS, programs).times
    return [more(f"{name} on the host, no change; ping", times[name], times["ping"], 0.1)
            for name in programs if name != "ping"]
