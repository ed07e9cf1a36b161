# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cluster's authority and certificates, made once; who a client is stands in its certificate."""

from __future__ import annotations

import base64
import json
import pathlib
import typing as t

from . import cache, machine
from .job import Job, output

# file -> (subject, who may be at the other end)
CLIENTS = {
    "admin": "/O=system:masters/CN=admin",
    "apiserver-kubelet": "/O=system:masters/CN=apiserver-kubelet",
    "kube-controller-manager": "/CN=system:kube-controller-manager",
    "kube-scheduler": "/CN=system:kube-scheduler",
    "kube-proxy": "/CN=system:kube-proxy",
    "coredns": "/CN=system:coredns",
    "addons": "/CN=system:addons",
    "kubelet": "/O=system:nodes/CN=system:node:{node}",
}
NEW = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def ensure(job: Job, node: str, names: t.Sequence[str]) -> dict[str, str]:
    """File name -> text of everything; what expires soon is made anew. names: what the API server is called."""
    home = cache.folder("kubernetes", f"pki-{cache.digest(node, names, CLIENTS)}")
    machine.need(job, {"openssl": "openssl"})
    with cache.lock("kubernetes-pki"):
        if not _valid(home / "ca.crt"):
            for old in home.iterdir():
                old.unlink()
            _authority(job, home)
        alternatives = f"subjectAltName={','.join(names)}"
        _leaf(job, home, "apiserver", "/CN=kube-apiserver", "extendedKeyUsage=serverAuth", alternatives)
        for name, subject in CLIENTS.items():
            _leaf(job, home, name, subject.format(node=node), "extendedKeyUsage=clientAuth")
        if not (home / "sa.pub").exists():
            curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
            job.run(["openssl", "genpkey", *curve, "-out", home / "sa.key"])
            job.run(["openssl", "pkey", "-in", home / "sa.key", "-pubout", "-out", home / "sa.pub"])
        return {path.name: path.read_text() for path in sorted(home.iterdir())}


def _valid(certificate: pathlib.Path) -> bool:
    return output("openssl", "x509", "-checkend", "86400", "-noout", "-in", certificate) is not None


def _authority(job: Job, home: pathlib.Path) -> None:
    usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"]
    files = ["-keyout", home / "ca.key", "-out", home / "ca.crt"]
    job.run([*NEW, "-days", "3650", "-subj", "/CN=clawops.fleet test bed cluster", *usage, *files])


def _leaf(job: Job, home: pathlib.Path, name: str, subject: str, *extensions: str) -> None:
    if _valid(home / f"{name}.crt"):
        return
    wanted = ["basicConstraints=critical,CA:FALSE", *extensions]
    added = [word for extension in wanted for word in ("-addext", extension)]
    signer = ["-CA", home / "ca.crt", "-CAkey", home / "ca.key"]
    files = ["-keyout", home / f"{name}.key", "-out", home / f"{name}.crt"]
    job.run([*NEW, "-days", "365", "-subj", subject, *added, *signer, *files])


def kubeconfig(pki: t.Mapping[str, str], name: str, server: str) -> str:
    """The kubeconfig of a client."""

    def data(file: str) -> str:
        return base64.b64encode(pki[file].encode()).decode()

    cluster = {"server": server, "certificate-authority-data": data("ca.crt")}
    user = {"client-certificate-data": data(f"{name}.crt"), "client-key-data": data(f"{name}.key")}
    context = {"cluster": "clawops-bed", "user": name}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "clawops-bed", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "clawops-bed", "context": context}],
            "current-context": "clawops-bed",
        },
        indent=1,
    )
