# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What an SSH server really presents and accepts, asked by paramiko."""

from __future__ import annotations

import io
import socket
import time
import typing as t

from .._errors import FleetError
from . import keys

Connect = t.Callable[[], socket.socket]
SECONDS = 15.0
PAUSE = 1.0


class Server:
    """One SSH server behind a function that connects to it."""

    def __init__(self, name: str, user: str, connect: Connect) -> None:
        self.name, self.user, self.connect = name, user, connect

    def _transport(self) -> t.Any:
        """A connection whose host key is known, and nobody logged in yet."""
        try:
            import paramiko
        except ImportError:
            from ansible.module_utils.basic import missing_required_lib

            raise FleetError("missing_library", missing_required_lib("paramiko")) from None
        transport = paramiko.Transport(self.connect())
        transport.get_security_options().key_types = ("ssh-ed25519",)
        try:
            transport.start_client(timeout=SECONDS)
        except (paramiko.SSHException, OSError, EOFError) as error:
            transport.close()
            raise FleetError("no_ssh", f"{self.name} does not answer by SSH with an ED25519 host key: {error}.",
                             "Check that sshd runs in it and has the host key of its identity.") from None
        return transport

    @staticmethod
    def _line(transport: t.Any) -> str:
        key = transport.get_remote_server_key()
        return f"{key.get_name()} {key.get_base64()}"

    def presented(self) -> str:
        """The public host key that the server presents."""
        transport = self._transport()
        try:
            return self._line(transport)
        finally:
            transport.close()

    def check_pinned(self, pinned: t.Sequence[str]) -> None:
        """Raises unless the server presents a pinned host key."""
        self._compare(pinned, self.presented())

    def _compare(self, pinned: t.Sequence[str], seen: str) -> None:
        if seen not in pinned:
            wanted = keys.fingerprint(pinned[0]) if pinned else "none"
            raise FleetError(
                "host_key_mismatch",
                f"{self.name} presents the host key {keys.fingerprint(seen)}, pinned is {wanted}.",
                "Something else answers in its place, or it was not restarted since its identity was made anew.",
                presented=keys.fingerprint(seen), pinned=wanted)

    def wait_presented(self, public: str, timeout: float, remind: t.Callable[[], None]) -> None:
        """Waits until the server presents this host key; reminds it of it until then."""
        deadline, seen = time.monotonic() + timeout, ""
        while True:
            try:
                seen = self.presented()
            except FleetError as error:
                if time.monotonic() >= deadline:
                    raise
                seen = error.message  # it may be starting anew
            if seen == " ".join(public.split()[:2]):
                return
            if time.monotonic() >= deadline:
                raise FleetError("key_not_in_force", f"{self.name} does not present its new host key after "
                                 f"{timeout:.0f} seconds.", "Restart its SSH server, and run this again with state "
                                 "present; until then the key before it is pinned, too.")
            remind()
            time.sleep(PAUSE)

    def accepts(self, private: str, pinned: t.Sequence[str]) -> bool:
        """Whether a login with this key works; only ever tried at a server with a pinned host key."""
        import paramiko

        transport = self._transport()
        try:
            self._compare(pinned, self._line(transport))
            key = paramiko.Ed25519Key.from_private_key(io.StringIO(private))
            transport.auth_publickey(self.user, key)
        except paramiko.AuthenticationException:
            return False
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise FleetError("no_ssh", f"{self.name} broke off the login by SSH: {error}.") from None
        finally:
            transport.close()
        return True

    def wait(self, private: str, pinned: t.Sequence[str], accepted: bool, timeout: float) -> None:
        """Waits until a login with this key works, or no longer does."""
        deadline = time.monotonic() + timeout
        while self.accepts(private, pinned) != accepted:
            if time.monotonic() >= deadline:
                what = "does not accept the new key yet" if accepted else "still accepts the old key"
                raise FleetError("key_not_in_force", f"{self.name} {what} after {timeout:.0f} seconds.",
                                 "Run it again; what was done so far is kept, and the key in use still works."
                                 if accepted else "Restart the bot, or run it again.")
            time.sleep(PAUSE)
