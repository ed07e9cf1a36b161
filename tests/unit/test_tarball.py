# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What ansible-galaxy packs for operators, and nothing else."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import tarfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ALLOWED = re.compile(
    r"""
    (MANIFEST|FILES)\.json
    | README\.md | LICENSE | CHANGELOG\.rst | requirements\.txt | execution-environment\.yml
    | meta/(runtime|execution-environment)\.yml | meta/ee-(requirements|bindep)\.txt
    | changelogs/(config|changelog)\.yaml
    | plugins/([a-z_]+/)+[a-z0-9_]+\.(py|yml)
    | roles/[a-z_]+/(defaults|handlers|meta|tasks|vars)/([a-z0-9_]+/)*[a-z0-9_]+\.yml
    | roles/[a-z_]+/(files|templates)/([a-z0-9_-]+/)*[A-Za-z0-9_@-][A-Za-z0-9_.@-]*
    | roles/[a-z_]+/README\.md
    | playbooks/([a-z_]+/)*[a-z0-9_]+\.yml
    | playbooks/templates/[a-z0-9_.-]+
    | inventory/([a-z0-9_]+/)+[a-z0-9_]+\.yml
    """,
    re.VERBOSE,
)


def packed(tmp_path: pathlib.Path) -> list[str]:
    build = [sys.executable, "-m", "ansible", "galaxy", "collection", "build"]
    subprocess.run([*build, "--output-path", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    (tarball,) = tmp_path.glob("clawops-fleet-*.tar.gz")
    with tarfile.open(tarball) as archive:
        return [member.name for member in archive.getmembers() if not member.isdir()]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return packed(tmp_path_factory.mktemp("build"))


def test_only_what_operators_need_is_packed(names: list[str]) -> None:
    assert [name for name in names if not ALLOWED.fullmatch(name)] == []


@pytest.mark.parametrize("name", ["LICENSE", "README.md", "CHANGELOG.rst", "meta/runtime.yml", "requirements.txt",
                                  "execution-environment.yml", "plugins/module_utils/_plan.py"])
def test_what_operators_need_is_packed(names: list[str], name: str) -> None:
    assert name in names


@pytest.mark.parametrize("name", ["secret.env", ".env", "playbooks/vault.key", "roles/openclaw/id_ed25519",
                                  "inventory/local/id_ed25519", "scripts/test", "tests/unit/conftest.py",
                                  ".ansible-lint"])
def test_the_list_refuses_strangers(name: str) -> None:
    assert not ALLOWED.fullmatch(name)
