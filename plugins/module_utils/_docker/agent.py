# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What a bot may do with spaces: those of its list, templates of its list, within its limits, all of it recorded.

Whatever comes from the bot is a name, a template's name, a command or a file of a space. Nothing of it becomes an
option of a container.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import json
import typing as t

from .. import _audit as audit
from .._errors import FleetError, bad_value
from . import exec as programs
from . import files, names, reconcile, space, worker
from .decide import Settings
from .state import Record
from .work import awake

LIMITS = {"seconds": 50, "output": 50_000, "file": 2_000_000, "spaces": 5}
LARGEST_FILE = 4 * 2**20  # a message of the protocol has no room for more
STATES = {"running": "started", "restarting": "started", "exited": "stopped", "dead": "stopped"}
#: What a bot is told about a template.
SHOWN = ("image", "memory", "cpus", "pids", "network", "gpu", "writable_root", "idle_after")
Json = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Policy:
    """What the operator allows a bot. Nothing that the bot says changes it.

    spaces are names, or beginnings of names with * after them; definitions the operator's own templates.
    """

    fleet: str
    spaces: tuple[str, ...]
    templates: tuple[str, ...]
    definitions: t.Mapping[str, t.Any]
    limits: t.Mapping[str, int]

    @classmethod
    def of(cls, values: t.Mapping[str, t.Any]) -> Policy:
        limits = {**LIMITS, **(values.get("limits") or {})}
        for name, value in limits.items():
            if name not in LIMITS or not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise bad_value(f"limits.{name}", value, f"Give whole numbers for {', '.join(LIMITS)}.")
        if limits["file"] > LARGEST_FILE:
            raise bad_value("limits.file", limits["file"], f"At most {LARGEST_FILE} bytes.")
        return cls(values["fleet"], tuple(values["spaces"]), tuple(values.get("templates") or ()),
                   values.get("definitions") or {}, limits)

    def allows(self, name: str) -> bool:
        return any(name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
                   for pattern in self.spaces)


class Tool(t.NamedTuple):
    """One tool: what it says about itself, and which arguments it takes (JSON Schema, the few words that we need)."""

    about: str
    arguments: t.Mapping[str, Json]
    required: tuple[str, ...] = ()
    reads: bool = False

    def described(self, name: str) -> Json:
        schema = {"type": "object", "properties": self.arguments, "required": list(self.required),
                  "additionalProperties": False}
        return {"name": name, "description": self.about, "inputSchema": schema,
                "annotations": {"readOnlyHint": self.reads, "openWorldHint": False}}

    def check(self, given: t.Mapping[str, t.Any]) -> None:
        """Raises unless the arguments are what the schema says."""
        missing = [name for name in self.required if name not in given]
        if missing:
            raise FleetError("bad_value", f"{missing[0]} is missing.", f"Needed: {', '.join(self.required)}.")
        for name, value in given.items():
            if name not in self.arguments:
                raise FleetError("bad_value", f"{name[:100]!r} is no argument of this tool.",
                                 f"Use: {', '.join(self.arguments) or 'none'}.")
            _check(name, value, self.arguments[name])


def _check(name: str, value: t.Any, schema: Json) -> None:
    kind: type = {"string": str, "integer": int, "array": list}[schema["type"]]
    good = isinstance(value, kind) and not isinstance(value, bool) and _allowed(value, schema)
    if not good:
        raise FleetError("bad_value", f"{name} is not accepted.", schema["description"])
    for item in value if isinstance(value, list) else []:
        _check(name, item, {**schema["items"], "description": schema["description"]})


def _allowed(value: t.Any, schema: Json) -> bool:
    if isinstance(value, int):
        return value >= t.cast(int, schema["minimum"])
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        if "\0" in value or value not in schema.get("enum", [value]):
            return False
    return len(value) >= t.cast(int, schema.get("minLength", schema.get("minItems", 0)))


def _text(about: str, empty: bool = False, **more: t.Any) -> Json:
    return {"type": "string", "description": about, **({} if empty else {"minLength": 1}), **more}


SPACE = _text("Name of the space.")
PATH = _text("Path in the space, absolute or from /workspace.")
ENCODING = _text("utf-8 for text (the default), base64 for anything else.", enum=["utf-8", "base64"])
TOOLS = {
    "list": Tool("Lists your spaces.", {}, reads=True),
    "templates": Tool("Lists the templates from which you can create a space, with what they give.", {}, reads=True),
    "create": Tool("Creates a space from a template, with an empty /workspace. One that exists stays as it is.",
                   {"space": SPACE, "template": _text("Name of the template; see templates.")}, ("space", "template")),
    "exec": Tool("Runs a program in a space and returns its exit code and output. Give argv, or command for a shell.",
                 {"space": SPACE, "argv": {"type": "array", "items": {"type": "string"}, "minItems": 1,
                                           "description": "Program and arguments, without a shell."},
                  "command": _text("Text for sh -c."), "stdin": _text("What the program reads.", empty=True),
                  "workdir": _text("Where it runs; /workspace by default."),
                  "timeout": {"type": "integer", "minimum": 1,
                              "description": "Seconds after which it and its children are killed."}}, ("space",)),
    "file_get": Tool("Returns the content of a file.", {"space": SPACE, "path": PATH, "encoding": ENCODING},
                     ("space", "path"), reads=True),
    "file_put": Tool("Writes a file, in place of one that is there.",
                     {"space": SPACE, "path": PATH, "content": _text("The content.", empty=True), "encoding": ENCODING,
                      "mode": _text("Permissions in octal, such as 0755; 0644 by default.")},
                     ("space", "path", "content")),
    "file_list": Tool("Lists a directory.", {"space": SPACE, "path": PATH}, ("space", "path"), reads=True),
}


class Agent:
    """The tools, for one bot."""

    def __init__(self, engine: t.Any, bot: str, policy: Policy, log: str = audit.LOG) -> None:
        self.engine, self.bot, self.policy, self.log = engine, bot, policy, log
        self.origin = audit.Origin(f"bot:{bot}")

    @staticmethod
    def knows(name: t.Any) -> bool:
        return isinstance(name, str) and name in TOOLS

    @staticmethod
    def described() -> list[Json]:
        return [tool.described(name) for name, tool in TOOLS.items()]

    def call(self, name: str, given: t.Mapping[str, t.Any]) -> str:
        """What the tool says, as JSON; FleetError when it fails."""
        TOOLS[name].check(given)
        return json.dumps(getattr(self, f"_{name}")(**given), ensure_ascii=False)

    @contextlib.contextmanager
    def _doing(self, event: str, name: str, **fields: t.Any) -> t.Iterator[Json]:
        """Everything that a bot does, or is refused, is recorded."""
        with audit.event(event, name, self.origin, self.log, **fields) as entry:
            if not self.policy.allows(name):
                raise FleetError("not_allowed", f"{name[:100]!r} is not one of your spaces.",
                                 f"Yours are: {', '.join(self.policy.spaces)}.")
            yield entry

    def _awake(self, name: str) -> contextlib.AbstractContextManager[Json]:
        return awake(self.engine, name, origin=self.origin)

    # -- the tools -----------------------------------------------------------------------------------------------

    def _list(self) -> list[Json]:
        return [{"space": name, "state": STATES.get(found["State"], found["State"]),
                 "template": (Record(name).spec() or {}).get("template")} for name, found in self._mine()]

    def _mine(self) -> list[tuple[str, Json]]:
        return [(name, found) for name, found in worker.spaces(self.engine) if self.policy.allows(name)]

    def _templates(self) -> list[Json]:
        shown = {name: self._described("template", name).shown() for name in self.policy.templates}
        return [{"template": name, **{key: values[key] for key in SHOWN}} for name, values in shown.items()]

    def _described(self, name: str, template: str) -> space.Space:
        return space.parse({"name": name, "template": template}, self.policy.definitions)

    def _create(self, space: str, template: str) -> Json:
        with self._doing("agent.create", space, template=template) as entry:
            if template not in self.policy.templates:
                raise FleetError("not_allowed", f"{template[:100]!r} is not one of your templates.",
                                 f"Yours are: {', '.join(self.policy.templates) or 'none'}.")
            wanted = self._described(space, template)
            if not wanted.workspace.in_volume:
                raise FleetError("not_allowed", f"The template {template} has a directory of the host in it.",
                                 "Ask the operator for another one.")
            with worker.alone(f"agent-{self.bot}", names.LOCKS) as alone:
                if not alone:
                    raise FleetError("busy", "Another space is being created for you.", "Try again.")
                entry["created"] = self._make(wanted)
        return {"space": space, "created": entry["created"]}

    def _make(self, wanted: space.Space) -> bool:
        mine = [name for name, _found in self._mine()]
        if wanted.name in mine:
            return False
        if len(mine) >= self.policy.limits["spaces"]:
            raise FleetError("too_many", f"You have {len(mine)} spaces, which is your limit.", "Use one of them.")
        unguarded = reconcile.check_guard([wanted])
        if unguarded:
            raise FleetError("no_guard", unguarded, "The operator's role network_guard makes it.")
        work = reconcile.Spaces(self.engine, [wanted], Settings(self.policy.fleet), self.origin)
        work.apply(work.plan())
        return True

    def _exec(self, space: str, argv: list[str] | None = None, command: str | None = None, stdin: str = "",
              workdir: str | None = None, timeout: int | None = None) -> Json:
        if (argv is None) == (command is None):
            raise FleetError("bad_value", "argv and command are two ways to say the same.", "Give one of them.")
        limits = self.policy.limits
        words = argv or ["/bin/sh", "-c", command or ""]
        with self._doing("space.exec", space, argv=words) as entry, self._awake(space) as container:
            done = programs.run_in(self.engine, container, words, stdin.encode(), programs.environment(space), workdir,
                                   timeout=min(timeout or limits["seconds"], limits["seconds"]), limit=limits["output"])
            entry.update(rc=done.rc, **({"outcome": "timeout"} if done.timed_out else {}))
        return {"rc": done.rc, "stdout": done.out.decode("utf-8", "replace"),
                "stderr": done.err.decode("utf-8", "replace"), "truncated": done.truncated,
                "timed_out": done.timed_out}

    def _file_get(self, space: str, path: str, encoding: str = "utf-8") -> Json:
        kept = _Capped(self.policy.limits["file"])
        with self._doing("space.file", space, action="get", path=path) as entry, self._awake(space) as container:
            found = files.get(self.engine, container, path, kept.write)
            entry.update(size=found["size"])
        return {"content": _encoded(bytes(kept.data), encoding), **found}

    def _file_put(self, space: str, path: str, content: str, encoding: str = "utf-8", mode: str = "0644") -> Json:
        with self._doing("space.file", space, action="put", path=path) as entry:
            data, permissions = _decoded(content, encoding), files.mode_of(mode)
            entry["size"] = len(data)
            if len(data) > self.policy.limits["file"]:
                raise _too_large(self.policy.limits["file"])
            with self._awake(space) as container:
                return files.put(self.engine, container, path, [data], t.cast(int, permissions))

    def _file_list(self, space: str, path: str) -> Json:
        with self._doing("space.file", space, action="list", path=path), self._awake(space) as container:
            entries, complete = files.entries(self.engine, container, path)
        return {"entries": entries, "complete": complete}


class _Capped:
    """Content as long as it is not too much."""

    def __init__(self, most: int) -> None:
        self.data, self.most = bytearray(), most

    def write(self, data: bytes) -> None:
        if len(self.data) + len(data) > self.most:
            raise _too_large(self.most)
        self.data += data


def _too_large(most: int) -> FleetError:
    return FleetError("too_large", f"The file has more than {most} bytes, which is your limit.",
                      "Work on it in the space with exec.")


def _encoded(data: bytes, encoding: str) -> str:
    if encoding == "base64":
        return base64.b64encode(data).decode()
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise FleetError("not_text", "The file is no UTF-8 text.", "Ask for it with encoding base64.") from None


def _decoded(content: str, encoding: str) -> bytes:
    if encoding == "utf-8":
        return content.encode()
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error:
        raise FleetError("bad_value", "content is no base64.", "Encode it, or say encoding utf-8.") from None
