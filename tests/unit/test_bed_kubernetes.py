# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The bed's cluster: what is put into its node, who may be whom, and what it must not do to the machine."""

from __future__ import annotations

import base64
import json
import pathlib
import re
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))

from bed import __main__ as cli
from bed import cache, golang, kubernetes, kubernetes_node, kubernetes_pki, net
from bed.job import BedError, Job, output

CLIENTS = [f"{client}.{end}" for client in kubernetes_pki.CLIENTS for end in ("crt", "key")]
PKI = {name: f"text of {name}" for name in ["ca.crt", "sa.pub", *CLIENTS]}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAWOPS_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "STATE", tmp_path / "run/state.json")
    monkeypatch.delenv("CLAWOPS_KUBECONFIG", raising=False)


@pytest.fixture
def files():
    return kubernetes_node.files(PKI, "node", "192.0.2.8")


def test_every_service_is_started_with_the_node(files):
    services = {path.rsplit("/", 1)[1] for path in files if path.endswith(".service")}
    wanted = re.search("Wants=(.*)", files["/etc/systemd/system/multi-user.target.d/bed.conf"])[1].split()
    assert services | {"tmp-hostpath_pv.mount"} == set(wanted)


def test_every_file_that_a_service_names_is_there_or_made_by_the_service(files):
    flags = kubernetes_node._apiserver("192.0.2.8") | kubernetes_node._controllers()
    named = {value for value in flags.values() if value.startswith(kubernetes_node.ETC)}
    private = {f"{kubernetes_node.ETC}/pki/{name}" for name in ("apiserver.crt", "apiserver.key", "sa.key", "ca.key")}
    assert named - private <= set(files)


def test_the_program_is_mounted_under_every_name_that_a_service_calls(files):
    called = set(re.findall(r"/usr/local/bin/(\S+)", "".join(files.values())))
    assert called <= {name for _module, names in kubernetes.PROGRAMS.values() for name in names}


def test_clients_are_who_their_certificates_say(files):
    for client in ("kube-scheduler", "kubelet"):
        config = json.loads(files[f"{kubernetes_node.ETC}/{client}.kubeconfig"])
        assert config["clusters"][0]["cluster"]["server"] == "https://192.0.2.8:6443"
        key = config["users"][0]["user"]["client-key-data"]
        assert base64.b64decode(key).decode() == PKI[f"{client}.key"]


def test_the_shield_leaves_settings_that_are_right_and_covers_the_others(tmp_path):
    script = kubernetes_node.SHIELD.replace("/proc/sys", f"{tmp_path}/sys").replace("/run/shield", f"{tmp_path}/shield")
    for key, value in (
        ("vm/overcommit_memory", 0),
        ("vm/panic_on_oom", 0),
        ("kernel/panic", 1),
        ("kernel/panic_on_oops", 1),
        ("kernel/keys/root_maxkeys", 1000000),
        ("kernel/keys/root_maxbytes", 25000000),
    ):
        path = tmp_path / "sys" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    (tmp_path / "mountpoint").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "mount").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/mounts\n')
    for name in ("mount", "mountpoint"):
        (tmp_path / name).chmod(0o755)
    subprocess.run(["sh", "-c", script, "shield", "/docker/x"], env={"PATH": f"{tmp_path}:/bin:/usr/bin"}, check=True)
    covered = [line.split()[1].rsplit("/shield/")[1] for line in (tmp_path / "mounts").read_text().splitlines()]
    assert covered == ["vm/overcommit_memory", "kernel/panic"]
    assert (tmp_path / "sys/kernel/panic").read_text() == "1\n"


def test_own_cluster_is_used_instead(tmp_path, monkeypatch):
    own = tmp_path / "config"
    monkeypatch.setenv("CLAWOPS_KUBECONFIG", str(own))
    with pytest.raises(BedError, match="is not a file"):
        kubernetes.up(Job("kubernetes"), "kubernetes")
    own.write_text("{}")
    kubernetes.up(Job("kubernetes"), "kubernetes")
    assert kubernetes.kubeconfig() == own
    assert kubernetes.status("kubernetes") == ("external", str(own))
    assert kubernetes.registry() == ""


def test_a_shells_kubeconfig_is_never_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", "/production")
    assert kubernetes.external() is None
    assert kubernetes.kubeconfig() == tmp_path / "bed/kubernetes/kubeconfig"


def test_environment_names_the_cluster(capsys):
    cli.environment([])
    assert "export CLAWOPS_BED_KUBECONFIG=" in capsys.readouterr().out


def test_sources_are_pinned_to_one_release():
    lines = (kubernetes.SOURCES / "go.mod").read_text()
    assert kubernetes.version().startswith("1.34.")
    staging = set(re.findall(r"^\s+k8s\.io/(?!kubernetes|klog|utils|kube-openapi|gengo)\S+ v(\S+)", lines, re.M))
    assert staging == {f"0.{kubernetes.version()[2:]}"}
    assert "replace" not in lines


def test_each_program_is_built_once_for_its_sources(monkeypatch):
    calls = []

    def run(_job, *argv, **_env):
        calls.append(argv)
        pathlib.Path(argv[argv.index("-o") + 1]).write_text("program")

    monkeypatch.setattr(golang, "run", run)
    first = kubernetes._build(Job("kubernetes"))
    assert kubernetes._build(Job("kubernetes")) == first
    assert [argv[-1] for argv in calls] == ["./hyperkube", "./coredns", "./"]
    assert first["kubelet"] == first["kubectl"] != first["coredns"]
    assert any(f"version.gitVersion=v{kubernetes.version()} " in word for word in calls[0] if isinstance(word, str))


def test_an_old_go_is_not_used(tmp_path, monkeypatch):
    home = cache.folder("go") / golang.PACKAGE / "bin"
    home.mkdir(parents=True)
    (home / "go").touch()
    monkeypatch.setattr(golang, "output", lambda *argv: "go1.19.8")
    assert golang._toolchain(Job("go")) == str(home / "go")
    monkeypatch.setattr(golang, "output", lambda *argv: "go1.26.0")
    assert golang._toolchain(Job("go")) == "go"


def test_certificates_are_made_once_and_again_before_they_expire(monkeypatch):
    names = ["IP:192.0.2.8", "DNS:kubernetes"]
    first = kubernetes_pki.ensure(Job("kubernetes"), "node", names)
    assert kubernetes_pki.ensure(Job("kubernetes"), "node", names) == first
    home = next(cache.folder("kubernetes").glob("pki-*"))
    shown = output("openssl", "x509", "-noout", "-subject", "-ext", "subjectAltName", "-in", home / "apiserver.crt")
    assert "192.0.2.8" in shown
    assert output("openssl", "verify", "-CAfile", home / "ca.crt", home / "kubelet.crt")
    assert "system:node:node" in output("openssl", "x509", "-noout", "-subject", "-in", home / "kubelet.crt")
    (home / "kubelet.crt").unlink()
    later = kubernetes_pki.ensure(Job("kubernetes"), "node", names)
    assert {name for name in first if first[name] != later[name]} == {"kubelet.crt", "kubelet.key"}


def test_down_takes_back_what_a_privileged_pod_set_for_the_machine(monkeypatch):
    ran = []
    monkeypatch.setattr(kubernetes, "_delegating", lambda: ["/found", "/changed"])
    monkeypatch.setattr(kubernetes, "output", lambda *argv: ran.append(argv))
    for name in ("inspect", "discard", "remove_cgroups"):
        monkeypatch.setattr(kubernetes.engine, name, lambda *argv: None)
    cache.remember(nsdelegate=["/found"])
    kubernetes.down(Job("kubernetes"), "kubernetes")
    assert [argv[-1] for argv in ran] == ["/changed"]
    assert "nsdelegate" not in cache.state()
    ran.clear()
    kubernetes.down(Job("kubernetes"), "kubernetes")
    assert ran == []


def test_the_node_has_an_address_of_its_own():
    assert [who for who in net.LAST if net.v4(who) == net.v4(kubernetes.NODE)] == [kubernetes.NODE]
