# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""A space as the engine is asked for it."""

from __future__ import annotations

import typing as t

from .. import _ownership as ownership
from . import names
from .client import Json
from .space import Space

#: What tells a volume from a later one of the same name.
VOLUME_ID = f"{ownership.PREFIX}/id"
_SAFE = "rw,noexec,nosuid,nodev"
_LOGS = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}


def labels(fleet: str, space: Space) -> dict[str, str]:
    return ownership.labels(fleet, "space", space.name, space.fixed())


def limits(space: Space) -> Json:
    """What a running container can change."""
    return {
        "Memory": space.memory, "MemorySwap": space.memory, "NanoCpus": round(space.cpus * 1e9),
        "PidsLimit": space.pids, "RestartPolicy": {"Name": space.restart, "MaximumRetryCount": 0},
    }


def container(fleet: str, space: Space, mounts: t.Sequence[Json]) -> Json:
    """The body of the request. It says "no" to what must not be, so that comparing finds what somebody added."""
    owner = f"{space.uid}:{space.gid}"
    return {
        "Hostname": space.name, "User": owner, "WorkingDir": names.WORKSPACE,
        "Entrypoint": ["sleep"], "Cmd": ["infinity"],
        "Env": [f"{key}={value}" for key, value in sorted(environment(space).items())],
        "Labels": labels(fleet, space),
        "Image": space.image,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **limits(space),
            "Privileged": False, "CapAdd": [], "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": not space.writable_root,
            "Tmpfs": {"/tmp": f"{_SAFE},size={space.tmp},mode=1777",  # noqa: S108 (a path in the container)
                      "/run": f"{_SAFE},size={space.run},mode=755,uid={space.uid},gid={space.gid}"},
            "Mounts": list(mounts), "Binds": [], "Devices": [], "DeviceRequests": _gpus(space.gpu),
            "NetworkMode": names.network(space.name) if space.network != "none" else "none",
            "PortBindings": {}, "IpcMode": "private", "PidMode": "", "CgroupnsMode": "private",
            "Init": True, "LogConfig": _LOGS,
        },
    }


def environment(space: Space) -> dict[str, str]:
    """The root is read-only and has no home to write to. In a worktree, git belongs to another user of the host."""
    git = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
           "GIT_OPTIONAL_LOCKS": "0"} if space.workspace.strategy == "worktree" else {}
    return {"HOME": names.WORKSPACE, **git, **space.env}


def _gpus(count: int) -> list[Json]:
    # An empty driver lets the engine find who gives GPUs.
    return [{"Driver": "", "Count": count, "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}}] if count else []


def network(fleet: str, name: str) -> Json:
    return {
        "Name": names.network(name), "Driver": "bridge", "CheckDuplicate": True, "EnableIPv6": False,
        "Options": {"com.docker.network.bridge.name": names.bridge(name)},
        "Labels": ownership.labels(fleet, "space", name, names.bridge(name)),
    }


def helper(space: Space, argv: t.Sequence[str], mounts: t.Sequence[Json]) -> Json:
    """A container that changes owners in a volume, and has nothing that this doesn't take."""
    return {
        "User": "0:0", "Image": space.image, "Entrypoint": list(argv[:1]), "Cmd": list(argv[1:]),
        "Labels": {ownership.MANAGED: "true"}, "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "NetworkMode": "none", "CapDrop": ["ALL"], "CapAdd": ["CHOWN", "DAC_READ_SEARCH"],
            "SecurityOpt": ["no-new-privileges"], "ReadonlyRootfs": True, "PidsLimit": 64,
            "Memory": 256 * 1024**2, "MemorySwap": 256 * 1024**2, "Mounts": list(mounts), "LogConfig": _LOGS,
        },
    }
