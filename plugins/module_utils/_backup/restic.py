# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""One bot's repository, by restic. Secrets go into the environment of the child and nowhere else."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import typing as t

from .._errors import FleetError
from .._process import Finished
from . import jail
from .bucket import Marks
from .model import Keys, Manifest, Runner, Snapshot, Staged, Store, moment

CACHE = "/var/cache/clawops/restic"
LEAST = (0, 17, 1)
# Pruning excludes all else, and a backup may take its time.
RETRY = "--retry-lock=10m"
# The tag of a snapshot that counts, and that of one of data which a restore replaced.
WHOLE, SAFETY = "manifest=1", "safety=1"
_PASSED = ("PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "TMPDIR")


def pattern(path: str) -> str:
    """A path as a pattern of restic's that matches nothing else."""
    return re.sub(r"([\\*?\[])", r"\\\1", path)


# A pattern that means nothing; its first half is none at all, and with that restic goes no further.
SEAL = b"/[", b"\x01]/nothing\n"


def line(wanted: str) -> bytes:
    """A pattern as a line of a file of them: no variable, no end of the line, no blank that is taken for none."""
    text = wanted.replace("$", "$$").replace("\n", "[^\x01-\t\x0b-\U0010ffff]")
    return os.fsencode(text if text == text.rstrip() else f"{text[:-1]}[{text[-1]}]")


def _cache() -> str:
    """Root's is the host's; in an execution environment nobody is root."""
    return CACHE if os.geteuid() == 0 else os.path.expanduser("~/.cache/clawops/restic")


class Repository:
    """s3:{endpoint}/{bucket}/{fleet}/bots/{bot}/ seen through restic."""

    def __init__(self, store: Store, bot: str, keys: Keys, runner: Runner, executable: str = "restic",
                 cache: str = "", timeout: float = 14400, marks: Marks | None = None) -> None:
        self.store, self.bot, self.runner, self.timeout, self.marks = store, bot, runner, timeout, marks
        self.subject, self.password = store.subject(bot), keys.password
        self.argv = [executable, "--json", "-o", "s3.bucket-lookup=path", "-o", f"s3.region={store.region}"]
        self.argv += ["--cacert", store.ca_cert] if store.ca_cert else []
        passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
        self.env = {**passed, "RESTIC_REPOSITORY": store.url(bot), "RESTIC_PASSWORD": keys.password,
                    "RESTIC_CACHE_DIR": cache or _cache(), "AWS_ACCESS_KEY_ID": keys.access_key,
                    "AWS_SECRET_ACCESS_KEY": keys.secret_key, "AWS_DEFAULT_REGION": store.region}

    def check_version(self) -> None:
        try:
            answer = self.runner.run([self.argv[0], "version"], {"PATH": self.env.get("PATH", os.defpath)}, 30)
        except FileNotFoundError:
            answer = Finished(127, "", "")
        found = re.search(r"restic (\d+)\.(\d+)\.(\d+)", answer.out)
        if not found:
            raise FleetError("restic_missing", f"{self.argv[0]} is no restic on this host.",
                             "The role clawops.fleet.backup installs it.")
        if tuple(map(int, found.groups())) < LEAST:
            least = ".".join(map(str, LEAST))
            raise FleetError("restic_too_old", f"{found[0]} is older than {least}.",
                             "Set backup_restic_url and backup_restic_sha256 for the role clawops.fleet.backup.")

    def identify(self) -> str:
        """The repository's id; fails when it is missing or the password is wrong."""
        return str(json.loads(self._read("cat", "config").out)["id"])

    def init(self) -> str:
        return str(_last(self._run("init").out, "initialized")["id"])

    def backup(self, staged: Staged, host: str) -> dict[str, t.Any]:
        """One snapshot of a staged source. An incomplete one is taken back: nothing half-done counts."""
        manifest = staged.manifest
        tags = (f"fleet={manifest.fleet}", f"{self.store.kind}={self.bot}", f"host={host}",
                SAFETY if staged.safety else WHOLE, f"run={manifest.run}")
        argv = ["backup", RETRY, "--quiet", "--no-scan", "--host", host]
        argv += [argument for tag in tags for argument in ("--tag", tag)]
        # It may be of fewer directories than those before, whose unchanged files need not be read again.
        argv += ["--group-by=host"] if staged.safety else []
        answer = self._read_in(staged, argv, ["--", *staged.paths, staged.directory])
        if answer.rc == 3:
            self.forget_run(manifest.run)
        staged.settled = answer.rc in (0, 1, 3, 10, 11, 12)
        return _last(self._checked(answer).out, "summary")

    def _read_in(self, staged: Staged, argv: list[str], what: list[str]) -> Finished:
        """Where it can, restic opens the repository while the source is being made consistent."""
        runner, env = self._confined(staged)
        feed = getattr(runner, "feed", None)
        if not (feed and staged.fill):
            without = [f"--exclude={one}" for one in (*staged.exclude, *staged.filled())]
            with self._waiting():
                return runner.run([*self.argv, *argv, *without, *what], env, self.timeout)

        def supply() -> bytes:
            return b"\n".join(map(line, (*staged.exclude, *staged.filled())))

        words = [*self.argv, *argv, "--exclude-file={input}", "--exclude-file={seal}", *what]
        with self._waiting():
            done: Finished = feed(words, env, self.timeout, supply, SEAL)
        return done

    def _confined(self, staged: Staged) -> tuple[Runner, dict[str, str]]:
        """Who starts restic, on a host so that it sees what is staged and nothing else of it; and its environment."""
        within = getattr(self.runner, "within", None)
        if not (within and staged.confined):
            return self.runner, self.env
        cache = self.env["RESTIC_CACHE_DIR"]
        os.makedirs(cache, 0o700, exist_ok=True)
        authority = [self.store.ca_cert] if self.store.ca_cert else []
        return within([*staged.paths, staged.directory, cache, *authority]), {**self.env, "TMPDIR": cache}

    def forget_run(self, run: str) -> None:
        """Undoes what a run that failed or was killed left: its lock, if its process is gone, and its snapshot."""
        self._run("unlock")
        for snapshot in self._list("--tag", f"run={run}"):
            if self.marks:
                self.marks.put(run)
            else:
                self._run("forget", snapshot.id)

    def snapshots(self) -> list[Snapshot]:
        """The snapshots of this bot that carry a manifest and count, oldest first."""
        return [snapshot for snapshot in self.listed() if not snapshot.safety]

    def listed(self) -> list[Snapshot]:
        """Those that were taken before a restore, too."""
        rejected = self.rejected()
        return [snapshot for snapshot in self.all_snapshots() if snapshot.tag("run") not in rejected]

    def _mine(self, *more: str) -> tuple[str, str]:
        return "--tag", ",".join((f"fleet={self.store.fleet}", f"{self.store.kind}={self.bot}", *more))

    def all_snapshots(self) -> list[Snapshot]:
        """Those that do not count, too."""
        return [snapshot for snapshot in self._list(*self._mine()) if {WHOLE, SAFETY} & {*snapshot.tags}]

    def rejected(self) -> set[str]:
        return self.marks.runs() if self.marks else set()

    def forgettable(self, rules: t.Sequence[str], tag: str = WHOLE) -> list[str]:
        """The ids that these rules would not keep, whatever host or paths a snapshot has."""
        answer = json.loads(self._read("forget", "--dry-run", *self._mine(tag), "--group-by=", *rules).out or "[]")
        return [raw["id"] for group in answer for raw in group["remove"] or ()]

    def forget(self, ids: t.Sequence[str]) -> None:
        self._run("forget", RETRY, *ids)

    def prune(self) -> None:
        """Frees what no snapshot needs. It is safe to kill: data go only when nothing names them any more."""
        self._run("prune", RETRY, "--quiet")

    def verify(self, subset: str | None) -> tuple[list[str], list[str], list[str]]:
        """What is wrong in words, the damaged packs, and the files in them."""
        how = [f"--read-data-subset={subset}"] if subset else []
        answer = self._start("check", RETRY, "--quiet", *how)
        summary = next((one for one in _messages(answer.out) if one.get("message_type") == "summary"), None)
        if summary is None or answer.rc not in (0, 1):
            self._checked(answer)
        packs = list((summary or {}).get("broken_packs") or ())
        if answer.rc == 0:
            return [], [], []
        text = _errors(answer.err)
        return [text or "restic check fails"], packs, self._files(packs, re.findall(r"blob ([0-9a-f]{64})", text))

    def _files(self, packs: list[str], blobs: list[str]) -> list[str]:
        """What is stored in packs, as far as it can be told."""
        if not packs:
            return []
        answer = self._start("find", "--no-lock", "--pack", *packs)
        try:
            rows = json.loads(answer.out or "[]")
        except ValueError:
            return []
        hit = [row for row in rows if not blobs or row.get("id") in blobs]
        return sorted({f"{row['path']} of snapshot {row['snapshot'][:8]}" for row in hit if row.get("path")})

    def repair(self, step: str, packs: t.Sequence[str], place: str) -> str:
        """What restic says to it. Copies of damaged packs are left in a directory of this host."""
        if step == "packs":
            os.makedirs(place, 0o700, exist_ok=True)
            answer = self.runner.run(["env", "-C", place, *self.argv, "repair", "packs", RETRY, *packs], self.env,
                                     self.timeout)
        else:
            answer = self._start("repair", step, RETRY, *(["--forget"] if step == "snapshots" else []))
        self._checked(answer)
        return f"{answer.out}\n{_errors(answer.err)}"

    def opening_key(self) -> str:
        """The id of the key that the password opens; none when it opens nothing."""
        answer = self._start("key", "list", "--no-lock")
        if answer.rc == 12:
            return ""
        return next(str(key["id"]) for key in json.loads(self._checked(answer).out) if key["current"])

    def add_key(self, password: str) -> None:
        """The password goes over a file that has no name."""
        handle = os.memfd_create("restic")
        try:
            os.write(handle, password.encode())
            self._run("key", "add", f"--new-password-file=/proc/{os.getpid()}/fd/{handle}")
        finally:
            os.close(handle)

    def remove_key(self, key: str) -> None:
        self._run("key", "remove", key)

    def choose(self, wanted: str, until: datetime.datetime | None = None) -> Snapshot:
        """The newest snapshot for 'latest', of those that were taken until then; else the one whose id starts so."""
        if wanted == "latest":
            known = self.snapshots()
            found = [snapshot for snapshot in known if until is None or moment(snapshot.time) <= until]
            if until and known and not found:
                raise FleetError("snapshot_missing", f"{self.subject}: no snapshot is as old as {until.isoformat()}. "
                                                     f"The oldest is of {known[0].time}, the newest of "
                                                     f"{known[-1].time}.",
                                 f"Ask for {known[0].time} or later.", bot=self.bot, oldest=known[0].time,
                                 newest=known[-1].time)
        else:
            found = [snapshot for snapshot in self.listed() if snapshot.id.startswith(wanted)]
        if not found or (wanted != "latest" and len(found) > 1):
            many = "more than one snapshot" if found else "no snapshot"
            raise FleetError("snapshot_missing", f"{self.subject}: {many} for {wanted!r} in "
                                                 f"{self.store.url(self.bot)}.",
                             "backup_info lists them.", bot=self.bot)
        return found[-1]

    def manifest(self, snapshot: Snapshot) -> Manifest:
        manifest = Manifest.from_json(self._read("dump", snapshot.id, snapshot.manifest).out)
        if manifest.bot != self.bot or manifest.fleet != self.store.fleet:
            raise FleetError("foreign_snapshot", f"Snapshot {snapshot.id[:8]} is of {manifest.bot} of fleet "
                                                 f"{manifest.fleet}, asked was {self.bot} of {self.store.fleet}.",
                             "Choose another snapshot.", bot=self.bot)
        return manifest

    def restore(self, snapshot: Snapshot, directory: str, paths: t.Iterable[str]) -> None:
        """What was written is read once more, and compared with the checksums in the repository."""
        includes = [f"--include={pattern(path)}" for path in paths]
        self._read("restore", "--quiet", "--sparse", "--verify", "--target", directory, *includes, snapshot.id)

    def _list(self, *arguments: str) -> list[Snapshot]:
        found = [_snapshot(raw) for raw in json.loads(self._read("snapshots", *arguments).out or "[]")]
        # As times: hosts write them in zones of their own.
        return sorted(found, key=lambda snapshot: (moment(snapshot.time), snapshot.time))

    def _start(self, *arguments: str) -> Finished:
        with self._waiting():
            return self.runner.run([*self.argv, *arguments], self.env, self.timeout)

    @contextlib.contextmanager
    def _waiting(self) -> t.Iterator[None]:
        """It tries for a quarter of an hour; what it waited for is what one has to know."""
        try:
            yield
        except FleetError as error:
            known = self._known(error.message) if error.code == "timeout" else None
            raise known or error from None

    def _read(self, *arguments: str) -> Finished:
        """Reads without a lock: a reader that is killed then leaves none, and a key may be limited to reading."""
        return self._run(arguments[0], "--no-lock", *arguments[1:])

    def _run(self, *arguments: str) -> Finished:
        return self._checked(self._start(*arguments))

    def _checked(self, answer: Finished) -> Finished:
        if answer.rc != 0:
            raise self._explain(answer)
        return answer

    def _explain(self, answer: Finished) -> FleetError:
        text = _errors(answer.err)
        where = self.store.url(self.bot)
        known = {10: ("repository_missing", f"There is no repository at {where}.", "backup_repository makes it."),
                 11: ("repository_locked", f"The repository {where} is locked by another restic: {text}",
                      "Wait for it to end; if it crashed, restic unlock removes its lock."),
                 12: ("wrong_password", f"The password does not open the repository {where}.",
                      "Give the password that the repository was made with."),
                 3: ("incomplete", f"{self.subject}: not everything could be read, so the snapshot was taken back: "
                                   f"{text}", "Make these files readable, or exclude them.")}
        if answer.rc in known:
            code, message, hint = known[answer.rc]
            return FleetError(code, message, hint, bot=self.bot)
        return self._known(text) or FleetError(
            "restic_failed", f"{self.subject}: restic ended with {answer.rc}: {text}", bot=self.bot)

    def _known(self, text: str) -> FleetError | None:
        """What is known by restic's words."""
        return next((FleetError(code, f"{self.subject}: {text}", hint, bot=self.bot) for sign, code, hint in _SIGNS
                     if re.search(sign, text, re.IGNORECASE)), None)


_SIGNS = (
    (jail.SIGN, "not_confined", jail.HINT),
    (r"no space left on device|disk quota exceeded", "disk_full", "Make room on this host."),
    (r"XMinioStorageFull|minimum free (drive|disk)|quota.?exceeded", "bucket_full", "Make room in the bucket."),
    (r"x509:|certificate", "wrong_certificate", "Give the authority that signed the certificate as ca_cert."),
    (r"access.?denied|signature|access key", "wrong_key", "Check the keys and their policy."),
    (r"connection (refused|reset|closed)|no such host|i/o timeout|no route|broken pipe|EOF|deadline", "unreachable",
     "Check that the S3 service runs and can be reached."),
)


def _snapshot(raw: dict[str, t.Any]) -> Snapshot:
    summary = raw.get("summary") or {}
    return Snapshot(id=raw["id"], time=raw["time"], host=raw.get("hostname", ""), tags=tuple(raw.get("tags") or ()),
                    paths=tuple(raw["paths"]), size=int(summary.get("total_bytes_processed", 0)),
                    files=int(summary.get("total_files_processed", 0)),
                    files_taken=sum(int(summary.get(f"files_{what}", 0)) for what in ("new", "changed", "unmodified")))


def _messages(text: str) -> t.Iterator[dict[str, t.Any]]:
    for line in text.splitlines():
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if isinstance(message, dict):
            yield message


def _last(text: str, kind: str) -> dict[str, t.Any]:
    found = [message for message in _messages(text) if message.get("message_type") == kind]
    if not found:
        raise FleetError("restic_failed", f"restic reported no {kind}.", "Is this a restic of the right version?")
    return found[-1]


def _errors(text: str) -> str:
    """The human part of restic's stderr: JSON messages and plain lines, the first few."""
    lines = []
    for line in text.splitlines():
        message = next(_messages(line), None)
        if message is None:
            lines.append(line.strip())
            continue
        inner = message.get("error")
        said = inner.get("message") if isinstance(inner, dict) else message.get("message")
        lines.append(f"{message.get('item', '')} {said or ''}".strip())
    return "; ".join(dict.fromkeys(line for line in lines if line))[:2000]
