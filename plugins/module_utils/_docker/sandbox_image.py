# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The image of spaces: the distribution's tools for a user with nothing but /workspace to write to."""

from __future__ import annotations

import pathlib
import tempfile
import typing as t

from .._openclaw import bot_image, image
from .._ownership import MANAGED
from .._plan import Plan
from .._process import Runner, must
from .names import WORKSPACE

REPOSITORY = "clawops-sandbox"
LATEST = f"{REPOSITORY}:latest"
TRUSTED = pathlib.Path("/usr/local/share/ca-certificates")
PACKAGES = ("ca-certificates", "curl", "file", "git", "jq", "less", "make", "nodejs", "npm", "openssh-client", "patch",
            "procps", "python3", "python3-pip", "python3-venv", "ripgrep", "sqlite3", "unzip", "vim-tiny", "xz-utils",
            "zip")
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
# /tmp can't run programs, which the builds of some Python packages want to.
PROFILE = f"""PATH={WORKSPACE}/.local/bin:/usr/local/bin:/usr/bin:/bin
export PATH
if [ -r /run/secrets/environment ]; then
  set -a
  . /run/secrets/environment
  set +a
fi
if mkdir -p {WORKSPACE}/.cache/tmp 2>/dev/null; then
  TMPDIR={WORKSPACE}/.cache/tmp
  export TMPDIR
fi
"""
BASHRC = f"""[ -n "${{PS1-}}" ] || return
shopt -s checkwinsize cmdhist histappend
HISTFILE={WORKSPACE}/.bash_history
HISTSIZE=10000
HISTFILESIZE=20000
HISTTIMEFORMAT='%F %T '
HISTCONTROL=
PROMPT_COMMAND='history -a'
PS1='\\u@\\h:\\w\\$ '
"""
FILES = {"/etc/profile.d/clawops-space.sh": PROFILE, "/etc/bash.bashrc": BASHRC}
DOCKERFILE = f"""FROM {{base}}
COPY . /
RUN update-ca-certificates && groupadd --gid 1001 sandbox && \\
    useradd --uid 1001 --gid 1001 --no-create-home --home-dir {WORKSPACE} --shell /bin/bash sandbox && \\
    install --directory --owner=1001 --group=1001 {WORKSPACE}
ENV HOME={WORKSPACE} LANG=C.UTF-8 PATH={WORKSPACE}/.local/bin:/usr/local/bin:/usr/bin:/bin \\
    XDG_CACHE_HOME={WORKSPACE}/.cache PIP_CACHE_DIR={WORKSPACE}/.cache/pip PIP_BREAK_SYSTEM_PACKAGES=1 \\
    PIP_DISABLE_PIP_VERSION_CHECK=1 npm_config_cache={WORKSPACE}/.cache/npm npm_config_prefix={WORKSPACE}/.local \\
    npm_config_update_notifier=false REQUESTS_CA_BUNDLE={BUNDLE} NODE_EXTRA_CA_CERTS={BUNDLE}
WORKDIR {WORKSPACE}
USER 1001:1001
CMD ["sleep", "infinity"]
"""


class SandboxImage:
    """The image on one host, by the hash of what goes in, and the tag latest that spaces have by default."""

    def __init__(self, run: Runner, suite: str, sources: str | None, packages: t.Sequence[str],
                 certificates: t.Sequence[str], serial: str, trusted: pathlib.Path = TRUSTED):
        self.run = run
        # What the operator lets the host trust, its spaces trust, too.
        found = [file.read_text(encoding="utf-8") for file in sorted(trusted.rglob("*.crt"))]
        self.certificates = list(dict.fromkeys(bot_image.single_certificates([*found, *certificates])))
        self.base = image.Base(run, suite, sources, [*PACKAGES, *packages], (), "sandbox-base", serial)
        self.files = FILES | {f"/usr/local/share/ca-certificates/clawops-{number}.crt": text
                              for number, text in enumerate(self.certificates, 1)}
        self.tag = f"{REPOSITORY}:{suite}-{image.hashed(self.base.tag, DOCKERFILE, self.files)}"

    def plan(self) -> Plan:
        plan = Plan()
        if not image.engine_answers(self.run):
            plan.cannot_see("no Docker engine answers on this host yet")
            return plan
        there = self._ident(self.tag)
        plan.compare(f"image {self.tag}", {"base": self.base.tag}, {"base": self.base.tag} if there else None)
        named = self._ident(LATEST)
        plan.compare(f"image {LATEST}", self.tag, self.tag if there and there == named else named or None)
        if plan.changed:
            for tag in self._former():
                plan.add(f"image {tag}", "delete", "unused")
        return plan

    def _former(self) -> list[str]:
        """What was made here before and no container has, images before what they were made of."""
        former = []
        for repository in (REPOSITORY, self.base.tag.partition(":")[0]):
            listed = must(self.run, ["docker", "image", "ls", "--filter", f"label={MANAGED}=true", "--format",
                                     "{{.Repository}}:{{.Tag}}", repository], "Listing images")
            former += [tag for tag in listed.split() if tag not in (self.tag, LATEST, self.base.tag)]
        return [tag for tag in former if not self._is_used(tag)]

    def _is_used(self, tag: str) -> bool:
        return bool(must(self.run, ["docker", "ps", "--all", "--quiet", "--filter", f"ancestor={tag}"],
                         f"Listing containers of {tag}").strip())

    def _ident(self, tag: str) -> str:
        done = self.run(["docker", "image", "inspect", "--format", "{{.Id}}", tag])
        return done.out.strip() if done.rc == 0 else ""

    def apply(self, plan: Plan) -> dict[str, t.Any]:
        if plan.touches(f"image {self.tag}"):
            self.base.ensure()
            with tempfile.TemporaryDirectory(prefix="clawops-sandbox-", dir="/var/tmp") as folder:
                bot_image.lay(pathlib.Path(folder), self.files)
                image.build(self.run, DOCKERFILE.format(base=self.base.tag), folder, self.tag)
        must(self.run, ["docker", "tag", self.tag, LATEST], f"Naming {LATEST}")
        for change in plan.changes:
            if change.action == "delete":
                # Not by force: the engine keeps what a container has by now.
                self.run(["docker", "image", "rm", change.subject.partition(" ")[2]])
        return self.facts()

    def facts(self) -> dict[str, t.Any]:
        return {"image": self.tag}
