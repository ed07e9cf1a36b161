# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which guests stand on a VM host, how they are reached, and what their fstab says."""

from __future__ import annotations

import shlex
import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.clawops.fleet.plugins.filter import bots
from ansible_collections.clawops.fleet.plugins.filter import vms as filters

PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIexample"
IMAGE = {"path": "/srv/image.qcow2"}


def guest(**more: t.Any) -> dict[str, t.Any]:
    return {"inventory_hostname": "zap", "vm_on": "oak", "vm_image": IMAGE, **more}


def seen(**more: t.Any) -> dict[str, t.Any]:
    return guest(fleet_observed={"address": "192.0.2.7", "host_key": {"public": f"{PUBLIC} zap"}}, **more)


# -- descriptions -------------------------------------------------------------------------------------------------

def test_the_guests_of_a_host_lose_the_prefix_and_what_is_of_roles() -> None:
    hostvars = guest(vm_memory="3Gi", vm_host_pool="x", vm_fleet_boots=1, vm_backup_parallel=1, ansible_user="root",
                     vm_backup={"enabled": True})
    (found,) = filters.vms_on([hostvars, guest(inventory_hostname="other", vm_on="ash")], "oak")
    assert found == {"name": "zap", "on": "oak", "image": IMAGE, "memory": "3Gi", "backup": {"enabled": True}}
    assert filters.vm_arguments([found]) == [{"name": "zap", "image": IMAGE, "memory": "3Gi"}]


def test_a_state_for_once_is_for_those_that_are_named() -> None:
    found = filters.vms_on([guest(), guest(inventory_hostname="zip")], "oak", ["zip"], "restarted")
    assert [one.get("state") for one in found] == [None, "restarted"]


@pytest.mark.parametrize(("more", "words"), [
    ({"vm_memroy": "2Gi"}, "zap: .*memroy.*memory"), ({"vm_memory": 0}, "zap: vm_memory: 0 is not accepted"),
    ({"vm_name": "zip"}, "vm_name is zip"), ({"vm_state": "restarted"}, "Give it as fleet_state")])
def test_a_bad_description_is_refused(more: dict[str, t.Any], words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        filters.vms_on([guest(**more)], "oak")


def test_a_guest_is_there_as_long_as_it_has_a_record() -> None:
    files = [{"path": "/var/lib/clawops/vms/zap/spec.json"}, {"path": "/var/lib/clawops/vms/zip/root.qcow2"}]
    assert filters.vms_missing([{"name": "zap"}, {"name": "zip"}], files) == ["zip"]


# -- the way to a guest -------------------------------------------------------------------------------------------

HOST = {"inventory_hostname": "oak", "ansible_host": "oak.example.org", "ansible_port": 2222, "ansible_user": "admin",
        "ansible_ssh_private_key_file": "/home/me/a key",
        "ansible_ssh_common_args": "-o UserKnownHostsFile=/home/me/known -o ProxyCommand='nc %h %p'"}


def options(way: dict[str, str]) -> dict[str, str]:
    words = shlex.split(way["ansible_ssh_common_args"])
    assert words[::2] == ["-o"] * (len(words) // 2)
    return dict(word.split("=", 1) for word in words[1::2])


def test_a_guest_is_reached_through_its_host_by_its_pinned_key() -> None:
    way = filters.vm_way(seen(vm_user={"name": "ann"}), HOST)
    assert (way["ansible_host"], way["ansible_user"]) == ("192.0.2.7", "ann")
    given = options(way)
    assert given["KnownHostsCommand"] == f"/bin/echo zap {PUBLIC}"
    assert (given["HostKeyAlias"], given["StrictHostKeyChecking"]) == ("zap", "yes")
    assert shlex.split(given["ProxyCommand"]) == [
        "ssh", "-W", "192.0.2.7:%p", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-i", "/home/me/a key",
        "-p", "2222", "-l", "admin", "-o", "UserKnownHostsFile=/home/me/known", "-o", "ProxyCommand=nc %%h %%p",
        "oak.example.org"]


def test_a_host_is_reached_by_its_name_where_nothing_else_is_said() -> None:
    way = filters.vm_way(seen(), {"inventory_hostname": "oak"})
    assert way["ansible_user"] == "clawops"
    assert shlex.split(options(way)["ProxyCommand"])[3:] == ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "oak"]


@pytest.mark.parametrize(("more", "host"), [({"vm_networks": [{"bridge": "br0"}]}, {}),
                                            ({}, {"ansible_connection": "local"})])
def test_no_way_leads_through_a_host_where_none_needs_to(more: dict[str, t.Any], host: dict[str, str]) -> None:
    assert "ProxyCommand" not in options(filters.vm_way(seen(**more), {**HOST, **host}))


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    values = guest(fleet_observed={"address": "2001:db8::7", "host_key": {"public": PUBLIC}})
    assert shlex.split(options(filters.vm_way(values, HOST))["ProxyCommand"])[2] == "[2001:db8::7]:%p"


def test_connections_are_kept_apart_though_addresses_are_equal() -> None:
    one, other = filters.vm_way(seen(), HOST), filters.vm_way(seen(), {**HOST, "ansible_host": "ash.example.org"})
    assert one["ansible_host"] == other["ansible_host"] and one["ansible_control_path"] != other["ansible_control_path"]


@pytest.mark.parametrize("public", ["", "ssh-rsa AAAA", "-o ProxyCommand=evil"])
def test_without_a_key_to_pin_there_is_no_way(public: str) -> None:
    with pytest.raises(AnsibleFilterError, match="zap: there is no SSH host key of it on oak"):
        filters.vm_way(guest(fleet_observed={"address": "192.0.2.7", "host_key": {"public": public}}), HOST)


def test_what_a_host_says_is_an_address_or_refused() -> None:
    with pytest.raises(ValueError, match="evil"):
        filters.vm_way(guest(fleet_observed={"address": "$(evil)", "host_key": {"public": PUBLIC}}), HOST)


# -- fstab --------------------------------------------------------------------------------------------------------

FSTAB = """UUID=1 / ext4 rw 0 1
# share /mnt/share virtiofs is a comment
share /mnt/share virtiofs defaults,nofail,comment=cloudconfig 0 0
old /mnt/old virtiofs rw,nofail,x-clawops.fleet 0 0
own /mnt/own virtiofs rw 0 0
"""
SHARES = [{"path": "/srv/share"}, {"path": "/srv/docs", "mount": "/mnt/the docs", "read_only": True}]
WANTED = r"""UUID=1 / ext4 rw 0 1
# share /mnt/share virtiofs is a comment
own /mnt/own virtiofs rw 0 0
share /mnt/share virtiofs rw,nofail,x-clawops.fleet 0 0
docs /mnt/the\040docs virtiofs ro,nofail,x-clawops.fleet 0 0
"""


def mounted(target: str, options: str = "rw,relatime") -> dict[str, str]:
    return {"target": target, "options": options}


def test_each_share_has_one_line_and_what_is_not_ours_stays() -> None:
    todo = filters.fstab_shares(FSTAB, SHARES, [mounted("/mnt/share"), mounted("/mnt/old"), mounted("/mnt/own")])
    assert todo == {"text": WANTED, "mount": ["/mnt/the docs"], "unmount": ["/mnt/old"], "remount": []}


def test_what_is_as_it_is_to_be_needs_nothing() -> None:
    todo = filters.fstab_shares(WANTED, SHARES, [mounted("/mnt/share"), mounted("/mnt/the docs", "ro,relatime")])
    assert todo == {"text": WANTED, "mount": [], "unmount": [], "remount": []}


def test_a_share_that_may_be_written_now_is_mounted_anew() -> None:
    shares = [SHARES[0], {**SHARES[1], "read_only": False}]
    todo = filters.fstab_shares(WANTED, shares, [mounted("/mnt/share"), mounted("/mnt/the docs", "ro,relatime")])
    assert todo["remount"] == ["/mnt/the docs"] and r"/mnt/the\040docs virtiofs rw," in todo["text"]


def test_without_shares_ours_go_and_the_others_stay() -> None:
    todo = filters.fstab_shares(WANTED, None, [mounted("/mnt/share")])
    assert todo["text"] == WANTED[:WANTED.index("share /mnt/share virtiofs rw")] and todo["unmount"] == ["/mnt/share"]


# -- bots in guests -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("substrate", "more", "runtime"), [
    ("vm", {}, "host"), ("vm", {"bot_runtime": "container"}, "container"),
    ("vm", {"bot_profile": "desktop"}, "container"), ("docker_host", {}, "container")])
def test_a_bot_in_a_guest_is_a_process_if_nothing_else_is_said(substrate: str, more: dict[str, str],
                                                               runtime: str) -> None:
    (bot,) = bots.bots_on([{"inventory_hostname": "alpha", "bot_on": "zap", **more}], "zap", {}, substrate)
    assert bot["runtime"] == runtime and bots.bot_arguments([bot])[0]["runtime"] == runtime


def test_a_desktop_is_no_process() -> None:
    with pytest.raises(AnsibleFilterError, match="desktop on vm: container"):
        bots.bots_on([{"inventory_hostname": "alpha", "bot_on": "zap", "bot_profile": "desktop",
                       "bot_runtime": "host"}], "zap", {}, "vm")
