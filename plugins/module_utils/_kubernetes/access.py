# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""A kubeconfig for a service account, with a token that ends."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import time
import typing as t

from .. import _files as files
from .._errors import FleetError
from .._plan import Plan
from .client import Cluster, Json, path_of

DAY = 86400
ROOT_CA = "kube-root-ca.crt"  # which every namespace has


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The account, the file, and how long its token is good."""

    account: str
    namespace: str
    path: str
    days: int
    renew_days: int


class Access:
    """One kubeconfig."""

    def __init__(self, cluster: Cluster, wanted: Wanted, clock: t.Callable[[], float] = time.time) -> None:
        self.cluster, self.wanted, self.clock = cluster, wanted, clock
        self.uid, self.authority, self.expires = "", "", 0.0

    def plan(self) -> Plan:
        plan, wanted = Plan(), self.wanted
        account = self.cluster.get("ServiceAccount", wanted.account, wanted.namespace)
        root = self.cluster.get("ConfigMap", ROOT_CA, wanted.namespace)
        if account is None or root is None:
            plan.cannot_see(f"ServiceAccount {wanted.namespace}/{wanted.account} does not exist yet")
            return plan
        self.uid, self.authority = account["metadata"]["uid"], root["data"]["ca.crt"]
        reason = self._reason(_load(wanted.path))
        if reason:
            action = "create" if reason == "missing" else "update"
            plan.add(wanted.path, action, reason, "a kubeconfig with a new token")
        return plan

    def _reason(self, found: Json | None) -> str | None:
        """Why a new token is needed; None when the file does."""
        if found is None:
            return "missing"
        try:
            cluster, token = found["clusters"][0]["cluster"], found["users"][0]["user"]["token"]
            claims = _claims(token)
            same = (cluster["server"] == self.cluster.connection.host
                    and base64.b64decode(cluster["certificate-authority-data"]).decode() == self.authority
                    and claims["kubernetes.io"]["serviceaccount"]["uid"] == self.uid)
            self.expires = float(claims["exp"])
        except (KeyError, IndexError, TypeError, ValueError):
            raise FleetError("foreign_file", f"{self.wanted.path} exists and is not a kubeconfig of this module.",
                             "Name another path, or move the file away.") from None
        if not same:
            return "for another cluster or account"
        return "its token ends soon" if self.expires - self.clock() < self.wanted.renew_days * DAY else None

    def apply(self) -> None:
        wanted = self.wanted
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                   "spec": {"expirationSeconds": wanted.days * DAY}}
        path = path_of("ServiceAccount", wanted.namespace, wanted.account, "token")
        token = self.cluster.call("POST", path, body=request, what=f"A token of {wanted.account}")["status"]["token"]
        self.expires = float(_claims(token)["exp"])
        name = wanted.account
        data = base64.b64encode(self.authority.encode()).decode()
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": name,
            "clusters": [{"name": name, "cluster": {"server": self.cluster.connection.host,
                                                    "certificate-authority-data": data}}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": wanted.namespace}}],
        }
        # JSON is YAML, too.
        files.write(wanted.path, files.pretty(document), 0o600, os.geteuid(), os.getegid())

    def facts(self) -> dict[str, t.Any]:
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.expires)) if self.expires else None
        return {"path": self.wanted.path, "expires": ends}


def _load(path: str) -> Json | None:
    """The file, which this module writes as JSON; None when it is absent. Anything else is somebody else's."""
    text = files.read(path)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _claims(token: str) -> Json:
    """What a token says of itself. Only the server can judge whether that is true."""
    payload = token.split(".")[1]
    return t.cast("Json", json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))
