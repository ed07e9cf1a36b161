# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""ED25519 keys as OpenSSH writes them, and what an identity of a bot consists of."""

from __future__ import annotations

import base64
import hashlib
import typing as t

from .._errors import FleetError

USER, USER_PUBLIC = "id_ed25519", "id_ed25519.pub"
HOST, HOST_PUBLIC = "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"
AUTHORIZED = "authorized_keys"
#: A user key that is on trial: accepted, and not yet the one in use.
NEXT, NEXT_PUBLIC = "id_ed25519.next", "id_ed25519.next.pub"
#: A public host key that was replaced, and is pinned beside the new one until the server presents that.
PREVIOUS = "ssh_host_ed25519_key.previous.pub"
PUBLIC_OF = {USER: USER_PUBLIC, HOST: HOST_PUBLIC, NEXT: NEXT_PUBLIC}
PURPOSE_LABEL, PURPOSE = "clawops.fleet/purpose", "ssh"
Identity = dict[str, str]


def _cryptography() -> tuple[t.Any, t.Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        from ansible.module_utils.basic import missing_required_lib

        raise FleetError("missing_library", missing_required_lib("cryptography")) from None
    return serialization, ed25519


def new_private() -> str:
    """A private key in OpenSSH's form."""
    serialization, ed25519 = _cryptography()
    made = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    return t.cast(bytes, made).decode()


def public_of(private: str, comment: str = "") -> str:
    """The public line of a private key; raises FleetError damaged_key for anything else."""
    serialization, ed25519 = _cryptography()
    try:
        key = serialization.load_ssh_private_key(private.encode(), None)
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise ValueError("another kind of key")
    except ValueError:
        raise FleetError("damaged_key", "What is stored is no ED25519 key in OpenSSH's form.") from None
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{t.cast(bytes, line).decode()} {comment}".strip() + "\n"


def fingerprint(public: str) -> str:
    """As ssh-keygen -l prints it."""
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def alias(bot: str) -> str:
    """The name under which a bot's host key is pinned, whatever address and port it has at the moment."""
    return f"bot-{bot}"


def pinned(identity: t.Mapping[str, str]) -> list[str]:
    """The public host keys that a server may present, the one that it is to present first."""
    return [" ".join(identity[name].split()[:2]) for name in (HOST_PUBLIC, PREVIOUS) if identity.get(name)]


def known_hosts(bot: str, identity: t.Mapping[str, str]) -> str:
    """The lines that pin the host key; one, but for a moment of its rotation."""
    return "\n".join(f"{alias(bot)} {line}" for line in pinned(identity))


def complete(found: t.Mapping[str, str], bot: str) -> Identity:
    """The identity with what is missing made and what is derived put right; the same when it was whole."""
    privates = {USER: found.get(USER) or new_private(), HOST: found.get(HOST) or new_private()}
    if found.get(NEXT):
        privates[NEXT] = found[NEXT]
    publics = {PUBLIC_OF[name]: public_of(private, alias(bot)) for name, private in privates.items()}
    accepted = "".join(publics[name] for name in (USER_PUBLIC, NEXT_PUBLIC) if name in publics)
    kept = {PREVIOUS: found[PREVIOUS]} if found.get(PREVIOUS) else {}
    return {**privates, **publics, **kept, AUTHORIZED: accepted}


def new_identity(bot: str) -> Identity:
    """User key, host key and authorized_keys of a new bot: the data of its Secret."""
    return complete({}, bot)


def with_next(identity: t.Mapping[str, str], bot: str) -> Identity:
    """A second user key is accepted beside the first."""
    return complete({**identity, NEXT: identity.get(NEXT) or new_private()}, bot)


def promoted(identity: t.Mapping[str, str], bot: str) -> Identity:
    """The second user key takes the place of the first."""
    return complete({**_without(identity, NEXT), USER: identity[NEXT]}, bot)


def with_new_host(identity: t.Mapping[str, str], bot: str) -> Identity:
    """Another host key; the one before is pinned beside it. The same when that has been begun."""
    if identity.get(PREVIOUS):
        return dict(identity)
    return complete({**identity, HOST: new_private(), PREVIOUS: identity[HOST_PUBLIC]}, bot)


def settled(identity: t.Mapping[str, str]) -> Identity:
    """Only the new host key is pinned."""
    return _without(identity, PREVIOUS)


def revoked(identity: t.Mapping[str, str], key: str) -> Identity:
    """Without the user key nobody may log in; without the host key nobody trusts the server."""
    if key == "host":
        return _without(identity, HOST, HOST_PUBLIC, PREVIOUS)
    return {**_without(identity, USER, USER_PUBLIC, NEXT, NEXT_PUBLIC), AUTHORIZED: ""}


def _without(identity: t.Mapping[str, str], *names: str) -> Identity:
    return {name: text for name, text in identity.items() if name not in names}
