# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the documentation, the code and the metadata say about each other, for every module and role there is."""

from __future__ import annotations

import importlib
import pathlib
import re
import typing as t

import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible.plugins.loader import fragment_loader
from ansible.utils.plugin_docs import get_docstring

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = sorted(path for path in (ROOT / "plugins/modules").glob("*.py") if path.stem != "__init__")
ROLES = sorted(path for path in (ROOT / "roles").glob("*") if path.is_dir())
Tree = dict[str, t.Any]


class Seen(Exception):
    """Carries the argument spec out of a module's main()."""


def argument_spec(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    def stop(self: AnsibleModule, argument_spec: Tree, *args: t.Any, **kwargs: t.Any) -> None:
        raise Seen(argument_spec)

    monkeypatch.setattr(AnsibleModule, "__init__", stop)
    module = importlib.import_module(f"ansible_collections.clawops.fleet.plugins.modules.{path.stem}")
    with pytest.raises(Seen) as seen:
        module.main()
    return t.cast(Tree, seen.value.args[0])


def names(options: Tree | None, nested: str) -> Tree:
    """The tree of option names; ``nested`` is the key that holds suboptions."""
    return {name: names(option.get(nested), nested) for name, option in (options or {}).items()}


def load(path: pathlib.Path) -> t.Any:
    return yaml.safe_load(path.read_text()) if path.exists() else None


def ident(path: pathlib.Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", MODULES, ids=ident)
def test_module_documents_what_it_takes(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documentation = get_docstring(str(path), fragment_loader)[0]
    assert documentation["module"] == path.stem
    assert names(documentation.get("options"), "suboptions") == names(argument_spec(path, monkeypatch), "options")


@pytest.mark.parametrize("path", MODULES, ids=ident)
def test_module_documents_what_it_is(path: pathlib.Path) -> None:
    documentation, examples, returned = get_docstring(str(path), fragment_loader)[:3]
    assert set(documentation["attributes"]) >= {"check_mode", "diff_mode", "idempotent"}
    assert f"clawops.fleet.{path.stem}:" in examples
    assert returned


@pytest.mark.parametrize("path", MODULES, ids=ident)
def test_module_documents_what_it_did(path: pathlib.Path) -> None:
    documentation, _examples, returned = get_docstring(str(path), fragment_loader)[:3]
    # One that only reads has nothing to tell, and a program of somebody else's has no plan.
    if documentation["attributes"]["diff_mode"]["support"] == "full":
        assert {"actions", "plan_complete"} <= set(returned)


@pytest.mark.parametrize("path", ROLES, ids=ident)
def test_role_specifies_every_default(path: pathlib.Path) -> None:
    specs = load(path / "meta/argument_specs.yml")["argument_specs"]
    options = {name: option for entry in specs.values() for name, option in entry.get("options", {}).items()}
    defaults = load(path / "defaults/main.yml") or {}
    assert sorted(set(defaults) - set(options)) == []
    stated = {name: option["default"] for name, option in options.items() if "default" in option}
    assert {name: (value, defaults.get(name)) for name, value in stated.items() if value != defaults.get(name)} == {}


def test_action_groups_list_modules_that_exist() -> None:
    groups = load(ROOT / "meta/runtime.yml")["action_groups"]
    present = {path.stem for path in MODULES}
    assert {name: sorted(set(members) - present) for name, members in groups.items()} == {name: [] for name in groups}


def pins(path: pathlib.Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9_.-]+)==(\S+)$", path.read_text(), re.MULTILINE))


def test_requirements_and_tests_pin_the_same_versions() -> None:
    runtime, tested = pins(ROOT / "requirements.txt"), pins(ROOT / "tests/requirements.txt")
    runtime.pop("libvirt-python")
    assert runtime == {name: tested.get(name) for name in runtime}
