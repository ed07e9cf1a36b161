# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""A way into a bot's pod through the API server: as a socket, or as the ProxyCommand of ssh.

    python .../module_utils/_ssh --namespace claworc --bot alpha [--kubeconfig FILE] [--context NAME] [--port 22]
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
import typing as t
import urllib.parse

from .._errors import FleetError
from .._kubernetes.client import Cluster, path_of
from .._kubernetes.connection import missing

CHUNK = 65536
SSH = 22
DATA, ERROR = 0, 1
_ENVIRONMENT = {"host": "HOST", "api_key": "API_KEY", "ca_cert": "SSL_CA_CERT", "client_cert": "CERT_FILE",
                "client_key": "KEY_FILE", "proxy": "PROXY", "kubeconfig": "KUBECONFIG", "context": "CONTEXT"}


def cluster_of(kubeconfig: t.Any = None, context: str | None = None) -> Cluster:
    """A cluster for code that is no module: by kubeconfig, else by the variables that modules honour, too."""
    if kubeconfig:
        return Cluster.of({"kubeconfig": kubeconfig, "context": context})
    given = {name: os.environ.get(f"K8S_AUTH_{variable}") for name, variable in _ENVIRONMENT.items()}
    return Cluster.of({**given, "context": context or given["context"]})


def running_pod(cluster: Cluster, namespace: str, bot: str) -> str | None:
    """The pod of a bot that can be reached now; one that is ready before one that is not."""
    pods = [pod for pod in cluster.list("Pod", namespace, f"app=bot-{bot}")
            if pod["status"].get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")]
    ready = [pod for pod in pods if {"type": "Ready", "status": "True"}.items() <= _ready(pod).items()]
    return next((str(pod["metadata"]["name"]) for pod in ready + pods), None)


def _ready(pod: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    return next((one for one in pod["status"].get("conditions") or [] if one["type"] == "Ready"), {})


class Tunnel:
    """One connection to a port of a pod."""

    def __init__(self, cluster: Cluster, namespace: str, pod: str, port: int = SSH) -> None:
        try:
            import websocket
        except ImportError:
            raise missing("websocket-client") from None
        connection = cluster.connection
        path = path_of("Pod", namespace, pod, "portforward")
        url = f"{connection.host}{path}?{urllib.parse.urlencode({'ports': port})}"
        self.what, self._greeted, self._websocket = f"Port {port} of pod {namespace}/{pod}", 0, websocket
        try:
            self.channel = websocket.create_connection(
                url.replace("http", "ws", 1), timeout=30, subprotocols=["v4.channel.k8s.io"],
                header=[f"{key}: {value}" for key, value in connection.headers.items()],
                sslopt={"context": connection.tls} if connection.tls else {})
        except (websocket.WebSocketException, OSError) as error:
            raise FleetError("no_tunnel", f"{self.what} can't be reached: {error}.",
                             "Check that the pod runs, and that the account may use pods/portforward.") from None
        self.channel.settimeout(None)

    def send(self, data: bytes) -> None:
        self.channel.send_binary(bytes([DATA]) + data)

    def receive(self) -> bytes:
        """The next bytes; empty at the end."""
        while True:
            try:
                opcode, frame = self.channel.recv_data()
            except (self._websocket.WebSocketException, OSError):
                return b""
            if opcode == self._websocket.ABNF.OPCODE_CLOSE:
                return b""
            # The first frame of each of the two streams repeats the number of the port.
            if self._greeted < 2:
                self._greeted += 1
            elif frame[0] == ERROR:
                raise FleetError("no_tunnel", f"{self.what}: {frame[1:].decode('utf-8', 'replace').strip()}")
            elif len(frame) > 1:
                return bytes(frame[1:])

    def close(self) -> None:
        self.channel.close()

    def pump(self, read: t.Callable[[], bytes], write: t.Callable[[bytes], t.Any]) -> None:
        """Carries bytes both ways until the pod's side ends, or the reading does."""

        def outwards() -> None:
            try:
                for data in iter(read, b""):
                    self.send(data)
            except (self._websocket.WebSocketException, OSError):
                pass
            finally:
                self.close()

        threading.Thread(target=outwards, daemon=True).start()
        for data in iter(self.receive, b""):
            write(data)


def connect(cluster: Cluster, namespace: str, pod: str, port: int = SSH) -> socket.socket:
    """A socket whose other end is a port of the pod."""
    tunnel = Tunnel(cluster, namespace, pod, port)
    near, far = socket.socketpair()

    def carry() -> None:
        try:
            tunnel.pump(lambda: far.recv(CHUNK), far.sendall)
        except (FleetError, OSError):
            pass
        finally:
            far.close()

    threading.Thread(target=carry, daemon=True).start()
    return near


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]


def main(argv: t.Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="clawops-tunnel", description="Standard input and output to a bot's pod.")
    parser.add_argument("--kubeconfig")
    parser.add_argument("--context")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--bot", required=True)
    parser.add_argument("--port", type=int, default=SSH)
    given = parser.parse_args(argv)
    try:
        cluster = cluster_of(given.kubeconfig, given.context)
        pod = running_pod(cluster, given.namespace, given.bot)
        if pod is None:
            raise FleetError("not_running", f"Bot {given.bot} has no running pod in {given.namespace}.", "Start it.")
        Tunnel(cluster, given.namespace, pod, given.port).pump(lambda: os.read(0, CHUNK), _write)
    except FleetError as error:
        sys.stderr.write(error.result()["msg"] + "\n")
        return 1
    return 0
