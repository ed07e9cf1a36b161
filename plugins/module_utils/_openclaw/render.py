# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""From a bot to its files: configuration, credentials, Compose project, systemd unit."""

from __future__ import annotations

import os
import typing as t

from .._bot import Bot
from .._errors import FleetError
from .._ownership import labels
from .places import CA_BUNDLE, Places

GATEWAY_PORT = 18789
TOKEN = "OPENCLAW_GATEWAY_TOKEN"  # noqa: S105 the name of a variable, not a token
SECRETS_IN_CONTAINER = "/run/secrets/openclaw.env"
HOME_IN_CONTAINER = "/home/openclaw"
PREFIX_IN_IMAGE = "/opt/openclaw"
ENTRY = "lib/node_modules/openclaw/openclaw.mjs"
#: Machine code that V8 makes at run time has to be translated once more where a processor is emulated. OpenClaw gives
#: parts of itself five seconds to start; there they take half as long without it.
INTERPRETED = ("--no-opt", "--no-maglev", "--no-sparkplug")
#: Where OpenClaw keeps compiled code, in its /tmp.
COMPILED = "/tmp/node-compile-cache"  # noqa: S108 the unit has a /tmp of its own


class Installation(t.NamedTuple):
    """An unpacked artefact on the host, the image that was built of it, and a Node.js to run instead of its own."""

    prefix: str
    image: str | None
    own_node: str | None = None

    @property
    def node(self) -> str:
        """The program; resolved, so that a link that points elsewhere is another unit and a restart."""
        return os.path.realpath(self.own_node) if self.own_node else f"{self.prefix}/bin/node"

    @property
    def path(self) -> str:
        """The directories of programs."""
        return ":".join(dict.fromkeys([os.path.dirname(self.node), f"{self.prefix}/bin"]))


def merge(base: t.Mapping[str, t.Any], over: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Mappings are merged, everything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merge(result[key], value) if both else value
    return result


def config(bot: Bot, port: int) -> dict[str, t.Any]:
    """openclaw.json: the operator's mapping over what the collection needs. The bind is always written:
    without it the gateway guesses, and listens on every address where it takes the machine for a container."""
    contained = bot.runtime == "container"
    base: dict[str, t.Any] = {
        "gateway": {
            "mode": "local",
            "bind": "lan" if contained else "loopback",
            "port": GATEWAY_PORT if contained else port,
            "auth": {"mode": "token", "token": "${" + TOKEN + "}"},
        },
    }
    if contained:
        base["gateway"]["controlUi"] = {"allowedOrigins": [f"http://127.0.0.1:{port}", f"http://localhost:{port}"]}
    return merge(base, bot.config)


def env_text(values: t.Mapping[str, str]) -> str:
    """An environment file as node --env-file reads it; backticks quote because values never have one."""
    return "".join(f"{key}=`{value}`\n" for key, value in sorted(values.items()))


def parse_env(text: str | None) -> dict[str, str]:
    pairs = (line.partition("=") for line in (text or "").splitlines() if "=" in line)
    return {key: value.strip("`") for key, _sign, value in pairs}


def environment(bot: Bot, places: Places) -> dict[str, str]:
    """Settings that are no secrets."""
    contained = bot.runtime == "container"
    home = HOME_IN_CONTAINER if contained else places.home
    state = f"{HOME_IN_CONTAINER}/.openclaw" if contained else places.state
    programs = f"{PREFIX_IN_IMAGE}/bin" if contained else "{programs}"
    # V8 does not see the memory limit in time: three quarters of it keep the kernel from killing the gateway.
    heap = bot.memory * 3 // 4 // 1024**2
    return {
        "HOME": home,
        "PATH": f"{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "NODE_ENV": "production",
        "NODE_OPTIONS": f"--max-old-space-size={heap}",
        "NODE_EXTRA_CA_CERTS": CA_BUNDLE,
        "OPENCLAW_STATE_DIR": state,
        "OPENCLAW_CONFIG_PATH": "/etc/openclaw/openclaw.json" if contained else places.config,
        "OPENCLAW_CONFIG_READONLY": "1",
        "OPENCLAW_NO_AUTO_UPDATE": "1",
        "OPENCLAW_DISABLE_BONJOUR": "1",
        "OPENCLAW_SERVICE_REPAIR_POLICY": "external",
        **bot.env,
    }


def compose(bot: Bot, places: Places, fleet: str, port: int, image: str, owner: tuple[int, int],
            emulated: bool = False) -> dict[str, t.Any]:
    """The Compose project of one bot; JSON is YAML, and compares without a parser."""
    uid, gid = owner
    service = {
        "image": image,
        "pull_policy": "never",
        "container_name": places.container,
        "hostname": places.container,
        "user": f"{uid}:{gid}",
        "init": True,
        "restart": "no",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": 512,
        "mem_limit": bot.memory,
        "memswap_limit": bot.memory,
        "cpus": bot.cpus,
        "stop_grace_period": "60s",
        "ports": [f"127.0.0.1:{port}:{GATEWAY_PORT}"],
        "networks": ["bot"],
        "environment": {key: value.replace("$", "$$") for key, value in environment(bot, places).items()},
        "tmpfs": ["/tmp:mode=1777,size=512m",  # noqa: S108 a mount of its own
                  f"{HOME_IN_CONTAINER}:mode=0700,uid={uid},gid={gid},size=256m"],
        "volumes": [
            {"type": "bind", "source": places.state, "target": f"{HOME_IN_CONTAINER}/.openclaw"},
            {"type": "bind", "source": places.config_dir, "target": "/etc/openclaw", "read_only": True},
            {"type": "bind", "source": f"/run/{places.runtime_dir}/openclaw.env", "target": SECRETS_IN_CONTAINER,
             "read_only": True},
            {"type": "bind", "source": CA_BUNDLE, "target": CA_BUNDLE, "read_only": True},
            {"type": "bind", "source": places.passwd, "target": "/etc/passwd", "read_only": True},
        ],
        "labels": labels(fleet, "bot", bot.name, [bot.version, port]),
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
    }
    if emulated:
        service |= {"entrypoint": ["node", *INTERPRETED, f"--env-file={SECRETS_IN_CONTAINER}",
                                   f"{PREFIX_IN_IMAGE}/{ENTRY}"], "command": ["gateway", "run"]}
    bridge = {"name": places.container, "driver_opts": {"com.docker.network.bridge.name": places.bridge},
              "labels": labels(fleet, "bot", bot.name, [])}
    return {"name": places.container, "services": {"gateway": service}, "networks": {"bot": bridge}}


def passwd(owner: tuple[int, int]) -> str:
    """The users of the container. OpenSSH and others refuse to run for a user without a name."""
    uid, gid = owner
    return f"root:x:0:0::/root:/usr/sbin/nologin\nopenclaw:x:{uid}:{gid}::{HOME_IN_CONTAINER}:/bin/bash\n"


def _container_unit(bot: Bot, places: Places) -> dict[str, list[str]]:
    compose_command = f"/usr/bin/docker compose --project-directory {places.project} --file {places.compose}"
    return {
        "Unit": ["After=docker.service network-online.target", "Wants=docker.service network-online.target"],
        "Service": [
            "Type=exec",
            f"RuntimeDirectory={places.runtime_dir}",
            "RuntimeDirectoryMode=0700",
            f"LoadCredential=openclaw.env:{places.credentials}",
            # The credential is root's at rest; the copy that the bot reads lives and dies with the unit.
            f"ExecStartPre=/usr/bin/install -m 0400 -o {places.user} -g {places.user} "
            f"%d/openclaw.env /run/{places.runtime_dir}/openclaw.env",
            f"ExecStart={compose_command} up --no-build --no-color --no-log-prefix --abort-on-container-exit",
            f"ExecStop={compose_command} stop",
            "Restart=always",
            "RestartSec=5",
            "SuccessExitStatus=0 130 143",
            "TimeoutStopSec=90",
        ],
    }


def _host_unit(bot: Bot, places: Places, installation: Installation, emulated: bool) -> dict[str, list[str]]:
    flags = "".join(f"{flag} " for flag in INTERPRETED) if emulated else ""
    variables = [f'Environment="{key}={value.replace("{programs}", installation.path)}"'.replace("%", "%%")
                 for key, value in environment(bot, places).items()]
    return {
        "Unit": ["After=network-online.target", "Wants=network-online.target"],
        "Service": [
            "Type=exec",
            f"User={places.user}",
            f"WorkingDirectory={places.state}",
            *variables,
            f"LoadCredential=openclaw.env:{places.credentials}",
            f"ExecStart={installation.node} {flags}--env-file=%d/openclaw.env {installation.prefix}/{ENTRY} "
            "gateway run",
            "Restart=always",
            "RestartSec=5",
            "RestartPreventExitStatus=78",
            "SuccessExitStatus=0 143",
            "KillMode=mixed",
            "TimeoutStopSec=330",
            f"MemoryMax={bot.memory}",
            "MemorySwapMax=0",
            f"CPUQuota={bot.cpus * 100:g}%",
            "TasksMax=512",
            "UMask=0077",
            "NoNewPrivileges=yes",
            "CapabilityBoundingSet=",
            "ProtectSystem=strict",
            f"ReadWritePaths={places.state}",
            "ProtectHome=" + ("no" if places.home.startswith("/home/") else "yes"),
            "PrivateTmp=yes",
            # What was compiled outlives a restart.
            f"CacheDirectory={places.cache_dir}",
            "CacheDirectoryMode=0700",
            f"BindPaths=/var/cache/{places.cache_dir}:{COMPILED}",
            "PrivateDevices=yes",
            "ProtectKernelTunables=yes",
            "ProtectKernelModules=yes",
            "ProtectKernelLogs=yes",
            "ProtectControlGroups=yes",
            "ProtectClock=yes",
            "ProtectHostname=yes",
            # Not RestrictSUIDSGID: it takes openat2 away, which OpenClaw locks with, and nothing gains privileges here.
            "RestrictRealtime=yes",
            "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
            "LockPersonality=yes",
            "SystemCallArchitectures=native",
            "InaccessiblePaths=-/etc/clawops -/var/run/docker.sock",
        ],
    }


def unit(bot: Bot, places: Places, installation: Installation, emulated: bool = False) -> str:
    """The systemd unit: drives Compose (container) or runs the gateway itself (host)."""
    sections = (_container_unit(bot, places) if bot.runtime == "container"
                else _host_unit(bot, places, installation, emulated))
    sections["Unit"] = [f"Description=OpenClaw bot {bot.name} ({bot.runtime})", *sections["Unit"],
                        "StartLimitIntervalSec=300", "StartLimitBurst=10"]
    sections["Install"] = ["WantedBy=multi-user.target"]
    head = "# Managed by clawops.fleet\n"
    return head + "\n".join(f"[{name}]\n" + "".join(f"{line}\n" for line in lines)
                            for name, lines in sections.items())


def image_of(installation: Installation) -> str:
    if installation.image is None:
        raise FleetError("no_image", "A bot in a container needs an image of its release.",
                         "Run the role openclaw, which builds it.")
    return installation.image
