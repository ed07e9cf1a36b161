# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""A bot as the inventory describes it: the same variables on every substrate, validated once."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing as t

from ._errors import FleetError, bad_value
from ._ownership import check_name
from ._quantity import parse_bytes, parse_cpus

Substrate = t.Literal["docker_host", "vm", "cluster"]
STATES = ("started", "stopped", "restarted", "absent")
#: (profile, substrate) -> the runtimes that are possible there, the default first.
RUNTIMES: dict[tuple[str, str], tuple[str, ...]] = {
    ("gateway", "docker_host"): ("container", "host"),
    ("gateway", "vm"): ("host", "container"),
    ("gateway", "cluster"): ("pod",),
    ("desktop", "docker_host"): ("container",),
    ("desktop", "vm"): ("container",),
    ("desktop", "cluster"): ("pod",),
}
#: The release of OpenClaw that this version of the collection was tested with.
RELEASE = "2026.9.6"
DEFAULT_RESOURCES = {"memory": "2Gi", "cpus": "2", "storage": "10Gi"}
#: What a bot keeps in a cluster, by profile: the seed's names of its claims.
VOLUMES = {"gateway": ("clawdbot", "clawd"), "desktop": ("clawdbot", "clawd", "chrome", "homebrew")}
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_TAKEN = {*VOLUMES["desktop"], "config", "ssh", "run", "tmp", "shm", "home"}
_TOLERATION = {"key", "operator", "value", "effect", "tolerationSeconds"}


@dataclasses.dataclass(frozen=True)
class Pod:
    """What only a cluster asks for. sizes are bytes of single volumes; extra_volumes are as the operator gave them."""

    image: str | None = None
    node_selector: dict[str, str] = dataclasses.field(default_factory=dict)
    tolerations: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    storage_class: str | None = None
    volume_sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    extra_volumes: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    allowed_sources: list[str] = dataclasses.field(default_factory=list)
    allow_passwordless: bool = False
    live_config: bool = False


@dataclasses.dataclass(frozen=True)
class Bot:
    """The normalised description. memory and storage are bytes, cpus are processors; api_keys are secret."""

    name: str
    version: str
    profile: str = "gateway"
    runtime: str = "container"
    state: str = "started"
    port: int | None = None
    memory: int = 2 * 1024**3
    cpus: float = 2.0
    storage: int = 10 * 1024**3
    config: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    api_keys: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)
    gateway_token: str | None = dataclasses.field(default=None, repr=False)
    pod: Pod = dataclasses.field(default_factory=Pod)


def possible_runtimes() -> str:
    """The table of what runs where, for messages."""
    return "; ".join(f"{profile} on {substrate}: {' or '.join(runtimes)}"
                     for (profile, substrate), runtimes in RUNTIMES.items())


def _runtime(profile: str, runtime: str | None, substrate: Substrate) -> str:
    runtimes = RUNTIMES.get((profile, substrate), ())
    chosen = runtime or next(iter(runtimes), None)
    if chosen is None or chosen not in runtimes:
        pair = f"bot_profile {profile!r} with bot_runtime {runtime!r}"
        raise FleetError("bad_profile", f"{pair} is not possible on a {substrate}.",
                         f"What is possible: {possible_runtimes()}.")
    return chosen


def _environment(parameter: str, values: t.Mapping[str, t.Any] | None, secret: bool = False) -> dict[str, str]:
    result = {str(key): str(value) for key, value in (values or {}).items()}
    for key, value in result.items():
        shown = "(hidden)" if secret else value
        if not _ENV_NAME.fullmatch(key):
            raise bad_value(parameter, key, "Names of environment variables have letters, digits and '_' only.")
        if not value or any(sign in value for sign in "\n\r\0`"):
            raise bad_value(f"{parameter}.{key}", shown, "Give one line of text that is not empty and has no backtick.")
    return result


def _extra_volume(volume: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    given = {key: value for key, value in volume.items() if value not in (None, "")}
    name, path = given.get("name"), str(given.get("mount_path") or "")
    if not _LABEL.fullmatch(str(name)) or name in _TAKEN:
        raise bad_value("bot_extra_volumes.name", name, "Use a-z, 0-9 and '-', and none of the bot's own volumes.")
    if not path.startswith("/") or ".." in path.split("/") or path == "/":
        raise bad_value(f"bot_extra_volumes.{name}.mount_path", path, "Give an absolute path in the container.")
    sources = [source for source in ("claim", "config_map", "secret", "empty_dir") if source in given]
    unknown = set(given) - {"name", "mount_path", "read_only", *sources}
    if len(sources) != 1 or unknown:
        raise bad_value(f"bot_extra_volumes.{name}", sorted(unknown) or sources,
                        "Give one of claim, config_map, secret (names) or empty_dir (a size), and read_only if wanted.")
    if "empty_dir" in given:
        parse_bytes(f"bot_extra_volumes.{name}.empty_dir", given["empty_dir"])
    return given


def network(parameter: str, value: object) -> str:
    """An address or network of either family, as a network. Raises on anything else."""
    try:
        return str(ipaddress.ip_network(str(value)))
    except ValueError:
        raise bad_value(parameter, value, "Give addresses and networks such as 192.0.2.0/24.") from None


def _pod(values: t.Mapping[str, t.Any], profile: str) -> Pod:
    sizes = values.get("volume_sizes") or {}
    unknown = set(sizes) - set(VOLUMES[profile])
    if unknown:
        raise bad_value("bot_volume_sizes", sorted(unknown)[0], f"A {profile} bot has {', '.join(VOLUMES[profile])}.")
    for toleration in values.get("tolerations") or []:
        if not isinstance(toleration, dict) or set(toleration) - _TOLERATION:
            raise bad_value("bot_tolerations", toleration, f"Use mappings with {', '.join(sorted(_TOLERATION))}.")
    return Pod(
        image=values.get("image") or None,
        node_selector={str(key): str(value) for key, value in (values.get("node_selector") or {}).items()},
        tolerations=[dict(toleration) for toleration in values.get("tolerations") or []],
        storage_class=values.get("storage_class") or None,
        volume_sizes={name: parse_bytes(f"bot_volume_sizes.{name}", size) for name, size in sizes.items()},
        extra_volumes=[_extra_volume(volume) for volume in values.get("extra_volumes") or []],
        allowed_sources=[network("bot_allowed_sources", source) for source in values.get("allowed_sources") or []],
        allow_passwordless=bool(values.get("allow_passwordless")),
        live_config=bool(values.get("live_config")),
    )


def parse(values: t.Mapping[str, t.Any], substrate: Substrate) -> Bot:
    """Validates one description (keys without the prefix bot_). Raises FleetError at the first bad value."""
    name = check_name("bot name", values.get("name"))
    port = values.get("port")
    if port is not None and not (str(port).isdigit() and 1 <= int(port) <= 65535):
        raise bad_value("bot_port", port, "Give a port from 1 to 65535, or leave it out.")
    state = values.get("state") or "started"
    states = ("present", *STATES) if substrate == "cluster" else STATES
    if state not in states:
        raise bad_value("bot_state", state, f"Use one of {', '.join(states)}.")
    version = str(values.get("version") or "")
    if not re.fullmatch(r"\d{4}\.\d+\.\d+(-[a-z0-9.]+)?", version):
        raise bad_value("bot_version", version, "Pin an exact release of OpenClaw, such as 2026.9.6.")
    profile = values.get("profile") or "gateway"
    resources = {**DEFAULT_RESOURCES, **(values.get("resources") or {})}
    unknown = set(resources) - set(DEFAULT_RESOURCES)
    if unknown:
        raise bad_value("bot_resources", sorted(unknown)[0], f"Use {', '.join(DEFAULT_RESOURCES)}.")
    runtime = _runtime(profile, values.get("runtime"), substrate)
    return Bot(
        name=name, version=version, profile=profile, state=state, runtime=runtime,
        pod=_pod(values, profile) if substrate == "cluster" else Pod(),
        port=None if port is None else int(port),
        memory=parse_bytes("bot_resources.memory", resources["memory"]),
        cpus=parse_cpus("bot_resources.cpus", resources["cpus"]),
        storage=parse_bytes("bot_resources.storage", resources["storage"]),
        config=dict(values.get("config") or {}),
        env=_environment("bot_env", values.get("env")),
        api_keys=_environment("bot_api_keys", values.get("api_keys"), secret=True),
        gateway_token=values.get("gateway_token") or None,
    )


def parse_all(bots: t.Iterable[t.Mapping[str, t.Any]], substrate: Substrate) -> list[Bot]:
    """Validates a whole list, names unique."""
    parsed = [parse(values, substrate) for values in bots]
    names = [bot.name for bot in parsed]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise bad_value("bots", twice, "Name each bot once.")
    return parsed
