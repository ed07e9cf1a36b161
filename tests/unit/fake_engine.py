# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Docker engine in memory: as much of the low-level client as spaces use, and every call written down."""

from __future__ import annotations

import copy
import itertools
import pathlib
import re
import threading
import typing as t

import docker
import requests
from ansible_collections.clawops.fleet.plugins.module_utils._docker.client import Engine

Json = dict[str, t.Any]
READS = {"containers", "volumes", "networks", "inspect_container", "inspect_image", "inspect_volume",
         "inspect_network", "info", "ping", "version", "logs", "wait"}
NEVER = "0001-01-01T00:00:00Z"


def refusal(status: int, words: str) -> docker.errors.APIError:
    response = requests.Response()
    response.status_code = status
    kind = docker.errors.NotFound if status == 404 else docker.errors.APIError
    return kind(words, response=response, explanation=words)


class State:
    """What all connections to one engine see."""

    def __init__(self) -> None:
        self.containers: dict[str, Json] = {}
        self.volumes: dict[str, Json] = {}
        self.networks: dict[str, Json] = {}
        self.images: dict[str, Json] = {}
        self.about: Json = {"NCPU": 4, "SwapLimit": True, "MemTotal": 8 * 1024**3, "ServerVersion": "26.1.5",
                            "Runtimes": {"runc": {}}}
        self.calls: list[tuple[str, str]] = []
        self.archives: dict[str, bytes] = {}
        self.fails: t.Callable[[str, str], BaseException | None] = lambda verb, subject: None
        self.number = itertools.count(1)
        self.lock = threading.RLock()
        self.mountpoint: pathlib.Path | None = None


class FakeApi:
    """docker.APIClient, for those who don't look closely."""

    api_version = "1.45"

    def __init__(self, state: State | None = None) -> None:
        self.state = state or State()

    def __getattribute__(self, name: str) -> t.Any:
        found = object.__getattribute__(self, name)
        if name.startswith("_") or not callable(found) or name == "close":
            return found
        state = self.state

        def called(*args: t.Any, **options: t.Any) -> t.Any:
            named = next((str(one) for one in reversed(args) if isinstance(one, str)), "")
            subject = str(options.get("name") or named)
            with state.lock:
                state.calls.append((name, subject))
                failure = state.fails(name, subject)
                if failure:
                    raise failure
                return found(*args, **options)
        return called

    # -- what a test asks -----------------------------------------------------------------------------------------

    def _writes(self) -> list[tuple[str, str]]:
        return [call for call in self.state.calls if call[0] not in READS]

    def _forget(self) -> None:
        self.state.calls.clear()

    def close(self) -> None:
        pass

    # -- reads ----------------------------------------------------------------------------------------------------

    def ping(self) -> bool:
        return True

    def info(self) -> Json:
        return self.state.about

    def containers(self, all: bool = False, filters: Json | None = None) -> list[Json]:
        wanted = (filters or {}).get("name", "")
        return [{"Id": found["Id"], "Names": [found["Name"]], "Labels": found["Config"]["Labels"]}
                for found in self.state.containers.values() if re.search(wanted, found["Name"].lstrip("/"))]

    def volumes(self, filters: Json | None = None) -> Json:
        wanted = (filters or {}).get("name", "")
        return {"Volumes": [copy.deepcopy(one) for name, one in self.state.volumes.items() if wanted in name]}

    def networks(self, filters: Json | None = None) -> list[Json]:
        wanted = (filters or {}).get("name", "")
        return [copy.deepcopy(one) for name, one in self.state.networks.items() if wanted in name]

    def _found(self, container: str) -> Json:
        for name, found in self.state.containers.items():
            if container in (name, found["Id"]):
                return found
        raise refusal(404, f"No such container: {container}")

    def inspect_container(self, container: str) -> Json:
        return copy.deepcopy(self._found(container))

    def inspect_image(self, reference: str) -> Json:
        if reference not in self.state.images:
            raise refusal(404, f"No such image: {reference}")
        return self.state.images[reference]

    def inspect_volume(self, name: str) -> Json:
        if name not in self.state.volumes:
            raise refusal(404, f"no such volume: {name}")
        return copy.deepcopy(self.state.volumes[name])

    def inspect_network(self, name: str) -> Json:
        if name not in self.state.networks:
            raise refusal(404, f"network {name} not found")
        attached = {one["Id"]: {"Name": title} for title, one in self.state.containers.items()
                    if name in one["NetworkSettings"]["Networks"] and one["State"]["Running"]}
        return {**copy.deepcopy(self.state.networks[name]), "Containers": attached}

    # -- writes ---------------------------------------------------------------------------------------------------

    def create_container_from_config(self, config: Json, name: str) -> Json:
        if name in self.state.containers:
            raise refusal(409, f"Conflict. The container name /{name} is already in use")
        config = copy.deepcopy(config)
        host = config.pop("HostConfig")
        image = self.inspect_image(config["Image"])
        mode = host["NetworkMode"]
        if mode != "none" and mode not in self.state.networks:
            raise refusal(404, f"network {mode} not found")
        network = "" if mode == "none" else self.state.networks[mode]["Id"]
        ident = f"{next(self.state.number):064x}"
        self.state.containers[name] = {
            "Id": ident, "Name": f"/{name}", "Image": image["Id"], "HostConfig": host,
            "Config": {**config, "Env": [*config.get("Env", []), "PATH=/bin"]},
            "State": {"Status": "created", "Running": False, "Paused": False, "StartedAt": NEVER},
            "NetworkSettings": {"Networks": {mode: {"NetworkID": network, "IPAddress": ""}}},
        }
        return {"Id": ident}

    def start(self, container: str) -> None:
        found = self._found(container)
        at = f"2026-11-21T00:00:{next(self.state.number):02d}Z"
        found["State"] = {"Status": "running", "Running": True, "Paused": False, "StartedAt": at}
        for network in found["NetworkSettings"]["Networks"].values():
            network["IPAddress"] = "172.30.0.2"

    def pause(self, container: str) -> None:
        self._turn(container, "running", Status="paused", Paused=True)

    def unpause(self, container: str) -> None:
        self._turn(container, "paused", Status="running", Paused=False)

    def stop(self, container: str, timeout: int = 10) -> None:
        self._found(container)["State"].update(Status="exited", Running=False, Paused=False)

    def _turn(self, container: str, needs: str, **state: t.Any) -> None:
        found = self._found(container)
        if found["State"]["Status"] != needs:
            raise refusal(409, f"Container {container} is not {needs}")
        found["State"].update(state)

    def rename(self, container: str, name: str) -> None:
        found = self._found(container)
        if name in self.state.containers:
            raise refusal(409, f"{name} is already in use")
        del self.state.containers[found["Name"].lstrip("/")]
        self.state.containers[name] = {**found, "Name": f"/{name}"}

    def remove_container(self, container: str, v: bool = False, force: bool = False) -> None:
        del self.state.containers[self._found(container)["Name"].lstrip("/")]

    def wait(self, container: str, timeout: float | None = None) -> Json:
        self._found(container)
        return {"StatusCode": 0}

    def put_archive(self, container: str, path: str, data: t.Iterable[bytes]) -> bool:
        self._found(container)
        self.state.archives[container] = b"".join(data)
        return True

    def create_volume(self, name: str, labels: Json) -> Json:
        where = str(self.state.mountpoint or "/nonexistent")
        volume = {"Name": name, "Labels": dict(labels), "Driver": "local", "Mountpoint": where}
        return self.state.volumes.setdefault(name, volume)

    def remove_volume(self, name: str) -> None:
        self.inspect_volume(name)
        del self.state.volumes[name]

    def remove_network(self, name: str) -> None:
        if self.inspect_network(name)["Containers"]:
            raise refusal(403, f"network {name} has active endpoints")
        del self.state.networks[name]

    def disconnect_container_from_network(self, container: str, name: str, force: bool = False) -> None:
        self._found(container)["NetworkSettings"]["Networks"].pop(name, None)

    def pull(self, reference: str, stream: bool = False, decode: bool = False) -> list[Json]:
        self.state.images[reference] = {"Id": f"sha256:{reference[-64:]}"}
        return [{"status": "Pull complete"}]

    # -- requests without a method --------------------------------------------------------------------------------

    def _url(self, path: str) -> str:
        return path

    def _result(self, reply: Json, json: bool = False) -> Json:
        return reply

    def _post_json(self, path: str, data: Json) -> Json:
        parts = path.strip("/").split("/")
        if parts[0] == "networks":
            return t.cast(Json, self.create_network(data))
        return t.cast(Json, self.update_container(parts[1], data))

    def create_network(self, data: Json) -> Json:
        ident = f"n{next(self.state.number):063x}"
        self.state.networks[data["Name"]] = {"Id": ident, **copy.deepcopy(data)}
        return {"Id": ident}

    def update_container(self, container: str, data: Json) -> Json:
        self._found(container)["HostConfig"].update(data)
        return {"Warnings": []}


class FakeEngine(Engine):
    """An engine whose twins see the same."""

    def __init__(self, state: State | None = None) -> None:
        self.fake = FakeApi(state)
        super().__init__(self.fake, "unix:///fake", 1.0)
        if state is None:
            self.fake.state.images["clawops-sandbox:latest"] = {"Id": "sha256:first"}

    @property
    def state(self) -> State:
        return self.fake.state

    def twin(self) -> FakeEngine:
        return FakeEngine(self.fake.state)
