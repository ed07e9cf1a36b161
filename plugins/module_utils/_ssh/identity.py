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

    def present(self, owner: Owner, identity: keys.Identity) -> None:
        """Makes the SSH server take its host key anew, as soon as the new one is there. Called again and again."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What one call wants of all of its bots. key is the one that rotation and revocation are about."""

    state: str = "present"
    key: str = "user"
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
            action = self._action(owner, found)
            if action == "rotate":
                self._check_can_rotate(owner, found or {})
            if action:
                before = self._public(owner.bot, found) if found else None
                plan.add(subject(owner), action, before, None if action == "revoke" else "(made by the run)")
        return plan

    def _action(self, owner: Owner, found: keys.Identity | None) -> str | None:
        state = self.settings.state
        if state == "absent":
            return "revoke" if found and found != keys.revoked(found, self.settings.key) else None
        if found is None:
            return "create"
        if state == "rotated":
            return "rotate"
        if not found.get(keys.USER) or keys.complete(found, owner.bot) != found:
            return "complete"
        return "settle" if found.get(keys.PREVIOUS) and self.settings.verify else None

    def _check_can_rotate(self, owner: Owner, found: keys.Identity) -> None:
        if self.settings.key == "host":
            return  # a bot that does not run presents the new one when it starts
        if self.settings.verify and found.get(keys.USER) and self.store.server(owner) is None:
            raise FleetError("not_running", f"The new key of {owner.bot} can't be tried: the bot does not run.",
                             "Start it, or rotate without trying with verify: false.", bot=owner.bot)

    def apply(self, plan: Plan) -> None:
        for owner in self.owners:
            if plan.touches(subject(owner)):
                self._bring(owner, self.found.get(owner.bot, {}))

    def _bring(self, owner: Owner, found: keys.Identity) -> None:
        state, host = self.settings.state, self.settings.key == "host"
        if state == "absent":
            self._revoke(owner, found)
        elif state == "rotated" and host and found.get(keys.HOST):
            self._write(owner, keys.with_new_host(found, owner.bot))
            self._settle(owner)
        elif state == "rotated" and not host and found.get(keys.USER):
            self._rotate(owner, found)
        else:
            self._complete(owner, found)
            self._settle(owner)

    def _settle(self, owner: Owner) -> None:
        """Waits until the server presents the new host key, and then pins that one alone."""
        now = self.found[owner.bot]
        if not now.get(keys.PREVIOUS) or not self.settings.verify:
            return
        server = self.store.server(owner)
        if server:
            self.store.hasten(owner, now)
            server.wait_presented(now[keys.HOST_PUBLIC], self.settings.timeout, lambda: self.store.present(owner, now))
        self._write(owner, keys.settled(now))

    def _complete(self, owner: Owner, found: keys.Identity) -> None:
        whole = keys.complete(found, owner.bot)
        if whole == found:
            return
        try:
            self._write(owner, whole)
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
            server.wait(both[keys.NEXT], keys.pinned(both), True, self.settings.timeout)
        self._write(owner, keys.promoted(both, owner.bot))
        self._wait_refused(owner, server, old)

    def _revoke(self, owner: Owner, found: keys.Identity) -> None:
        self._write(owner, keys.revoked(found, self.settings.key))
        for name in (keys.USER, keys.NEXT) if self.settings.key == "user" else ():
            if found.get(name):
                self._wait_refused(owner, self._asked(owner), found[name])

    def _wait_refused(self, owner: Owner, server: Server | None, old: str) -> None:
        if server:
            now = self.found[owner.bot]
            self.store.hasten(owner, now)
            server.wait(old, keys.pinned(now), False, self.settings.timeout)

    def verify(self) -> None:
        """Asks every bot that runs for its host key and compares it with the pinned one."""
        if not self.settings.verify or self.settings.state == "absent":
            return
        for owner in self.owners:
            server = self.store.server(owner)
            if server:
                server.check_pinned(keys.pinned(self.found[owner.bot]))
                self.verified.add(owner.bot)

    @staticmethod
    def _public(bot: str, identity: keys.Identity) -> dict[str, t.Any]:
        """What may be shown of an identity."""
        user, host = ((keys.public_of(identity[name], keys.alias(bot)).strip() if identity.get(name) else None)
                      for name in (keys.USER, keys.HOST))
        return {"user_public_key": user, "user_fingerprint": keys.fingerprint(user) if user else None,
                "host_public_key": host, "host_fingerprint": keys.fingerprint(host) if host else None,
                "known_hosts": keys.known_hosts(bot, identity) or None}

    def facts(self) -> dict[str, t.Any]:
        return {"identities": [{"name": owner.bot, **self._public(owner.bot, self.found[owner.bot]),
                                "verified": owner.bot in self.verified}
                               for owner in self.owners if owner.bot in self.found]}
