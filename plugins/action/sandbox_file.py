# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's part of sandbox_file: a file goes to the host of the space, or comes from it, only if it differs.

Content that is on the controller is first compared by checksum. It lies in the task's own directory on the host for as
long as the second call needs it.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import tempfile
import typing as t

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

Values = dict[str, t.Any]


class ActionModule(ActionBase):  # type: ignore[misc]
    TRANSFERS_FILES = True
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: Values | None = None) -> Values:
        result: Values = super().run(tmp, task_vars)
        self._variables = task_vars
        args = dict(self._task.args)
        state = args.get("state", "present")
        local = not boolean(args.get("on_host", False), strict=False)
        if local and state == "present" and args.get("src") is not None:
            result.update(self._put(args))
        elif local and state == "fetched" and args.get("dest") is not None:
            result.update(self._fetch(args))
        else:
            result.update(self._module(args))
        return result

    def _module(self, args: Values) -> Values:
        return t.cast(Values, self._execute_module("clawops.fleet.sandbox_file", module_args=args,
                                                   task_vars=self._variables))

    def _put(self, args: Values) -> Values:
        try:
            # Encrypted files are decrypted here, to a file of ours that is removed below.
            source = self._loader.get_real_file(self._find_needle("files", args["src"]))
        except AnsibleError as error:
            raise AnsibleActionFail(f"src can't be read on the controller: {error}") from error
        try:
            rest = {key: value for key, value in args.items() if key != "src"}
            first = self._module({**rest, "checksum": _checksum(source)})
            if first.get("failed") or not first.get("transfer"):
                return first
            folder = self._folder()
            try:
                there = self._transfer_file(source, self._connection._shell.join_path(folder, "content"))
                return self._again(first, {**rest, "src": there, "on_host": True})
            finally:
                self._remove_tmp_path(folder, force=True)
        finally:
            self._loader.cleanup_tmp_file(source)

    def _fetch(self, args: Values) -> Values:
        dest = pathlib.Path(self._loader.path_dwim(args["dest"]))
        if dest.is_dir():
            raise AnsibleActionFail(f"dest is a directory: {dest}. Name the file.")
        rest = {key: value for key, value in args.items() if key not in ("dest", "mode")}
        first = self._module({**rest, "checksum": _checksum(dest) if dest.exists() else "none"})
        if first.get("failed") or not first.get("transfer"):
            return first
        folder = self._folder()
        try:
            there = self._connection._shell.join_path(folder, "content")
            second = self._again(first, {**rest, "dest": there, "on_host": True})
            if not second.get("failed"):
                self._receive(there, dest, second["sha256"], args.get("mode"))
            return second
        finally:
            self._remove_tmp_path(folder, force=True)

    def _receive(self, there: str, dest: pathlib.Path, checksum: str, mode: str | None) -> None:
        dest.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=dest.parent, prefix=f".{dest.name}.")
        os.close(handle)
        try:
            self._connection.fetch_file(there, beside)
            if _checksum(beside) != checksum:
                raise AnsibleActionFail("What arrived on the controller is not what the space has.")
            os.chmod(beside, 0o600 if mode is None else int(str(mode), 8))
            os.replace(beside, dest)
        except BaseException:
            pathlib.Path(beside).unlink(missing_ok=True)
            raise

    def _again(self, first: Values, args: Values) -> Values:
        """The second call does what the first one has planned, so the first one's plan is reported."""
        second = self._module(args)
        planned = {key: first[key] for key in ("changed", "actions", "diff")}
        return second if second.get("failed") else {**second, **planned}

    def _folder(self) -> str:
        """Not the one that calls of modules remove."""
        return t.cast(str, self._make_tmp_path())


def _checksum(path: str | os.PathLike[str]) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for data in iter(lambda: stream.read(1 << 20), b""):
            digest.update(data)
    return digest.hexdigest()
