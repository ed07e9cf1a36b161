# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The engine on this host, through the low-level client of the docker SDK: one clear error for what goes wrong."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
import typing as t
import urllib.parse

from .._errors import FleetError

Json = dict[str, t.Any]
SOCKET = "unix:///var/run/docker.sock"
#: What an engine says of a request that it can't end because it is stopped.
_STOPPING = ("shutting down", "context canceled", "connection reset", "unexpected eof", "transport is closing",
             "containerd.sock")


class Wire(http.client.HTTPConnection):
    """The engine's socket itself: what stands in the library between it and us takes longer than the answer."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body; status 0 where there was no answer."""
        try:
            self.request("GET", path)
            answer = self.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return 0, b""

    def version(self) -> str:
        """That of the engine's API. The library would ask for all versions, for which the engine starts programs."""
        try:
            self.request("GET", "/_ping")
            answer = self.getresponse()
            answer.read()
            return answer.getheader("Api-Version") or "auto"
        except (OSError, http.client.HTTPException):
            self.close()
            return "auto"


class Engine:
    """One connection; a thread takes a twin of its own."""

    def __init__(self, api: t.Any, url: str = SOCKET, timeout: float = 60.0, wire: Wire | None = None) -> None:
        self.api, self.url, self.timeout, self._wire = api, url, timeout, wire
        self._info: Json | None = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()

    def close(self) -> None:
        self.api.close()
        if self._wire:
            self._wire.close()

    def twin(self) -> Engine:
        """Another connection to the same engine."""
        return _engine(self.url, self.timeout, self.api.api_version)

    @property
    def info(self) -> Json:
        """What the engine says of itself and its host; asked once."""
        if self._info is None:
            with self.doing("describe itself"):
                self._info = self.api.info()
        return self._info

    @contextlib.contextmanager
    def doing(self, what: str) -> t.Iterator[None]:
        """Makes FleetErrors of the library's exceptions. what completes the sentence "The engine can't ..."."""
        import requests
        from docker import errors

        try:
            yield
        except errors.APIError as error:
            raise _refusal(error, what) from None
        except (errors.DockerException, requests.RequestException, ConnectionError) as error:
            raise unreachable(self.url, f"The engine can't {what}: {_words(error)}") from None

    def wait(self, seconds: float) -> None:
        """Until the engine answers again."""
        end = time.monotonic() + seconds
        while True:
            try:
                with self.doing("answer"):
                    self.api.ping()
                return
            except FleetError:
                if time.monotonic() >= end:
                    raise
            time.sleep(0.5)

    def post(self, path: str, body: Json) -> Json:
        """A request that the library has no method for, or none that knows all fields."""
        return t.cast("Json", self.api._result(self.api._post_json(self.api._url(path), data=body), True))

    def inspect(self, name: str) -> Json | None:
        """A container; None when there is none."""
        return self._find(f"/containers/{name}/json", self.api.inspect_container, name)

    def image(self, reference: str) -> Json | None:
        return self._find(f"/images/{reference}/json", self.api.inspect_image, reference)

    def volume(self, name: str) -> Json | None:
        return self._find(f"/volumes/{name}", self.api.inspect_volume, name)

    def network(self, name: str) -> Json | None:
        return self._find(f"/networks/{name}", self.api.inspect_network, name)

    def containers(self, name: str) -> list[Json]:
        """All whose name matches this expression."""
        return t.cast("list[Json]", self._list("/containers/json", self.api.containers, name, all=True))

    def volumes(self, name: str) -> list[Json]:
        return self._list("/volumes", self.api.volumes, name).get("Volumes") or []

    def networks(self, name: str) -> list[Json]:
        return t.cast("list[Json]", self._list("/networks", self.api.networks, name))

    def _list(self, path: str, look: t.Callable[..., t.Any], name: str, **more: bool) -> t.Any:
        query = urllib.parse.urlencode({"filters": json.dumps({"name": [name]}), **more})
        status, found = self._get(f"{path}?{query}")
        return found if status == 200 else look(filters={"name": name}, **more)

    def _get(self, path: str) -> tuple[int, t.Any]:
        """Status and answer by the wire. Where that gives none, the library does, or says what is wrong."""
        if not self._wire:
            return 0, None
        status, body = self._wire.get(f"/v{self.api.api_version}{path}")
        return status, json.loads(body) if status == 200 else None

    def _find(self, path: str, look: t.Callable[[str], Json], name: str) -> Json | None:
        status, found = self._get(path)
        if status in (200, 404):
            return t.cast("Json | None", found)
        try:
            with self.doing(f"describe {name}"):
                return look(name)
        except FleetError as error:
            if error.code == "not_found":
                return None
            raise


def unreachable(url: str, message: str) -> FleetError:
    return FleetError("engine_unreachable", message,
                      f"Start the Docker engine, or name its address ({url} was asked) in docker_host.")


def _refusal(error: t.Any, what: str) -> FleetError:
    words = str(error.explanation or error)
    status = getattr(error.response, "status_code", 500) if error.response is not None else 500
    if status >= 500 and any(sign in words.lower() for sign in _STOPPING):
        return FleetError("engine_unreachable", f"The engine can't {what}: {words}", "It seems to be restarting.")
    if status == 404:
        return FleetError("not_found", f"The engine can't {what}: {words}")
    hint = ""
    if "address pool" in words or "predefined address" in words:
        hint = "Give the engine more networks: default-address-pools in its daemon.json, such as a /16 in /28s."
    return FleetError("engine_refused", f"The engine can't {what}: {words}", hint, status=status)


def _words(error: BaseException) -> str:
    if "Timeout" in type(error).__name__ or "Read timed out" in str(error):
        return "no answer in time."
    return f"{str(error)[:300]}."


def _client(url: str, timeout: float, version: str = "auto") -> t.Any:
    try:
        import docker
    except ImportError:
        raise FleetError("missing_library", "The Python package docker is missing where this module runs.",
                         "Install the distribution's package python3-docker, 5.0.3 or newer.",
                         package="docker") from None
    return docker.APIClient(base_url=url, version=version, timeout=timeout)


def _engine(url: str, timeout: float, version: str | None = None) -> Engine:
    wire = Wire(url[len("unix://"):], timeout) if url.startswith("unix://") else None
    return Engine(_client(url, timeout, version or (wire.version() if wire else "auto")), url, timeout, wire)


def connect(url: str | None = None, timeout: float = 60.0) -> Engine:
    """The engine at an address of the form that DOCKER_HOST has; by default that of this host."""
    address = url or SOCKET
    try:
        return _engine(address, timeout)
    except FleetError:
        raise
    except Exception as error:
        # Which exceptions there are depends on the SDK's release, and nothing else is done here.
        raise unreachable(address, f"The Docker engine doesn't answer: {_words(error)}") from None
