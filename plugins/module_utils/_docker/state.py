# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What is kept of a space on its host, outside of the container: /var/lib/clawops/spaces/NAME/.

spec.json is the effective description as it was applied last. state.json remembers what is done once for a volume:
its owner, its snapshot, its clone. asleep.json says that the sleep worker, and nobody else, paused or stopped it.
secrets/environment holds the secret variables, as a shell can read them.
"""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import shutil
import typing as t

from .. import _files
from . import names

Json = dict[str, t.Any]
ENVIRONMENT = "environment"


class Record:
    """The directory of one space."""

    def __init__(self, name: str, root: pathlib.Path | None = None) -> None:
        self.name = name
        self.path = (root or names.STATE) / name

    # -- effective description ------------------------------------------------------------------------------------

    def spec(self) -> Json | None:
        return t.cast("Json | None", _files.read_json(self.path / "spec.json"))

    def write_spec(self, spec: Json) -> None:
        self._write("spec.json", spec)

    def idle(self) -> tuple[int, str]:
        """Seconds until the space may sleep (0: never), and how it sleeps."""
        spec = self.spec() or {}
        return int(spec.get("idle_after", 600)), str(spec.get("idle_action", "pause"))

    # -- what was done once ---------------------------------------------------------------------------------------

    def done(self) -> dict[str, Json]:
        """What was done once for each part: a volume by its id, so that a new volume has nothing done; a worktree."""
        return _files.read_json(self.path / "state.json") or {}

    def remember(self, part: str, **done: t.Any) -> None:
        state = self.done()
        self._write("state.json", {**state, part: {**state.get(part, {}), **done}})

    # -- sleep ----------------------------------------------------------------------------------------------------

    def asleep(self, container: Json) -> Json | None:
        """Since when and why it sleeps; None when it runs, or when somebody else paused or stopped it."""
        state = container.get("State") or {}
        if state.get("Running") and not state.get("Paused"):
            return None
        note = _files.read_json(self.path / "asleep.json")
        return note if note and note.get("started_at") == state.get("StartedAt") else None

    def fall_asleep(self, container: Json, **why: t.Any) -> None:
        """Written before the space is paused or stopped: since, reason, action."""
        self._write("asleep.json", {**why, "started_at": (container.get("State") or {}).get("StartedAt")})

    def wake(self) -> None:
        (self.path / "asleep.json").unlink(missing_ok=True)

    # -- secrets --------------------------------------------------------------------------------------------------

    @property
    def secrets(self) -> pathlib.Path:
        """The directory that a space sees at /run/secrets."""
        return self.path / "secrets"

    def secret_env(self) -> dict[str, str]:
        """The secret variables as they are kept."""
        text = _files.read(self.secrets / ENVIRONMENT)
        return dict(word.split("=", 1) for word in shlex.split(text or "", comments=True) if "=" in word)

    def write_secret_env(self, values: t.Mapping[str, str], uid: int, gid: int) -> None:
        """Written beside and renamed: the directory is what is mounted, so that a running space sees the new ones."""
        self._private()
        self.secrets.mkdir(exist_ok=True)
        self._own(self.secrets, 0o500, uid, gid)
        text = "".join(f"{key}={shlex.quote(value)}\n" for key, value in sorted(values.items()))
        _files.write(self.secrets / ENVIRONMENT, text, 0o400, uid, gid)

    def secrets_owner(self) -> tuple[int, int] | None:
        try:
            found = (self.secrets / ENVIRONMENT).stat()
        except FileNotFoundError:
            return None
        return found.st_uid, found.st_gid

    def forget_secrets(self) -> None:
        shutil.rmtree(self.secrets, ignore_errors=True)

    # -- end ------------------------------------------------------------------------------------------------------

    def forget(self, everything: bool) -> None:
        """Without a container. What was done for the volume is kept as long as the volume."""
        for name in ("spec.json", "asleep.json"):
            (self.path / name).unlink(missing_ok=True)
        self.forget_secrets()
        if everything:
            shutil.rmtree(self.path, ignore_errors=True)
        elif self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    # -- files ----------------------------------------------------------------------------------------------------

    def _private(self) -> None:
        # A user of the host may have the number of a space's user, and is somebody else.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)

    @staticmethod
    def _own(path: pathlib.Path, mode: int, uid: int, gid: int) -> None:
        path.chmod(mode)
        if os.geteuid() == 0:
            os.chown(path, uid, gid)

    def _write(self, name: str, value: Json) -> None:
        self._private()
        _files.write(self.path / name, json.dumps(value, sort_keys=True) + "\n", 0o600)
