# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The image of a bot in a container: a base of the distribution's packages, and the artefact on top."""

from __future__ import annotations

import hashlib
import json
import pathlib
import tempfile
import typing as t

from .._errors import FleetError
from .._files import read
from .._ownership import MANAGED
from .._plan import Plan
from .._process import Runner, must

PACKAGES = ("ca-certificates", "curl", "git", "iproute2", "jq", "less", "openssh-client", "procps", "python3",
            "ripgrep", "sqlite3")
OPTIONS = ("--aptopt=APT::Install-Recommends \"false\"", "--aptopt=Acquire::Languages \"none\"",
           "--aptopt=Acquire::Retries \"5\"", "--dpkgopt=path-exclude=/usr/share/man/*",
           "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
           "--dpkgopt=path-include=/usr/share/doc/*/copyright")
DOCKERFILE = """FROM {base}
COPY . /opt/openclaw
ENV PATH=/opt/openclaw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /home/openclaw
ENTRYPOINT ["node", "--env-file=/run/secrets/openclaw.env", "/opt/openclaw/lib/node_modules/openclaw/openclaw.mjs"]
CMD ["gateway", "run"]
"""


def hashed(*inputs: t.Any) -> str:
    """12 digits that stand for everything that goes into an image."""
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:12]


def engine_answers(run: Runner) -> bool:
    try:
        return run(["docker", "version", "--format", "{{.Server.Version}}"]).rc == 0
    except FleetError:
        return False


def exists(run: Runner, tag: str) -> bool:
    return run(["docker", "image", "inspect", "--format", "{{.Id}}", tag]).rc == 0


def build(run: Runner, dockerfile: str, context: str, tag: str) -> None:
    with tempfile.NamedTemporaryFile("w", prefix="clawops-dockerfile-") as file:
        file.write(dockerfile)
        file.flush()
        must(run, ["docker", "build", "--quiet", "--tag", tag, "--label", f"{MANAGED}=true", "--network", "none",
                   "--file", file.name, context], f"Building {tag}", timeout=1800)


class Base:
    """An image of the distribution's packages.

    hooks are shell commands that run when the packages are in, with the new root as $1. Where cache names a
    directory, the archive of the root file system is kept there for engines that lose their images.
    """

    def __init__(self, run: Runner, suite: str, sources: str | None, packages: t.Sequence[str],
                 hooks: t.Sequence[str] = (), name: str = "base", serial: str = "", cache: str | None = None):
        self.run, self.suite, self.sources = run, suite, sources
        self.packages, self.hooks = packages, hooks
        inputs = hashed(suite, read(sources) if sources else "", sorted(packages), hooks, OPTIONS, serial)
        self.tag = f"clawops/{name}:{suite}-{inputs}"
        self.kept = pathlib.Path(cache, f"{name}-{suite}-{inputs}.tar.zst") if cache else None

    def ensure(self) -> None:
        if exists(self.run, self.tag):
            return
        with tempfile.TemporaryDirectory(prefix="clawops-base-", dir="/var/tmp") as folder:
            must(self.run, ["docker", "import", "--change", f"LABEL {MANAGED}=true", self._tar(folder), self.tag],
                 "Importing the base image", timeout=600)

    def _tar(self, folder: str) -> str:
        tar = f"{folder}/base.tar"
        if self.kept is None:
            self._bootstrap(tar)
            return tar
        if not self.kept.is_file():
            self._keep(self.kept)
        must(self.run, ["zstd", "--decompress", "--quiet", "-o", tar, str(self.kept)], "Unpacking the base image",
             timeout=600)
        return tar

    def _keep(self, kept: pathlib.Path) -> None:
        """The one of these inputs; older ones go."""
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=kept.parent) as folder:
            made = pathlib.Path(folder, kept.name)
            self._bootstrap(str(made))
            made.replace(kept)
        for old in kept.parent.glob(f"{kept.name.rsplit('-', 1)[0]}-*"):
            if old != kept:
                old.unlink()

    def _bootstrap(self, tar: str) -> None:
        # In a mount namespace of its own, because it makes the mounts of the one it runs in private,
        # and systemd hands no credentials to units after that.
        must(self.run, ["unshare", "--mount", "mmdebstrap", "--mode=root", "--variant=minbase", *OPTIONS,
                        *(f"--customize-hook={hook}" for hook in self.hooks),
                        f"--include={','.join(self.packages)}", self.suite, tar,
                        *([self.sources] if self.sources else [])],
             "Making the base image from the distribution's packages", timeout=3600)


class Image:
    """The image of one release on one host."""

    def __init__(self, run: Runner, prefix: str, base: str | None, suite: str, sources: str | None):
        self.run, self.prefix = run, pathlib.Path(prefix)
        self.own_base = None if base else Base(run, suite, sources, PACKAGES)
        self.base = base or t.cast(Base, self.own_base).tag
        self.tag = f"clawops/openclaw:{hashed(read(self.prefix / 'manifest.json'), self.base, DOCKERFILE)}"

    def plan(self) -> Plan:
        plan = Plan()
        if not engine_answers(self.run):
            plan.cannot_see("no Docker engine answers on this host yet")
            return plan
        if not (self.prefix / "manifest.json").is_file():
            plan.cannot_see(f"{self.prefix} is not there yet")
            return plan
        wanted = {"base": self.base, "of": str(self.prefix)}
        plan.compare(f"image {self.tag}", wanted, wanted if exists(self.run, self.tag) else None)
        return plan

    def build(self) -> None:
        if self.own_base:
            self.own_base.ensure()
        build(self.run, DOCKERFILE.format(base=self.base), str(self.prefix), self.tag)

    def facts(self) -> dict[str, t.Any]:
        return {"image": self.tag, "base": self.base}
