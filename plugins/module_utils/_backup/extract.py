# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""A snapshot beside what lives: in a folder that no bot knows of, whatever substrate it was taken on."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import typing as t

from .._errors import bad_value
from . import jail, verbs
from .host import HostTarget, Place, existing
from .model import ROLES, Manifest, Restored, Scratch, is_plain_absolute

#: Below the folder: what this module remembers of it.
OWN = ".clawops"


@dataclasses.dataclass(frozen=True)
class Owned(Place):
    """A place whose owner may be a number, such as that of a user of a container."""

    def ids(self) -> tuple[int, int]:
        if not self.owner.isdecimal():
            return super().ids()
        if self.group and not self.group.isdecimal():
            raise bad_value("group", self.group, "With a number as owner the group is one, too.")
        return int(self.owner), int(self.group or self.owner)


class ScratchTarget(HostTarget):
    """A folder with a directory for each role. Locks and records lie in it: it is done with when it is removed."""

    def __init__(self, name: str, into: str, roles: t.Sequence[str] | None, owner: str, group: str | None) -> None:
        if not is_plain_absolute(into):
            raise bad_value("into", into, "Write an absolute path without '..' and a final '/'.")
        if roles is not None and not roles:
            raise bad_value("roles", roles, "Name roles, or leave it out for all.")
        self.into, self.wanted, self.owner, self.group = into, roles, owner, group
        super().__init__(name, self._of(roles or ROLES), state=os.path.join(into, OWN))

    def _of(self, roles: t.Iterable[str]) -> tuple[Place, ...]:
        return tuple(Owned(role, os.path.join(self.into, role), self.owner, self.group) for role in roles)

    def _check_folder(self) -> None:
        """Who can write there, or exchange it, would lead root wherever he likes, or say what it holds."""
        there = os.path.lexists(self.into)
        if os.path.islink(self.into) or not jail.is_roots(existing(self.into)) or (
                there and os.stat(self.into).st_mode & 0o022):
            raise bad_value("into", self.into, "Give a folder of root's that nobody else may write to or exchange, "
                                               "or one that is not there yet.")

    def record(self) -> Restored | None:
        self._check_folder()
        return super().record() if os.path.isdir(self.into) else None

    def holds(self, snapshot: str) -> bool:
        record = self.record()
        if record is None or (self.wanted and {*self.wanted} != {*record.places}):
            return False
        self._places = self._of(record.places)
        return (record.snapshot, record.identities, record.done) == (snapshot, self._identities(), True)

    def occupied(self) -> list[str]:
        """The folder as a whole: somebody else's files are not for mixing."""
        if not os.path.lexists(self.into):
            return []
        own = os.path.isdir(self.into) and {*os.listdir(self.into)} <= {OWN, f".restore-{self.bot}"}
        return [] if own else [self.into]

    def check(self, manifest: Manifest, size: int) -> None:
        self._places = self._of(self.wanted or [part.role for part in manifest.parts])
        super().check(manifest, size)

    @contextlib.contextmanager
    def open(self, manifest: Manifest) -> t.Iterator[list[Scratch]]:
        os.makedirs(os.path.dirname(self.into), 0o755, exist_ok=True)
        if not os.path.lexists(self.into):
            os.mkdir(self.into, 0o700)
        self._check_folder()
        with super().open(manifest) as scratches:
            yield scratches


def check_apart(folders: t.Sequence[str]) -> None:
    """Each has a folder of its own, none inside another."""
    for one in folders:
        if list(folders).count(one) > 1 or any(other.startswith(f"{one}/") for other in folders):
            raise bad_value("into", one, "Give each a folder of its own, none of them inside another.")


class Extracts(verbs.Restores):
    """backup_extract: every folder holds its snapshot. What is in it is told, so that it can be examined."""

    def _told(self, wish: verbs.Wish, changed: bool) -> dict[str, t.Any]:
        choice, target = self.seen.done[wish.access.bot], t.cast(ScratchTarget, wish.target)
        manifest = choice.manifest or wish.access.repository.manifest(choice.snapshot)
        places = target.places()
        databases = [{"role": role, "path": os.path.join(path, one.path), "sha256": one.sha256, "size": one.size}
                     for role, path in places.items() for one in manifest.part(role).databases]
        about = {name: getattr(manifest, name)
                 for name in ("fleet", "bot", "host", "substrate", "bot_version", "created")}
        return {**super()._told(wish, changed), "into": target.into, "manifest": about, "databases": databases}

    def apply(self, plan: t.Any) -> dict[str, t.Any]:
        return {"extracted": super().apply(plan)["restored"]}

    def facts(self) -> dict[str, t.Any]:
        return {"extracted": super().facts()["restored"]}
