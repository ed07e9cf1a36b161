# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs a verb on the backups of a fleet unattended: a timer calls it, and it says in one line how that went.

    backup-cron [--config FILE] [--if-older HOURS] [--wait SECONDS] [--quiet] VERB

VERB is backup, prune, check or drill, or one that the settings name. Runs exclude each other: a second one of the same
verb ends at once, one of another verb waits. The settings are JSON:

    inventory     of the fleet
    directory     where to run, which may hold an ansible.cfg
    credentials   JSON or YAML of secret variables, mode 0600; systemd's credential backup.json goes before it
    variables     others, for every verb
    verbs         {"check": {"playbook": "clawops.fleet.backup_check", "timeout": 7200, "variables": {}}}
    environment   of Ansible, such as ANSIBLE_COLLECTIONS_PATH
    ansible       the program ansible-playbook
    state, log    directories; keep_logs: how many logs of each verb
    timeout       seconds of a run
    metrics       a file for Prometheus' textfile collector
    mail_to, webhook, hook    who is told of a failure: an address, a URL that takes JSON, a program with arguments

0: done. 1: failed. 2: wrong settings. 75: another run is going on. 124: it took too long and was ended.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import http.client
import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
import tempfile
import time
import typing as t
import urllib.request

DONE, FAILED, SETTINGS, BUSY, LATE = 0, 1, 2, 75, 124
PLAYBOOKS = {"backup": "clawops.fleet.backup", "prune": "clawops.fleet.prune", "check": "clawops.fleet.backup_check",
             "drill": "clawops.fleet.restore_drill"}
DEFAULTS: dict[str, t.Any] = {
    "inventory": "", "directory": "/", "credentials": "", "variables": {}, "verbs": {}, "environment": {},
    "ansible": "ansible-playbook", "state": "/var/lib/clawops/backup-cron", "log": "/var/log/clawops/backup",
    "keep_logs": 30, "timeout": 21600, "metrics": "", "mail_to": "", "webhook": "", "hook": [],
    "sendmail": "/usr/sbin/sendmail"}
GAUGES = {"last_success": ("last_success_timestamp_seconds", "When the newest snapshot was taken"),
          "bytes": ("size_bytes", "What the newest snapshot holds"),
          "bytes_added": ("added_bytes", "What the newest snapshot added to the bucket"),
          "duration": ("duration_seconds", "How long the newest snapshot took"),
          "failed": ("failed", "Whether the last run took no snapshot of it"),
          "drill": ("drill_last_success_timestamp_seconds", "When a restore of it was last proved"),
          "drill_failed": ("drill_failed", "Whether the last drill of it failed"),
          "age": ("age_seconds", "Age of the newest snapshot when this file was written"),
          "drill_age": ("drill_age_seconds", "Age of the last proved restore when this file was written")}
RUNS = {"last_run": ("run_timestamp_seconds", "When the verb last ended"),
        "last_success": ("run_last_success_timestamp_seconds", "When the verb last ended well"),
        "took": ("run_duration_seconds", "How long the last run took"),
        "ok": ("run_success", "Whether the last run ended well")}
Tree = dict[str, t.Any]


class Refused(Exception):
    """Settings that nothing can be done with."""


class Busy(Exception):
    """Another run is going on."""


def settings(path: str) -> Tree:
    try:
        given = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: {error}") from None
    unknown = next((key for key in given if key not in DEFAULTS), None)
    if unknown:
        raise Refused(f"{path}: {unknown} is not known. Use {', '.join(DEFAULTS)}.")
    found = {**DEFAULTS, **given}
    if not found["inventory"]:
        raise Refused(f"{path}: inventory is missing.")
    return found


def credentials(given: Tree) -> str:
    """The file of secret variables, which nobody else may read."""
    handed = os.environ.get("CREDENTIALS_DIRECTORY", "")
    path = os.path.join(handed, "backup.json") if handed else ""
    if not (path and os.path.exists(path)):
        path = given["credentials"]
    if not path:
        return ""
    try:
        facts = os.stat(path)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None
    if facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO) and not handed:
        raise Refused(f"{path} can be read by others: chmod 600 it.")
    return path


@contextlib.contextmanager
def alone(state: pathlib.Path, verb: str, wait: float) -> t.Iterator[list[int]]:
    """Whoever holds these files' locks runs; Ansible inherits them, so that they outlive a kill of this program."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(state / f"{name}.lock", "a", encoding="utf-8")) for name in (verb, "fleet")]
        for file, until in zip(files, (0.0, time.monotonic() + wait)):
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise Busy(f"another run is going on ({file.name})") from None
                    time.sleep(1)
        yield [file.fileno() for file in files]


class Run:
    """One run of one verb."""

    def __init__(self, given: Tree, verb: str) -> None:
        self.given, self.verb = given, verb
        about = given["verbs"].get(verb, {})
        self.playbook = about.get("playbook") or PLAYBOOKS.get(verb, "")
        if not self.playbook:
            raise Refused(f"{verb} is no verb. Use one of {', '.join({**PLAYBOOKS, **given['verbs']})}.")
        self.timeout = float(about.get("timeout") or given["timeout"])
        self.variables = {**given["variables"], **about.get("variables", {})}
        stamp = f"{datetime.datetime.now(datetime.timezone.utc):%Y%m%dT%H%M%SZ}"
        self.log = pathlib.Path(given["log"]) / f"{verb}-{stamp}.log"

    def play(self, locks: list[int]) -> tuple[int, list[Tree]]:
        """The exit code, and what became of each bot."""
        self.log.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="backup-cron.") as place:
            report, more = pathlib.Path(place, "report.json"), pathlib.Path(place, "variables.json")
            more.write_text(json.dumps({**self.variables, "fleet_report": str(report)}), encoding="utf-8")
            argv = [self.given["ansible"], "--inventory", self.given["inventory"], "--extra-vars", f"@{more}"]
            secret = credentials(self.given)
            argv += ["--extra-vars", f"@{secret}"] if secret else []
            code = self._run([*argv, self.playbook], locks)
            try:
                return code, json.loads(report.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return code, []

    def _run(self, argv: list[str], locks: list[int]) -> int:
        env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8", **self.given["environment"]}
        with os.fdopen(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as log:
            try:
                child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                                         cwd=self.given["directory"], start_new_session=True, pass_fds=locks)
            except OSError as error:
                raise Refused(f"{argv[0]}: {error.strerror}") from None
            try:
                return child.wait(self.timeout)
            except subprocess.TimeoutExpired:
                log.write(f"\nbackup-cron: ended after {self.timeout:.0f} seconds\n".encode())
                return LATE
            finally:
                end(child)

    def tidy(self) -> None:
        """The newest logs stay."""
        logs = sorted(self.log.parent.glob(f"{self.verb}-*Z.log"))
        for old in logs[:-self.given["keep_logs"]]:
            old.unlink()


def end(child: subprocess.Popen[bytes]) -> None:
    """The child and whatever it has started."""
    for how, patience in ((signal.SIGTERM, 30), (signal.SIGKILL, None)):
        if child.poll() is not None:
            return
        os.killpg(child.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience)


class State:
    """What is known of bots and verbs from run to run."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            self.bots, self.runs = dict(found["bots"]), dict(found["runs"])
        except (OSError, ValueError, KeyError, TypeError):
            self.bots, self.runs = {}, {}

    def fresh(self, verb: str, hours: float | None) -> bool:
        last = self.runs.get(verb, {}).get("last_success")
        return hours is not None and last is not None and time.time() - last < hours * 3600

    def note(self, verb: str, ok: bool, took: float, report: list[Tree]) -> None:
        now = int(time.time())
        run = self.runs.setdefault(verb, {})
        run.update(last_run=now, took=round(took, 1), ok=int(ok), **({"last_success": now} if ok else {}))
        if verb == "backup" and report:
            self.bots = {name_of(row): {**self.bots.get(name_of(row), {}), "failed": int(not row["ok"])}
                         for row in report}
        for row in report:
            about = self.bots.setdefault(name_of(row), {})
            if verb == "backup" and row["ok"]:
                about.update(last_success=now, **{key: row[key] for key in ("bytes", "bytes_added", "duration")})
            elif verb == "drill":
                about.update(drill_failed=int(not row["ok"]), **({"drill": now} if row["ok"] else {}))
        write(self.path, json.dumps({"bots": self.bots, "runs": self.runs}, indent=1) + "\n", 0o600)

    def metrics(self) -> str:
        now, text = time.time(), []
        bots = {bot: {**about, **{age: int(now - about[since]) for age, since in
                                  (("age", "last_success"), ("drill_age", "drill")) if since in about}}
                for bot, about in self.bots.items()}
        for label, names, rows in (("bot", GAUGES, bots), ("verb", RUNS, self.runs)):
            for key, (name, about) in names.items():
                values = [f'clawops_backup_{name}{{{label}="{who}"}} {row[key]}' for who, row in sorted(rows.items())
                          if key in row]
                head = [f"# HELP clawops_backup_{name} {about}.", f"# TYPE clawops_backup_{name} gauge"]
                text += [*head, *values] if values else []
        return "".join(f"{line}\n" for line in text)


def write(path: pathlib.Path, text: str, mode: int) -> None:
    """Old or new, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with open(handle, "w", encoding="utf-8") as file:
        os.fchmod(handle, mode)
        file.write(text)
    os.replace(beside, path)


def size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def name_of(row: Tree) -> str:
    """Of a row of the report: a bot or a space."""
    return str(row["bot"]) if "bot" in row else f"space {row['space']}"


def summary(run: Run, code: int, report: list[Tree], took: float) -> str:
    bad = [name_of(row) for row in report if not row["ok"]]
    good = [row for row in report if row["ok"]]
    counts = [f"{len(good)} bots"] if report else []
    if any("bytes" in row for row in good):
        counts += [size(sum(row.get("bytes", 0) for row in good)),
                   f"{size(sum(row.get('bytes_added', 0) for row in good))} added"]
    words = ", ".join([*counts, f"{took:.0f} s"])
    if code == DONE:
        return f"{run.verb} ok: {words}"
    why = f"took more than {run.timeout:.0f} s" if code == LATE else f"Ansible ended with {code}"
    names = f"{len(bad)} of {len(report)} bots: {', '.join(bad)}; " if bad else ""
    return f"{run.verb} FAILED: {names}{why}; {words}; see {run.log}"


def tell(given: Tree, line: str, about: Tree) -> list[str]:
    """Tells of a failure; returns what could not be told."""
    missed = []
    for name, way in (("mail_to", _mail), ("webhook", _post), ("hook", _call)):
        if given[name]:
            try:
                way(given, line, about)
            except (OSError, http.client.HTTPException, subprocess.SubprocessError, ValueError) as error:
                missed.append(f"{name}: {type(error).__name__}")
    return missed


def _mail(given: Tree, line: str, about: Tree) -> None:
    reasons = "".join(f"{name_of(row)} ({row['host']}): {row['why']}\n" for row in about["report"] if not row["ok"])
    head = f"To: {given['mail_to']}\nSubject: {line[:150]}\nContent-Type: text/plain; charset=utf-8\n\n"
    text = f"{head}{line}\n\n{reasons}"
    subprocess.run([given["sendmail"], "-t"], input=text.encode(), check=True, timeout=60)


def _post(given: Tree, line: str, about: Tree) -> None:
    body = json.dumps({"text": line, **about}).encode()
    if not given["webhook"].startswith(("http://", "https://")):
        raise ValueError(given["webhook"])
    request = urllib.request.Request(given["webhook"], body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310 (the scheme is checked above)
        pass


def _call(given: Tree, line: str, about: Tree) -> None:
    subprocess.run(given["hook"], input=json.dumps({"text": line, **about}).encode(), check=True, timeout=60)


def once(given: Tree, options: argparse.Namespace) -> int:
    folder = pathlib.Path(given["state"])
    run = Run(given, options.verb)
    if State(folder / "state.json").fresh(options.verb, options.if_older):
        return DONE
    with alone(folder, options.verb, options.wait) as locks:
        state = State(folder / "state.json")
        if state.fresh(options.verb, options.if_older):
            return DONE
        began = time.monotonic()
        code, report = run.play(locks)
        took = time.monotonic() - began
        state.note(options.verb, code == DONE, took, report)
        if given["metrics"]:
            write(pathlib.Path(given["metrics"]), state.metrics(), 0o644)
        run.tidy()
    line = summary(run, code, report, took)
    if code != DONE:
        missed = tell(given, line, {"verb": run.verb, "code": code, "log": str(run.log), "report": report})
        line += f"; nobody was told by {', '.join(missed)}" if missed else ""
    if code != DONE or not options.quiet:
        print(line, flush=True)
    return code if code in (DONE, LATE) else FAILED


def main() -> int:
    parser = argparse.ArgumentParser(prog="backup-cron", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="/etc/clawops/backup-cron.json")
    parser.add_argument("--if-older", type=float, metavar="HOURS", help="do nothing if the verb went well since then")
    parser.add_argument("--wait", type=float, default=3600, metavar="SECONDS", help="for a run of another verb")
    parser.add_argument("--quiet", action="store_true", help="say something on failure only, for cron")
    parser.add_argument("verb")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return once(settings(options.config), options)
    except Refused as error:
        print(f"{options.verb} FAILED: {error}", flush=True)
        return SETTINGS
    except Busy as error:
        print(f"{options.verb} not done: {error}", flush=True)
        return BUSY


if __name__ == "__main__":
    sys.exit(main())
