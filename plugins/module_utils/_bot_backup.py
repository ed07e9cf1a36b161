# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Bots of hosts and guests as targets of backups: where OpenClaw and restic meet."""

from __future__ import annotations

import secrets

from . import _files
from ._backup.host import HostTarget
from ._openclaw import render
from ._openclaw.places import Places


class BotTarget(HostTarget):
    """The directories of one bot, and the token of its gateway."""

    def _lock_out(self) -> None:
        """Who knew the token from the snapshot's time is locked out, from the next start on."""
        path = Places(self.bot).credentials
        known = render.parse_env(_files.read(path))
        if render.TOKEN in known:
            _files.write(path, render.env_text({**known, render.TOKEN: secrets.token_urlsafe(32)}), 0o600)
