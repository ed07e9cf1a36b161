# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What a Docker host has, and how much of it nobody has claimed yet."""

from __future__ import annotations

import os
import platform
import re
import shutil
import typing as t

from .._errors import FleetError
from .._ownership import MANAGED
from .._process import Runner, run
from .client import Engine
from .names import SPACE

#: Processes of bots beside the engine. Bots in containers are seen as containers.
UNITS = ("openclaw.service", "openclaw@*.service")
_SECONDS = {"s": 1.0, "ms": 0.001, "us": 0.000001}
Facts = dict[str, t.Any]


class Claim(t.NamedTuple):
    """An upper limit that something may use whenever it wants to; 0 is none."""

    memory: int = 0
    cpus: float = 0.0


def capabilities(engine: Engine | None, runner: Runner = run) -> Facts:
    """Facts of this host. Without an engine they are the machine's: what a host that has none yet will offer."""
    about = engine.info if engine else {}
    containers = _containers(engine) if engine else []
    memory = int(about.get("MemTotal") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    cpus = int(about.get("NCPU") or os.cpu_count() or 1)
    claims = [_limits(found["HostConfig"]) for found in containers] + _processes(runner)
    return {
        "arch": platform.machine(),
        "cpus": cpus,
        "memory": memory,
        "free": {"memory": memory - sum(claim.memory for claim in claims),
                 "cpus": round(cpus - sum(claim.cpus for claim in claims), 3)},
        "gpu": {**_gpus(runner), "ready": _gives_gpus(about)},
        "engine_version": about.get("ServerVersion"),
        "spaces": sum(SPACE in (found["Config"].get("Labels") or {}) for found in containers),
    }


# -- claims ----------------------------------------------------------------------------------------------------------

def _containers(engine: Engine) -> list[Facts]:
    """Those of the collection, sleepers and stopped ones too: they come back where they are."""
    with engine.doing("list its containers"):
        listed = engine.api.containers(all=True, filters={"label": f"{MANAGED}=true"})
    return [found for found in map(engine.inspect, (entry["Id"] for entry in listed)) if found]


def _limits(limits: Facts) -> Claim:
    cpus = (limits.get("NanoCpus") or 0) / 1e9
    if not cpus and (limits.get("CpuQuota") or 0) > 0:
        cpus = limits["CpuQuota"] / (limits.get("CpuPeriod") or 100000)
    return Claim(limits.get("Memory") or 0, cpus)


def _processes(runner: Runner) -> list[Claim]:
    said = _said(runner, ["systemctl", "show", "--property=MemoryMax,CPUQuotaPerSecUSec", *UNITS])
    return [_unit(block) for block in said.split("\n\n")]


def _unit(block: str) -> Claim:
    found = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
    memory, quota = found.get("MemoryMax", ""), found.get("CPUQuotaPerSecUSec", "")
    parts = re.findall(r"([\d.]+)(us|ms|s)\b", quota)
    return Claim(int(memory) if memory.isdigit() else 0, sum(float(n) * _SECONDS[unit] for n, unit in parts))


def _said(runner: Runner, argv: t.Sequence[str]) -> str:
    """Standard output, or nothing where the program is not there or fails: such a host has no such thing."""
    try:
        done = runner(argv, timeout=10)
    except FleetError:
        return ""
    return "" if done.rc else done.out


# -- GPUs ------------------------------------------------------------------------------------------------------------

def _gpus(runner: Runner) -> Facts:
    said = _said(runner, ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"])
    rows = [line.rsplit(",", 1) for line in said.splitlines() if "," in line]
    sizes = [size.strip() for _name, size in rows]
    return {"count": len(rows), "names": [name.strip() for name, _size in rows],
            "memory": [int(size) * 1024**2 if size.isdigit() else 0 for size in sizes]}


def _gives_gpus(about: Facts) -> bool:
    """Whether the engine has what hands a GPU to a container: the vendor's runtime, its hook or a CDI description."""
    devices = about.get("DiscoveredDevices") or []
    return ("nvidia" in (about.get("Runtimes") or {})
            or any(str(device.get("ID", "")).startswith("nvidia.com/gpu") for device in devices)
            or (bool(about) and shutil.which("nvidia-container-runtime-hook") is not None))
