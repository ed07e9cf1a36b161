# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""A drill: the newest snapshot, put together in a place that is thrown away, and tried.

What a drill that was killed has left is removed by the next one: who holds the lock of a folder works in it, and the
kernel lets go of a lock when its holder ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import time
import typing as t

from .. import _lock
from .._errors import FleetError
from . import examiner, host, sqlite
from .extract import OWN, Extracts, ScratchTarget
from .model import Snapshot
from .verbs import NOT_YET, Access, Each, Wish, kind_of

PLACE = "/var/lib/clawops/drills"
LOCKS = "/run/clawops/drills"
#: To whom the data belong meanwhile: to nobody on any machine.
OWNER = 1_900_000_000
Row = dict[str, t.Any]
#: By path of a database what is wrong with it, and the rows that answer a question.
Findings = dict[str, tuple[str, t.Optional[list[list[t.Any]]]]]


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a trial gets: a folder for its own files, the directory of each role, and what to ask of databases."""

    title: str
    folder: str
    places: dict[str, str]
    databases: tuple[str, ...]
    examine: t.Callable[[t.Mapping[str, str]], Findings]


#: What shows, beyond sound data, that they are of use. It ends what it starts.
Trial = t.Callable[[Restored], Row]


@dataclasses.dataclass(frozen=True)
class Job:
    """One bot or space to try."""

    access: Access
    runner: host.HostRunner
    trial: Trial | None = None

    @property
    def title(self) -> str:
        return f"{self.access.store.kind}-{self.access.bot}"


class Drills:
    """backup_drill: what became of the newest snapshot of each.

    clear ends what a trial has left that was killed.
    """

    def __init__(self, jobs: t.Sequence[Job], clear: t.Callable[[str], None], parallel: int = 1,
                 timeout: float = 14400, place: str = PLACE, locks: str = LOCKS, owner: int = OWNER) -> None:
        self.jobs, self.clear = {job.access.bot: job for job in jobs}, clear
        self.timeout, self.place, self.locks, self.owner = timeout, place, locks, owner
        self.seen = Each[Row](parallel, kind_of(job.access for job in jobs))

    def look(self) -> dict[str, t.Any]:
        """What a drill would take, for check mode. What an earlier step would have made is no failure."""
        seen = Each[Snapshot](self.seen.parallel, self.seen.kind)
        seen.run(self.jobs, self._chosen)
        for bot in [bot for bot, error in seen.failed.items() if error.code in NOT_YET]:
            del seen.failed[bot]
        seen.check()
        return {"drills": []}

    def run(self) -> dict[str, t.Any]:
        self._sweep()
        self.seen.run(self.jobs, self._drill)
        rows = [self.seen.done.get(bot) or self._failed(job) for bot, job in self.jobs.items()]
        self.seen.check(drills=rows)
        return {"drills": rows}

    @staticmethod
    def _chosen(job: Job) -> Snapshot:
        job.access.repository.check_version()
        job.access.check()
        return job.access.repository.choose("latest")

    def _failed(self, job: Job) -> Row:
        error = self.seen.failed[job.access.bot]
        known = {key: error.details.pop(key, None) for key in ("snapshot", "time", "duration")}
        return {job.access.store.kind: job.access.bot, "ok": False, "code": error.code,
                "why": f"{error.message} {error.hint}".strip(), **known}

    def _drill(self, job: Job) -> Row:
        began, about = time.monotonic(), Row()
        try:
            with self._area(job.title) as folder:
                # What counts is what the bucket has, not what this host remembers of it.
                job.access.repository.env["RESTIC_CACHE_DIR"] = os.path.join(folder, "cache")
                snapshot = self._chosen(job)
                about = {"snapshot": snapshot.id, "time": snapshot.time}
                about.update(self._tried(job, folder, snapshot))
        except (FleetError, OSError) as error:
            found = error if isinstance(error, FleetError) else FleetError("os_failed",
                                                                           f"{job.access.subject}: {error}.")
            found.details.update(about, duration=round(time.monotonic() - began, 1))
            raise found from None
        return {job.access.store.kind: job.access.bot, "ok": True, **about,
                "duration": round(time.monotonic() - began, 1)}

    def _tried(self, job: Job, folder: str, snapshot: Snapshot) -> Row:
        subject, data = job.access.subject, os.path.join(folder, "data")
        target = ScratchTarget(job.access.bot, data, None, str(self.owner), None)
        target.runner = job.runner
        verb = Extracts([Wish(job.access, target, snapshot.id)], False, 1)
        found = verb.apply(verb.plan())["extracted"][0]
        self._pass(data)
        places = found["places"]
        files = sum(self._given(place) for place in places.values())
        # One more is the manifest.
        if snapshot.files_taken not in (0, files + 1):
            raise FleetError("files_missing", f"{subject}: {files} of {snapshot.files_taken - 1} files came back.",
                             "Let backup_check read all of the repository. A repaired snapshot lacks what was lost.")
        databases = tuple(one.path for place in places.values() for one in sqlite.find(place))
        gone = sorted({one["path"] for one in found["databases"]} - {*databases})
        if gone:
            raise FleetError("database_damaged", f"{subject}: {_named(gone, data)}: no SQLite database any more.",
                             "Let backup_check read all of the repository.")
        damaged = {path: problem for path, (problem, _rows) in self._examine(dict.fromkeys(databases, "")).items()
                   if problem}
        if damaged:
            first = next(iter(damaged))
            raise FleetError("database_damaged", f"{subject}: {_named(damaged, data)}: {damaged[first]}",
                             "It was so when it was backed up: repair it where it lives (sqlite3 .recover).")
        tried = job.trial(Restored(job.title, folder, places, databases, self._examine)) if job.trial else {}
        return {"files": files, "bytes": found["bytes"], "databases": len(databases), **tried}

    # -- the place -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _area(self, title: str) -> t.Iterator[str]:
        """A folder that is empty at first, and gone at the end whatever happens."""
        os.makedirs(self.place, 0o711, exist_ok=True)
        folder = os.path.join(self.place, title)
        with self._held(title):
            self._discard(title)
            os.mkdir(folder, 0o700)
            self._pass(folder)
            try:
                yield folder
            finally:
                self._discard(title)

    def _held(self, title: str) -> t.ContextManager[None]:
        return _lock.hold(pathlib.Path(self.locks, f"{title}.lock"), f"The drill of {title}", timeout=0)

    def _discard(self, title: str) -> None:
        self.clear(title)
        folder = os.path.join(self.place, title)
        state = os.path.join(folder, "data", OWN)
        # A restic whose parent was killed goes on, and holds this.
        alone = host.lock(state, title.partition("-")[2], host.HostRunner()) if os.path.isdir(state) else (
            contextlib.nullcontext())
        with alone:
            if os.path.lexists(folder):
                shutil.rmtree(folder)

    def _sweep(self) -> None:
        """What was left of drills of bots that are no longer in the list."""
        mine = {job.title for job in self.jobs.values()}
        for title in sorted({*os.listdir(self.place)} - mine) if os.path.isdir(self.place) else ():
            with contextlib.suppress(FleetError), self._held(title):
                self._discard(title)

    def _pass(self, folder: str) -> None:
        """Lets the data's owner through."""
        if os.geteuid() == 0:
            os.chown(folder, 0, self.owner)
            os.chmod(folder, 0o710)  # noqa: S103 a group without members

    def _given(self, tree: str) -> int:
        """Gives all of a tree to its owner; the number of its files."""
        count = 0
        for directory, _directories, files in os.walk(tree):
            for path in (directory, *(os.path.join(directory, name) for name in files)):
                if os.geteuid() == 0:
                    os.lchown(path, self.owner, self.owner)
                count += stat.S_ISREG(os.lstat(path).st_mode)
        return count

    def _examine(self, questions: t.Mapping[str, str]) -> Findings:
        try:
            done = subprocess.run([sys.executable, "-I", "-c", inspect.getsource(examiner)], capture_output=True,
                                  input=json.dumps([self.owner, list(questions.items())]), text=True, cwd="/",
                                  timeout=self.timeout, check=False)
            answers = json.loads(done.stdout)
        except subprocess.TimeoutExpired:
            raise FleetError("timeout", f"Looking into {len(questions)} databases took more than {self.timeout:.0f} "
                                        "seconds.", "Raise timeout.") from None
        except ValueError:
            words = done.stderr.strip()[-500:]
            raise FleetError("examiner_failed", f"Looking into databases failed: {words}") from None
        return {path: (problem, rows) for path, (problem, rows) in zip(questions, answers)}


def _named(paths: t.Iterable[str], top: str) -> str:
    """The first few, without where they lie for the moment."""
    names = [os.path.relpath(path, top) for path in paths]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
