# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Requests, retries and refusals, against a small server; and the ways to name a cluster."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import threading

import pytest
import yaml
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes import client
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes.client import Cluster, path_of
from ansible_collections.clawops.fleet.plugins.module_utils._kubernetes.connection import connect

CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}}


class Server(http.server.ThreadingHTTPServer):
    """Answers what was put into its list, the last one for ever; None is a connection that breaks."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked, self.clients = [], [], set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        self.server.clients.add(self.client_address)
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            self.close_connection = True
            self.connection.close()
            return
        status, value = answer
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = do_DELETE = do_CONNECT = answer

    def log_message(self, *_args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(client.time, "sleep", lambda _seconds: None)
    made = Server()
    yield made
    made.shutdown()


def cluster(server, **more):
    return Cluster.of({"host": server.url, "api_key": "t0ken", **more})


def test_objects_of_a_list_know_their_kind(server):
    server.answers = [(200, {"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "a"}}]})]
    found, version = cluster(server).list_at("Deployment", "n", "a=b")
    assert found == [{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}}] and version == "7"
    verb, path, headers, _body = server.asked[0]
    assert (verb, path) == ("GET", "/apis/apps/v1/namespaces/n/deployments?labelSelector=a%3Db")
    assert headers["Authorization"] == "Bearer t0ken" and headers["User-Agent"] == "clawops.fleet"


@pytest.mark.parametrize("trouble", [None, (429, {}), (500, {}), (503, b"starting")])
def test_a_server_that_is_away_for_a_moment_is_asked_again(server, trouble):
    server.answers = [trouble, trouble, (200, CONFIG_MAP)]
    assert cluster(server).apply(CONFIG_MAP) == CONFIG_MAP
    assert len(server.asked) == 3


def test_connections_stay_open_until_they_break(server):
    server.answers = [(200, CONFIG_MAP), (404, {}), (200, CONFIG_MAP), None, (200, CONFIG_MAP)]
    asker = cluster(server)
    assert [asker.get("ConfigMap", "c", "n") for _time in range(3)] == [CONFIG_MAP, None, CONFIG_MAP]
    assert len(server.clients) == 1
    assert asker.get("ConfigMap", "c", "n") == CONFIG_MAP
    assert len(server.clients) == 2


@pytest.mark.parametrize("scheme, asked", [("http", ("GET", "http://192.0.2.1:6443/api/v1/namespaces/n")),
                                           ("https", ("CONNECT", "192.0.2.1:6443"))])
def test_a_proxy_is_asked_for_the_server(server, monkeypatch, scheme, asked):
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(client.time, "monotonic", lambda: next(clock))
    server.answers = [(404, {})]
    with contextlib.suppress(FleetError):
        Cluster.of({"host": f"{scheme}://192.0.2.1:6443", "proxy": server.url}).get("Namespace", "n")
    assert server.asked[0][:2] == asked


@pytest.mark.parametrize("options", [{"host": "192.0.2.1:6443"}, {"host": "https:///x"}, {"host": "https://a:b"},
                                     {"host": "https://192.0.2.1", "proxy": "socks5://192.0.2.2:1080"}])
def test_an_address_that_is_none_is_named(options):
    with pytest.raises(FleetError, match=list(options.values())[-1]):
        Cluster.of(options)


def test_a_server_that_stays_away_is_one_clear_error(server, monkeypatch):
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(client.time, "monotonic", lambda: next(clock))
    server.answers = [None]
    with pytest.raises(FleetError) as caught:
        cluster(server).get("Secret", "s", "n")
    assert caught.value.code == "unreachable" and "t0ken" not in str(caught.value.result())


@pytest.mark.parametrize("status, body, code", [
    (401, {}, "unauthorized"),
    (403, {"message": "pods is forbidden"}, "forbidden"),
    (409, {"reason": "AlreadyExists"}, "already_exists"),
    (409, {"reason": "Conflict"}, "changed_meanwhile"),
    (422, {"message": "Invalid value: 30100: provided port is already allocated"}, "port_taken"),
    (422, {"message": "field is immutable"}, "refused"),
    (403, {"message": "only dynamically provisioned pvc can be resized and so on"}, "cannot_grow"),
    (418, b"teapot", "api_error"),
])
def test_refusals_have_codes_and_the_servers_words(server, status, body, code):
    server.answers = [(status, body)]
    with pytest.raises(FleetError) as caught:
        cluster(server).create(CONFIG_MAP)
    assert caught.value.code == code
    assert len(server.asked) == 1
    assert (body.get("message", "") if isinstance(body, dict) else "teapot") in caught.value.message


def conflict(*managers):
    causes = [{"reason": "FieldManagerConflict", "field": ".data.a", "message": f'conflict with "{manager}" using v1'}
              for manager in managers]
    return 409, {"reason": "Conflict", "message": "Apply failed", "details": {"causes": causes}}


def test_conflicts_name_field_and_owner(server):
    server.answers = [conflict("kubectl-edit")]
    with pytest.raises(FleetError) as caught:
        cluster(server).apply(CONFIG_MAP)
    assert caught.value.details["conflicts"] == [{"manager": "kubectl-edit", "field": ".data.a"}]
    assert "force_conflicts" in caught.value.hint


def test_what_the_collection_wrote_in_another_way_is_no_conflict(server):
    server.answers = [conflict("clawops.fleet"), (200, CONFIG_MAP)]
    cluster(server).apply(CONFIG_MAP)
    assert ["force=true" in path for _verb, path, _headers, _body in server.asked] == [False, True]


def test_a_dry_run_says_so(server):
    server.answers = [(200, CONFIG_MAP)]
    cluster(server).apply(CONFIG_MAP, dry_run=True)
    assert "dryRun=All" in server.asked[0][1] and "fieldManager=clawops.fleet" in server.asked[0][1]


def test_deletion_is_of_that_very_object(server):
    server.answers = [(404, {"reason": "NotFound"})]
    cluster(server).delete({**CONFIG_MAP, "metadata": {**CONFIG_MAP["metadata"], "uid": "u"}})
    assert json.loads(server.asked[0][3])["preconditions"] == {"uid": "u"}


def test_a_watch_tells_changes_and_ends_at_an_error(server):
    lines = [{"type": "ADDED", "object": {"a": 1}}, {"type": "ERROR", "object": {"code": 410}},
             {"type": "ADDED", "object": {"a": 2}}]
    server.answers = [(200, b"".join(json.dumps(line).encode() + b"\n" for line in lines))]
    assert list(cluster(server).watch("Pod", "n", "1", 5)) == [("ADDED", {"a": 1})]


def test_a_change_that_was_cut_off_is_none(server):
    server.answers = [(200, json.dumps({"type": "ADDED", "object": {"a": 1}}).encode() + b'\n{"type": "ADD')]
    assert list(cluster(server).watch("Pod", "n", "1", 5)) == [("ADDED", {"a": 1})]


def test_nothing_there_is_none(server):
    server.answers = [(404, {})]
    assert cluster(server).get("Namespace", "n") is None
    assert cluster(server).events("n", "pod") == []
    assert cluster(server).logs("n", "pod", "openclaw") == ""


@pytest.mark.parametrize("words, path", [
    (("Namespace", "n", "x"), "/api/v1/namespaces/x"),
    (("Pod", "n", "p", "log"), "/api/v1/namespaces/n/pods/p/log"),
    (("Service",), "/api/v1/services"),
    (("Role", "n"), "/apis/rbac.authorization.k8s.io/v1/namespaces/n/roles"),
])
def test_paths(words, path):
    assert path_of(*words) == path


def kubeconfig(**user):
    return {"current-context": "one", "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1:6443/"}}],
            "users": [{"name": "u", "user": user}]}


def test_a_kubeconfig_by_path_by_content_and_by_environment(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("from-file\n")
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(kubeconfig(tokenFile="token")))
    assert connect({"kubeconfig": str(path)}).headers == {"Authorization": "Bearer from-file"}
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert connect({}).host == "https://192.0.2.1:6443"
    basic = base64.b64encode(b"me:pw").decode()
    assert connect({"kubeconfig": kubeconfig(username="me", password="pw")}).headers == {
        "Authorization": f"Basic {basic}"}
    assert "t0ken" not in repr(connect({"kubeconfig": kubeconfig(token="t0ken")}))


@pytest.mark.parametrize("options, word", [
    ({"kubeconfig": "/nonexistent/config"}, "/nonexistent/config"),
    ({"kubeconfig": kubeconfig(), "context": "two"}, "two"),
    ({"kubeconfig": {"current-context": "x"}}, "x"),
])
def test_a_kubeconfig_that_does_not_serve_names_itself(options, word):
    with pytest.raises(FleetError, match=word):
        connect(options)


def test_a_broken_certificate_is_one_clear_error():
    broken = kubeconfig(**{"client-certificate-data": base64.b64encode(b"x").decode(),
                           "client-key-data": base64.b64encode(b"y").decode()})
    with pytest.raises(FleetError, match="certificate or key"):
        connect({"kubeconfig": broken})


def test_an_exec_plugin_is_asked_through_the_package(tmp_path):
    plugin = tmp_path / "plugin"
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "t0ken"}}
    plugin.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    plugin.chmod(0o755)
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    assert connect({"kubeconfig": kubeconfig(exec=command)}).headers == {"Authorization": "Bearer t0ken"}
