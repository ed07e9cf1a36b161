# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What sandbox_file does: a file in a space, or outside of it, as it is declared."""

from __future__ import annotations

import hashlib
import io
import os
import pathlib
import shutil
import tempfile
import typing as t

from .. import _audit, _plan
from .._errors import FleetError, bad_value
from . import files
from .client import Engine, connect
from .tasks import OPTIONS, Values, entered, hidden
from .work import Container

FILE_OPTIONS: dict[str, t.Any] = {
    **OPTIONS,
    "path": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent", "fetched", "listed"], "default": "present"},
    "content": {"type": "str", "no_log": True},
    "src": {"type": "path"},
    "dest": {"type": "path"},
    "on_host": {"type": "bool", "default": False},
    "checksum": {"type": "str"},
    "mode": {"type": "raw"},
    "recurse": {"type": "bool", "default": False},
}


class Task:
    """One call: what is there, what shall be, and the way between them."""

    def __init__(self, params: Values, origin: _audit.Origin) -> None:
        self.params, self.origin = params, origin
        self.path, self.state = params["path"], params["state"]
        self.mode = files.mode_of(params["mode"])
        self.values: Values = {"path": self.path, "transfer": False}
        files.place(self.path)
        self._check_values()

    def _check_values(self) -> None:
        given = {key for key in ("content", "src", "dest", "checksum") if self.params[key] is not None}
        if self.state == "present" and not given & {"content", "src", "checksum"}:
            raise bad_value("content", None, "Give content or src, which shall be in the file.")
        if self.state == "fetched" and not given & {"dest", "checksum"}:
            raise bad_value("dest", None, "Give the file that shall have the content.")

    def plan(self, engine: Engine, container: Container) -> _plan.Plan:
        self.engine, self.container = engine, container
        plan = _plan.Plan()
        getattr(self, f"_plan_{self.state}")(plan)
        return plan

    def _plan_present(self, plan: _plan.Plan) -> None:
        found = files.look(self.engine, self.container, self.path, follow=False)
        if found["kind"] in ("directory", "other"):
            raise FleetError("not_a_file", f"{self.path} is there and no plain file.", "Choose another path.")
        checksum, size = self._source()
        if self.mode is None:
            self.mode = files.mode_of(found["mode"]) if found["kind"] == "file" else 0o644
        plan.compare(self.path, {"sha256": checksum, "mode": f"{self.mode:04o}"},
                     {"sha256": found.get("sha256"), "mode": found["mode"]} if found["kind"] == "file" else None)
        self.values.update(sha256=checksum, mode=f"{self.mode:04o}", **({} if size is None else {"size": size}))

    def _source(self) -> tuple[str, int | None]:
        """Checksum and size of what shall be in the file; the size is unknown when only the checksum is given."""
        if self.params["content"] is not None:
            raw = self.params["content"].encode()
            return hashlib.sha256(raw).hexdigest(), len(raw)
        if self.params["src"] is not None:
            return summary(self.params["src"])
        return self.params["checksum"], None

    def _plan_absent(self, plan: _plan.Plan) -> None:
        found = files.look(self.engine, self.container, self.path, follow=False)
        if found["kind"] == "directory":
            raise FleetError("not_a_file", f"{self.path} is a directory.", "Remove it with sandbox_exec.")
        plan.compare(self.path, None, None if found["kind"] == "absent" else {"kind": found["kind"]})

    def _plan_fetched(self, plan: _plan.Plan) -> None:
        found = files.look(self.engine, self.container, self.path)
        if found["kind"] != "file":
            raise FleetError("not_found", f"{self.path} is no plain file in space {self.params['space']}.")
        dest = self.params["dest"]
        known = self.params["checksum"] or (summary(dest)[0] if dest and os.path.exists(dest) else None)
        plan.compare(dest or self.path, {"sha256": found["sha256"]}, {"sha256": known} if known else None)
        self.values.update({key: found[key] for key in ("sha256", "size", "mode")})

    def _plan_listed(self, plan: _plan.Plan) -> None:
        entries, complete = files.entries(self.engine, self.container, self.path, self.params["recurse"])
        self.values.update(entries=entries, complete=complete)

    def apply(self, plan: _plan.Plan) -> Values:
        if self.state == "present" and self.params["content"] is None and self.params["src"] is None:
            return {**self.values, "transfer": True}
        if self.state == "fetched" and self.params["dest"] is None:
            return {**self.values, "transfer": True}
        verb = {"present": "put", "fetched": "get", "absent": "remove"}[self.state]
        with _audit.event("space.file", self.params["space"], self.origin, action=verb, path=self.path) as entry:
            getattr(self, f"_{verb}")()
            entry.update({key: self.values[key] for key in ("size", "sha256") if key in self.values})
        return self.values

    def _put(self) -> None:
        with self._stream() as stream:
            done = files.put(self.engine, self.container, self.path, files.chunks(stream), t.cast(int, self.mode))
        if done.get("sha256") != self.values["sha256"]:
            raise FleetError("changed_meanwhile", f"{self.params['src']} was changed while it was read.", "Try again.")

    def _stream(self) -> t.BinaryIO:
        if self.params["content"] is not None:
            return io.BytesIO(self.params["content"].encode())
        return open(self.params["src"], "rb")

    def _get(self) -> None:
        dest = pathlib.Path(self.params["dest"])
        if dest.is_dir():
            raise bad_value("dest", str(dest), "It is a directory; name the file.")
        try:
            room = shutil.disk_usage(dest.parent).free
            if self.values["size"] > room:
                raise FleetError("no_room", f"{self.path} has {self.values['size']} bytes, and there is room for "
                                            f"{room} in {dest.parent}.")
            handle, beside = tempfile.mkstemp(dir=dest.parent, prefix=f".{dest.name}.")
            try:
                with open(handle, "wb") as stream:
                    self.values.update(files.get(self.engine, self.container, self.path, stream.write))
                    os.fchmod(stream.fileno(), 0o600 if self.mode is None else self.mode)
                os.replace(beside, dest)
            except BaseException:
                pathlib.Path(beside).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise FleetError("not_written", f"{dest} can't be written: {error.strerror}.") from None

    def _remove(self) -> None:
        files.ask(self.engine, self.container, files.request("remove", self.path))


def summary(path: str) -> tuple[str, int]:
    """SHA-256 and size of a file on this host."""
    digest, size = hashlib.sha256(), 0
    try:
        with open(path, "rb") as stream:
            for data in files.chunks(stream):
                digest.update(data)
                size += len(data)
    except OSError as error:
        raise bad_value("src", path, f"It can't be read on this host: {error.strerror}.") from None
    return digest.hexdigest(), size


def manage_file(module: t.Any) -> None:
    """Runs sandbox_file to its end."""
    params = module.params
    origin = _audit.Origin.of(params["actor"], params["job"])
    try:
        task = Task(params, origin)
        with connect(params["docker_host"]) as engine, \
                entered(engine, params["space"], module.check_mode, origin) as container:
            plan = task.plan(engine, container)
            values = task.apply(plan) if plan.changed and not module.check_mode else task.values
            result = {**plan.result(), **values}
    except FleetError as error:
        if not module.check_mode or not hidden(error):
            module.fail_json(**error.result())
        module.warn(f"The plan is not complete: {error.message}")
        changes = params["state"] != "listed"
        result = {"changed": changes, "plan_complete": False, "actions": [], "path": params["path"], "transfer": False}
    module.exit_json(**result)
