# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keeps the API keys of a fleet encrypted, for the lookup clawops.fleet.api_keys.

    keystore create STORE                    make an empty one, and its key in the key file
    keystore set STORE NAME [--bot BOT]      the value comes from standard input, or is asked for
    keystore unset STORE NAME [--bot BOT]
    keystore show STORE                      names only, never values
    keystore rotate STORE                    a new key, for the key file and the store

STORE is the path of a file, or secret:NAMESPACE/NAME for a Secret of a cluster. The key is in the file that --key-file
names. Who keeps it elsewhere (Vault, AWX) sets CLAWOPS_KEYSTORE_KEY instead; to rotate then, put a new key before the
old one, divided by a blank, run rotate, and take the old one away. Runs with Python 3.9 and cryptography; a Secret
needs the package kubernetes, too.
"""

from __future__ import annotations

import argparse
import getpass
import importlib
import os
import pathlib
import sys
import typing as t

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "plugins"))
keystore: t.Any = importlib.import_module("module_utils._keystore")
files: t.Any = importlib.import_module("module_utils._files")
errors: t.Any = importlib.import_module("module_utils._errors")
VARIABLE = "CLAWOPS_KEYSTORE_KEY"


class Keys:
    """The key or keys of a keystore: of the key file, or of the environment."""

    def __init__(self, key_file: str | None) -> None:
        self.path = pathlib.Path(key_file).expanduser() if key_file else None

    def text(self) -> str:
        text = files.read(self.path) if self.path else os.environ.get(VARIABLE)
        if not text:
            raise errors.FleetError("no_keystore_key", f"{self.path or VARIABLE} holds no key.",
                                    f"Name the key file with --key-file, or set {VARIABLE}.")
        return str(text)

    def write(self, text: str) -> None:
        files.write(self.path, text.strip() + "\n", 0o600, os.geteuid(), os.getegid())


def create(where: t.Any, keys: Keys, given: argparse.Namespace) -> str:
    if where.read() is not None:
        raise errors.FleetError("keystore_exists", f"{given.store} exists.", "Use set, or rotate.")
    made = keys.path is not None and files.read(keys.path) is None
    if made:
        keys.write(keystore.new_key())
    where.write(keystore.Cipher(keys.text()).encrypt(keystore.Keystore()))
    return f"{given.store} is made" + (f"; its key is in {keys.path}: keep it, and keep it apart" if made else "")


def change(where: t.Any, keys: Keys, given: argparse.Namespace, alter: t.Callable[[t.Any], None]) -> str:
    store = keystore.load(where, given.store, keys.text())
    alter(store)
    where.write(keystore.Cipher(keys.text()).encrypt(store))
    return f"{given.verb}: {given.name} of {given.bot or 'the fleet'}"


def put(where: t.Any, keys: Keys, given: argparse.Namespace) -> str:
    value = getpass.getpass(f"{given.name}: ") if sys.stdin.isatty() else sys.stdin.read().strip("\r\n")
    return change(where, keys, given, lambda store: store.set(given.name, value, given.bot))


def drop(where: t.Any, keys: Keys, given: argparse.Namespace) -> str:
    return change(where, keys, given, lambda store: store.unset(given.name, given.bot))


def show(where: t.Any, keys: Keys, given: argparse.Namespace) -> str:
    store = keystore.load(where, given.store, keys.text())
    rows = [("the fleet", store.fleet), *sorted(store.bots.items())]
    return "\n".join(f"{who}: {', '.join(sorted(names)) or '-'}" for who, names in rows)


def rotate(where: t.Any, keys: Keys, given: argparse.Namespace) -> str:
    """Cut off anywhere, what the key file holds opens the store: first it holds both keys, last the new one alone."""
    store = keystore.load(where, given.store, keys.text())
    if keys.path is None:
        where.write(keystore.Cipher(keys.text()).encrypt(store))
        return f"{given.store} is encrypted with the first key of {VARIABLE}"
    new = keystore.new_key()
    keys.write(f"{new} {keys.text()}")
    where.write(keystore.Cipher(new).encrypt(store))
    keys.write(new)
    return f"{given.store} is encrypted with a new key, which is in {keys.path}"


VERBS = {"create": create, "set": put, "unset": drop, "show": show, "rotate": rotate}


def cluster(given: argparse.Namespace) -> t.Any:
    return importlib.import_module("module_utils._ssh.tunnel").cluster_of(given.kubeconfig, given.context)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("store")
    parser.add_argument("name", nargs="?")
    parser.add_argument("--bot")
    parser.add_argument("--key-file", default=os.environ.get("CLAWOPS_KEYSTORE_KEY_FILE"))
    parser.add_argument("--kubeconfig")
    parser.add_argument("--context")
    given = parser.parse_args()
    if (given.verb in ("set", "unset")) != bool(given.name):
        parser.error("set and unset take the name of a variable, the others do not")
    try:
        where = keystore.place(given.store, lambda: cluster(given))
        with where.lock():
            print(VERBS[given.verb](where, Keys(given.key_file), given))
    except (errors.FleetError, OSError) as error:
        print(f"keystore: {error.result()['msg'] if isinstance(error, errors.FleetError) else error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
