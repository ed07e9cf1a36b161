# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""A bot's keys from their making to their end: present, rotated by add-test-remove, revoked."""

from __future__ import annotations

import dataclasses
import typing as t

from .._errors import FleetError
from .._plan import Plan
from . import keys
from .server import Server


@dataclasses.dataclass(frozen=True)
class Owner:
    """A bot, and where it is: the namespace of its pod, or the address of its SSH server on a host."""

    bot: str
    namespace: str = ""
    address: str = ""


class Store(t.Protocol):
    """Where identities are kept: Secrets of a cluster, or files of a host."""

    def read(self, owners: t.Sequence[Owner]) -> dict[str, keys.Identity]:
        """Those that exist, by the bot's name. Raises for one that is somebody else's."""

    def write(self, owner: Owner, identity: keys.Identity) -> None:
        """Makes or replaces one, whole; what is not in it any more goes."""

    def server(self, owner: Owner) -> Server | None:
        """The bot's SSH server; None when there is none to ask now."""

    def hasten(self, owner: Owner, identity: keys.Identity) -> None:
        """Makes a running bot see what was written sooner than it would by itself."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What one call wants of all of its bots."""

    state: str = "present"
    verify: bool = True
    timeout: float = 120.0


def subject(owner: Owner) -> str:
    return f"SSH identity of {owner.bot}"


class Identities:
    """The identities of one call."""

    def __init__(self, store: Store, owners: t.Sequence[Owner], settings: Settings) -> None:
        self.store, self.owners, self.settings = store, owners, settings
        self.found: dict[str, keys.Identity] = {}
        self.verified: set[str] = set()

    def plan(self) -> Plan:
        plan = Plan()
        self.found = self.store.read(self.owners)
        for owner in self.owners:
            found = self.found.get(owner.bot)
            if self.settings.state == "absent":
                if found and found != keys.revoked(found, owner.bot):
                    plan.add(subject(owner), "revoke", self._public(owner.bot, found), None)
            elif found is None:
                plan.add(subject(owner), "create", None, "(made by the run)")
            elif self.settings.state == "rotated":
                self._check_can_rotate(owner, found)
                plan.add(subject(owner), "rotate", self._public(owner.bot, found), "(made by the run)")
            elif not found.get(keys.USER) or keys.complete(found, owner.bot) != found:
                plan.add(subject(owner), "complete", self._public(owner.bot, found), "(made by the run)")
        return plan

    def _check_can_rotate(self, owner: Owner, found: keys.Identity) -> None:
        if self.settings.verify and found.get(keys.USER) and self.store.server(owner) is None:
            raise FleetError("not_running", f"The new key of {owner.bot} can't be tried: the bot does not run.",
                             "Start it, or rotate without trying with verify: false.", bot=owner.bot)

    def apply(self, plan: Plan) -> None:
        for owner in self.owners:
            if plan.touches(subject(owner)):
                self._bring(owner, self.found.get(owner.bot, {}))

    def _bring(self, owner: Owner, found: keys.Identity) -> None:
        if self.settings.state == "absent":
            self._revoke(owner, found)
        elif self.settings.state == "rotated" and found.get(keys.USER):
            self._rotate(owner, found)
        else:
            self._complete(owner, found)

    def _complete(self, owner: Owner, found: keys.Identity) -> None:
        try:
            self._write(owner, keys.complete(found, owner.bot))
        except FleetError as error:
            if error.code != "already_exists":
                raise
            # Another run was faster; its keys are as good.
            self.found |= self.store.read([owner])
        if found:
            self.store.hasten(owner, self.found[owner.bot])

    def _write(self, owner: Owner, identity: keys.Identity) -> None:
        self.store.write(owner, identity)
        self.found[owner.bot] = identity

    def _asked(self, owner: Owner) -> Server | None:
        return self.store.server(owner) if self.settings.verify else None

    def _rotate(self, owner: Owner, found: keys.Identity) -> None:
        """Add, test, remove. Cut off anywhere, the key in use works, and the next run goes on with the same new one."""
        old, both = found[keys.USER], keys.with_next(found, owner.bot)
        self._write(owner, both)
        server = self._asked(owner)
        if server:
            self.store.hasten(owner, both)
            server.wait(both[keys.NEXT], both[keys.HOST_PUBLIC], True, self.settings.timeout)
        self._write(owner, keys.promoted(both, owner.bot))
        self._wait_refused(owner, server, old)

    def _revoke(self, owner: Owner, found: keys.Identity) -> None:
        self._write(owner, keys.revoked(found, owner.bot))
        for name in (keys.USER, keys.NEXT):
            if found.get(name):
                self._wait_refused(owner, self._asked(owner), found[name])

    def _wait_refused(self, owner: Owner, server: Server | None, old: str) -> None:
        if server:
            now = self.found[owner.bot]
            self.store.hasten(owner, now)
            server.wait(old, now[keys.HOST_PUBLIC], False, self.settings.timeout)

    def verify(self) -> None:
        """Asks every bot that runs for its host key and compares it with the pinned one."""
        if not self.settings.verify or self.settings.state == "absent":
            return
        for owner in self.owners:
            server = self.store.server(owner)
            if server:
                server.check_pinned(self.found[owner.bot][keys.HOST_PUBLIC])
                self.verified.add(owner.bot)

    @staticmethod
    def _public(bot: str, identity: keys.Identity) -> dict[str, t.Any]:
        """What may be shown of an identity."""
        user, host = ((keys.public_of(identity[name], keys.alias(bot)).strip() if identity.get(name) else None)
                      for name in (keys.USER, keys.HOST))
        return {"user_public_key": user, "user_fingerprint": keys.fingerprint(user) if user else None,
                "host_public_key": host, "host_fingerprint": keys.fingerprint(host) if host else None,
                "known_hosts": keys.known_hosts(bot, host) if host else None}

    def facts(self) -> dict[str, t.Any]:
        return {"identities": [{"name": owner.bot, **self._public(owner.bot, self.found[owner.bot]),
                                "verified": owner.bot in self.verified}
                               for owner in self.owners if owner.bot in self.found]}
