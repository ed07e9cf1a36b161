# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A bot in a container has spaces of its host as tools, by its own key and the SSH client of its image."""

from __future__ import annotations

import json
import subprocess

import pytest
from bed import dockerhost, net
from conftest import ROOT

pytestmark = pytest.mark.full
STATE = "/home/openclaw/.openclaw"
HOST = net.v4("alder")


def on_host(*argv: str, stdin: str | None = None) -> str:
    words = ["docker", "exec", *(["-i"] if stdin is not None else []), net.container("alder"), *argv]
    given = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, **given)
    assert done.returncode == 0, (argv, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def in_bot(*argv: str, stdin: str | None = None) -> str:
    return on_host("docker", "exec", *(["-i"] if stdin is not None else []), "bot-alpha", *argv, stdin=stdin)


def call(number: int, method: str, **params: object) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + "\n"


def speak(*requests: str) -> dict[int, dict]:
    """What the server answers to a bot that starts it as its configuration would."""
    ssh = ["ssh", "-T", "-i", f"{STATE}/spaces_key", "-o", f"UserKnownHostsFile={STATE}/spaces_known_hosts",
           "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", f"clawops-spaces@{HOST}"]
    answers = [json.loads(line) for line in in_bot(*ssh, stdin="".join(requests)).splitlines()]
    return {answer["id"]: answer for answer in answers}


@pytest.fixture
def tools(box, tmp_path, monkeypatch):
    """The bot alpha with a key for the spaces alpha-*, none of which is in the inventory."""
    (tmp_path / "spaces.yml").write_text("spaces: {}\n")
    monkeypatch.setitem(box.env, "ANSIBLE_INVENTORY", f"{ROOT}/inventory/local/hosts.yml,{tmp_path}/spaces.yml")
    box.play("site")
    in_bot("sh", "-c", f"rm -f {STATE}/spaces_key*; ssh-keygen -q -t ed25519 -N '' -f {STATE}/spaces_key")
    host_key = (dockerhost.ssh_folder() / "host_alder.pub").read_text().strip()
    in_bot("tee", f"{STATE}/spaces_known_hosts", stdin=f"{HOST} {host_key}\n")
    public = in_bot("cat", f"{STATE}/spaces_key.pub").strip()
    agent = {"bot": "alpha", "public_key": public, "spaces": ["alpha-*"], "templates": ["offline"]}
    yield {"sandbox_host_agents": [agent],
           "network_guard_host_services": [{"port": "22", "protocol": "tcp", "comment": "spaces of bots"}]}
    box.play("site")
    on_host("sh", "-c", "docker rm --force clawdspace-alpha-desk; docker volume rm --force clawdspace-vol-alpha-desk; "
                        "rm -rf /var/lib/clawops/spaces/alpha-desk")


def test_a_container_works_in_its_spaces_and_in_no_other(box, tools):
    box.play("site", **tools)
    told = speak(
        call(1, "initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo={"name": "t", "version": "1"}),
        call(2, "tools/call", name="create", arguments={"space": "alpha-desk", "template": "offline"}),
        call(3, "tools/call", name="exec", arguments={"space": "alpha-desk", "argv": ["id", "-u"]}),
        call(4, "tools/call", name="exec", arguments={"space": "bench", "argv": ["id", "-u"]}))
    assert told[1]["result"]["serverInfo"]["name"] == "clawops-spaces"
    assert told[2]["result"]["isError"] is False, told[2]
    assert "1001" in told[3]["result"]["content"][0]["text"], told[3]
    assert told[4]["result"]["isError"] is True, told[4]
    said = on_host("clawops-space", "audit", "--space", "alpha-desk", "--json")
    assert "bot:alpha" in said


def test_a_key_that_was_taken_back_opens_nothing(box, tools):
    box.play("site", **tools)
    assert speak(call(1, "ping"))[1]["result"] == {}
    box.play("spaces", **{**tools, "sandbox_host_agents": []})
    with pytest.raises(AssertionError, match="Permission denied"):
        speak(call(1, "ping"))
