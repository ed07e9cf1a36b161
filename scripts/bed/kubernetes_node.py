# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is configured inside the node: its services, their settings, the pods' network."""

from __future__ import annotations

import json
import typing as t

from . import kubernetes_pki

# The node's volume: all that must outlive its container.
DATA = "/var/lib/docker"
ETC = "/etc/kubernetes"
PODS, SERVICES = "10.244.0.0/16", "10.96.0.0/16"
API_PORT, REGISTRY_PORT = 6443, 5000
IMAGE = f"127.0.0.1:{REGISTRY_PORT}/clawops-bed/busybox:1"
CLIENTS = ["kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns", "addons"]
CONTAINERD = "unix:///run/containerd/containerd.sock"

UNIT = """[Unit]
After={after}
StartLimitIntervalSec=0
[Service]
ExecStart={start}
Restart=always
RestartSec=1
KillMode=process
Delegate=yes
"""
# kubelet wants the kernel's settings changed. They belong to the whole machine: it gets to see what it wants, no more.
# And it wants the node's control group in every hierarchy, also in those that only the node's own systemd mounted.
SHIELD = """set -eu
for hierarchy in /sys/fs/cgroup/*; do
    if mountpoint -q "$hierarchy" && [ ! -d "$hierarchy$1" ]; then umount "$hierarchy"; fi
done
want() {
    [ "$(cat "/proc/sys/$1")" != "$2" ] || return 0
    mkdir -p "/run/shield/${1%/*}"
    echo "$2" >"/run/shield/$1"
    mount --bind "/run/shield/$1" "/proc/sys/$1"
}
want vm/overcommit_memory 1
want vm/panic_on_oom 0
want kernel/panic 10
want kernel/panic_on_oops 1
want kernel/keys/root_maxkeys 1000000
want kernel/keys/root_maxbytes 25000000
"""
# The first packet of each connection from or to a pod is judged by the program behind the queue: after the choice of a
# Service's pod, before the source is hidden. The node's own root is exempt, because kubelet asks pods how they are.
# While the program is away nothing is let through.
DIVERT = """set -eu
iptables="iptables -w -t mangle"
$iptables -N POLICIES 2>/dev/null || $iptables -F POLICIES
$iptables -A POLICIES -m conntrack --ctstate NEW -j NFQUEUE --queue-num 100
divert() {
    $iptables -C "$@" -j POLICIES 2>/dev/null || $iptables -A "$@" -j POLICIES
}
divert INPUT -i cni0
divert POSTROUTING -m owner ! --uid-owner 0
"""
# hostPath volumes come to lie here, a path that is fixed in the provisioner.
VOLUMES = f"""[Mount]
What={DATA}/hostpath_pv
Where=/tmp/hostpath_pv
Type=none
Options=bind
"""
RUNTIME = f"""version = 2
root = "{DATA}/containerd"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


NAMES = f""". {{
    errors
    cache 5
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {ETC}/coredns.kubeconfig
        fallthrough in-addr.arpa
    }}
    forward . /etc/resolv.conf
}}
"""
REGISTRY = {
    "version": 0.1,
    "http": {"addr": f":{REGISTRY_PORT}"},
    "storage": {"filesystem": {"rootdirectory": f"{DATA}/registry"}, "delete": {"enabled": True}},
}


def files(pki: t.Mapping[str, str], node: str, address: str) -> dict[str, str]:
    """Path -> text."""
    server = f"https://{address}:{API_PORT}"
    made = {f"{ETC}/pki/{name}": text for name, text in pki.items()}
    for client in (*CLIENTS, "kubelet"):
        made[f"{ETC}/{client}.kubeconfig"] = kubernetes_pki.kubeconfig(pki, client, server)
    made["/root/.kube/config"] = kubernetes_pki.kubeconfig(pki, "admin", server)
    documents = {
        f"{ETC}/kubelet.config": _kubelet(address),
        f"{ETC}/kube-proxy.config": _proxy(node),
        f"{ETC}/audit.policy": AUDIT,
        f"{ETC}/registry.config": REGISTRY,
        "/etc/cni/net.d/10-bed.conflist": _network(),
    }
    made |= {path: json.dumps(document, indent=1) for path, document in documents.items()}
    made |= {"/etc/containerd/config.toml": RUNTIME, f"{ETC}/shield": SHIELD, f"{ETC}/Corefile": NAMES,
             f"{ETC}/divert": DIVERT}
    made["/etc/systemd/system/tmp-hostpath_pv.mount"] = VOLUMES
    services = _services(node, address)
    made |= {f"/etc/systemd/system/{name}.service": text for name, text in services.items()}
    wanted = " ".join(f"{name}.service" for name in services)
    made["/etc/systemd/system/multi-user.target.d/bed.conf"] = f"[Unit]\nWants={wanted} tmp-hostpath_pv.mount\n"
    return made


def _services(node: str, address: str) -> dict[str, str]:
    return {
        "etcd": _unit(["/usr/bin/etcd", f"--data-dir={DATA}/etcd", "--unsafe-no-fsync"]),
        "containerd": _unit(["/usr/bin/containerd"]),
        "docker-registry": _unit(["/usr/bin/docker-registry", "serve", f"{ETC}/registry.config"]),
        "kube-apiserver": _program("kube-apiserver", _apiserver(address)),
        "kube-controller-manager": _program("kube-controller-manager", _controllers()),
        "kube-scheduler": _program("kube-scheduler", _client("kube-scheduler")),
        "kube-proxy": _program("kube-proxy", {"config": f"{ETC}/kube-proxy.config"}),
        "kubelet": _kubelet_unit(node, address),
        "coredns": _unit(["/usr/local/bin/coredns", "-conf", f"{ETC}/Corefile"], after="kube-apiserver.service"),
        "addons": _addons_unit(node),
    }


def _unit(argv: t.Sequence[str], after: str = "") -> str:
    return UNIT.format(after=after, start=" ".join(argv))


def _program(name: str, flags: t.Mapping[str, str]) -> str:
    argv = [f"/usr/local/bin/{name}", *(f"--{flag}={value}" for flag, value in flags.items())]
    return _unit(argv, after="etcd.service containerd.service")


def _addons_unit(node: str) -> str:
    start = f"sh {ETC}/divert && exec /usr/local/bin/addons {node} {ETC}/addons.kubeconfig"
    return _unit(["/bin/sh", "-c", f"'{start}'"], after="kube-apiserver.service")


def _apiserver(address: str) -> dict[str, str]:
    pki = f"{ETC}/pki"
    return {
        "advertise-address": address,
        "secure-port": str(API_PORT),
        "etcd-servers": "http://127.0.0.1:2379",
        "client-ca-file": f"{pki}/ca.crt",
        "tls-cert-file": f"{pki}/apiserver.crt",
        "tls-private-key-file": f"{pki}/apiserver.key",
        "kubelet-client-certificate": f"{pki}/apiserver-kubelet.crt",
        "kubelet-client-key": f"{pki}/apiserver-kubelet.key",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": f"{pki}/sa.pub",
        "service-account-signing-key-file": f"{pki}/sa.key",
        "service-cluster-ip-range": SERVICES,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "audit-policy-file": f"{ETC}/audit.policy",
        "audit-log-path": "/var/log/kubernetes-audit.log",
        "audit-log-maxsize": "100",
    }


def _client(name: str) -> dict[str, str]:
    """One node: nobody to agree with about who leads, and no metrics for others."""
    return {"kubeconfig": f"{ETC}/{name}.kubeconfig", "leader-elect": "false", "bind-address": "127.0.0.1"}


def _controllers() -> dict[str, str]:
    pki = f"{ETC}/pki"
    return {
        **_client("kube-controller-manager"),
        "use-service-account-credentials": "true",
        "service-account-private-key-file": f"{pki}/sa.key",
        "root-ca-file": f"{pki}/ca.crt",
        "cluster-signing-cert-file": f"{pki}/ca.crt",
        "cluster-signing-key-file": f"{pki}/ca.key",
        "enable-hostpath-provisioner": "true",
    }


def _kubelet_unit(node: str, address: str) -> str:
    """Its pods' groups lie in the node's own, so that they go with it."""
    flags = {
        "config": f"{ETC}/kubelet.config",
        "kubeconfig": f"{ETC}/kubelet.kubeconfig",
        "root-dir": f"{DATA}/kubelet",
        "hostname-override": node,
        "node-ip": address,
    }
    words = " ".join(f"--{flag}={value}" for flag, value in flags.items())
    lines = [
        "group=$$(systemctl show --value --property=ControlGroup -- -.slice)",
        f'sh {ETC}/shield "$$group"',
        f'exec /usr/local/bin/kubelet {words} --cgroup-root="$$group"',
    ]
    return _unit(["/bin/sh", "-c", f"'{' && '.join(lines)}'"], after="containerd.service")


def _kubelet(address: str) -> dict[str, t.Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": f"{ETC}/pki/ca.crt"}},
        "containerRuntimeEndpoint": CONTAINERD,
        "clusterDNS": [address],
        "clusterDomain": "cluster.local",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        # A full disk is the machine's concern; nothing is thrown away here.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "maxPods": 250,
    }


def _proxy(node: str) -> dict[str, t.Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{ETC}/kube-proxy.kubeconfig"},
        "hostnameOverride": node,
        "mode": "iptables",
        "clusterCIDR": PODS,
        # Zero leaves the kernel's limits alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _network() -> dict[str, t.Any]:
    # Leases in /run: after a reboot of the node nobody holds one.
    addresses = {"type": "host-local", "ranges": [[{"subnet": PODS}]], "dataDir": "/run/cni-leases"}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True}
    routes = {"routes": [{"dst": "0.0.0.0/0"}]}
    plugins = [{**bridge, "ipam": {**addresses, **routes}}, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return {"cniVersion": "0.4.0", "name": "bed", "plugins": plugins}


# Who did what, so that calls can be counted; the cluster's own parts are left out.
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"]},
        {"level": "None", "users": ["system:apiserver", *(f"system:{name}" for name in CLIENTS)]},
        {"level": "Metadata"},
    ],
}
STORAGE = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "hostpath", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "kubernetes.io/host-path",
    "allowVolumeExpansion": True,
}
RBAC = "rbac.authorization.k8s.io"
LOOK = ["list", "watch"]


def _rights(client: str, *rules: tuple[str, list[str], list[str]]) -> list[dict[str, t.Any]]:
    """What a part of the cluster may do everywhere: API group, resources, verbs."""
    name = f"system:{client}"
    wanted = [{"apiGroups": [group], "resources": resources, "verbs": verbs} for group, resources, verbs in rules]
    role = {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": wanted}
    binding = {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
               "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
               "subjects": [{"apiGroup": RBAC, "kind": "User", "name": name}]}
    return [role, binding]


# What a cluster has before anybody uses it.
ITEMS = [
    STORAGE,
    *_rights("coredns", ("", ["services", "namespaces"], LOOK), ("discovery.k8s.io", ["endpointslices"], LOOK)),
    *_rights("addons", ("", ["pods", "namespaces", "persistentvolumeclaims", "persistentvolumes"], LOOK),
             ("networking.k8s.io", ["networkpolicies"], LOOK),
             ("", ["persistentvolumes", "persistentvolumeclaims/status"], ["patch"])),
]
OBJECTS = {"apiVersion": "v1", "kind": "List", "items": ITEMS}
