# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""A space as the inventory describes it: description over template over defaults, validated once."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing as t

from .._errors import bad_value
from .._ownership import check_name, digest
from .._quantity import parse_bytes, parse_cpus
from .names import WORKSPACE

Values = t.Mapping[str, t.Any]
IMAGE = "clawops-sandbox:latest"
STATES = ("created", "started", "paused", "stopped", "absent")
RESTARTS = ("no", "on-failure", "unless-stopped", "always")
MODES = ("none", "internet", "lan")
STRATEGIES = ("volume", "bind", "snapshot", "worktree")
DEFAULTS: dict[str, t.Any] = {
    "image": IMAGE, "env": {}, "user": "1001:1001", "writable_root": False, "gpu": False, "restart": "unless-stopped",
    "resources": {"memory": "2Gi", "cpus": 1, "pids": 512, "tmp": "512Mi", "run": "16Mi"},
    "network": {"mode": "internet", "block": []},
    "repository": {},
    "workspace": {"strategy": "volume"},
    "idle": {"after": 600, "action": "pause"},
}
#: Named defaults; the operator's own come on top.
TEMPLATES: dict[str, dict[str, t.Any]] = {
    "default": {},
    "gpu": {"gpu": "all", "resources": {"memory": "8Gi", "cpus": 4}},
    "offline": {"network": {"mode": "none"}},
    "lan": {"network": {"mode": "lan"}},
}
_OWN = {"name", "on", "template", "state", "secret_env", "repository_token", "recreate"}
_PARTS: dict[str, set[str]] = {
    "resources": {"memory", "cpus", "pids", "tmp", "run"}, "network": {"mode", "block"},
    "repository": {"url", "branch", "dest"}, "workspace": {"strategy", "path", "branch"}, "idle": {"after", "action"},
}
_LEAST_MEMORY = 6 * 1024**2
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IMAGE = re.compile(r"[a-z0-9][a-zA-Z0-9._:/-]{0,200}(@sha256:[0-9a-f]{64})?|sha256:[0-9a-f]{64}")
_URL = re.compile(r"(https?|ssh|git)://[^\s\0]+|[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9_.-]+:[^\s\0]+")
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]{0,200}")


@dataclasses.dataclass(frozen=True)
class Repository:
    """What is cloned once, into a directory below the workspace."""

    url: str
    branch: str | None
    dest: str


@dataclasses.dataclass(frozen=True)
class Workspace:
    """Where the files at /workspace are from. path is a directory of the host, branch that of a worktree."""

    strategy: str = "volume"
    path: str | None = None
    branch: str | None = None

    @property
    def in_volume(self) -> bool:
        return self.strategy in ("volume", "snapshot")


@dataclasses.dataclass(frozen=True)
class Space:
    """The effective description. memory, tmp and run are bytes; gpu is a count, -1 for all; idle_after 0 is never."""

    name: str
    on: str | None = None
    template: str = "default"
    state: str = "started"
    image: str = IMAGE
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    secret_env: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)
    memory: int = 2 * 1024**3
    cpus: float = 1.0
    pids: int = 512
    tmp: int = 512 * 1024**2
    run: int = 16 * 1024**2
    network: str = "internet"
    block: tuple[str, ...] = ()
    uid: int = 1001
    gid: int = 1001
    writable_root: bool = False
    gpu: int = 0
    repository: Repository | None = None
    repository_token: str | None = dataclasses.field(default=None, repr=False)
    workspace: Workspace = Workspace()
    idle_after: int = 600
    idle_action: str = "pause"
    restart: str = "unless-stopped"
    recreate: bool = False

    def shown(self) -> dict[str, t.Any]:
        """JSON-able and without secrets: what sandbox_space_info calls the effective spec."""
        values = dataclasses.asdict(self)
        for key in ("repository_token", "recreate", "on", "state"):
            del values[key]
        return {**values, "block": list(self.block), "secret_env": sorted(self.secret_env)}

    def fixed(self) -> dict[str, t.Any]:
        """What only a new container can change."""
        return {"image": self.image, "env": self.env, "secrets": bool(self.secret_env), "tmp": self.tmp,
                "run": self.run, "networked": self.network != "none", "user": f"{self.uid}:{self.gid}",
                "writable_root": self.writable_root, "gpu": self.gpu,
                "workspace": dataclasses.asdict(self.workspace)}

    def digest(self) -> str:
        return digest(self.fixed())[:16]


def templates_of(templates: Values | None = None) -> dict[str, dict[str, t.Any]]:
    """The named defaults, the operator's own over ours."""
    own = {}
    for name, values in (templates or {}).items():
        where = f"templates.{check_name('templates', name)}"
        if not isinstance(values, t.Mapping):
            raise bad_value(where, values, "Write a mapping with keys of a space.")
        _check_keys(where, values, set(DEFAULTS))
        own[name] = dict(values)
    return {**TEMPLATES, **own}


def effective(values: Values, templates: Values | None = None) -> dict[str, t.Any]:
    """Description over template over defaults; mappings merge one level deep. Not yet validated."""
    known = templates_of(templates)
    name = values.get("template") or "default"
    if name not in known:
        raise bad_value("space_template", name, f"There are the templates {', '.join(sorted(known))}.")
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in DEFAULTS.items()}
    for layer in (known[name], values):
        for key, value in layer.items():
            if value is None:
                continue
            if isinstance(result.get(key), dict) and isinstance(value, t.Mapping):
                result[key].update({part: one for part, one in value.items() if one is not None})
            else:
                result[key] = value
    return {**result, "template": name}


def parse(values: Values, templates: Values | None = None) -> Space:
    """Validates one description (keys without the prefix space_). Raises FleetError at the first bad value."""
    name = check_name("space name", values.get("name"))
    _check_keys("space", values, set(DEFAULTS) | _OWN)
    given = effective(values, templates)
    for key in ("env", *_PARTS):
        if not isinstance(given[key], dict):
            raise bad_value(f"space_{key}", given[key], "Write a mapping.")
    for key, parts in _PARTS.items():
        _check_keys(f"space_{key}", given[key], parts)
    resources, network, idle = given["resources"], given["network"], given["idle"]
    uid, gid = _user(given["user"])
    space = Space(
        name=name, on=given.get("on") or None, template=given["template"],
        state=_one_of("space_state", given.get("state") or "started", STATES),
        image=_match("space_image", given["image"], _IMAGE, "Write a reference such as name:tag or name@sha256:..."),
        env=_environment("space_env", given["env"]),
        secret_env=_environment("space_secret_env", given.get("secret_env") or {}, secret=True),
        memory=_bytes("memory", resources["memory"], _LEAST_MEMORY), cpus=_cpus(resources["cpus"]),
        pids=_count("space_resources.pids", resources["pids"], 8), tmp=_bytes("tmp", resources["tmp"]),
        run=_bytes("run", resources["run"]),
        network=_one_of("space_network.mode", network["mode"], MODES), block=_block(network["block"]),
        uid=uid, gid=gid, writable_root=_flag("space_writable_root", given["writable_root"]), gpu=_gpu(given["gpu"]),
        repository=_repository(given["repository"]), repository_token=given.get("repository_token") or None,
        workspace=_workspace(given["workspace"]),
        idle_after=_count("space_idle.after", idle["after"], 0),
        idle_action=_one_of("space_idle.action", idle["action"], ("pause", "stop")),
        restart=_one_of("space_restart", _restart(given["restart"]), RESTARTS),
        recreate=_flag("space_recreate", given.get("recreate") or False),
    )
    _check_together(space)
    return space


def parse_all(spaces: t.Iterable[Values], templates: Values | None = None) -> list[Space]:
    """Validates a whole list, names unique."""
    parsed = [parse(values, templates) for values in spaces]
    names = [space.name for space in parsed]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise bad_value("spaces", twice, "Name each space once.")
    return parsed


def _check_together(space: Space) -> None:
    if space.repository is None:
        return
    if space.repository_token and not space.repository.url.startswith("https://"):
        raise bad_value("space_repository.url", space.repository.url,
                        "A token needs an address that begins with https://.")
    if space.network == "none":
        raise bad_value("space_repository.url", space.repository.url,
                        f"The space {space.name} has no network to clone over; use a workspace of strategy snapshot.")
    if not space.workspace.in_volume:
        raise bad_value("space_repository.url", space.repository.url,
                        f"The space {space.name} works on a directory of the host, which is not cloned into.")


def _check_keys(where: str, values: Values, known: set[str]) -> None:
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise bad_value(where, unknown[0], f"Use {', '.join(sorted(known))}.")


def _one_of(parameter: str, value: object, allowed: t.Sequence[str]) -> str:
    if value not in allowed:
        raise bad_value(parameter, value, f"Use one of {', '.join(allowed)}.")
    return str(value)


def _match(parameter: str, value: object, pattern: re.Pattern[str], remedy: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise bad_value(parameter, value, remedy)
    return value


def _flag(parameter: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise bad_value(parameter, value, "Use true or false.")
    return value


def _restart(value: object) -> object:
    # YAML reads a plain no as false.
    return "no" if value in (False, "False", "false") else value


def _count(parameter: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}", str(value)) or int(str(value)) < least:
        raise bad_value(parameter, value, f"Use a whole number, {least} or more.")
    return int(str(value))


def _bytes(key: str, value: object, least: int = 1) -> int:
    size = parse_bytes(f"space_resources.{key}", value)
    if size < least:
        raise bad_value(f"space_resources.{key}", value, f"The engine takes no less than {least // 1024**2}Mi.")
    return size


def _cpus(value: object) -> float:
    cpus = parse_cpus("space_resources.cpus", value)
    if cpus < 0.01:
        raise bad_value("space_resources.cpus", value, "The engine takes no less than 0.01.")
    return cpus


def _user(value: object) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9})(?::(\d{1,9}))?", str(value))
    if not match or isinstance(value, bool):
        raise bad_value("space_user", value, "Write numbers, UID or UID:GID in quotes, such as '1001:1001'.")
    return int(match[1]), int(match[2] or match[1])


def _gpu(value: object) -> int:
    if value in (False, "false", "False", 0, "0"):
        return 0
    if value in ("all", "true", "True", -1) or value is True:
        return -1
    return _count("space_gpu", value, 1)


def _block(values: object) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)):
        raise bad_value("space_network.block", values, "Give a list of networks.")
    return tuple(sorted({_network(value) for value in values}))


def _network(value: object) -> str:
    try:
        return str(ipaddress.ip_network(str(value)))
    except ValueError:
        raise bad_value("space_network.block", value, "Give addresses and networks such as 192.0.2.0/24.") from None


def _environment(parameter: str, values: object, secret: bool = False) -> dict[str, str]:
    if not isinstance(values, t.Mapping):
        raise bad_value(parameter, "(hidden)" if secret else values, "Write a mapping of names to values.")
    result = {}
    for key, value in values.items():
        if not _ENV_NAME.fullmatch(str(key)):
            raise bad_value(parameter, key, "Names of environment variables have letters, digits and '_' only.")
        if isinstance(value, (dict, list)) or value is None or "\0" in str(value):
            raise bad_value(f"{parameter}.{key}", "(hidden)" if secret else value, "Give a text.")
        result[str(key)] = str(value).lower() if isinstance(value, bool) else str(value)
    return result


def inside(parameter: str, path: object, base: str = WORKSPACE) -> str:
    """A path below base, relative to it. Refuses what leads out of it."""
    text = str(path)
    if text.startswith(f"{base}/"):
        text = text[len(base) + 1:]
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or ".." in parts or not parts or "\0" in text or parts[0].startswith("-"):
        raise bad_value(parameter, path, f"Give a path below {base}, without '..'.")
    return "/".join(parts)


def _repository(values: Values) -> Repository | None:
    url = values.get("url")
    if not url:
        if values:
            raise bad_value("space_repository", sorted(values), "Give its url.")
        return None
    _match("space_repository.url", url, _URL, "Use https, http, ssh or git, or the form user@host:path.")
    scheme, rest = re.split("://", url, maxsplit=1) if "://" in url else ("ssh", "")
    if scheme.startswith("http") and "@" in rest.split("/")[0]:
        raise bad_value("space_repository.url", "(hidden)",
                        "It carries credentials: give the token in space_repository_token.")
    branch = values.get("branch") or None
    if branch is not None:
        check_branch("space_repository.branch", branch)
    default = re.sub(r"\.git$", "", re.split(r"[/:]", url.rstrip("/"))[-1])
    return Repository(url, branch, inside("space_repository.dest", values.get("dest") or default))


def check_branch(parameter: str, value: object) -> str:
    branch = _match(parameter, value, _BRANCH, "Give the name of a branch.")
    if ".." in branch or branch.endswith((".lock", "/", ".")) or "//" in branch:
        raise bad_value(parameter, value, "Give the name of a branch.")
    return branch


def _workspace(values: Values) -> Workspace:
    strategy = _one_of("space_workspace.strategy", values["strategy"], STRATEGIES)
    path, branch = values.get("path") or None, values.get("branch") or None
    if strategy == "volume":
        if path:
            raise bad_value("space_workspace.path", path, "A volume has none; use strategy bind, snapshot or worktree.")
    elif not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise bad_value("space_workspace.path", path, "Give an absolute path of the host, without '..'.")
    if branch is not None and strategy != "worktree":
        raise bad_value("space_workspace.branch", branch, "Only a worktree has a branch.")
    return Workspace(strategy, path.rstrip("/") or "/" if path else None,
                     check_branch("space_workspace.branch", branch) if branch else None)
