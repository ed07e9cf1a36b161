# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The least that brings objects of a cluster to what they are to be: one LIST a kind, and what differs is applied.

The objects come ready, each with the path of its collection. With `wipe` everything in the collections goes away.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import pathlib
import ssl
import threading
import time
import typing as t
import urllib.parse

Json = dict[str, t.Any]
WORKERS = 8
HERE = pathlib.Path(__file__).parent


class Server:
    """One connection a thread."""

    def __init__(self, plan: Json) -> None:
        self._host, self._local = urllib.parse.urlsplit(plan["server"]), threading.local()
        self._tls = ssl.create_default_context(cafile=plan["ca"])
        self._tls.load_cert_chain(plan["certificate"], plan["key"])

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPSConnection(self._host.hostname, self._host.port, context=self._tls)
            self._local.connection = connection
        connection.request(method, path, json.dumps(body) if body else None,
                           {"Content-Type": "application/apply-patch+yaml"} if body else {})
        answer = connection.getresponse()
        found: Json = json.loads(answer.read())
        if answer.status >= 300 and not (method == "DELETE" and answer.status == 404):
            raise RuntimeError(f"{method} {path}: {found.get('message')}")
        return found


def covers(wanted: t.Any, found: t.Any) -> bool:
    if isinstance(wanted, dict):
        return (isinstance(found, dict) and all(covers(value, found.get(key)) for key, value in wanted.items())
                ) or (not wanted and found is None)
    if isinstance(wanted, list):
        return isinstance(found, list) and len(wanted) == len(found) and all(map(covers, wanted, found))
    return bool(wanted == found)


def main() -> None:
    plan = json.loads((HERE / "args").read_bytes())
    server, query = Server(plan), "?" + urllib.parse.urlencode({"labelSelector": plan["selector"]})

    def listed() -> list[tuple[str, Json]]:
        return [(path, item) for path in plan["collections"] for item in server.call("GET", path + query)["items"]]

    def each(work: t.Callable[[t.Any], object], items: t.Iterable[t.Any]) -> None:
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(work, items))

    found = {f"{path}/{item['metadata']['name']}": item for path, item in listed()}
    if plan.get("wipe"):
        each(lambda path: server.call("DELETE", path), found)
        while listed():
            time.sleep(0.2)
        print(json.dumps({"changed": bool(found)}))
        return
    differing = {path: body for path, body in plan["objects"].items()
                 if not covers(body, {**found.get(path, {}), **{key: body[key] for key in ("apiVersion", "kind")}})}
    if differing:
        each(lambda path: server.call("PATCH", f"{path}?fieldManager=clawops.fleet&force=true", differing[path]),
             differing)
    print(json.dumps({"changed": bool(differing)}))
