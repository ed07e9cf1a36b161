# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""What sandbox_git does: a repository that is there, on its branch, with its work committed and on the server."""

from __future__ import annotations

import typing as t

from .. import _audit, _plan
from .._errors import FleetError, bad_value
from . import git
from .client import Engine, connect
from .tasks import OPTIONS, Values, entered, hidden
from .work import Container

GIT_OPTIONS: dict[str, t.Any] = {
    **OPTIONS,
    "dest": {"type": "str", "required": True},
    "url": {"type": "str"},
    "branch": {"type": "str"},
    "commit_message": {"type": "str"},
    "push": {"type": "bool", "default": False},
    "author_name": {"type": "str"},
    "author_email": {"type": "str"},
    "token": {"type": "str", "no_log": True},
    "username": {"type": "str", "default": git.USERNAME},
    "timeout": {"type": "int", "default": int(git.TIMEOUT)},
}


class Task:
    """One call: what is there, what shall be, and the steps between them."""

    def __init__(self, params: Values, origin: _audit.Origin) -> None:
        self.params, self.origin = params, origin
        self.branch = git.check_branch(params["branch"])
        self.remote = git.Remote(params["url"], params["token"], params["username"]) if params["url"] else None
        git.place(params["dest"])
        if params["timeout"] <= 0:
            raise bad_value("timeout", params["timeout"], "Give seconds, more than none.")
        if self.remote is None and (params["push"] or params["token"]):
            raise bad_value("url", None, "Name the repository that is pushed to.")
        if params["commit_message"] is not None and not params["commit_message"].strip():
            raise bad_value("commit_message", params["commit_message"], "Say what was changed.")
        self.status: git.Status | None = None

    def plan(self, engine: Engine, container: Container) -> _plan.Plan:
        self.git = git.Git(engine, container, self.params["dest"], self.params["timeout"])
        plan = _plan.Plan()
        found = self.git.what_is()
        if found == "absent":
            if self.remote is None:
                raise FleetError("not_found", f"There is no repository at {self.git.dest}.", "Give url to clone it.")
            plan.compare(self.git.dest, {"url": self.remote.url, "branch": self.branch}, None)
            return plan
        git.check_there(self.git, found, self.params["url"])
        self.status = self.git.status()
        self._plan_work(plan, self.status)
        return plan

    def _plan_work(self, plan: _plan.Plan, status: git.Status) -> None:
        if self.branch and status.branch != self.branch:
            plan.compare("branch", self.branch, status.branch)
        commits = self.params["commit_message"] is not None and bool(status.changes)
        if commits:
            plan.add("commit", "create", None, sorted(change["path"] for change in status.changes))
        if self.params["push"] and (status.head or commits):
            self._plan_push(plan, status, commits)

    def _plan_push(self, plan: _plan.Plan, status: git.Status, commits: bool) -> None:
        branch = self.branch or status.branch
        if branch is None:
            raise bad_value("branch", None, "Nothing is checked out but a commit; name the branch to push.")
        there = self.git.remote_head(t.cast(git.Remote, self.remote), branch)
        head = status.head
        if self.branch and status.branch != self.branch and self.git.has_branch(self.branch):
            head = self.git.git("rev-parse", f"refs/heads/{self.branch}").out.decode().strip()
        plan.compare(f"{branch} on the server", "a new commit" if commits else head, there)

    def apply(self, plan: _plan.Plan) -> Values:
        steps = [(subject, step) for subject, step in (
            (self.git.dest, self._clone), ("branch", self._switch), ("commit", self._commit)) if plan.touches(subject)]
        if any(change.subject.endswith(" on the server") for change in plan.changes):
            steps.append(("push", self._push))
        for _subject, step in steps:
            step()
        self.status = self.git.status()
        return self.values()

    def _event(self, what: str, **fields: t.Any) -> t.Any:
        return _audit.event("space.git", self.params["space"], self.origin, action=what, dest=self.git.dest, **fields)

    def _clone(self) -> None:
        with self._event("clone", url=self.params["url"], branch=self.branch):
            self.git.clone(t.cast(git.Remote, self.remote), self.branch)

    def _switch(self) -> None:
        branch = t.cast(str, self.branch)
        with self._event("switch", branch=branch):
            self.git.switch(branch, create=not self.git.has_branch(branch))

    def _commit(self) -> None:
        space = self.params["space"]
        author = (self.params["author_name"] or space, self.params["author_email"] or f"{space}@spaces.invalid")
        with self._event("commit") as entry:
            self.git.commit(self.params["commit_message"], author)
            entry["commit"] = self.git.status().head

    def _push(self) -> None:
        status = self.git.status()
        branch = t.cast(str, self.branch or status.branch)
        with self._event("push", url=self.params["url"], branch=branch, commit=status.head):
            self.git.push(t.cast(git.Remote, self.remote), branch)

    def values(self) -> Values:
        return {"dest": self.params["dest"], "status": self.status.shown() if self.status else None}


def manage_git(module: t.Any) -> None:
    """Runs sandbox_git to its end."""
    params = module.params
    origin = _audit.Origin.of(params["actor"], params["job"])
    try:
        task = Task(params, origin)
        if task.remote and task.remote.clear:
            module.warn("The token goes over http, where everybody on the way can read it.")
        with connect(params["docker_host"]) as engine, \
                entered(engine, params["space"], module.check_mode, origin) as container:
            plan = task.plan(engine, container)
            values = task.apply(plan) if plan.changed and not module.check_mode else task.values()
            result = {**plan.result(), **values}
    except FleetError as error:
        if not module.check_mode or not hidden(error):
            module.fail_json(**error.result())
        module.warn(f"The plan is not complete: {error.message}")
        result = {"changed": True, "plan_complete": False, "actions": [], "dest": params["dest"], "status": None}
    module.exit_json(**result)
