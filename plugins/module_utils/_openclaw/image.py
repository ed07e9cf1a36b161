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

PACKAGES = ("ca-certificates", "curl", "git", "iproute2", "jq", "less", "procps", "python3", "ripgrep", "sqlite3")
DOCKERFILE = """FROM {base}
COPY . /opt/openclaw
ENV PATH=/opt/openclaw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /home/openclaw
ENTRYPOINT ["node", "--env-file=/run/secrets/openclaw.env", "/opt/openclaw/lib/node_modules/openclaw/openclaw.mjs"]
CMD ["gateway", "run"]
"""


class Image:
    """The image of one release on one host."""

    def __init__(self, run: Runner, prefix: str, base: str | None, suite: str, sources: str | None):
        self.run, self.prefix, self.suite, self.sources = run, pathlib.Path(prefix), suite, sources
        recipe = json.dumps([DOCKERFILE, PACKAGES, suite])
        self.own_base = base is None
        self.base = base or f"clawops/base:{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
        inputs = "\n".join([read(self.prefix / "manifest.json") or "", self.base, DOCKERFILE])
        self.tag = f"clawops/openclaw:{hashlib.sha256(inputs.encode()).hexdigest()[:16]}"

    def _exists(self, tag: str) -> bool:
        return self.run(["docker", "image", "inspect", "--format", "{{.Id}}", tag]).rc == 0

    def plan(self) -> Plan:
        plan = Plan()
        try:
            alive = self.run(["docker", "version", "--format", "{{.Server.Version}}"])
        except FleetError:
            alive = None
        if alive is None or alive.rc:
            plan.cannot_see("no Docker engine answers on this host yet")
            return plan
        if not (self.prefix / "manifest.json").is_file():
            plan.cannot_see(f"{self.prefix} is not there yet")
            return plan
        plan.compare(f"image {self.tag}", {"base": self.base, "of": str(self.prefix)},
                     {"base": self.base, "of": str(self.prefix)} if self._exists(self.tag) else None)
        return plan

    def build(self) -> None:
        if self.own_base and not self._exists(self.base):
            self._build_base()
        with tempfile.NamedTemporaryFile("w", prefix="clawops-dockerfile-") as dockerfile:
            dockerfile.write(DOCKERFILE.format(base=self.base))
            dockerfile.flush()
            must(self.run, ["docker", "build", "--quiet", "--tag", self.tag, "--label", f"{MANAGED}=true",
                            "--file", dockerfile.name, str(self.prefix)], "Building the image", timeout=1800)

    def _build_base(self) -> None:
        with tempfile.TemporaryDirectory(prefix="clawops-base-", dir="/var/tmp") as folder:
            tar = f"{folder}/base.tar"
            options = ["--aptopt=APT::Install-Recommends \"false\"", "--dpkgopt=path-exclude=/usr/share/man/*",
                       "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright"]
            sources = [self.sources] if self.sources else []
            # In a mount namespace of its own, because it makes the mounts of the one it runs in private,
            # and systemd hands no credentials to units after that.
            must(self.run, ["unshare", "--mount", "mmdebstrap", "--mode=root", "--variant=minbase", *options,
                            f"--include={','.join(PACKAGES)}", self.suite, tar, *sources],
                 "Making the base image from the distribution's packages", timeout=1800)
            must(self.run, ["docker", "import", "--change", f"LABEL {MANAGED}=true", tar, self.base],
                 "Importing the base image", timeout=600)

    def facts(self) -> dict[str, t.Any]:
        return {"image": self.tag, "base": self.base}
