# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What AWX gets says what the playbooks take. tests/integration/test_awx.py hands it to awx.awx."""

from __future__ import annotations

import pathlib
import re

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles/awx_setup"
DATA = DataLoader().load_from_file(str(ROLE / "vars/main.yml"))
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
QUESTIONS, CREDENTIALS = DATA["awx_setup_questions"], DATA["awx_setup_credentials"]
TEMPLATES = {template["playbook"]: template for template in DATA["awx_setup_templates"]}
# Parts of others, what sets up AWX itself, and timers, instead of which AWX has schedules.
NOT_OFFERED = {"awx_setup", "guests", "machines", "schedule_backups"}
# Every variable that playbooks and roles take.
KNOWN = "\n".join(path.read_text() for folder in ("playbooks", "roles") for path in (ROOT / folder).rglob("*.yml")
                  if "awx_setup" not in str(path))


def test_every_playbook_is_offered():
    assert set(TEMPLATES) == {path.stem for path in (ROOT / "playbooks").glob("*.yml")} - NOT_OFFERED


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=list(TEMPLATES))
def test_a_template_asks_what_there_is(template):
    assert set(template["use"]) <= set(CREDENTIALS)
    variables = [QUESTIONS[question]["variable"] for question in template["survey"]]
    assert len(set(variables)) == len(variables)
    assert template["group"] in {"all", "bots", "clusters", "spaces", "vms"}


def test_every_question_and_credential_is_used():
    templates = TEMPLATES.values()
    assert {question for template in templates for question in template["survey"]} == set(QUESTIONS)
    assert {name for template in templates for name in template["use"]} == set(CREDENTIALS)
    choices = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    assert choices["awx_setup_use"]["choices"] == list(CREDENTIALS)


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_sets_a_variable_of_the_playbooks(name):
    question = QUESTIONS[name]
    assert re.search(rf"\b{question['variable']}\b", KNOWN)
    # An empty text would be taken for an answer.
    assert question.get("default", "some") != ""
    assert question["required"] or question["type"] == "multiselect"


@pytest.mark.parametrize("name", [name for name, kind in CREDENTIALS.items() if "injectors" in kind])
def test_a_credential_sets_what_is_read(name):
    kind = CREDENTIALS[name]
    fields = {field["id"] for field in kind["fields"]}
    plugins = "\n".join(path.read_text() for path in (ROOT / "plugins").rglob("*.py"))
    for variable in kind["injectors"].get("extra_vars", {}):
        assert re.search(rf"\b{variable}\b", KNOWN)
    for variable in kind["injectors"].get("env", {}):
        assert variable in plugins
    used = re.findall(r"\{\{ (\w+) \}\}", str(kind["injectors"]))
    assert sorted(used) == sorted(fields)


@pytest.mark.parametrize("schedule", DEFAULTS["awx_setup_schedules"], ids=lambda schedule: schedule["name"])
def test_a_schedule_answers_what_is_asked(schedule):
    questions = {QUESTIONS[name]["variable"]: QUESTIONS[name] for name in TEMPLATES[schedule["playbook"]]["survey"]}
    answers = schedule.get("answers", {})
    assert set(answers) <= set(questions)
    for variable, question in questions.items():
        assert not question["required"] or variable in answers or "default" in question
        assert variable not in answers or answers[variable] in question["choices"]
    assert re.fullmatch(r"([01]\d|2[0-3])[0-5]\d00", schedule["at"]) and "INTERVAL=" in schedule["rrule"]
