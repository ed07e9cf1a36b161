# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a Docker host says it has, and has left."""

from __future__ import annotations

import contextlib
import pathlib
import typing as t

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._docker import arguments, facts, host, names
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished

GIB = 1024**3
UNITS = "MemoryMax=1610612736\nCPUQuotaPerSecUSec=1.500000s\n\nMemoryMax=infinity\nCPUQuotaPerSecUSec=infinity\n"
CARDS = "NVIDIA GeForce RTX 3090, 24576\nNVIDIA T4, Rev 2, [N/A]\n"


def container(memory: int = 0, space: str | None = None, **limits: t.Any) -> dict[str, t.Any]:
    labels = {"clawops.fleet/managed": "true", **({"clawops.fleet/space": space} if space else {})}
    return {"HostConfig": {"Memory": memory, **limits}, "Config": {"Labels": labels}}


class Engine:
    """As much of the engine as is asked."""

    def __init__(self, *containers: dict[str, t.Any] | None, **about: t.Any) -> None:
        self.found = {str(number): one for number, one in enumerate(containers)}
        self.info = {"MemTotal": 16 * GIB, "NCPU": 4, "ServerVersion": "28.5.2", "Runtimes": {"runc": {}}, **about}
        self.api = self

    def containers(self, **asked: t.Any) -> list[dict[str, str]]:
        assert asked == {"all": True, "filters": {"label": "clawops.fleet/managed=true"}}
        return [{"Id": ident} for ident in self.found]

    def inspect(self, ident: str) -> dict[str, t.Any] | None:
        return self.found[ident]

    @contextlib.contextmanager
    def doing(self, _what: str) -> t.Iterator[None]:
        yield


def programs(**said: str) -> t.Callable[..., Finished]:
    def run(argv: t.Sequence[str], **_options: t.Any) -> Finished:
        if argv[0] not in said:
            raise FleetError("no_program", f"{argv[0]} is not installed")
        return Finished(0, said[argv[0]], "")

    return run


def test_free_is_what_nothing_may_claim() -> None:
    half = container(GIB, NanoCpus=0, CpuQuota=50000, CpuPeriod=100000)
    engine = Engine(container(2 * GIB, "one", NanoCpus=500000000), half, container(), None)
    found = host.capabilities(engine, programs(systemctl=UNITS))
    assert (found["memory"], found["cpus"], found["spaces"]) == (16 * GIB, 4, 1)
    assert found["free"] == {"memory": 16 * GIB - 3 * GIB - 1610612736, "cpus": 1.5}
    assert found["engine_version"] == "28.5.2" and found["arch"]


@pytest.mark.parametrize(("quota", "cpus"), [("500ms", 0.5), ("1s", 1.0), ("1s 250ms", 1.25)])
def test_a_quota_of_a_unit_is_in_seconds(quota: str, cpus: float) -> None:
    found = host.capabilities(Engine(), programs(systemctl=f"CPUQuotaPerSecUSec={quota}\n"))
    assert found["free"]["cpus"] == 4 - cpus


def test_without_an_engine_the_machine_speaks() -> None:
    found = host.capabilities(None, programs())
    assert found["engine_version"] is None and found["spaces"] == 0
    assert found["free"] == {"memory": found["memory"], "cpus": found["cpus"]} and found["memory"] > GIB // 2


@pytest.mark.parametrize(("about", "ready"), [
    ({}, False), ({"Runtimes": {"runc": {}, "nvidia": {}}}, True),
    ({"DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}, True),
])
def test_gpus_are_told_and_whether_the_engine_hands_them_out(about: dict[str, t.Any], ready: bool) -> None:
    found = host.capabilities(Engine(**about), programs(**{"nvidia-smi": CARDS}))
    assert found["gpu"] == {"count": 2, "names": ["NVIDIA GeForce RTX 3090", "NVIDIA T4, Rev 2"],
                            "memory": [24 * GIB, 0], "ready": ready}


def test_a_host_without_gpus_says_so() -> None:
    assert host.capabilities(Engine(), programs())["gpu"] == {"count": 0, "names": [], "memory": [], "ready": False}


# -- the whole report ---------------------------------------------------------------------------------------------

def volume(name: str, fleet: str = "home", managed: str = "true") -> dict[str, t.Any]:
    return {"Name": f"clawdspace-vol-{name}", "Labels": {
        "clawops.fleet/managed": managed, "clawops.fleet/fleet": fleet, "clawops.fleet/space": name}}


def test_a_report_names_volumes_because_a_space_stays_where_its_volume_is(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    found = [volume("two"), volume("one"), volume("other", "work"), volume("foreign", managed="no"),
             {"Name": "clawdspace-vol-plain", "Labels": None}]
    monkeypatch.setattr(Engine, "volumes", lambda self, name: found, raising=False)
    monkeypatch.setattr(facts, "listing", lambda *_wanted: [{"name": "one", "state": "started"}])
    about = facts.report(engine, "home")
    assert about["volumes"] == ["one", "two"] and about["host"]["cpus"] == 4
    assert facts.report(engine)["volumes"] == ["one", "other", "two"]
    assert facts.report(engine, "home", ["two"])["volumes"] == ["two"]


def test_without_an_engine_there_are_no_spaces() -> None:
    about = facts.report(None)
    assert (about["spaces"], about["volumes"], about["host"]["engine_version"]) == ([], [], None)


class Module:
    """As much of AnsibleModule as is needed."""

    def __init__(self) -> None:
        self.params = {"docker_host": None, "fleet": None, "names": None, "actor": None, "job": None}
        self.ended: dict[str, t.Any] = {}

    def fail_json(self, msg: str, **more: t.Any) -> None:
        self.ended = {"failed": True, "msg": msg, **more}

    def exit_json(self, **values: t.Any) -> None:
        self.ended = values


@pytest.mark.parametrize("had_spaces", [False, True])
@pytest.mark.parametrize("code", ["missing_library", "engine_unreachable", "engine_refused"])
def test_only_a_host_that_had_spaces_has_to_have_an_engine(code: str, had_spaces: bool, tmp_path: pathlib.Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_where: t.Any) -> t.NoReturn:
        raise FleetError(code, "no")

    monkeypatch.setattr(arguments, "connect", connect)
    monkeypatch.setattr(names, "STATE", tmp_path if had_spaces else tmp_path / "none")
    module = Module()
    arguments.inform(t.cast(t.Any, module))
    assert module.ended.get("failed", False) is (had_spaces or code == "engine_refused")
    assert module.ended.get("spaces", []) == []
