# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Where a space's parts are: names on the engine and paths on its host."""

from __future__ import annotations

import pathlib

from .._ownership import PREFIX, short_hash

STATE = pathlib.Path("/var/lib/clawops/spaces")
LOCKS = pathlib.Path("/run/clawops/spaces")
#: Label with the name of the space.
SPACE = f"{PREFIX}/space"
#: What the names of containers, networks and volumes of spaces begin with.
STEM, VOLUME_STEM = "clawdspace-", "clawdspace-vol-"
#: Where a space finds its volume and its secrets.
WORKSPACE, SECRETS = "/workspace", "/run/secrets"


def container(name: str) -> str:
    return f"{STEM}{name}"


def volume(name: str) -> str:
    return f"{VOLUME_STEM}{name}"


def network(name: str) -> str:
    return f"{STEM}{name}"


def bridge(name: str) -> str:
    return f"cs-{short_hash(name)}"


# A dot can't stand in the name of a space, so these are never taken for one.
def old_container(name: str) -> str:
    """The former container, for as long as the new one isn't known to start."""
    return f"{STEM}{name}.old"


def helper(name: str) -> str:
    """The container that gives a new volume its owner."""
    return f"{STEM}{name}.prepare"
