# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The API of a cluster, as plain JSON: few calls, bounded retries, one clear error."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import ssl
import time
import typing as t
import urllib.parse

from .._errors import FleetError
from .connection import Connection, connect, missing
from .wire import Answer, Wire

Json = dict[str, t.Any]
Objects = list[Json]
MANAGER = "clawops.fleet"
#: kind -> (API version, name in paths)
KINDS = {
    "ConfigMap": ("v1", "configmaps"),
    "Deployment": ("apps/v1", "deployments"),
    "Event": ("v1", "events"),
    "Job": ("batch/v1", "jobs"),
    "LimitRange": ("v1", "limitranges"),
    "Namespace": ("v1", "namespaces"),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims"),
    "Pod": ("v1", "pods"),
    "ResourceQuota": ("v1", "resourcequotas"),
    "Role": ("rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", "rolebindings"),
    "ClusterRole": ("rbac.authorization.k8s.io/v1", "clusterroles"),
    "ClusterRoleBinding": ("rbac.authorization.k8s.io/v1", "clusterrolebindings"),
    "Secret": ("v1", "secrets"),
    "Service": ("v1", "services"),
    "ServiceAccount": ("v1", "serviceaccounts"),
}
GLOBAL = {"Namespace", "ClusterRole", "ClusterRoleBinding"}
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"
_ENV = {name: f"K8S_AUTH_{variable}" for name, variable in {
    "kubeconfig": "KUBECONFIG", "context": "CONTEXT", "host": "HOST", "api_key": "API_KEY", "ca_cert": "SSL_CA_CERT",
    "client_cert": "CERT_FILE", "client_key": "KEY_FILE", "validate_certs": "VERIFY_SSL", "proxy": "PROXY"}.items()}


class Reply(t.NamedTuple):
    """What the server answered."""

    status: int
    body: bytes
    retry_after: str | None = None


class Done(t.NamedTuple):
    """What a command in a pod said, and how it ended."""

    rc: int
    out: str
    err: str


def kubernetes_options(fallback: t.Callable[..., t.Any]) -> Json:
    """The part of an argument spec that says which cluster; the names are those of kubernetes.core."""
    kinds: dict[str, Json] = {
        "kubeconfig": {"type": "raw"}, "context": {"type": "str"}, "host": {"type": "str"},
        "api_key": {"type": "str", "no_log": True}, "ca_cert": {"type": "path", "aliases": ["ssl_ca_cert"]},
        "client_cert": {"type": "path", "aliases": ["cert_file"]},
        "client_key": {"type": "path", "aliases": ["key_file"], "no_log": False},
        "validate_certs": {"type": "bool", "aliases": ["verify_ssl"]}, "proxy": {"type": "str"}}
    return {name: {**option, "fallback": (fallback, [_ENV[name]])} for name, option in kinds.items()}


def path_of(kind: str, namespace: str | None = None, name: str | None = None, part: str | None = None) -> str:
    """The path of a collection or object."""
    version, plural = KINDS[kind]
    words = ["api" if "/" not in version else "apis", version]
    if namespace and kind not in GLOBAL:
        words += ["namespaces", namespace]
    return "/" + "/".join([*words, plural, *(word for word in (name, part) if word)])


def subject(obj: t.Mapping[str, t.Any]) -> str:
    """How messages and plans call an object."""
    metadata = obj["metadata"]
    return " ".join([obj["kind"], "/".join(filter(None, [metadata.get("namespace"), metadata["name"]]))])


class Cluster:
    """One API server. Threads may share it."""

    def __init__(self, connection: Connection, patience: float = 90.0):
        self.connection, self.patience, self._wire = connection, patience, Wire(connection)
        self._headers = {"Accept": "application/json", "User-Agent": MANAGER, **connection.headers}
        self._answered = False

    @classmethod
    def of(cls, options: t.Mapping[str, t.Any]) -> Cluster:
        """The cluster that the options of a module name."""
        return cls(connect(options))

    # -- one call ------------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, query: t.Mapping[str, str] | None = None, body: t.Any = None,
             content: str = "application/json", what: str = "") -> t.Any:
        """The server's answer as JSON. Retried while the server is away or overloaded, for a bounded time."""
        data = None if body is None else json.dumps(body).encode()
        end, tries = time.monotonic() + (self.patience if self._answered else 8.0), 0
        while True:
            reply = self._send(method, _target(path, query), data, content, end)
            if reply.status < 300:
                return json.loads(reply.body)
            tries += 1
            # A server that starts anew says 500 or 403 for a moment; one that means it says so again.
            hopeless = reply.status not in (429, 500, 502, 503, 504) or (reply.status == 500 and tries > 3)
            if hopeless or time.monotonic() >= end:
                raise _refused(reply, what or f"{method} {path}")
            time.sleep(min(float(reply.retry_after or 0) or 0.2 * 2**min(tries, 4), 10.0))

    def _send(self, method: str, path: str, data: bytes | None, content: str, end: float) -> Reply:
        headers = {**self._headers, "Content-Type": content}
        pause = 0.1
        while True:
            try:
                answer, body = self._wire.call(method, path, data, headers)
                self._answered = True
                return Reply(answer.status, body, answer.getheader("Retry-After"))
            except (http.client.HTTPException, OSError) as error:
                if isinstance(error, ssl.SSLError):
                    raise self._unreachable(error, "Check its address and certificate authority.") from None
                if time.monotonic() + pause >= end:
                    raise self._unreachable(error, "Check that it runs and can be reached from here.") from None
            time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 jitter
            pause = min(pause * 2, 3.0)

    def _unreachable(self, error: Exception, hint: str) -> FleetError:
        return FleetError("unreachable", f"The API server {self.connection.host} does not answer: {error}.", hint)

    # -- objects -------------------------------------------------------------------------------------------------

    def list(self, kind: str, namespace: str | None = None, selector: str | None = None) -> Objects:
        """All objects of a kind, with their kind and API version."""
        return self.list_at(kind, namespace, selector)[0]

    def list_at(self, kind: str, namespace: str | None = None, selector: str | None = None,
                fields: str | None = None) -> tuple[Objects, str]:
        """The same with the version of the list, from which a watch can go on."""
        query = {name: value for name, value in (("labelSelector", selector), ("fieldSelector", fields)) if value}
        what = f"Listing {KINDS[kind][1]} of {namespace or 'the cluster'}"
        found = self.call("GET", path_of(kind, namespace), query, what=what)
        items = [{"apiVersion": KINDS[kind][0], "kind": kind, **item} for item in found.get("items") or []]
        return items, found["metadata"].get("resourceVersion", "")

    def get(self, kind: str, name: str, namespace: str | None = None) -> Json | None:
        """The object, or None."""
        try:
            return t.cast("Json", self.call("GET", path_of(kind, namespace, name)))
        except FleetError as error:
            if error.code == "not_found":
                return None
            raise

    def apply(self, obj: Json, dry_run: bool = False, force: bool = False) -> Json:
        """Server-side apply. What the collection itself wrote in another way is no conflict."""
        metadata = obj["metadata"]
        path = path_of(obj["kind"], metadata.get("namespace"), metadata["name"])
        query = {"fieldManager": MANAGER, "force": str(force).lower(), **({"dryRun": "All"} if dry_run else {})}
        try:
            return t.cast("Json", self.call("PATCH", path, query, obj, APPLY, subject(obj)))
        except FleetError as error:
            managers = {owner["manager"] for owner in error.details.get("conflicts", [])}
            if managers == {MANAGER} and not force:
                return self.apply(obj, dry_run, force=True)
            raise

    def create(self, obj: Json, dry_run: bool = False) -> Json:
        """A new object; the error already_exists when there is one."""
        query = {"fieldManager": MANAGER, **({"dryRun": "All"} if dry_run else {})}
        path = path_of(obj["kind"], obj["metadata"].get("namespace"))
        return t.cast("Json", self.call("POST", path, query, obj, what=subject(obj)))

    def patch(self, kind: str, name: str, body: Json, namespace: str | None = None) -> Json:
        """A merge patch."""
        query, what = {"fieldManager": MANAGER}, f"{kind} {namespace}/{name}"
        return t.cast("Json", self.call("PATCH", path_of(kind, namespace, name), query, body, MERGE, what))

    def delete(self, obj: t.Mapping[str, t.Any]) -> None:
        """Deletes exactly this object, not another one that has got its name since. None is as good."""
        metadata = obj["metadata"]
        body: Json = {"propagationPolicy": "Background", "preconditions": {"uid": metadata["uid"]}}
        try:
            self.call("DELETE", path_of(obj["kind"], metadata.get("namespace"), metadata["name"]), None, body,
                      what=subject(obj))
        except FleetError as error:
            if error.code != "not_found":
                raise

    # -- watching and looking inside -----------------------------------------------------------------------------

    def watch(self, kind: str, namespace: str, version: str, seconds: int, selector: str | None = None
              ) -> t.Iterator[tuple[str, Json]]:
        """Type and object of each change since the version; ends after the seconds, or when the server wants."""
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(seconds),
                 **({"labelSelector": selector} if selector else {})}
        try:
            with self._wire.stream(_target(path_of(kind, namespace), query), self._headers, seconds + 5.0) as answer:
                yield from _events(answer)
        except (http.client.HTTPException, OSError):
            return

    def events(self, namespace: str, name: str) -> Objects:
        """What was recorded about an object of that name, the oldest first; nothing where that is not allowed."""
        try:
            found, _version = self.list_at("Event", namespace, fields=f"involvedObject.name={name}")
        except FleetError:
            return []
        return sorted(found, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")

    def logs(self, namespace: str, pod: str, container: str, lines: int = 20, previous: bool = False) -> str:
        """The last lines; empty where there are none."""
        query = {"container": container, "tailLines": str(lines), **({"previous": "true"} if previous else {})}
        reply = self._send("GET", _target(path_of("Pod", namespace, pod, "log"), query), None, "application/json",
                           time.monotonic() + 5)
        return reply.body.decode("utf-8", "replace") if reply.status < 300 else ""

    def follow_logs(self, namespace: str, pod: str, container: str, lines: int = 20) -> t.Iterator[bytes]:
        """The last lines and then what comes, until the container ends."""
        query = {"container": container, "tailLines": str(lines), "follow": "true"}
        target = _target(path_of("Pod", namespace, pod, "log"), query)
        try:
            with self._wire.stream(target, self._headers, None) as answer:
                if answer.status >= 300:
                    raise _refused(Reply(answer.status, answer.read()), f"Reading the log of pod {namespace}/{pod}")
                yield from iter(lambda: answer.read1(65536), b"")
        except (http.client.HTTPException, OSError) as error:
            raise self._unreachable(error, "Run it again.") from None

    def exec(self, namespace: str, pod: str, argv: t.Sequence[str], stdin: bytes | None = None,
             container: str | None = None, timeout: float = 60.0) -> Done:
        """Runs a command in a pod. stdin goes through the connection, never through the command line."""
        if stdin is not None:  # this protocol can't close the stream, so the reader counts
            argv = ["sh", "-c", f'head -c {len(stdin)} | "$@"', "sh", *argv]
        streams = ["stdout", "stderr", *(["stdin"] if stdin is not None else [])]
        with self.open_exec(namespace, pod, argv, streams, container, timeout) as socket:
            return _converse(socket, stdin)

    @contextlib.contextmanager
    def open_exec(self, namespace: str, pod: str, argv: t.Sequence[str], streams: t.Iterable[str],
                  container: str | None = None, timeout: float | None = 60.0, protocol: str = "v4.channel.k8s.io"
                  ) -> t.Iterator[t.Any]:
        """The connection to a command in a pod: frames of one byte, which says the stream, and the data."""
        try:
            import websocket
        except ImportError:
            raise missing("websocket-client") from None
        query = [("command", word) for word in argv] + [(stream, "true") for stream in streams]
        query += [("container", container)] if container else []
        url = f"{self.connection.host}{path_of('Pod', namespace, pod, 'exec')}?{urllib.parse.urlencode(query)}"
        what = f"Running {argv[0]} in pod {namespace}/{pod}"
        try:
            socket = websocket.create_connection(
                url.replace("http", "ws", 1), timeout=timeout, subprotocols=[protocol],
                header=[f"{key}: {value}" for key, value in self.connection.headers.items()],
                sslopt={"context": self.connection.tls} if self.connection.tls else {})
            try:
                yield socket
            finally:
                socket.close()
        except websocket.WebSocketBadStatusException as error:
            reply = Reply(error.status_code, error.resp_body or b"")
            raise _refused(reply, what) from None
        except (websocket.WebSocketException, OSError) as error:
            raise FleetError("exec_failed", f"{what} failed: {error}.", "See whether the pod runs.") from None


def _converse(socket: t.Any, stdin: bytes | None) -> Done:
    heard = {1: b"", 2: b"", 3: b""}
    for start in range(0, len(stdin or b""), 32768):
        socket.send_binary(b"\0" + (stdin or b"")[start:start + 32768])
    while True:
        _opcode, frame = socket.recv_data()
        if not frame or frame[0] not in heard or _opcode == 8:
            if _opcode == 8:
                break
            continue
        heard[frame[0]] += frame[1:]
        if frame[0] == 3:
            break
    rc, said = ended(heard[3])
    err = heard[2].decode("utf-8", "replace")
    return Done(rc, heard[1].decode("utf-8", "replace"), err if rc == 0 or err else said)


def ended(frame: bytes) -> tuple[int, str]:
    """Exit code and message of the status with which a command ends; 1 where the server says none."""
    status = json.loads(frame or b"{}")
    causes = (status.get("details") or {}).get("causes") or []
    code = next((int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode"), 1)
    return 0 if status.get("status") == "Success" else code, status.get("message", "")


def _target(path: str, query: t.Mapping[str, str] | None) -> str:
    return path + ("?" + urllib.parse.urlencode(query) if query else "")


def _events(answer: Answer) -> t.Iterator[tuple[str, Json]]:
    if answer.status >= 300:
        return
    for line in answer:
        if not line.endswith(b"\n"):
            return  # cut off
        event = json.loads(line)
        if event["type"] == "ERROR":
            return
        yield event["type"], event["object"]


def _refused(reply: Reply, what: str) -> FleetError:
    """The server's refusal, in its own words, with what to do about it."""
    try:
        status = json.loads(reply.body)
    except ValueError:
        status = {}
    said = str(status.get("message") or reply.body[:300].decode("utf-8", "replace")).strip()
    causes = (status.get("details") or {}).get("causes") or []
    conflicts = [{"manager": (re.findall(r'conflict with "([^"]*)"', str(cause.get("message"))) or ["?"])[0],
                  "field": cause.get("field", "")} for cause in causes if cause.get("reason") == "FieldManagerConflict"]
    if conflicts:
        owners = ", ".join(f"{one['field']} by {one['manager']}" for one in conflicts)
        return FleetError("conflict", f"{what}: fields were set by others: {owners}.",
                          "Take them over with force_conflicts: true, or undo there what was changed.",
                          conflicts=conflicts)
    code, hint = {
        401: ("unauthorized", "The credentials are not accepted: renew the kubeconfig or token."),
        403: ("forbidden", "The account may not do that, or a policy or quota forbids it."),
        404: ("not_found", ""),
        409: ("already_exists" if status.get("reason") == "AlreadyExists" else "changed_meanwhile", "Run again."),
        422: ("refused", "Change the description of the bot."),
    }.get(reply.status, ("api_error", "See the API server's log."))
    if "already allocated" in said:
        code, hint = "port_taken", "Choose another port."
    if "pvc can be resized" in said:
        code, hint = "cannot_grow", ("Allow it in the storage class (allowVolumeExpansion), or back the bot up, remove "
                                     "it with purge_data: true, and restore it with larger volumes.")
    return FleetError(code, f"{what}: the API server said {reply.status}: {said}", hint, status=reply.status)
