# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The machine under the bed: its packages, processes and sysctls."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import time

from . import cache
from .job import BedError, Job, output


def need(job: Job, packages: dict[str, str]) -> None:
    """Install the distribution's packages for the commands that are missing: {command: packages}."""
    with cache.lock("apt"):
        missing = [names for command, names in packages.items() if not shutil.which(command)]
        if missing:
            install(job, list(dict.fromkeys(" ".join(missing).split())))


def install(job: Job, packages: list[str]) -> None:
    """Install those of the packages that this release of the distribution has."""
    if not shutil.which("apt-get"):
        raise BedError(f"missing: {', '.join(packages)}; install them (this machine has no apt-get)")
    job.say(f"installing {' '.join(packages)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    job.run(["apt-get", "-q", "update"], env=env)
    known = [name for name in packages if output("apt-cache", "show", name)]
    job.run(["apt-get", "-qy", "install", "--no-install-recommends", *known], env=env)


def systemd() -> bool:
    """Whether systemd runs this machine."""
    return pathlib.Path("/run/systemd/system").is_dir()


def identity(pid: int) -> str | None:
    """A process' program and start time, so that a reused pid is not taken for it; None when it is gone."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        name, rest = stat[stat.index("(") + 1 :].rsplit(")", 1)
    except (OSError, ValueError):
        return None
    fields = rest.split()
    return None if fields[0] == "Z" else f"{name} {fields[19]}"


def stop(pid: int, name: str | None, timeout: float = 30) -> None:
    """End a process that identity() still recognises; kill it when it doesn't listen."""
    for sign in (signal.SIGTERM, signal.SIGKILL):  # each once: an engine drops everything at the third
        end = time.monotonic() + timeout
        if not name or identity(pid) != name:
            return
        os.kill(pid, sign)
        while identity(pid) == name and time.monotonic() < end:
            time.sleep(0.1)


def sysctl(key: str) -> pathlib.Path:
    """The file of a sysctl."""
    return pathlib.Path("/proc/sys", *key.split("/"))


FORWARDING = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/default/forwarding"]


def keep_sysctls() -> None:
    """Before an engine or a network changes them: note the values as found, and keep learned IPv6 routes alive."""
    if "sysctls" in cache.state():
        return
    announced = [f"net/ipv6/conf/{path.parent.name}/accept_ra" for path in sysctl("net/ipv6/conf").glob("*/accept_ra")]
    learning = [key for key in announced if sysctl(key).read_text().strip() == "1"]
    found = {key: sysctl(key).read_text().strip() for key in FORWARDING + learning if sysctl(key).exists()}
    cache.remember(sysctls=found)
    for key in learning:
        sysctl(key).write_text("2")  # 1 ignores router advertisements as soon as forwarding is on


def restore_sysctls() -> None:
    """Put the values back as found; ip_forward first, because it resets others."""
    for key, value in cache.state().get("sysctls", {}).items():
        if sysctl(key).exists() and sysctl(key).read_text().strip() != value:
            sysctl(key).write_text(value)
    cache.remember(sysctls=None)
