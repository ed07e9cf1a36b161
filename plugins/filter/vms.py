# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which guests stand on a VM host, how they are reached, and what their fstab says."""

from __future__ import annotations

import hashlib
import ipaddress
import pathlib
import re
import shlex
import typing as t

from ansible.errors import AnsibleFilterError

from ..module_utils._errors import FleetError
from ..module_utils._libvirt import spec

Values = t.Mapping[str, t.Any]
PREFIX = "vm_"
#: The variables of roles, which have the same prefix.
OF_ROLES = ("vm_host_", "vm_fleet_", "vm_backup_", "vm_restore_")
#: What a guest's description says to others than vm_fleet.
NOT_OF_FLEET = ("on", "backup")
#: Marks lines of fstab as ours; mount takes no notice of it. The other word is cloud-init's.
OURS = "x-clawops.fleet"
SEEDED = "comment=cloudconfig"
#: A space in the path of an fstab.
SPACE = "\\040"
_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]+=*")


def _description(hostvars: Values, state: str | None) -> dict[str, t.Any]:
    name = hostvars["inventory_hostname"]
    own = {key[len(PREFIX):]: hostvars[key] for key in hostvars
           if key.startswith(PREFIX) and not key.startswith(OF_ROLES)}
    if own.get("name", name) != name:
        raise AnsibleFilterError(f"{name}: vm_name is {own['name']}. Guests of group vms have no other name.")
    if own.get("state") == "restarted":
        raise AnsibleFilterError(f"{name}: vm_state: restarted is for once. Give it as fleet_state, with fleet_only.")
    described = {**own, "name": name, **({"state": state} if state else {})}
    try:
        spec.parse(_argument(described))
    except FleetError as error:
        raise AnsibleFilterError(f"{name}: {error.result()['msg']}") from None
    return described


def _argument(described: Values) -> dict[str, t.Any]:
    return {key: value for key, value in described.items() if key not in NOT_OF_FLEET}


def vms_on(guests: t.Iterable[Values], host: str, only: t.Collection[str] | None = None,
           state: str | None = None) -> list[dict[str, t.Any]]:
    """The descriptions of the guests whose vm_on is the host, without the prefix vm_. A bad one is refused here.

    A state is that of the guests in only, for once.
    """
    return [_description(hostvars, state if only is None or hostvars["inventory_hostname"] in only else None)
            for hostvars in guests if hostvars.get("vm_on") == host]


def vm_arguments(guests: t.Iterable[Values]) -> list[dict[str, t.Any]]:
    """What vm_fleet takes of the descriptions."""
    return [_argument(guest) for guest in guests]


def vms_missing(guests: t.Iterable[Values], files: t.Iterable[Values]) -> list[str]:
    """The guests that have no record among the files of a host."""
    paths = [pathlib.PurePosixPath(file["path"]) for file in files]
    found = {path.parent.name for path in paths if path.name == "spec.json"}
    return [guest["name"] for guest in guests if guest["name"] not in found]


# -- the way to a guest -------------------------------------------------------------------------------------------

def vm_way(guest: Values, host: Values) -> dict[str, str]:
    """How Ansible connects to a guest, out of its host variables with what was observed, and those of its VM host."""
    name, seen = guest["inventory_hostname"], guest["fleet_observed"]
    address = str(ipaddress.ip_address(str(seen["address"])))
    public = _KEY.match(str((seen.get("host_key") or {}).get("public")))
    if not public:
        raise AnsibleFilterError(f"{name}: there is no SSH host key of it on {guest.get('vm_on')} to pin.")
    networks = guest.get("vm_networks") or [{}]
    direct = bool(networks[0].get("bridge")) or host.get("ansible_connection") == "local"
    settings = {
        **({} if direct else {"ProxyCommand": _through(host, address)}),
        # No file: nothing of it stays on the controller.
        "KnownHostsCommand": f"/bin/echo {name} {public[0]}", "HostKeyAlias": name,
        "HostKeyAlgorithms": "ssh-ed25519", "UserKnownHostsFile": "/dev/null", "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
    }
    arguments = shlex.join([word for key, value in settings.items() for word in ("-o", f"{key}={value}")])
    # Two VM hosts may have guests with the same address, and an address may pass on to another guest.
    mark = hashlib.sha256(arguments.encode()).hexdigest()[:10]
    return {
        "ansible_host": address, "ansible_user": (guest.get("vm_user") or {}).get("name") or spec.User.name,
        "ansible_ssh_common_args": arguments, "ansible_control_path": f"%(directory)s/{mark}",
    }


def _through(host: Values, address: str) -> str:
    """A pipe by ssh through the VM host, connected to as Ansible does it. It can't ask for a password."""
    def given(*names: str) -> str:
        return str(next((host[name] for name in names if host.get(name) not in (None, "")), ""))

    target = f"[{address}]" if ":" in address else address
    key, port = given("ansible_ssh_private_key_file", "ansible_private_key_file"), given("ansible_port")
    user = given("ansible_user", "ansible_ssh_user")
    words = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
    words += ["-i", str(pathlib.Path(key).expanduser())] if key else []
    words += ["-p", port] if port else []
    words += ["-l", user] if user else []
    for arguments in ("ansible_ssh_common_args", "ansible_ssh_extra_args"):
        words += shlex.split(given(arguments))
    words.append(given("ansible_host") or host["inventory_hostname"])
    return shlex.join(["ssh", "-W", f"{target}:%p", *(word.replace("%", "%%") for word in words)])


# -- fstab --------------------------------------------------------------------------------------------------------

def fstab_shares(text: str, shares: t.Iterable[Values] | None, mounted: t.Iterable[Values] = ()) -> dict[str, t.Any]:
    """The text of an fstab with the shares of a guest, and what is to be done about what is mounted by now.

    mounted is what findmnt says of virtiofs. What was mounted by others than us and cloud-init stays.
    """
    wanted = spec.parse({"name": "guest", "state": "absent", "shares": list(shares or [])}).shares
    modes = {share.mount: "ro" if share.read_only else "rw" for share in wanted}
    now = {one["target"]: one["options"].split(",") for one in mounted}
    kept, gone = [], []
    for line in text.splitlines():
        words = line.split()
        point = words[1].replace(SPACE, " ") if len(words) > 3 and words[2] == "virtiofs" else None
        ours = point is not None and not line.startswith("#") and bool({OURS, SEEDED} & set(words[3].split(",")))
        if ours and point not in modes:
            gone.append(point)
        elif line.startswith("#") or point not in modes:
            kept.append(line)
    lines = [f"{share.tag} {share.mount.replace(' ', SPACE)} virtiofs {modes[share.mount]},nofail,{OURS} 0 0"
             for share in wanted]
    return {
        "text": "\n".join([*kept, *lines]) + "\n",
        "unmount": [point for point in gone if point in now],
        "mount": [point for point in modes if point not in now],
        "remount": [point for point, mode in modes.items() if point in now and mode not in now[point]],
    }


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"fstab_shares": fstab_shares, "vm_arguments": vm_arguments, "vm_way": vm_way,
                "vms_missing": vms_missing, "vms_on": vms_on}
