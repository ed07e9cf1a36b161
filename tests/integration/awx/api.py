# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A stand-in for the part of AWX' API that the modules of awx.awx use. It remembers, and refuses as AWX does."""

from __future__ import annotations

import http.server
import json
import pathlib
import re
import threading
import urllib.parse

from . import rules

TOKEN = "planted-awx-token"
RRULE = re.compile(r"DTSTART;TZID=[A-Za-z_]+(/[A-Za-z_]+)*:\d{8}T\d{6} "
                   r"RRULE:FREQ=[A-Z]+;INTERVAL=\d+(;[A-Z]+=[A-Z0-9,]+)*")
LISTS = {"organizations", "execution_environments", "projects", "inventories", "inventory_sources", "credential_types",
         "credentials", "job_templates", "schedules", "unified_job_templates"}
# What counts where nobody says anything.
DEFAULTS = {"description": "", "scm_branch": "", "extra_data": {}}


class Refused(Exception):
    """An answer of 400."""


class Api:
    """Objects by kind; ``files`` is what projects hold."""

    def __init__(self, files: pathlib.Path) -> None:
        self.files = files
        self.tables: dict[str, list[dict]] = {name: [] for name in LISTS}
        self.associations: dict[str, list[int]] = {}
        self.surveys: dict[int, dict] = {}
        self.writes: list[str] = []
        self.add("credential_types", {"name": "Machine", "managed": True})
        handler = type("Handler", (Handler,), {"api": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def one(self, table, name):
        (found,) = (entry for entry in self.tables[table] if entry["name"] == name)
        return found

    def by_id(self, table, number):
        return next((entry for entry in self.tables[table] if entry["id"] == number), None)

    def credentials(self, template):
        numbers = self.associations.get(f"job_templates/{template['id']}/credentials", [])
        return [self.by_id("credentials", number) for number in numbers]

    def add(self, table, values):
        entry = {**DEFAULTS, **values, "id": sum(map(len, self.tables.values())) + 1}
        url = f"/api/v2/{table}/{entry['id']}/"
        entry.update(url=url, related={"survey_spec": url + "survey_spec/"}, summary_fields={}, scm_revision="",
                     type=table.rstrip("s"))
        self.check(table, entry)
        self.tables[table].append(entry)
        return entry

    def check(self, table, entry):
        """What AWX checks."""
        problems = []
        if table == "credential_types" and not entry.get("managed"):
            problems = rules.type_problems(entry)
        if table == "job_templates":
            problems += [f"no {table}" for table, key in (("projects", "project"), ("inventories", "inventory"))
                         if not self.by_id(table, entry.get(key))]
            if not (self.files / entry["playbook"]).is_file():
                problems.append(f"no playbook {entry['playbook']}")
        if table == "inventory_sources" and not (self.files / entry["source_path"]).is_file():
            problems.append(f"no inventory {entry['source_path']}")
        if table == "schedules":
            if not RRULE.fullmatch(entry["rrule"]):
                problems.append(f"rrule {entry['rrule']}")
            problems += rules.answer_problems(self.surveys[entry["unified_job_template"]], entry["extra_data"])
        if problems:
            raise Refused("; ".join(problems))

    def get(self, path, query):
        if path[-1] == "survey_spec":
            return self.surveys.get(int(path[1]), {})
        if len(path) == 3:
            return listed([{"id": number} for number in self.associations.get("/".join(path), [])])
        if len(path) == 2:
            return self.by_id(path[0], int(path[1]))
        table = "job_templates" if path[0] == "unified_job_templates" else path[0]
        return listed([entry for entry in self.tables[table]
                       if all(str(entry.get(key)) == value for key, value in query.items())])

    def post(self, path, values):
        if path[-1] == "survey_spec":
            if rules.survey_problems(values):
                raise Refused("; ".join(rules.survey_problems(values)))
            self.surveys[int(path[1])] = values
            return 200, {}
        if len(path) == 3:
            self.associate(path, values)
            return 204, None
        return 201, self.add(path[0], values)

    def associate(self, path, values):
        held = self.associations.setdefault("/".join(path), [])
        if values.get("disassociate"):
            held.remove(values["id"])
            return
        kinds = [self.by_id("credentials", number)["credential_type"] for number in [*held, values["id"]]]
        if len(set(kinds)) != len(kinds):
            raise Refused("two credentials of one kind")
        held.append(values["id"])

    def patch(self, path, values):
        entry = self.by_id(path[0], int(path[1]))
        self.check(path[0], {**entry, **values})
        entry.update(values)
        return entry


def listed(entries):
    return {"count": len(entries), "next": None, "previous": None, "results": entries}


class Handler(http.server.BaseHTTPRequestHandler):
    """HTTP for one Api."""

    api: Api
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def do_GET(self):
        self.handle_with(lambda path, query: (200, self.api.get(path, query)))

    def do_POST(self):
        self.handle_with(lambda path, query: self.write(self.api.post, path))

    def do_PATCH(self):
        self.handle_with(lambda path, query: (200, self.write(self.api.patch, path)))

    def write(self, verb, path):
        self.api.writes.append(f"{self.command} {'/'.join(path)}")
        return verb(path, self.values)

    def handle_with(self, answer):
        self.values = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
        url = urllib.parse.urlsplit(self.path)
        path = url.path.removeprefix("/api/v2/").strip("/").split("/")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.say(401, {})
        if path[0] not in LISTS:
            return self.say(404, {})
        try:
            self.say(*answer(path, dict(urllib.parse.parse_qsl(url.query))))
        except Refused as refused:
            self.say(400, {"error": str(refused), "detail": str(refused)})

    def say(self, code, value):
        body = b"" if code == 204 else json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-API-Product-Name", "AWX")
        self.send_header("X-API-Product-Version", "24.6.1")
        self.end_headers()
        self.wfile.write(body)
