# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a cluster gets before its first bot: objects, and a kubeconfig for the manager."""

from __future__ import annotations

import base64
import json
import pathlib
import types
import typing as t

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes.access import DAY, Access, Wanted
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes.objects import Objects
from fake_cluster import FakeCluster, Json

SPACE: Json = {"kind": "Namespace", "metadata": {"name": "claworc", "labels": {"level": "privileged"}}}
QUOTA: Json = {"kind": "ResourceQuota", "metadata": {"name": "bots", "namespace": "claworc"},
               "spec": {"hard": {"pods": "9"}}}


def go(cluster: FakeCluster, *objects: Json, absent: t.Sequence[Json] = (), **more: t.Any) -> list[str]:
    cluster.calls.clear()
    call = Objects(t.cast(t.Any, cluster), "home", **more)
    plan = call.plan(objects, absent)
    if plan.changed:
        call.apply()
    return [f"{change.action} {change.subject}" for change in plan.changes]


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def test_objects_are_made_in_their_order_and_then_left_alone(cluster: FakeCluster) -> None:
    assert go(cluster, SPACE, QUOTA) == ["create Namespace claworc", "create ResourceQuota claworc/bots"]
    # What stands in a namespace that is to be made can't be judged before.
    assert cluster.verbs == ["get", "get", "dry", "apply", "apply"]
    assert go(cluster, SPACE, QUOTA) == []
    assert cluster.verbs == ["get", "get"]


def test_an_update_is_judged_by_the_server_before_anything_is_written(cluster: FakeCluster) -> None:
    go(cluster, SPACE, QUOTA)
    assert go(cluster, SPACE, {**QUOTA, "spec": {"hard": {"pods": "8"}}}) == ["update ResourceQuota claworc/bots"]
    assert cluster.verbs == ["get", "get", "dry", "apply"]


def test_what_is_wanted_no_more_goes_and_what_is_not_there_is_fine(cluster: FakeCluster) -> None:
    go(cluster, SPACE, QUOTA)
    assert go(cluster, SPACE, absent=[QUOTA]) == ["delete ResourceQuota claworc/bots"]
    assert go(cluster, SPACE, absent=[QUOTA]) == []


@pytest.mark.parametrize(("labels", "said"), [
    ({}, "is not managed by this collection"),
    ({"clawops.fleet/managed": "true", "clawops.fleet/fleet": "other"}, "belongs to fleet other"),
])
def test_foreign_objects_are_refused_unless_adopted(cluster: FakeCluster, labels: dict[str, str], said: str) -> None:
    cluster.create({"kind": "Namespace", "metadata": {"name": "claworc", "labels": labels}})
    with pytest.raises(FleetError, match=said):
        go(cluster, SPACE)
    assert set(cluster.verbs) == {"get"}
    assert go(cluster, SPACE, adopt=True) == ["update Namespace claworc"]


def test_foreign_objects_are_never_deleted(cluster: FakeCluster) -> None:
    cluster.create({**QUOTA, "metadata": dict(QUOTA["metadata"])})
    with pytest.raises(FleetError, match="not managed"):
        go(cluster, absent=[QUOTA], adopt=True)


@pytest.mark.parametrize("bad", [
    {"kind": "Gadget", "metadata": {"name": "a"}}, {"kind": "Secret", "metadata": {"name": "a"}},
    {"kind": "Namespace", "metadata": {"name": "a", "namespace": "b"}}, {}])
def test_what_is_no_object_is_refused(cluster: FakeCluster, bad: Json) -> None:
    with pytest.raises(FleetError, match="is not accepted"):
        go(cluster, bad)


# -- kubeconfig ---------------------------------------------------------------------------------------------------

class TokenCluster(FakeCluster):
    """Gives out tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = types.SimpleNamespace(host="https://192.0.2.1:6443")
        self.now, self.days = 1000.0, 90
        self.create({"kind": "ServiceAccount", "metadata": {"name": "claworc-manager", "namespace": "claworc"}})
        self.create({"kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt", "namespace": "claworc"},
                     "data": {"ca.crt": "authority"}})

    def call(self, method: str, path: str, body: Json | None = None, what: str = "") -> Json:
        assert (method, path) == ("POST", "/api/v1/namespaces/claworc/serviceaccounts/claworc-manager/token")
        uid = self.objects["ServiceAccount", "claworc", "claworc-manager"]["metadata"]["uid"]
        claims = {"exp": self.now + self.days * DAY, "kubernetes.io": {"serviceaccount": {"uid": uid}}}
        text = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        return {"status": {"token": f"head.{text}.planted-signature"}}


def access(cluster: TokenCluster, path: pathlib.Path) -> tuple[list[str], str]:
    wanted = Wanted("claworc-manager", "claworc", str(path), 90, 30)
    call = Access(t.cast(t.Any, cluster), wanted, lambda: cluster.now)
    plan = call.plan()
    if plan.changed:
        call.apply()
    return [change.action for change in plan.changes], str(plan.result()) + str(call.facts())


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "kubeconfig"


def test_a_kubeconfig_is_made_once_for_its_owner_alone(path: pathlib.Path) -> None:
    cluster = TokenCluster()
    actions, said = access(cluster, path)
    made = json.loads(path.read_text())
    assert actions == ["create"] and path.stat().st_mode & 0o777 == 0o600
    assert made["clusters"][0]["cluster"]["server"] == "https://192.0.2.1:6443"
    assert "planted-signature" in made["users"][0]["user"]["token"] and "planted-signature" not in said
    assert access(cluster, path)[0] == []


def test_a_token_that_ends_soon_is_renewed(path: pathlib.Path) -> None:
    cluster = TokenCluster()
    access(cluster, path)
    cluster.now += 59 * DAY
    assert access(cluster, path)[0] == []
    cluster.now += 2 * DAY
    assert access(cluster, path)[0] == ["update"]


def test_a_kubeconfig_for_an_account_that_was_made_anew_is_replaced(path: pathlib.Path) -> None:
    cluster = TokenCluster()
    access(cluster, path)
    cluster.objects["ServiceAccount", "claworc", "claworc-manager"]["metadata"]["uid"] = "another"
    assert access(cluster, path)[0] == ["update"]


@pytest.mark.parametrize("text", ["apiVersion: v1\nkind: Config\n", "{}", "[]"])
def test_somebody_elses_file_stays(path: pathlib.Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(FleetError, match="not a kubeconfig of this module"):
        access(TokenCluster(), path)
    assert path.read_text() == text


def test_without_the_account_the_plan_is_not_complete(path: pathlib.Path) -> None:
    cluster = TokenCluster()
    cluster.objects.clear()
    plan = Access(t.cast(t.Any, cluster), Wanted("claworc-manager", "claworc", str(path), 90, 30)).plan()
    assert not plan.complete
