# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The least that creates spaces, sees that they are unchanged, or removes them, by the engine's bare API.

The verb `learn` writes down, in the file `learnt`, which spaces are there; `started` starts from that.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import pathlib
import socket
import threading
import typing as t
import urllib.parse

Json = dict[str, t.Any]
WORKERS = 4
HERE = pathlib.Path(__file__).parent
local = threading.local()


class Connection(http.client.HTTPConnection):
    """To the engine's socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect("/var/run/docker.sock")


def call(method: str, path: str, body: Json | None = None) -> t.Any:
    connection = getattr(local, "connection", None)
    if connection is None:
        connection = local.connection = Connection("localhost")
    connection.request(method, path, json.dumps(body) if body else None,
                       {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 400:
        raise RuntimeError(f"{method} {path}: {answer.status} {text!r}")
    return json.loads(text) if text else None


def listed(what: str, label: str) -> list[Json]:
    query = urllib.parse.urlencode({"filters": json.dumps({"label": [label]}), "all": "1"})
    found = call("GET", f"/{what}?{query}")
    return list(found["Volumes"] or [] if what == "volumes" else found)


def observe(label: str) -> dict[str, dict[str, Json]]:
    containers = [call("GET", f"/containers/{one['Id']}/json") for one in listed("containers/json", label)]
    return {"networks": {one["Name"]: one for one in listed("networks", label)},
            "volumes": {one["Name"]: one for one in listed("volumes", label)},
            "containers": {one["Name"][1:]: one for one in containers}}


def described(found: dict[str, dict[str, Json]]) -> dict[str, dict[str, Json]]:
    """As it would be asked for."""
    networks = {name: {key: one[key] for key in ("Name", "Driver", "Internal", "EnableIPv6", "Options", "Labels")}
                for name, one in found["networks"].items()}
    volumes = {name: {"Name": name, "Labels": one["Labels"]} for name, one in found["volumes"].items()}
    containers = {name: {**one["Config"], "HostConfig": one["HostConfig"], "NetworkingConfig": _joined(one)}
                  for name, one in found["containers"].items()}
    return {"networks": networks, "volumes": volumes, "containers": containers}


def _joined(container: dict[str, t.Any]) -> dict[str, t.Any]:
    return {"EndpointsConfig": {network: {} for network in container["NetworkSettings"]["Networks"]}}


def each(work: t.Callable[[t.Any], object], items: t.Iterable[t.Any]) -> None:
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(work, items))


def present(wanted: dict[str, dict[str, Json]], found: dict[str, dict[str, Json]]) -> bool:
    has = described(found)
    lacking = {kind: {name: one for name, one in objects.items() if has[kind].get(name) != one}
               for kind, objects in wanted.items()}
    stopped = [name for name, one in found["containers"].items() if not one["State"]["Running"]]

    def make(name: str) -> None:
        for kind, prefix in (("networks", "clawdspace-"), ("volumes", "clawdspace-vol-")):
            body = lacking[kind].get(name.replace("clawdspace-", prefix))
            if body:
                call("POST", f"/{kind}/create", body)
        call("POST", f"/containers/create?name={name}", lacking["containers"][name])
        call("POST", f"/containers/{name}/start")

    each(make, lacking["containers"])
    each(lambda name: call("POST", f"/containers/{name}/start"), stopped)
    return any(lacking.values()) or bool(stopped)


def absent(found: dict[str, dict[str, Json]]) -> bool:
    def remove(name: str) -> None:
        call("DELETE", f"/containers/{name}?force=1")
        for network in found["containers"][name]["NetworkSettings"]["Networks"]:
            call("DELETE", f"/networks/{network}")
        call("DELETE", f"/volumes/{name.replace('clawdspace-', 'clawdspace-vol-')}")

    each(remove, found["containers"])
    return bool(found["containers"])


def main() -> None:
    plan = json.loads((HERE / "args").read_bytes())
    found, learnt = observe(plan["label"]), pathlib.Path(plan["learnt"])
    if plan["verb"] == "learn":
        learnt.write_text(json.dumps(described(found)))
        changed = False
    else:
        changed = absent(found) if plan["verb"] == "absent" else present(json.loads(learnt.read_bytes()), found)
    print(json.dumps({"changed": changed}))
