# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The SSH host key of a guest: made before its first boot, so that it is known before anybody connects."""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import struct
import typing as t

from .. import _files as files
from .._errors import FleetError
from .._process import Runner, must, run
from . import names

KIND = "ssh-ed25519"
_BEGIN, _END = "-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----"
_MAGIC = b"openssh-key-v1\0"


@dataclasses.dataclass(frozen=True)
class HostKey:
    """public is `ssh-ed25519 AAAA...`."""

    private: str = dataclasses.field(repr=False)
    public: str

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen -l prints it."""
        digest = hashlib.sha256(base64.b64decode(self.public.split()[1])).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def known_hosts(self, hosts: t.Sequence[str]) -> str:
        """The line that pins it for these names and addresses."""
        return f"{','.join(dict.fromkeys(hosts))} {self.public}"


def find(name: str, folder: pathlib.Path = names.CREDENTIALS) -> HostKey | None:
    """The key of this guest; None when it has none yet."""
    path = _path(name, folder)
    private = files.read(path)
    return None if private is None else HostKey(private, _public(private, path))


def ensure(name: str, folder: pathlib.Path = names.CREDENTIALS, runner: Runner = run) -> HostKey:
    """The key of this guest, made unless it is there."""
    found = find(name, folder)
    if found:
        return found
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = _path(name, folder)
    beside = path.with_name(f".{path.name}.part")
    public = pathlib.Path(f"{beside}.pub")
    try:
        for leftover in (beside, public):
            leftover.unlink(missing_ok=True)
        must(runner, ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"vm-{name}", "-f", str(beside)],
             f"Making the SSH host key of {name}", timeout=60)
        beside.chmod(0o600)
        made = HostKey(beside.read_text(encoding="ascii"), _public(beside.read_text(encoding="ascii"), beside))
        beside.replace(path)
    finally:
        for leftover in (beside, public):
            leftover.unlink(missing_ok=True)
    return made


def remove(name: str, folder: pathlib.Path = names.CREDENTIALS) -> None:
    _path(name, folder).unlink(missing_ok=True)


def _path(name: str, folder: pathlib.Path) -> pathlib.Path:
    return folder / names.host_key(name).name


def _public(private: str, path: str | os.PathLike[str]) -> str:
    """A private key in OpenSSH's form carries the public one in the clear, before what may be encrypted."""
    with contextlib.suppress(ValueError, binascii.Error, struct.error, IndexError):
        lines = private.strip().splitlines()
        raw = base64.b64decode("".join(lines[1:-1]), validate=True)
        cipher, kdf, _options, blob = _strings(raw[len(_MAGIC):])
        kind = _read_string(blob, 0)[0]
        if (lines[0], lines[-1]) == (_BEGIN, _END) and raw.startswith(_MAGIC) and kind == KIND.encode() \
                and cipher == kdf == b"none":
            return f"{KIND} {base64.b64encode(blob).decode()}"
    raise FleetError("damaged_key", f"{path} is no ED25519 key in OpenSSH's form.",
                     "Restore it; or remove it and give the guest a higher vm_generation.")


def _strings(raw: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Cipher, key derivation, its options, and the first public key."""
    cipher, at = _read_string(raw, 0)
    kdf, at = _read_string(raw, at)
    options, at = _read_string(raw, at)
    blob, _at = _read_string(raw, at + 4)
    return cipher, kdf, options, blob


def _read_string(raw: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from(">I", raw, at)
    end = at + 4 + length
    if end > len(raw):
        raise ValueError("cut off")
    return raw[at + 4:end], end
