# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""clawops-space: the spaces of this host, for people, timers and whoever comes over SSH."""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import json
import os
import re
import sys
import typing as t

from .. import _audit, _files
from .._errors import FleetError, bad_value
from . import exec as programs
from . import facts, files, history, mcp, names, sleep, work, worker
from .client import Engine, connect
from .state import Record

Args = argparse.Namespace
#: What our own failures end with, so that they can't be taken for those of a program in a space.
FAILED = 125
_SPAN = re.compile(r"(\d+)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def main(argv: t.Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    # For everything that is done on the way, such as waking a space.
    os.environ.update({key: value for key, value in ((_audit.ACTOR, args.actor), (_audit.JOB, args.job)) if value})
    try:
        return t.cast(int, args.verb(args)) or 0
    except FleetError as error:
        sys.stderr.write(f"clawops-space: {error.result()['msg']}\n")
        return FAILED
    except BrokenPipeError:
        # Who read has gone; nothing more is to be written at the end, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog="clawops-space", description="The spaces of this host.")
    whole.add_argument("--actor", help="who acts, for the audit log")
    whole.add_argument("--job", help="the job that this belongs to, for the audit log")
    whole.add_argument("--settings", default=worker.SETTINGS, help=argparse.SUPPRESS)
    verbs = whole.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, run: t.Callable[[Args], int], text: str, space: bool = False) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=text, description=text)
        one.set_defaults(verb=run)
        if space:
            one.add_argument("name", metavar="NAME")
        return one

    verb("list", list_spaces, "the spaces and their state").add_argument("--json", action="store_true")
    verb("info", info, "what the host has, and its spaces, as JSON").add_argument("--json", action="store_true")
    _exec_options(verb("exec", execute, "run a program in a space, which is woken for it", space=True))
    verb("sh", shell, "open a login shell in a space", space=True)
    put_ = verb("put", put, "write standard input to a file of a space", space=True)
    put_.add_argument("path", metavar="PATH")
    put_.add_argument("--mode", help="its permissions, such as 0644")
    verb("get", get, "write a file of a space to standard output", space=True).add_argument("path", metavar="PATH")
    files_ = verb("files", list_files, "list the files of a space", space=True)
    files_.add_argument("path", metavar="PATH", nargs="?", default=names.WORKSPACE)
    files_.add_argument("--json", action="store_true")
    logs_ = verb("logs", logs, "what the main process of a space wrote", space=True)
    logs_.add_argument("--follow", action="store_true")
    logs_.add_argument("--tail", type=int, default=200, metavar="LINES")
    verb("stats", stats, "what the running spaces use").add_argument("name", metavar="NAME", nargs="?")
    verb("sleep", put_to_sleep, "one pass of the worker that puts idle spaces to sleep")
    verb("history", ingest, "record what was typed in the shells of spaces")
    _audit_options(verb("audit", audit, "search the audit log"))
    verb("mcp", serve, "be a bot's tools, over standard input and output").add_argument("bot", metavar="BOT")
    return whole


def _exec_options(one: argparse.ArgumentParser) -> None:
    one.add_argument("--tty", action="store_true", help="with a terminal")
    one.add_argument("--workdir", metavar="DIR")
    one.add_argument("--user", metavar="USER")
    one.add_argument("--timeout", type=float, metavar="SECONDS", help="end it, and all that it began, after this time")
    one.add_argument("--env-stdin", action="store_true",
                     help="take variables from the first line of standard input, a JSON object")
    one.add_argument("argv", nargs="+", metavar="ARGV", help="after --")


def _audit_options(one: argparse.ArgumentParser) -> None:
    one.add_argument("--space", metavar="NAME")
    one.add_argument("--event", metavar="EVENT", help="such as space.exec, or space. for all of spaces")
    one.add_argument("--actor", dest="by", metavar="ACTOR")
    one.add_argument("--job", dest="of", metavar="JOB")
    one.add_argument("--outcome", metavar="OUTCOME", help="such as failed")
    one.add_argument("--since", type=_since, default=0.0, metavar="WHEN", help="such as 30m, 2d or 2026-11-21T08:00Z")
    one.add_argument("--limit", type=int, default=100, metavar="LINES", help="the last ones; 0 for all")
    one.add_argument("--json", action="store_true", help="as they stand in the log")
    one.add_argument("--log", default=_audit.LOG, help=argparse.SUPPRESS)


# -- verbs -----------------------------------------------------------------------------------------------------------

def list_spaces(args: Args) -> int:
    with _engine() as engine:
        rows = [_row(name, engine.inspect(found["Id"])) for name, found in worker.spaces(engine)]
    if args.json:
        _say(json.dumps(rows))
    else:
        _table(["space", "state", "since", "image"], rows)
    return 0


def _row(name: str, found: dict[str, t.Any] | None) -> dict[str, t.Any]:
    if found is None:
        return {"space": name, "state": "gone", "since": "", "image": ""}
    state, asleep = found["State"], Record(name).asleep(found)
    since = asleep.get("since") if asleep else state["StartedAt"] if state["Running"] else state["FinishedAt"]
    return {"space": name, "state": "asleep" if asleep else state["Status"], "since": str(since)[:19],
            "image": found["Config"]["Image"]}


def info(args: Args) -> int:
    with _engine() as engine:
        _say(json.dumps(facts.report(engine)))
    return 0


def execute(args: Args) -> int:
    env = _variables() if args.env_stdin else {}
    return _stream(args, args.argv, env=env, workdir=args.workdir, user=args.user, tty=args.tty, timeout=args.timeout)


def shell(args: Args) -> int:
    return _stream(args, ["bash", "--login"], env={"TERM": os.environ.get("TERM", "dumb")}, tty=sys.stdin.isatty())


def _stream(args: Args, argv: t.Sequence[str], **options: t.Any) -> int:
    said = {key: value for key, value in options.items() if key != "env" and value}
    with _engine() as engine, _event("space.exec", args, argv=argv, **said) as entry:
        entry["rc"] = rc = programs.stream(engine, args.name, argv, **options)
        if rc == 124 and options.get("timeout"):
            entry["outcome"] = "timeout"
        return rc


def _variables() -> dict[str, str]:
    """Byte by byte: what follows is for the program."""
    text = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        text += byte
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise bad_value("--env-stdin", "(hidden)", "Begin standard input with a line that is a JSON object.")
    return {str(key): str(value) for key, value in values.items()}


def put(args: Args) -> int:
    with _engine() as engine, _event("space.file", args, action="put", path=args.path) as entry:
        done = files.put_stream(engine, args.name, args.path, sys.stdin.buffer, args.mode)
        entry.update({key: done[key] for key in ("size", "sha256") if key in done})
    return 0


def get(args: Args) -> int:
    with _engine() as engine, _event("space.file", args, action="get", path=args.path) as entry:
        done = files.get_stream(engine, args.name, args.path, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        entry.update({key: done[key] for key in ("size", "sha256") if key in done})
    return 0


def list_files(args: Args) -> int:
    with _engine() as engine, _event("space.file", args, action="list", path=args.path):
        found = files.listing(engine, args.name, args.path)
    if args.json:
        _say(json.dumps(found))
    else:
        _table(["mode", "size", "path"], found)
    return 0


def logs(args: Args) -> int:
    with _engine(None) as engine:
        ident = work.find(engine, args.name)["Id"]
        with engine.doing("show a log"):
            for piece in engine.api.logs(ident, stream=True, follow=args.follow, tail=args.tail or "all"):
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
    return 0


def stats(args: Args) -> int:
    with _engine() as engine:
        found = worker.spaces(engine, everything=False)
        if args.name:
            found = [(args.name, work.find(engine, args.name))]
        rows = []
        for name, summary in found:
            with engine.doing("measure a space"):
                rows.append(_use(name, engine.api.stats(summary["Id"], stream=False)))
    _table(["space", "cpu", "memory", "processes", "received", "sent"], rows)
    return 0


def _use(name: str, now: dict[str, t.Any]) -> dict[str, t.Any]:
    cpu, before = now.get("cpu_stats") or {}, now.get("precpu_stats") or {}
    span = (cpu.get("system_cpu_usage") or 0) - (before.get("system_cpu_usage") or 0)
    used = cpu.get("cpu_usage", {}).get("total_usage", 0) - before.get("cpu_usage", {}).get("total_usage", 0)
    memory, traffic = now.get("memory_stats") or {}, (now.get("networks") or {}).values()
    share = 100 * used / span * (cpu.get("online_cpus") or 1) if span > 0 else 0.0
    return {"space": name, "cpu": f"{share:.1f}%", "processes": (now.get("pids_stats") or {}).get("current", 0),
            "memory": f"{_mib(memory.get('usage', 0))} of {_mib(memory.get('limit', 0))}",
            "received": _mib(sum(one["rx_bytes"] for one in traffic)),
            "sent": _mib(sum(one["tx_bytes"] for one in traffic))}


def put_to_sleep(args: Args) -> int:
    settings = worker.Settings.load(args.settings)
    with _engine(settings.engine_timeout) as engine:
        origin = _audit.Origin.of(args.actor or "clawops-space-sleep", args.job)
        fine = sleep.Worker(engine, settings, origin, _say).run()
    return 0 if fine else FAILED


def ingest(args: Args) -> int:
    with _engine(worker.Settings.load(args.settings).engine_timeout) as engine:
        history.Ingest(engine, _say).run()
    return 0


def audit(args: Args) -> int:
    wanted = {"subject": args.space, "actor": args.by, "job": args.of, "outcome": args.outcome}
    begin = _audit.stamp(args.since)
    # Rotated files that were last written before that hold nothing of it. An event has the time of its beginning.
    found = (entry for entry in _audit.read(args.log, args.since)
             if str(entry.get("time", "")) >= begin and _event_fits(entry, args.event)
             and all(entry.get(key) == value for key, value in wanted.items() if value is not None))
    # The log has them by their end.
    for entry in sorted(collections.deque(found, args.limit or None), key=lambda entry: str(entry.get("time", ""))):
        _say(_audit.dumps(entry).rstrip("\n") if args.json else _sentence(entry))
    return 0


def serve(args: Args) -> int:
    policy = ((_files.read_json(args.settings) or {}).get("agents") or {}).get(args.bot)
    if policy is None:
        raise FleetError("no_agent", f"The bot {args.bot} may not use the spaces of this host.",
                         "Name it in sandbox_host_agents.")
    stdout = sys.stdout.buffer
    with _engine() as engine, contextlib.redirect_stdout(sys.stderr):
        return mcp.serve(engine, args.bot, policy, sys.stdin.buffer, stdout)


# -- parts -----------------------------------------------------------------------------------------------------------

def _engine(timeout: float | None = 60) -> Engine:
    return connect(timeout=t.cast(float, timeout))


def _event(name: str, args: Args, **fields: t.Any) -> contextlib.AbstractContextManager[_audit.Entry]:
    return _audit.event(name, args.name, _audit.Origin.of(), **fields)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _since(text: str) -> float:
    span = _SPAN.fullmatch(text)
    if span:
        return _audit.now() - int(span[1]) * _SECONDS[span[2]]
    moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    # Without a zone it is UTC, as in the log.
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)).timestamp()


def _event_fits(entry: _audit.Entry, wanted: str | None) -> bool:
    event = str(entry.get("event", ""))
    return wanted is None or event == wanted or (wanted.endswith(".") and event.startswith(wanted))


def _sentence(entry: _audit.Entry) -> str:
    head = ["time", "event", "subject", "actor", "job", "outcome"]
    rest = " ".join(f"{key}={json.dumps(value)}" for key, value in entry.items() if key not in (*head, "ref"))
    return " ".join([*(_plain(entry.get(key) or "-") for key in head), rest])


def _table(columns: t.Sequence[str], rows: t.Sequence[t.Mapping[str, t.Any]]) -> None:
    lines = [[column.upper() for column in columns]]
    lines += [[_plain(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    for line in lines:
        _say("  ".join(word.ljust(width) for word, width in zip(line, widths)).rstrip())


def _plain(value: t.Any) -> str:
    """Nothing that steers a terminal: names of files and words of spaces are anybody's."""
    return "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in str(value))


def _mib(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB"
