# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""API keys of a fleet and of its bots in one text, encrypted by Fernet: in a file, or in a Secret of a cluster."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import re
import typing as t

from . import _files as files
from . import _ownership as ownership
from ._errors import FleetError, bad_value

Keys = dict[str, str]
SECRET = re.compile(r"secret:([a-z0-9-]+)/([a-z0-9.-]+)")
FIELD = "keystore"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclasses.dataclass
class Keystore:
    """What is inside: keys of the whole fleet, and keys of single bots."""

    fleet: Keys = dataclasses.field(default_factory=dict, repr=False)
    bots: dict[str, Keys] = dataclasses.field(default_factory=dict, repr=False)

    def set(self, variable: str, value: str, bot: str | None = None) -> None:
        if not _VARIABLE.fullmatch(variable):
            raise bad_value("name", variable, "Use the name of an environment variable, such as ANTHROPIC_API_KEY.")
        if not value or any(sign in value for sign in "\n\r\0`"):
            raise bad_value(variable, "(hidden)", "Give one line of text that is not empty and has no backtick.")
        self._of(bot)[variable] = value

    def unset(self, variable: str, bot: str | None = None) -> None:
        if self._of(bot).pop(variable, None) is None:
            raise bad_value("name", variable, f"There is no such key of {bot or 'the fleet'}.")
        self.bots = {name: keys for name, keys in self.bots.items() if keys}

    def _of(self, bot: str | None) -> Keys:
        return self.fleet if bot is None else self.bots.setdefault(ownership.check_name("bot", bot), {})

    def effective(self, bot: str, own: t.Mapping[str, str], fleet: t.Mapping[str, str]) -> Keys:
        """The keys that a bot gets: its own before the fleet's, and in each case variables before the keystore."""
        return {**self.fleet, **fleet, **self.bots.get(bot, {}), **own}


class Cipher:
    """One or more Fernet keys: the first encrypts, every one decrypts."""

    def __init__(self, text: str) -> None:
        fernet = _fernet()
        try:
            self._ciphers = [fernet.Fernet(word) for word in text.split()]
            self._cipher = fernet.MultiFernet(self._ciphers)
        except ValueError:
            raise FleetError("bad_keystore_key", "The key of the keystore is empty, or is no Fernet key.",
                             "Give one key, or several divided by blanks, as scripts/keystore makes it.") from None
        self._invalid = fernet.InvalidToken

    def encrypt(self, store: Keystore) -> str:
        content = json.dumps({"version": 1, "fleet": store.fleet, "bots": store.bots}, sort_keys=True)
        return t.cast(bytes, self._cipher.encrypt(content.encode())).decode() + "\n"

    def decrypt(self, text: str) -> Keystore:
        try:
            content = json.loads(self._cipher.decrypt(text.strip().encode()))
        except self._invalid:
            raise FleetError("wrong_keystore_key", "The keystore can't be decrypted: the key is another one, or the "
                             "text was changed.", "Give the key that the keystore was encrypted with.") from None
        if content.get("version") != 1:
            raise FleetError("newer_keystore", f"The keystore has version {content.get('version')}, known is 1.",
                             "Use a newer version of the collection.")
        return Keystore(content["fleet"], content["bots"])


def _fernet() -> t.Any:
    try:
        from cryptography import fernet
    except ImportError:
        from ansible.module_utils.basic import missing_required_lib

        raise FleetError("missing_library", missing_required_lib("cryptography")) from None
    return fernet


def new_key() -> str:
    return t.cast(bytes, _fernet().Fernet.generate_key()).decode()


class Place(t.Protocol):
    """Where the text is."""

    def read(self) -> str | None: ...
    def write(self, text: str) -> None: ...
    def lock(self) -> t.ContextManager[None]: ...


class FilePlace:
    """A file; in a repository of the operator, say."""

    def __init__(self, path: str) -> None:
        self.path = pathlib.Path(path).expanduser()

    def read(self) -> str | None:
        return files.read(self.path)

    def write(self, text: str) -> None:
        files.write(self.path, text, 0o600)

    @contextlib.contextmanager
    def lock(self) -> t.Iterator[None]:
        """Of two changes at once, the second one sees the first. The directory is locked: the file is replaced."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


class SecretPlace:
    """A Secret of a cluster. The version of what was read makes the server refuse a change that came second."""

    def __init__(self, cluster: t.Any, namespace: str, name: str) -> None:
        self.cluster, self.namespace, self.name = cluster, namespace, name
        self._version: str | None = None

    def read(self) -> str | None:
        found = self.cluster.get("Secret", self.name, self.namespace)
        if found is None:
            return None
        if not ownership.is_ours(found["metadata"].get("labels")):
            raise FleetError("foreign_object", f"Secret {self.namespace}/{self.name} is not managed by "
                             "this collection.", "Use another name.")
        self._version = found["metadata"]["resourceVersion"]
        return base64.b64decode((found.get("data") or {}).get(FIELD, "")).decode()

    def write(self, text: str) -> None:
        data = {FIELD: base64.b64encode(text.encode()).decode()}
        if self._version is None:
            metadata = {"name": self.name, "namespace": self.namespace, "labels": {ownership.MANAGED: "true"}}
            written = self.cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
        else:
            body = {"metadata": {"resourceVersion": self._version}, "data": data}
            written = self.cluster.patch("Secret", self.name, body, self.namespace)
        self._version = written["metadata"]["resourceVersion"]

    @contextlib.contextmanager
    def lock(self) -> t.Iterator[None]:
        yield


def place(location: str, connect: t.Callable[[], t.Any]) -> Place:
    """The place that a location names: secret:NAMESPACE/NAME, or the path of a file."""
    in_cluster = SECRET.fullmatch(location)
    if in_cluster:
        return SecretPlace(connect(), *in_cluster.groups())
    if location.startswith("secret:"):
        raise bad_value("keystore", location, "Give secret:NAMESPACE/NAME, or the path of a file.")
    return FilePlace(location)


def load(where: Place, location: str, key: str) -> Keystore:
    """The keystore at a place; raises when there is none."""
    text = where.read()
    if text is None:
        raise FleetError("no_keystore", f"There is no keystore at {location}.", "Make it: scripts/keystore create.")
    return Cipher(key).decrypt(text)
