# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ansible-builder takes the definition, and finds in the collection itself what it builds on."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = pathlib.Path(sys.executable).parent
DEFINITION = yaml.safe_load((ROOT / "execution-environment.yml").read_text())


def run(*argv, **options):
    program, *words = map(str, argv)
    done = subprocess.run([PROGRAMS / program, *words], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The definition beside the archive that its first line tells to make."""
    folder = tmp_path_factory.mktemp("builder")
    shutil.copy(ROOT / "execution-environment.yml", folder)
    run("ansible-galaxy", "collection", "build", "--output-path", folder, ROOT)
    return folder


def test_the_definition_is_accepted(place):
    run("ansible-builder", "create", "--output-filename", "Containerfile", cwd=place)
    recipe = (place / "context/Containerfile").read_text()
    assert "FROM fedora:43" in re.sub(r"\$EE_BASE_IMAGE", "fedora:43", recipe) and "python3.13" in recipe
    assert (place / "context/_build/collections/clawops-fleet-0.1.0.tar.gz").is_file()
    assert "restic" in (place / "context/_build/bindep.txt").read_text()


def test_the_collection_says_what_it_needs(place):
    archive, = place.glob("clawops-fleet-*.tar.gz")
    run("ansible-galaxy", "collection", "install", archive, "-p", place / "installed", "--offline", "--force")
    python, system = place / "python.txt", place / "system.txt"
    run("ansible-builder", "introspect", "--write-pip", python, "--write-bindep", system, place / "installed")
    for name in ("boto3", "kubernetes", "jinja2", "paramiko"):
        assert name in python.read_text()
    assert "openssh-clients [platform:rpm]" in system.read_text()


def test_versions_are_those_that_are_tested():
    pins = dict(re.findall(r"^([a-z0-9_.-]+)==(\S+)$", (ROOT / "tests/requirements.txt").read_text(), re.MULTILINE))
    for part in ("ansible_core", "ansible_runner"):
        name, version = DEFINITION["dependencies"][part]["package_pip"].split("==")
        assert pins[name] == version
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text())
    assert DEFINITION["additional_build_files"][0]["src"] == f"clawops-fleet-{galaxy['version']}.tar.gz"
