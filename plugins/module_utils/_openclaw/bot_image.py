# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The images of bots in a cluster: a slim gateway, and a whole desktop. Their tag says what they are made of."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import tempfile
import typing as t

from .._errors import FleetError, bad_value
from .._plan import Plan
from .._process import Runner, must
from . import desktop, image
from .render import GATEWAY_PORT

PROFILES = ("gateway", "desktop")
READY = f"""#!/bin/sh
# The body decides: unknown paths answer 200 with a page.
curl --silent --fail --max-time 3 --noproxy '*' http://127.0.0.1:{GATEWAY_PORT}/readyz |
    jq --exit-status '.ready == true' >/dev/null
"""
# tini, because a gateway does not care for orphans of its tools.
GATEWAY_DOCKERFILE = """FROM {base}
COPY openclaw /opt/openclaw
COPY gateway /
RUN update-ca-certificates && useradd --uid 1000 --user-group --create-home --shell /bin/bash openclaw
ENV HOME=/home/openclaw PATH=/opt/openclaw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /home/openclaw
USER 1000:1000
EXPOSE 18789
ENTRYPOINT ["tini", "--", "node", "/opt/openclaw/lib/node_modules/openclaw/openclaw.mjs"]
CMD ["gateway", "run"]
"""
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\n?")


@dataclasses.dataclass(frozen=True)
class Order:
    """What is wanted. certificates are PEM texts; sources, archive, homebrew and cache are paths on the host."""

    version: str
    archive: str
    profiles: tuple[str, ...] = PROFILES
    registry: str = ""
    suite: str = "trixie"
    sources: str | None = None
    packages: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    homebrew: str | None = None
    homebrew_sha256: str | None = None
    serial: str = ""
    cache: str | None = None


def single_certificates(texts: t.Iterable[str]) -> list[str]:
    """One PEM text each, as update-ca-certificates wants them."""
    found = []
    for text in texts:
        ones = [match.group(0).rstrip() + "\n" for match in CERTIFICATE.finditer(text.replace("\r", ""))]
        if not ones:
            raise bad_value("ca_certificates", text[:60], "Give PEM certificates.")
        found += ones
    return found


def files(profile: str, certificates: t.Sequence[str]) -> dict[str, str]:
    """Path -> text of what is laid over the base and the artefact."""
    made = {"/opt/openclaw/bin/openclaw-ready": READY}
    made |= {f"/usr/local/share/ca-certificates/clawops-{number}.crt": text
             for number, text in enumerate(certificates, 1)}
    if profile == "desktop":
        made |= desktop.FILES
    if profile == "desktop" and certificates:
        # Chromium does not ask the system whom to trust.
        bare = ["".join(t.cast("re.Match[str]", CERTIFICATE.search(text)).group(1).split()) for text in certificates]
        made["/etc/chromium/policies/managed/clawops.json"] = json.dumps({"CACertificates": bare}) + "\n"
    return made


def lay(root: pathlib.Path, texts: t.Mapping[str, str]) -> None:
    """Files below root, scripts executable, everything readable whatever the umask."""
    for path, text in texts.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(0o755 if text.startswith("#!") else 0o644)
    for folder, _folders, _files in os.walk(root):
        pathlib.Path(folder).chmod(0o755)


class BotImages:
    """The images of one release."""

    def __init__(self, run: Runner, order: Order):
        self.run, self.order = run, order
        self.certificates = single_certificates(order.certificates)
        if order.homebrew and not re.fullmatch("[0-9a-f]{64}", order.homebrew_sha256 or ""):
            raise bad_value("homebrew_sha256", order.homebrew_sha256, "Give the SHA-256 of the archive, in hex.")
        self.bases = {profile: self._base(profile) for profile in order.profiles}
        self.tags = {profile: self._tag(profile) for profile in order.profiles}

    def _base(self, profile: str) -> image.Base:
        order = self.order
        # restic: a Job with the bot's own image backs up its volumes.
        packages = [*image.PACKAGES, "restic", *order.packages]
        if profile == "gateway":
            return image.Base(self.run, order.suite, order.sources, [*packages, "tini"], (), "gateway-base",
                              order.serial, order.cache)
        packages += [*desktop.PACKAGES, *(desktop.HOMEBREW_PACKAGES if order.homebrew else ())]
        return image.Base(self.run, order.suite, order.sources, packages, desktop.HOOKS, "desktop-base",
                          order.serial, order.cache)

    def _dockerfile(self, profile: str) -> str:
        base = self.bases[profile].tag
        if profile == "gateway":
            return GATEWAY_DOCKERFILE.format(base=base)
        homebrew = "COPY --chown=1000:1000 homebrew /opt/homebrew\n" if self.order.homebrew else ""
        return desktop.DOCKERFILE.format(base=base, homebrew=homebrew)

    def _tag(self, profile: str) -> str:
        """Of what was ordered, not of what it came to: it is known before anything is fetched."""
        order = self.order
        release = pathlib.Path(order.archive).name
        inputs = image.hashed(release, self._dockerfile(profile), files(profile, self.certificates),
                              order.homebrew_sha256 if profile == "desktop" else None)
        registry = f"{order.registry.rstrip('/')}/" if order.registry else ""
        return f"{registry}openclaw-{profile}:{order.version}-{inputs}"

    def plan(self) -> Plan:
        plan = Plan()
        if not image.engine_answers(self.run):
            plan.cannot_see("no Docker engine answers on this host yet")
            return plan
        for profile, tag in self.tags.items():
            wanted = {"profile": profile, "release": self.order.version}
            there = self._pushed(tag) if self.order.registry else image.exists(self.run, tag)
            if there is None:
                plan.cannot_see(f"the registry {self.order.registry} does not answer")
                return plan
            plan.compare(f"image {tag}", wanted, wanted if there else None)
        return plan

    def _pushed(self, tag: str) -> bool | None:
        """Whether the registry has it; None when it does not say."""
        options = ["--insecure"] if self._insecure() else []
        done = self.run(["docker", "manifest", "inspect", *options, tag], timeout=60)
        if done.rc == 0:
            return True
        return False if re.search("no such manifest|manifest unknown|not found", done.err, re.IGNORECASE) else None

    def _insecure(self) -> bool:
        """As the engine sees it: plain HTTP is for loopback, and for what it is configured to."""
        host = self.order.registry.partition("/")[0]
        if re.match(r"(127\.|localhost(:|$)|\[::1\])", host):
            return True
        known = self.run(["docker", "info", "--format", "{{json .RegistryConfig.IndexConfigs}}"])
        found = json.loads(known.out or "null") if known.rc == 0 else None
        return (found or {}).get(host, {}).get("Secure") is False

    def apply(self, plan: Plan) -> dict[str, t.Any]:
        wanted = [profile for profile, tag in self.tags.items() if plan.touches(f"image {tag}")]
        missing = [profile for profile in wanted if not image.exists(self.run, self.tags[profile])]
        if missing:
            self._build(missing)
        if self.order.registry:
            for profile in wanted:
                must(self.run, ["docker", "push", "--quiet", self.tags[profile]], f"Pushing {self.tags[profile]}",
                     timeout=1800)
        return self.facts()

    def _build(self, profiles: t.Sequence[str]) -> None:
        if not pathlib.Path(self.order.archive).is_file():
            raise FleetError("no_archive", f"archive: {self.order.archive} is not there.",
                             "Make it with the module openclaw_artifact.")
        for profile in profiles:
            self.bases[profile].ensure()
        with tempfile.TemporaryDirectory(prefix="clawops-image-", dir="/var/tmp") as folder:
            context = pathlib.Path(folder)
            self._unpack(self.order.archive, context / "openclaw", "zstd")
            if self.order.homebrew and "desktop" in profiles:
                self._homebrew(context / "homebrew")
            for profile in profiles:
                lay(context / profile, files(profile, self.certificates))
                image.build(self.run, self._dockerfile(profile), folder, self.tags[profile])

    def _unpack(self, archive: str, target: pathlib.Path, program: str, *options: str) -> None:
        target.mkdir(parents=True)
        must(self.run, ["tar", "--extract", "--file", archive, "--use-compress-program", program, "--no-same-owner",
                        "-C", str(target), *options], f"Unpacking {archive}", timeout=600)

    def _homebrew(self, target: pathlib.Path) -> None:
        """As its installer lays it out. It waits beside its place, which a volume hides that starts empty."""
        archive = t.cast(str, self.order.homebrew)
        found = hashlib.sha256(pathlib.Path(archive).read_bytes()).hexdigest()
        if found != self.order.homebrew_sha256:
            raise FleetError("wrong_checksum", f"homebrew: {archive} has the SHA-256 {found}.",
                             "Fetch it again, or correct homebrew_sha256.")
        self._unpack(archive, target / "Homebrew", "gzip", "--strip-components=1")
        (target / "bin").mkdir()
        (target / "bin/brew").symlink_to("../Homebrew/bin/brew")

    def facts(self) -> dict[str, t.Any]:
        return {"images": dict(self.tags)}
