# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The OpenClaw installation as one file: Node and an npm prefix, made once, reused by hosts, images and guests."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import typing as t

from .._errors import FleetError
from .._files import pretty, read_json, write
from .._plan import Plan
from .._process import Runner, must

#: npm and pnpm that go into the artefact; neither runs install scripts.
TOOLS = ("npm@11", "pnpm@10")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("-")[0].split("."))


def pick_node(versions: t.Sequence[str]) -> str:
    """The newest release of the oldest major line that fits: the line that upstream tests longest."""
    finals = [version for version in versions if "-" not in version]
    if not finals:
        raise FleetError("no_node", "No Node.js package fits what this OpenClaw release demands.",
                         "Set node_version, or choose another release.")
    oldest = min(_numbers(version)[0] for version in finals)
    return max((v for v in finals if _numbers(v)[0] == oldest), key=_numbers)


class Artifact:
    """One release for one platform, below a directory of artefacts."""

    def __init__(self, run: Runner, npm: str, directory: str, version: str, platform: str, node_version: str | None):
        self.run, self.npm, self.version, self.platform = run, npm, version, platform
        self.node_version = node_version
        self.directory = pathlib.Path(directory).expanduser()
        self.archive = self.directory / f"openclaw-{version}-{platform}.tar.zst"
        self.manifest = self.archive.with_suffix(".json")

    def observe(self) -> dict[str, t.Any] | None:
        """The manifest of a complete archive."""
        found = read_json(self.manifest)
        whole = found and self.archive.is_file() and self.archive.stat().st_size == found.get("size")
        fits = whole and self.node_version in (None, found["node"])
        return t.cast("dict[str, t.Any]", found) if fits else None

    def plan(self) -> Plan:
        plan = Plan()
        found = self.observe()
        plan.compare(f"artefact {self.archive.name}", {"openclaw": self.version, "platform": self.platform},
                     found and {"openclaw": found["openclaw"], "platform": found["platform"]})
        return plan

    def _view(self, package: str, field: str) -> t.Any:
        text = must(self.run, [self.npm, "view", package, field, "--json"], f"Looking up {package}", timeout=120)
        return json.loads(text) if text.strip() else None

    def _node(self) -> str:
        if self.node_version:
            return self.node_version
        engines = self._view(f"openclaw@{self.version}", "engines.node")
        if not engines:
            raise FleetError("no_release", f"OpenClaw {self.version} is not a published release.",
                             "Choose an existing version.")
        found = self._view(f"node-{self.platform}@{engines}", "version")
        return pick_node([found] if isinstance(found, str) else found or [])

    def build(self) -> dict[str, t.Any]:
        """Installs into a scratch prefix, packs it, and puts archive and manifest in place by rename."""
        self.directory.mkdir(parents=True, exist_ok=True)
        prefix = pathlib.Path(tempfile.mkdtemp(prefix=".build-", dir=self.directory))
        try:
            return self._build(prefix)
        finally:
            shutil.rmtree(prefix, ignore_errors=True)

    def _build(self, prefix: pathlib.Path) -> dict[str, t.Any]:
        node = self._node()
        packages = [f"node-{self.platform}@{node}", *TOOLS, f"openclaw@{self.version}"]
        must(self.run, [self.npm, "install", "--global", "--prefix", str(prefix), "--ignore-scripts", "--no-audit",
                        "--no-fund", "--loglevel=error", *packages], "Installing OpenClaw", timeout=1200)
        # The one install script that is needed, run by the Node.js that it will live with.
        env = {**os.environ, "PATH": f"{prefix}/bin:{os.environ.get('PATH', '')}"}
        must(self.run, [f"{prefix}/bin/npm", "rebuild", "--global", "--prefix", str(prefix), "--loglevel=error",
                        "--allow-scripts=openclaw", "openclaw"], "Finishing OpenClaw", env=env, timeout=600)
        about = {"openclaw": self.version, "node": node, "platform": self.platform}
        # Last in the archive: a tree that has it was unpacked whole.
        names = sorted(entry.name for entry in prefix.iterdir())
        write(prefix / "manifest.json", pretty(about))
        beside = self.archive.with_suffix(f".{os.getpid()}")
        must(self.run, ["tar", "--create", "--file", str(beside), "--use-compress-program", "zstd -T0 -3", "--owner=0",
                        "--group=0", "--numeric-owner", "--sort=name", "--mode=u+rwX,go+rX,go-w", "-C", str(prefix),
                        *names, "manifest.json"], "Packing OpenClaw", timeout=600)
        sha256 = hashlib.sha256()
        with beside.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                sha256.update(block)
        facts = {**about, "sha256": sha256.hexdigest(), "size": beside.stat().st_size}
        beside.replace(self.archive)
        write(self.manifest, pretty(facts), uid=os.geteuid(), gid=os.getegid())
        return facts

    def facts(self) -> dict[str, t.Any]:
        return {"artifact": {**(self.observe() or {}), "path": str(self.archive)}}


class Installation:
    """An archive unpacked on a host."""

    def __init__(self, run: Runner, src: str, dest: str):
        self.run, self.src, self.dest = run, pathlib.Path(src), pathlib.Path(dest)

    def observe(self) -> dict[str, t.Any] | None:
        return t.cast("dict[str, t.Any] | None", read_json(self.dest / "manifest.json"))

    def plan(self) -> Plan:
        plan = Plan()
        if self.observe() is None:
            plan.add(str(self.dest), "create", None, self.src.name)
        return plan

    def unpack(self) -> None:
        """Into a directory beside, then by rename: what is half unpacked never looks like an installation."""
        beside = self.dest.with_name(f".{self.dest.name}.unpacking")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        must(self.run, ["tar", "--extract", "--file", str(self.src), "--use-compress-program", "zstd",
                        "--no-same-owner", "-C", str(beside)], "Unpacking OpenClaw", timeout=600)
        if self.dest.exists():
            shutil.rmtree(self.dest)
        beside.chmod(0o755)
        beside.rename(self.dest)

    def facts(self) -> dict[str, t.Any]:
        return {"installation": {"prefix": str(self.dest), **(self.observe() or {})}}
