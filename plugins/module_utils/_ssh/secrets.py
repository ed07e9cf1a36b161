# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Identities as Secrets bot-{name}-ssh of a cluster."""

from __future__ import annotations

import base64
import typing as t

from .. import _ownership as ownership
from .._kubernetes.client import Cluster
from . import keys, tunnel
from .identity import Owner
from .server import Server

Json = dict[str, t.Any]
TOUCHED = "clawops.fleet/identity"
# The server copies its key when it starts. Its connections go on.
TAKE = ["sh", "-c", f"cmp --silent - /etc/openclaw-ssh/{keys.HOST_PUBLIC} && systemctl restart ssh"]


def secret_name(bot: str) -> str:
    return f"bot-{bot}-ssh"


def decoded(secret: t.Mapping[str, t.Any]) -> dict[str, str]:
    """The data of a Secret as text."""
    return {name: base64.b64decode(value).decode() for name, value in (secret.get("data") or {}).items()}


class Secrets:
    """The store of a cluster. One LIST for each namespace; what that does not show is asked for by name."""

    def __init__(self, cluster: Cluster, fleet: str, user: str) -> None:
        self.cluster, self.fleet, self.user = cluster, fleet, user
        self._objects: dict[str, Json] = {}

    def read(self, owners: t.Sequence[Owner]) -> dict[str, keys.Identity]:
        selector = f"{keys.PURPOSE_LABEL}={keys.PURPOSE}"
        listed = {(namespace, secret["metadata"]["name"]): secret
                  for namespace in sorted({owner.namespace for owner in owners})
                  for secret in self.cluster.list("Secret", namespace, selector)}
        for owner in owners:
            name = secret_name(owner.bot)
            secret = listed.get((owner.namespace, name)) or self.cluster.get("Secret", name, owner.namespace)
            if secret:
                ownership.guard(f"Secret {owner.namespace}/{name}", secret["metadata"].get("labels"), "bot", owner.bot)
                self._objects[owner.bot] = secret
        return {bot: decoded(secret) for bot, secret in self._objects.items()}

    def write(self, owner: Owner, identity: keys.Identity) -> None:
        before = self._objects.get(owner.bot)
        data = {name: base64.b64encode(text.encode()).decode() for name, text in identity.items()}
        if before is None:
            labels = {**ownership.labels(self.fleet, "bot", owner.bot, None), keys.PURPOSE_LABEL: keys.PURPOSE}
            metadata = {"name": secret_name(owner.bot), "namespace": owner.namespace, "labels": labels}
            written = self.cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata,
                                           "type": "Opaque", "data": data})
        else:
            # The version makes the server refuse if somebody else was faster; null takes a key away.
            gone = dict.fromkeys(before.get("data") or {})
            body = {"metadata": {"resourceVersion": before["metadata"]["resourceVersion"],
                                 "labels": {keys.PURPOSE_LABEL: keys.PURPOSE}}, "data": {**gone, **data}}
            written = self.cluster.patch("Secret", secret_name(owner.bot), body, owner.namespace)
        self._objects[owner.bot] = written

    def server(self, owner: Owner) -> Server | None:
        pod = tunnel.running_pod(self.cluster, owner.namespace, owner.bot)
        if pod is None:
            return None
        return Server(f"{owner.bot} (pod {owner.namespace}/{pod})", self.user,
                      lambda: tunnel.connect(self.cluster, owner.namespace, pod))

    def hasten(self, owner: Owner, identity: keys.Identity) -> None:
        """A changed pod makes its node look again at what it mounts, which takes a minute otherwise."""
        pod = tunnel.running_pod(self.cluster, owner.namespace, owner.bot)
        if pod:
            mark = ownership.digest([identity[keys.AUTHORIZED], *keys.pinned(identity)])[:16]
            self.cluster.patch("Pod", pod, {"metadata": {"annotations": {TOUCHED: mark}}}, owner.namespace)

    def present(self, owner: Owner, identity: keys.Identity) -> None:
        pod = tunnel.running_pod(self.cluster, owner.namespace, owner.bot)
        if pod:
            self.cluster.exec(owner.namespace, pod, TAKE, identity[keys.HOST_PUBLIC].encode())
