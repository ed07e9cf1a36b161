# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""All spaces of one host: observe once, plan them all, and then work on those that differ, several at a time."""

from __future__ import annotations

import concurrent.futures
import queue
import typing as t

from .. import _audit, _process
from .._errors import FleetError
from .._plan import Change, Plan
from . import apply, decide, observe
from .client import Engine, Json
from .decide import Decision, Settings
from .facts import describe
from .space import Space
from .state import Record

_WORKERS = 4
_TABLE = ("nft", "list", "table", "inet", "clawops")
Failures = dict[str, FleetError]


class Spaces:
    """The spaces of one call, and what came of each."""

    def __init__(self, engine: Engine, spaces: t.Sequence[Space], settings: Settings, origin: _audit.Origin,
                 only: t.Collection[str] | None = None, prune: bool = False,
                 record: t.Callable[[str], Record] = Record) -> None:
        self.engine, self.settings, self.origin, self.record = engine, settings, origin, record
        self.spaces = [space for space in spaces if only is None or space.name in only]
        self.only, self.prune = only, prune
        self.listed = {space.name for space in spaces}
        self.seen = observe.Seen()
        self.changed: dict[str, list[Change]] = {}
        self.pending: dict[str, list[str]] = {}
        self.pulls: list[str] = []

    # -- plan -----------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Fails for all before anything is written where one can't be done, and names each of these."""
        mine = {space.name for space in self.spaces}
        self.seen = observe.everything(self.engine, lambda name: name in mine or self._may_go(name))
        if self.prune:
            self.spaces += [Space(name, state="absent") for name in self.seen.named(self.settings.fleet)
                            if self._may_go(name)]
        self._find_images()
        plan, failures = Plan(), Failures()
        for reference in self.pulls:
            plan.add(f"image {reference}", "pull", None, "present")
        for space in self.spaces:
            try:
                decision = self._decide(space)
            except FleetError as error:
                failures[space.name] = error
                continue
            self.pending[space.name] = decision.pending
            changes = [Change(step.title, step.action, step.before, step.after)
                       for step in decision.steps if step.title]
            if changes:
                self.changed[space.name] = changes
                plan.changes += changes
        self._raise(failures, "Nothing was changed.")
        return plan

    def _may_go(self, name: str) -> bool:
        """What nobody wants any more, where that is to be cleared away; beside only, nothing."""
        return self.prune and name not in self.listed and (self.only is None or name in self.only)

    def _decide(self, space: Space) -> Decision:
        return decide.decide(space, self.seen.of(space.name), self.record(space.name), self.settings, self.engine,
                             self.seen.images.get(space.image))

    def _find_images(self) -> None:
        present = [space for space in self.spaces if space.state != "absent"]
        for reference in sorted({space.image for space in present}):
            found = self.engine.image(reference)
            if found is None and "@" in reference and any(self._is_new(space) for space in present
                                                          if space.image == reference):
                self.pulls.append(reference)
                found = {}
            self.seen.images[reference] = found

    def _is_new(self, space: Space) -> bool:
        container = self.seen.of(space.name).container
        return container is None or container["Config"].get("Image") != space.image

    # -- apply ----------------------------------------------------------------------------------------------------

    def apply(self, _plan: Plan) -> Json:
        for reference in self.pulls:
            self._pull(reference)
        todo = [space for space in self.spaces if space.name in self.changed]
        failures = self._work(todo)
        self._raise(failures)
        return self.facts()

    def _pull(self, reference: str) -> None:
        with self.engine.doing(f"pull {reference}"):
            for line in self.engine.api.pull(reference, stream=True, decode=True):
                if line.get("error"):
                    raise FleetError("no_image", f"The image {reference} can't be pulled: {line['error']}")
        self.seen.images[reference] = self.engine.image(reference)

    def _work(self, todo: list[Space]) -> Failures:
        failures = Failures()
        if len(todo) < 2:
            for space in todo:
                self._one(space, self.engine, failures)
            return failures
        engines: queue.SimpleQueue[Engine] = queue.SimpleQueue()
        count = min(_WORKERS, len(todo))
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            for _worker in range(count):
                engines.put(self.engine.twin())

            def one(space: Space) -> None:
                engine = engines.get()
                try:
                    self._one(space, engine, failures)
                finally:
                    engines.put(engine)
            list(pool.map(one, todo))
        while not engines.empty():
            engines.get().close()
        return failures

    def _one(self, space: Space, engine: Engine, failures: Failures) -> None:
        work = apply.Work(engine, space, self.settings, self.seen.images.get(space.image), self.origin,
                          self.record(space.name))
        try:
            work.converge()
        except FleetError as error:
            failures[space.name] = error
            return
        self.seen.parts[space.name] = work.parts
        self.pending[space.name] = work.pending

    # -- results --------------------------------------------------------------------------------------------------

    def facts(self) -> Json:
        return {"spaces": [self._result(space) for space in self.spaces]}

    def _result(self, space: Space) -> Json:
        changes = self.changed.get(space.name, [])
        return {**describe(space.name, self.seen.of(space.name), self.record(space.name)),
                "changed": bool(changes), "pending": self.pending.get(space.name, []),
                "actions": [{"subject": change.subject, "action": change.action} for change in changes]}

    def _raise(self, failures: Failures, rest: str = "The others are as wanted.") -> None:
        if not failures:
            return
        if len(self.spaces) == 1:
            raise next(iter(failures.values()))
        table = "\n".join(f"  {name}: {error.result()['msg']}" for name, error in sorted(failures.items()))
        results = [{"name": space.name, "failed": space.name in failures,
                    **({"failure": failures[space.name].result()["failure"]} if space.name in failures else {})}
                   for space in self.spaces]
        raise FleetError("spaces_failed", f"{len(failures)} of {len(self.spaces)} spaces failed:\n{table}\n", rest,
                         spaces=results)


def check_guard(spaces: t.Iterable[Space], run: _process.Runner = _process.run) -> str | None:
    """What is missing where spaces with a network would reach this host and its neighbours."""
    if all(space.network == "none" or space.state == "absent" for space in spaces):
        return None
    try:
        done = run(_TABLE)
    except FleetError as error:
        return error.message
    if done.rc == 0:
        return None
    reason = (done.last_words.splitlines() or ["no reason given"])[0]
    return f"This host has no table inet clawops ({reason})"
