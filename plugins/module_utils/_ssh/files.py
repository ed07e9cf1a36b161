# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Identities as files of a host: /etc/clawops/credentials/bot-{name}-ssh/, for root alone."""

from __future__ import annotations

import pathlib
import socket
import typing as t

from .. import _files as files
from .._errors import FleetError, bad_value
from . import keys
from .identity import Owner
from .server import SECONDS, Server

DIRECTORY = "/etc/clawops/credentials"
#: What goes last when files are written one by one: until then the old ones are in force.
ORDER = (keys.PREVIOUS, keys.HOST, keys.HOST_PUBLIC, keys.NEXT, keys.NEXT_PUBLIC, keys.USER, keys.USER_PUBLIC,
         keys.AUTHORIZED)


class Files:
    """The store of a host."""

    def __init__(self, directory: str, user: str) -> None:
        self.directory, self.user = pathlib.Path(directory), user

    def _folder(self, owner: Owner) -> pathlib.Path:
        return self.directory / f"bot-{owner.bot}-ssh"

    def read(self, owners: t.Sequence[Owner]) -> dict[str, keys.Identity]:
        found = {}
        for owner in owners:
            texts = {name: files.read(self._folder(owner) / name) for name in ORDER}
            present = {name: text for name, text in texts.items() if text is not None}
            if present:
                found[owner.bot] = present
        return found

    def write(self, owner: Owner, identity: keys.Identity) -> None:
        folder = self._folder(owner)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ORDER:
            if name in identity and files.read(folder / name) != identity[name]:
                files.write(folder / name, identity[name], 0o600)
        for name in ORDER:
            if name not in identity:
                (folder / name).unlink(missing_ok=True)

    def server(self, owner: Owner) -> Server | None:
        if not owner.address:
            return None
        host, _colon, port = owner.address.rpartition(":")
        if not host or not port.isdigit():
            raise bad_value("addresses", owner.address, "Give host:port, such as 127.0.0.1:22.")

        def connect() -> socket.socket:
            try:
                return socket.create_connection((host.strip("[]"), int(port)), SECONDS)
            except OSError as error:
                raise FleetError("unreachable", f"{owner.address} of {owner.bot} can't be reached: {error}.") from None

        return Server(f"{owner.bot} at {owner.address}", self.user, connect)

    def hasten(self, owner: Owner, identity: keys.Identity) -> None:
        """Files are in force at once."""

    def present(self, owner: Owner, identity: keys.Identity) -> None:
        """Whoever runs the SSH server restarts it."""
