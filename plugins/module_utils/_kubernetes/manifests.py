# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""From a bot to the objects that it is in a cluster."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
import typing as t

from .._bot import VOLUMES, Bot
from .._errors import FleetError
from .._openclaw import render
from .._openclaw.places import Places
from .._ownership import FLEET, MANAGED, PREFIX, digest, labels
from .._quantity import parse_bytes
from .client import KINDS, Json

KEYS_DIGEST, CONFIG_DIGEST, VERSION = f"{PREFIX}/keys", f"{PREFIX}/config", f"{PREFIX}/version"
PROFILE = f"{PREFIX}/profile"
#: At the claim of the state: that the bot is being moved, or has left.
MOVE = f"{PREFIX}/move"
VNC_PASSWORD = "VNC_PASSWORD"  # noqa: S105 the name of a variable
CONFIG_FILE = "openclaw.json"
HOME = render.HOME_IN_CONTAINER
PLACES = {"clawdbot": f"{HOME}/.openclaw", "clawd": f"{HOME}/clawd", "chrome": f"{HOME}/.config/chromium",
          "homebrew": "/home/linuxbrew/.linuxbrew"}
CHROME, TERMINAL, SSH = 6081, 6082, 22
#: What a bot has no business with: private networks, the node's neighbours, metadata services.
PRIVATE = {"0.0.0.0/0": ["10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
                         "192.168.0.0/16"],
           "::/0": ["fc00::/7", "fe80::/10"]}
USER = 1000
# A fresh volume belongs to root, and is empty where the image has Homebrew.
PREPARE = f"""set -eu
for place in {PLACES['clawdbot']} {PLACES['clawd']} {PLACES['chrome']} {PLACES['homebrew']}; do
  [ "$(stat -c %u "$place")" = {USER} ] || chown {USER}:{USER} "$place"
done
cd {PLACES['homebrew']}
if [ -d /opt/homebrew ] && [ ! -e .seeded ]; then
  cp -a /opt/homebrew/. .
  touch .seeded
fi
"""


@dataclasses.dataclass(frozen=True)
class Site:
    """What all bots of a cluster have in common."""

    fleet: str
    namespace: str = "claworc"
    gateway_namespace: str = "claworc-gateway"
    gateway_image: str | None = None
    desktop_image: str | None = None
    allowed_destinations: tuple[str, ...] = ()
    image_pull_secrets: tuple[str, ...] = ()

    def namespace_of(self, profile: str) -> str:
        return self.namespace if profile == "desktop" else self.gateway_namespace

    def image_of(self, bot: Bot) -> str:
        image = bot.pod.image or (self.desktop_image if bot.profile == "desktop" else self.gateway_image)
        if not image:
            raise FleetError("no_image", f"{bot.name}: there is no image for profile {bot.profile}.",
                             f"Give {bot.profile}_image, which the role bot_image builds.")
        return image


def size(amount: int) -> str:
    """Bytes as the API server writes them."""
    for units, base in ((("Ti", "Gi", "Mi", "Ki"), 1024), (("T", "G", "M", "k"), 1000)):
        for place, unit in enumerate(units):
            if amount % base**(4 - place) == 0:
                return f"{amount // base**(4 - place)}{unit}"
    return str(amount)


def cpus(amount: float) -> str:
    """Processors as the API server writes them."""
    milli = max(1, round(amount * 1000))
    return f"{milli}m" if milli % 1000 else str(milli // 1000)


def claims(bot: Bot) -> dict[str, int]:
    """The volumes of a bot with their sizes. A gateway has a workspace of its own only where it was given a size."""
    wanted = VOLUMES[bot.profile] if bot.profile == "desktop" else {"clawdbot", *bot.pod.volume_sizes}
    return {name: bot.pod.volume_sizes.get(name, bot.storage) for name in VOLUMES[bot.profile] if name in wanted}


def keys_digest(keys: t.Mapping[str, str]) -> str:
    """Tells one set of keys from another. Without the token in it, 256 random bits, nobody can try guesses on it."""
    text = json.dumps(dict(keys), sort_keys=True).encode()
    return hmac.new(keys.get(render.TOKEN, "").encode(), text, hashlib.sha256).hexdigest()[:16]


def config_text(bot: Bot) -> str:
    """openclaw.json. In its pod a bot is what it is in a container: alone, with the ports of its own."""
    contained = dataclasses.replace(bot, runtime="container")
    return json.dumps(render.config(contained, render.GATEWAY_PORT), indent=2, sort_keys=True) + "\n"


def config_digest(text: str) -> str:
    return digest(text)[:16]


def service(name: str, site: Site, namespace: str, pair: int, sources: t.Sequence[str] = ()) -> Json:
    """The Service of a desktop bot, which holds its pair of ports."""
    ports = [{"name": port, "port": inside, "targetPort": inside, "nodePort": outside, "protocol": "TCP"}
             for port, inside, outside in (("chrome", CHROME, pair), ("terminal", TERMINAL, pair + 1))]
    # With the policy Cluster a network policy sees a node's address where the client's should be.
    spec = {"type": "NodePort", "selector": {"app": f"bot-{name}"}, "ports": ports, "publishNotReadyAddresses": True,
            "externalTrafficPolicy": "Local" if sources else "Cluster"}
    return _object("Service", f"bot-{name}-vnc", name, site, namespace, {"spec": spec})


def objects(bot: Bot, site: Site, keys: t.Mapping[str, str], pair: int | None, replicas: int,
            started_with: str | None = None) -> list[Json]:
    """Everything that the bot is, in the order in which it is written.

    started_with is the digest of the configuration that its pod shall be known by, where that is another one.
    """
    namespace = site.namespace_of(bot.profile)

    def make(kind: str, name: str, body: Json, spec: t.Any = None) -> Json:
        return _object(kind, name, bot.name, site, namespace, body, spec)

    name, config = f"bot-{bot.name}", config_text(bot)
    data = {key: base64.b64encode(value.encode()).decode() for key, value in keys.items()}
    made = [
        make("ServiceAccount", name, {"automountServiceAccountToken": False}),
        make("NetworkPolicy", name, {"spec": _policy(bot, site)}),
        make("Secret", f"{name}-keys", {"type": "Opaque", "data": data}, keys_digest(keys)),
        make("ConfigMap", f"{name}-config", {"data": {CONFIG_FILE: config}}),
    ]
    for volume, amount in claims(bot).items():
        spec: Json = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size(amount)}}}
        if bot.pod.storage_class:
            spec["storageClassName"] = bot.pod.storage_class
        made.append(make("PersistentVolumeClaim", f"{name}-{volume}", {"spec": spec}))
    if pair is not None:
        made.append(service(bot.name, site, namespace, pair, bot.pod.allowed_sources))
    notes = {CONFIG_DIGEST: started_with or config_digest(config), KEYS_DIGEST: keys_digest(keys)}
    made.append(_deployment(bot, site, namespace, notes, replicas))
    return made


def _object(kind: str, name: str, bot: str, site: Site, namespace: str, body: Json, spec: t.Any = None) -> Json:
    marks = labels(site.fleet, "bot", bot, body if spec is None else spec)
    return {"apiVersion": KINDS[kind][0], "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "labels": {**marks, "app": f"bot-{bot}"}}, **body}


def _policy(bot: Bot, site: Site) -> Json:
    """In: the two pages, from whom they are for. Out: names, the internet, and what was allowed besides."""
    outside = [{"ipBlock": {"cidr": cidr, "except": private}} for cidr, private in PRIVATE.items()]
    outside += [{"ipBlock": {"cidr": cidr}} for cidr in site.allowed_destinations]
    names = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    policy: Json = {"podSelector": {"matchLabels": {"app": f"bot-{bot.name}"}}, "policyTypes": ["Ingress", "Egress"],
                    "egress": [{"ports": names}, {"to": outside}]}
    if bot.profile == "desktop":
        pages: Json = {"ports": [{"protocol": "TCP", "port": port} for port in (CHROME, TERMINAL)]}
        if bot.pod.allowed_sources:
            pages["from"] = [{"ipBlock": {"cidr": cidr}} for cidr in bot.pod.allowed_sources]
        policy["ingress"] = [pages]
    return policy


def _deployment(bot: Bot, site: Site, namespace: str, annotations: dict[str, str], replicas: int) -> Json:
    name = f"bot-{bot.name}"
    marks = {"app": name, MANAGED: "true", FLEET: site.fleet, f"{PREFIX}/bot": bot.name}
    template = {"metadata": {"labels": marks, "annotations": annotations}, "spec": _pod(bot, site)}
    spec = {"replicas": replicas, "revisionHistoryLimit": 2, "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"app": name}}, "template": template}
    made = _object("Deployment", name, bot.name, site, namespace, {"spec": spec})
    made["metadata"]["annotations"] = {VERSION: bot.version, PROFILE: bot.profile}
    return made


def _pod(bot: Bot, site: Site) -> Json:
    desktop = bot.profile == "desktop"
    volumes: Json = {volume: {"persistentVolumeClaim": {"claimName": f"bot-{bot.name}-{volume}"}}
                     for volume in claims(bot)}
    mounts: list[Json] = [{"name": volume, "mountPath": PLACES[volume]} for volume in claims(bot)]
    volumes["config"] = {"configMap": {"name": f"bot-{bot.name}-config", "defaultMode": 0o444}}
    mounts.append({"name": "config", "mountPath": "/etc/openclaw", "readOnly": True})
    for volume, path, source in _scratch(bot):
        volumes[volume] = source
        mounts.append({"name": volume, "mountPath": path})
    for extra in bot.pod.extra_volumes:
        volumes[extra["name"]] = _extra(extra)
        mounts.append({"name": extra["name"], "mountPath": extra["mount_path"],
                       **({"readOnly": True} if extra.get("read_only") else {})})
    image = site.image_of(bot)
    pod: Json = {
        "hostname": f"bot-{bot.name}",
        "serviceAccountName": f"bot-{bot.name}",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 60,
        "containers": [_container(bot, image, mounts)],
        "volumes": [{"name": volume, **source} for volume, source in volumes.items()],
    }
    if desktop:
        kept = [mount for mount in mounts if mount["name"] in claims(bot)]
        pod["initContainers"] = [{
            "name": "prepare", "image": image, "command": ["/bin/sh", "-c", PREPARE], "volumeMounts": kept,
            "securityContext": {"runAsUser": 0}}]
    else:
        pod["securityContext"] = {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"}}
    for key, value in (("nodeSelector", bot.pod.node_selector), ("tolerations", bot.pod.tolerations),
                       ("imagePullSecrets", [{"name": secret} for secret in site.image_pull_secrets])):
        if value:
            pod[key] = value
    return pod


def _scratch(bot: Bot) -> list[tuple[str, str, Json]]:
    """What a bot writes and may lose, and its SSH identity."""
    if bot.profile != "desktop":
        limit = {"emptyDir": {"sizeLimit": "512Mi"}}
        return [("tmp", "/tmp", limit), ("home", HOME, limit)]  # noqa: S108 a mount of its own
    files = [{"key": key, "path": key, "mode": 0o400}
             for key in ("ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "authorized_keys")]
    secret = {"secretName": f"bot-{bot.name}-ssh", "items": files, "defaultMode": 0o400, "optional": True}
    memory = {"emptyDir": {"medium": "Memory"}}
    return [("run", "/run", memory), ("tmp", "/tmp", memory),  # noqa: S108 a mount of its own
            ("shm", "/dev/shm", {"emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}}),  # noqa: S108
            ("ssh", "/etc/openclaw-ssh", {"secret": secret})]


def _extra(volume: t.Mapping[str, t.Any]) -> Json:
    if "claim" in volume:
        return {"persistentVolumeClaim": {"claimName": volume["claim"]}}
    if "config_map" in volume:
        return {"configMap": {"name": volume["config_map"]}}
    if "secret" in volume:
        return {"secret": {"secretName": volume["secret"]}}
    return {"emptyDir": {"sizeLimit": size(parse_bytes("bot_extra_volumes.empty_dir", volume["empty_dir"]))}}


def _container(bot: Bot, image: str, mounts: list[Json]) -> Json:
    desktop = bot.profile == "desktop"
    variables = render.environment(dataclasses.replace(bot, runtime="container"), Places(bot.name))
    if desktop and bot.pod.allow_passwordless:
        variables["VNC_PASSWORDLESS"] = "1"
    # The status alone says nothing: unknown paths answer 200 with a page.
    ready = {"exec": {"command": ["/opt/openclaw/bin/openclaw-ready"]}, "timeoutSeconds": 5}
    port = CHROME if desktop else render.GATEWAY_PORT
    alive = {"tcpSocket": {"port": port}, "periodSeconds": 30, "timeoutSeconds": 5}
    pages = {"chrome": CHROME, "terminal": TERMINAL, "ssh": SSH} if desktop else {}
    return {
        "name": "openclaw",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "envFrom": [{"secretRef": {"name": f"bot-{bot.name}-keys"}}],
        "env": [{"name": name, "value": value} for name, value in sorted(variables.items())],
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"}
                  for name, port in {"gateway": render.GATEWAY_PORT, **pages}.items()],
        "volumeMounts": mounts,
        "resources": {"limits": {"memory": size(bot.memory), "cpu": cpus(bot.cpus)},
                      "requests": {"memory": size(bot.memory // 4), "cpu": cpus(bot.cpus / 4)}},
        # A first start moves data to a new release, which takes its time and must not be cut off.
        "startupProbe": {**ready, "periodSeconds": 2, "failureThreshold": 300},
        "readinessProbe": {**ready, "periodSeconds": 10},
        "livenessProbe": alive,
        "securityContext": {"privileged": True} if desktop else {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
    }
