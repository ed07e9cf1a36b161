# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real cluster of one node, in a systemd container on the bed's network; or the operator's own cluster.

The parts of Kubernetes and CoreDNS are built from their Go modules (folder kubernetes), the rest are packages of the
distribution. NodePorts answer on the node's address. Network policies are enforced, and volumes grow (folder addons).
"""

from __future__ import annotations

import ipaddress
import json
import os
import pathlib
import re
import tarfile
import urllib.request

from . import cache, dockerhost, engine, golang, kubernetes_node, kubernetes_pki, net
from .job import BedError, Job, output

INSTANCES = DEFAULT = ["kubernetes"]
SOURCES = pathlib.Path(__file__).with_name("kubernetes")
ADDONS = pathlib.Path(__file__).with_name("addons")
KUBERNETES = ["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"]
# package -> its Go module, and the names its program is called by
PROGRAMS = {"hyperkube": (SOURCES, KUBERNETES), "coredns": (SOURCES, ["coredns"]), "addons": (ADDONS, ["addons"])}
SUITE = "trixie"
PACKAGES = "containerd runc containernetworking-plugins iptables etcd-server docker-registry busybox-static"
NODE = "kubernetes"
CONTAINER = net.container(NODE)
REGISTRY = f"127.0.0.1:{kubernetes_node.REGISTRY_PORT}"
DOCKERFILE = f"""FROM {{base}}
RUN apt-get -q update && apt-get -qy install --no-install-recommends {PACKAGES} && apt-get clean \\
    && systemctl mask ssh.service
"""


def external() -> str | None:
    """The kubeconfig of the operator's own cluster. Not KUBECONFIG: in many a shell that is production."""
    return os.environ.get("CLAWOPS_KUBECONFIG")


def kubeconfig() -> pathlib.Path:
    """Whoever reads this may do everything in the cluster."""
    return pathlib.Path(external() or cache.folder("kubernetes") / "kubeconfig")


def registry() -> str:
    """Where images for pods are pushed to and pulled from, under the same name on the machine and on the node."""
    return os.environ.get("CLAWOPS_REGISTRY", "") if external() else REGISTRY


def endpoint() -> str:
    """The URL of the API server."""
    return f"https://{net.v4(NODE)}:{kubernetes_node.API_PORT}"


def up(job: Job, _name: str) -> None:
    """The node, ready for pods; nothing when the operator brings a cluster."""
    if external():
        if not kubeconfig().is_file():
            raise BedError(f"CLAWOPS_KUBECONFIG={external()} is not a file")
        return
    programs = _build(job)
    tag = _image(job)
    inside = ipaddress.ip_network(kubernetes_node.SERVICES)[1]
    names = [f"DNS:kubernetes{rest}" for rest in ("", ".default", ".default.svc", ".default.svc.cluster.local")]
    pki = kubernetes_pki.ensure(job, NODE, [f"IP:{net.v4(NODE)}", f"IP:{inside}", "IP:127.0.0.1", *names])
    cache.write(kubeconfig(), kubernetes_pki.kubeconfig(pki, "admin", endpoint()))
    files = kubernetes_node.files(pki, NODE, net.v4(NODE))
    cache.remember(nsdelegate=cache.state().get("nsdelegate", _delegating()))
    engine.container(job, CONTAINER, _options(programs, tag), files)
    engine.forget_images("node")
    job.wait(f"the registry (see `docker exec {CONTAINER} journalctl`)", lambda: _repositories() is not None)
    _push(job)
    job.wait("the API server", lambda: output(*_kubectl("get", "--raw", "/readyz")) == "ok")
    job.run(_kubectl("apply", "-f", "-"), data=json.dumps(kubernetes_node.OBJECTS).encode())
    job.wait(f"the node (see `docker exec {CONTAINER} journalctl`)", _ready, timeout=120)


def _options(programs: dict[str, pathlib.Path], tag: str) -> list[object]:
    published = ["-p", f"{REGISTRY}:{kubernetes_node.REGISTRY_PORT}"]
    # kubelet reads the kernel's log; a privileged pod is given every device, which the node must have to give.
    devices = ["--device=/dev/kmsg", "--device-cgroup-rule=a *:* rwm"]
    mounts = [word for name, path in programs.items() for word in ("-v", f"{path}:/usr/local/bin/{name}:ro")]
    return [*published, *devices, *mounts, *dockerhost.options(NODE, tag)]


def version() -> str:
    """The release of Kubernetes that the sources ask for."""
    found = re.search(r"k8s\.io/kubernetes v(\S+)", (SOURCES / "go.mod").read_text())
    if not found:
        raise BedError(f"{SOURCES / 'go.mod'} doesn't say which Kubernetes")
    return found[1]


def _build(job: Job) -> dict[str, pathlib.Path]:
    """The program behind every name."""
    major, minor = version().split(".")[:2]
    facts = {"gitVersion": f"v{version()}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    stamps = [f"-X {package}.{key}={value}" for package in packages for key, value in facts.items()]
    flags = ["-trimpath", f"-ldflags=-s -w {' '.join(stamps)}"]

    def program(package: str, module: pathlib.Path) -> pathlib.Path:
        sources = {str(path.relative_to(module)): path.read_text() for path in sorted(module.rglob("*.*"))}
        where = package if (module / package).is_dir() else ""

        def build(out: pathlib.Path) -> None:
            job.say(f"building {package} for Kubernetes {version()}; all takes 6 to 12 minutes (log: {job.log})")
            golang.run(job, "build", "-C", module, *flags, "-o", out, f"./{where}")

        return cache.artefact(f"{package}-binary", cache.digest(sources, flags), build)

    built = {package: program(package, module) for package, (module, _names) in PROGRAMS.items()}
    return {name: built[package] for package, (_module, names) in PROGRAMS.items() for name in names}


def _image(job: Job) -> str:
    """A managed host with the node's packages."""
    return engine.build_image(job, "node", DOCKERFILE.format(base=dockerhost.image(job, SUITE)))


def _kubectl(*argv: str) -> list[str]:
    return ["docker", "exec", "-i", CONTAINER, "kubectl", *argv]


def _repositories() -> list[str] | None:
    try:
        with urllib.request.urlopen(f"http://{REGISTRY}/v2/_catalog", timeout=2) as reply:
            return list(json.load(reply)["repositories"])
    except OSError:
        return None


def _push(job: Job) -> None:
    """The image of every pod's sandbox, which is also one to test with: a shell, httpd, nc, wget."""
    image = kubernetes_node.IMAGE
    if image.split("/", 1)[1].split(":")[0] in (_repositories() or []):
        return
    home = cache.folder("kubernetes")
    job.run(["docker", "cp", f"{CONTAINER}:/bin/busybox", home / "busybox"])
    applets = (output("docker", "exec", CONTAINER, "busybox", "--list") or "").split()
    with tarfile.open(home / "busybox.tar", "w") as tar:
        tar.add(home / "busybox", "bin/busybox")
        for applet in applets:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            if applet != "busybox":
                tar.addfile(entry)
    settings = ["--change", "ENV PATH=/bin", "--change", 'CMD ["/bin/sleep", "2147483647"]']
    job.run(["docker", "import", *settings, home / "busybox.tar", image])
    job.run(["docker", "push", image])
    job.run(["docker", "image", "rm", image])


def _ready() -> bool:
    """The node as the API server sees it, and kubelet by itself: of one that died the API server learns late."""
    names = f"busybox nslookup kubernetes.default.svc.cluster.local {net.v4(NODE)}"
    node = f"kubectl wait --for=condition=Ready --timeout=1s node/{NODE}"
    ask = f"curl -fs http://127.0.0.1:10248/healthz && {names} && {node}"
    return output("docker", "exec", CONTAINER, "sh", "-c", ask) is not None


def _delegating() -> list[str]:
    """Where cgroup2 is mounted with nsdelegate: systemd in a privileged pod sets that for the whole machine."""
    mounts = [line.split() for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    return [mount[1] for mount in mounts if mount[2] == "cgroup2" and "nsdelegate" in mount[3].split(",")]


def down(_job: Job, _name: str) -> None:
    """No cluster, and nothing of what ran in it."""
    ident = engine.inspect("container", CONTAINER, "{{.Id}}")
    engine.discard(CONTAINER, CONTAINER)
    engine.remove_cgroups([ident] if ident else [])
    now = _delegating()
    for point in set(now) - set(cache.state().get("nsdelegate", now)):
        output("mount", "--options-mode=ignore", "-o", "remount,rw,relatime", point)
    cache.remember(nsdelegate=None)


def status(_name: str) -> tuple[str, str]:
    """State and address."""
    if external():
        return "external", str(external())
    return ("up" if engine.running(CONTAINER) and _ready() else "down"), endpoint()
