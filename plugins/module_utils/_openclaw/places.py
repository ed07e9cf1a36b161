# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Where a bot stands on a host. The bot named openclaw has the seed's paths, user and unit."""

from __future__ import annotations

import dataclasses

from .._ownership import short_hash

INSTANCES = "/var/lib/clawops/instances"
MOVES = "/var/lib/clawops/moves"
LOCKS = "/var/lib/clawops/locks"
CREDENTIALS = "/etc/clawops/credentials"
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
SEED_NAME = "openclaw"


@dataclasses.dataclass(frozen=True)
class Places:
    """Names and paths that follow from a bot's name alone."""

    name: str

    @property
    def _seed(self) -> bool:
        return self.name == SEED_NAME

    @property
    def user(self) -> str:
        return SEED_NAME if self._seed else f"bot-{self.name}"

    @property
    def container(self) -> str:
        return f"bot-{self.name}"

    @property
    def bridge(self) -> str:
        return f"cb-{short_hash(self.name)}"

    @property
    def home(self) -> str:
        return "/home/openclaw" if self._seed else f"/var/lib/clawops/bots/{self.name}"

    @property
    def state(self) -> str:
        return f"{self.home}/.openclaw" if self._seed else self.home

    @property
    def project(self) -> str:
        return "/opt/openclaw" if self._seed else f"/opt/openclaw/{self.name}"

    @property
    def config_dir(self) -> str:
        return f"{self.project}/config"

    @property
    def config(self) -> str:
        return f"{self.config_dir}/openclaw.json"

    @property
    def compose(self) -> str:
        return f"{self.project}/docker-compose.yml"

    @property
    def passwd(self) -> str:
        return f"{self.project}/passwd"

    @property
    def unit(self) -> str:
        return "openclaw.service" if self._seed else f"openclaw@{self.name}.service"

    @property
    def unit_file(self) -> str:
        return f"/etc/systemd/system/{self.unit}"

    @property
    def credentials(self) -> str:
        return f"{CREDENTIALS}/bot-{self.name}.env"

    @property
    def cache_dir(self) -> str:
        """Below /var/cache; systemd makes it for the user. Nobody misses what is in it."""
        return f"clawops/bots/{self.name}"

    @property
    def runtime_dir(self) -> str:
        """Below /run; systemd makes and removes it with the unit."""
        return f"clawops/{self.name}"

    @property
    def instance(self) -> str:
        """The record of what was applied: ownership marker and hash of the specification."""
        return f"{INSTANCES}/{self.name}.json"

    @property
    def move(self) -> str:
        """The mark of a bot that is being moved."""
        return f"{MOVES}/{self.name}.json"

    @property
    def backup_lock(self) -> str:
        """Who holds it backs the bot up, or restores it."""
        return f"{LOCKS}/backup-{self.name}"
