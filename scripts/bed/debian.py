# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Root file systems of Debian, built from packages of the machine's own mirrors."""

from __future__ import annotations

import pathlib
import typing as t

from . import cache, machine
from .job import Job, output

TRUSTED = pathlib.Path("/usr/local/share/ca-certificates")
EXCLUDED = ["man", "doc", "locale"]
ARCHIVES = "/var/cache/apt/archives"


def apt_options() -> list[str]:
    """Those settings of the machine's apt that reaching its mirror may need, and a few for a small system."""
    wanted = ("Acquire::http::", "Acquire::https::", "Acquire::Check-")
    found = [line for line in (output("apt-config", "dump") or "").splitlines() if line.startswith(wanted)]
    kept = [line.rstrip(";") for line in found if not line.endswith(' "";')]
    return [*kept, 'Acquire::Retries "5"', 'Acquire::Languages "none"', 'APT::Install-Recommends "false"']


def sources(suite: str) -> list[str]:
    """The machine's Debian mirrors, for another suite; none of them means the tool's default."""
    form = "$(ORIGIN) $(CODENAME) $(RELEASE) $(REPO_URI)"
    lines = output("apt-get", "indextargets", "--format", form, "Created-By: Packages") or ""
    rows = {tuple(line.split()) for line in lines.splitlines()}
    rows = {row for row in rows if len(row) == 4 and row[0] == "Debian" and row[3].startswith("http")}
    main = sorted(row[3] for row in rows if "-" not in row[2])
    security = sorted(row[3] for row in rows if row[2].endswith("-security"))
    lines_of = [(main[:1], suite), (main[:1], f"{suite}-updates"), (security[:1], f"{suite}-security")]
    return [f"deb {mirror} {name} main" for mirrors, name in lines_of for mirror in mirrors]


def trusted() -> dict[str, str]:
    """The certificates that the machine trusts beyond its distribution's."""
    return {path.name: path.read_text() for path in sorted(TRUSTED.glob("*.crt"))}


def inputs(suite: str) -> list[object]:
    """What of this machine decides about a root file system."""
    return [apt_options(), sources(suite), trusted()]


def bootstrap(job: Job, suite: str, out: pathlib.Path, packages: str, files: t.Mapping[str, str],
              scripts: t.Sequence[str], form: str = "tar") -> None:
    """Make a tar or a directory. The shell scripts run in turn, with the root's path as argument.

    Before the last of them, what was downloaded is put in the cache for the next time.
    """
    machine.need(job, {"mmdebstrap": "mmdebstrap"})
    debs = cache.folder("debs", suite)
    overlay = out.parent / "overlay"
    authorities = {str(TRUSTED / name): text for name, text in trusted().items()}
    for path, text in {**authorities, **files}.items():
        inside = overlay / path.lstrip("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.write_text(text)
    steps = [cache.write(out.parent / f"step-{number}", f"#!/bin/sh\n{text}\n", 0o700)
             for number, text in enumerate(scripts)]
    hooks = [("setup", f'mkdir -p "$1{ARCHIVES}"'), ("setup", f"sync-in {debs} {ARCHIVES}")]
    hooks += [("customize", f"sync-in {overlay} /"), *(("customize", str(step)) for step in steps[:-1])]
    hooks += [("customize", f"sync-out {ARCHIVES} {debs}"), ("customize", str(steps[-1]))]
    argv = ["unshare", "--mount", "mmdebstrap", "--mode=root", "--variant=minbase", f"--format={form}",
            "--skip=cleanup/apt"]
    argv += [f"--aptopt={option}" for option in apt_options()]
    argv += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in EXCLUDED]
    argv += [f"--{when}-hook={what}" for when, what in hooks]
    job.run([*argv, f"--include={','.join(packages.split())}", suite, out, *sources(suite)])
