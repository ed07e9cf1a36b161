# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whom ask.yml asks, and what it says where it can't. The program of the bot is played."""

from __future__ import annotations

import os

import pytest
from test_vm_playbook import Play

MORE = """
all:
  children:
    clusters: {hosts: {harbor: {cluster_gateway_namespace: pods}}}
    bots:
      hosts: {near: {bot_on: alder}, pod: {bot_on: harbor}, desk: {bot_on: harbor, bot_profile: desktop}, lost: {}}
"""


@pytest.fixture
def play(tmp_path, monkeypatch):
    program = tmp_path / "bin/openclaw-bot"
    program.parent.mkdir()
    program.write_text("""#!/bin/sh\nprintf '{"result": {"payloads": [{"text": "%s says well"}]}}' "$1"\n""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return Play(tmp_path)


@pytest.mark.parametrize("bot", ["near", "robot"])
def test_a_bot_of_a_host_or_guest_is_asked(play, bot):
    code, _calls, said = play.run("ask", hosts=MORE, fleet_bot=bot, fleet_message="how are you")
    assert code == 0 and f"{bot} says well" in said, said


@pytest.mark.parametrize(("more", "words"), [
    ({"fleet_bot": "pod"}, "fleet_bot: pod is on harbor, a cluster, and this playbook asks bots of Docker hosts and "
     "guests. Ask it in its pod: kubectl --namespace pods exec deployment/bot-pod -- node /opt/openclaw/"),
    ({"fleet_bot": "desk"}, "Ask it on its pages, which clawops.fleet.bot_status names"),
    ({"fleet_bot": "nobody"}, "fleet_bot: nobody is no bot of the inventory. Use one of: robot, near, pod"),
    ({}, "fleet_bot: nothing is no bot"),
    ({"fleet_bot": "lost"}, "fleet_bot: lost is on no machine, which is no Docker host"),
    ({"fleet_bot": "near", "fleet_target": "zap"}, "or leave fleet_target out"),
])
def test_who_can_not_be_asked_is_named(play, more, words):
    code, _calls, said = play.run("ask", hosts=MORE, fleet_message="how are you", **more)
    assert code != 0 and "says well" not in said
    assert words in " ".join(said.split()), said
