# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What AWX accepts, and what it makes of credentials and answers."""

from __future__ import annotations

import re

import jinja2.sandbox
import yaml

TYPES = {"text": str, "textarea": str, "multiplechoice": str, "multiselect": str, "integer": int}


class Names:
    """The object `tower` of injectors."""

    filename: object = None


def unsafe(value):
    """YAML in which no text is a template."""
    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("!unsafe", text))
    return yaml.dump(value, Dumper=Dumper, sort_keys=False)


def survey_problems(survey):
    """Why AWX would refuse this survey."""
    found = [] if set(survey) == {"name", "description", "spec"} else ["name, description and spec are needed"]
    for question in survey["spec"]:
        missing = {"variable", "question_name", "question_description", "type", "required"} - set(question)
        if missing or question["type"] not in TYPES:
            found.append(f"{question}: {missing}")
            continue
        choices, default = question.get("choices", []), question.get("default")
        if ("multi" in question["type"]) != bool(choices):
            found.append(f"{question['variable']}: choices {choices}")
        kind = TYPES[question["type"]]
        if default is not None and (not isinstance(default, kind) or default not in (choices or [default])):
            found.append(f"{question['variable']}: default {default}")
    variables = [question.get("variable") for question in survey["spec"]]
    return found + ([] if len(set(variables)) == len(variables) else [f"twice: {variables}"])


def answer_problems(survey, answers):
    """Why AWX would refuse to start."""
    questions = {question["variable"]: question for question in survey["spec"]}
    found = [f"{name} is not asked for" for name in sorted(set(answers) - set(questions))]
    for name, question in questions.items():
        if name not in answers:
            if question["required"] and question.get("default") is None:
                found.append(f"{name} is missing")
        elif question["type"] == "multiselect":
            value = answers[name]
            if not isinstance(value, list) or not set(value) <= set(question["choices"]):
                found.append(f"{name}: {value}")
        elif not isinstance(answers[name], TYPES[question["type"]]):
            found.append(f"{name} is of another type")
        elif question["type"] == "multiplechoice" and answers[name] not in question["choices"]:
            found.append(f"{name}: {answers[name]}")
    return found


def answered(survey, answers):
    """What a job gets: a list is no default."""
    defaults = {question["variable"]: question["default"] for question in survey["spec"]
                if question.get("default") is not None and question["type"] != "multiselect"}
    return {**defaults, **answers}


def type_problems(kind):
    """Why AWX would refuse this kind of credentials."""
    ids = [field["id"] for field in kind["inputs"]["fields"]]
    found = [f"field {field}" for field in kind["inputs"]["fields"]
             if set(field) - {"id", "label", "type", "secret", "multiline", "help_text", "format", "choices", "default"}
             or not re.fullmatch(r"[a-zA-Z_]+[a-zA-Z0-9_]*", field["id"]) or field["id"] == "tower"]
    if kind["kind"] not in ("cloud", "net") or not set(kind["inputs"].get("required", [])) <= set(ids):
        found.append(f"{kind['kind']}, {kind['inputs'].get('required')}")
    injectors = kind["injectors"]
    found += [f"file {label}" for label in injectors.get("file", {})
              if not re.fullmatch(r"template(\.[a-zA-Z_]+[a-zA-Z0-9_]*)?", label)]
    found += [f"env {name}" for name in injectors.get("env", {})
              if name.startswith("ANSIBLE_") or not re.fullmatch(r"[a-zA-Z_]+[a-zA-Z0-9_]*", name)]
    try:
        inject(kind, dict.fromkeys(ids, "x"), lambda text: "/file", undefined=jinja2.StrictUndefined)
    except jinja2.UndefinedError as error:
        found.append(str(error))
    return found


def inject(kind, inputs, write, **options):
    """Environment and extra variables; ``write`` puts a text into a file and returns its path."""
    tower, injectors = Names(), kind["injectors"]
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(**options)

    def render(text):
        return environment.from_string(text).render(tower=tower, **inputs)

    for label, text in injectors.get("file", {}).items():
        path = write(render(text))
        if "." in label:
            tower.filename = tower.filename or Names()
            setattr(tower.filename, label.split(".")[1], path)
        else:
            tower.filename = path
    return ({name: render(text) for name, text in injectors.get("env", {}).items()},
            {name: render(text) for name, text in injectors.get("extra_vars", {}).items()})
