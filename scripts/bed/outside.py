# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A neighbour on the hosts' LAN: IPv4 and IPv6, no uplink."""

from __future__ import annotations

from . import net
from .job import Job

INSTANCES = DEFAULT = ["outside"]


def up(job: Job, _name: str) -> None:
    """The namespace on the bridge."""
    net.ensure(job)
    net.attach(job, "outside")


def down(_job: Job, _name: str) -> None:
    """No namespace."""
    net.detach("outside")


def status(_name: str) -> tuple[str, str]:
    """State and addresses."""
    return ("up" if net.attached("outside") else "down"), f"{net.v4('outside')} {net.v6('outside')}"
