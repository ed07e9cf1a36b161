# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Source and Target for a bot whose data lies in directories of this host: Docker hosts and guests."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import datetime
import errno
import fcntl
import grp
import inspect
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import typing as t
import uuid

from .. import _files
from .._errors import FleetError, bad_value
from .._process import Finished
from . import copier, jail, sqlite
from .model import (
    MANIFEST,
    Database,
    Manifest,
    Owner,
    Part,
    Restored,
    Safety,
    Scratch,
    Staged,
    is_plain_absolute,
)
from .restic import pattern

STATE = "/var/lib/clawops"
# What OpenClaw and its browsers make again by themselves, by role, and the locks of a process that will be gone.
REGENERABLE = {"state": ("cache", "tmp", "browser/**/Cache", "browser/**/Code Cache", "browser/**/GPUCache",
                         "browser/**/Singleton*")}


class HostRunner:
    """Runs a program on this host. It inherits the bot's lock, so that an orphaned restic still holds it."""

    def __init__(self, inherited: tuple[int, ...] = (), shown: tuple[str, ...] = ()) -> None:
        self.inherited, self.shown = inherited, shown

    def within(self, paths: t.Sequence[str]) -> HostRunner:
        """One whose programs see of this host these paths alone, besides what every program needs."""
        return HostRunner(self.inherited, tuple(os.path.normpath(os.path.join("/", path)) for path in paths))

    def run(self, argv: t.Sequence[str], env: t.Mapping[str, str], timeout: float) -> Finished:
        with self._start(argv, env, self.inherited) as child:
            return _result(child, argv, timeout)

    def feed(self, argv: t.Sequence[str], env: t.Mapping[str, str], timeout: float, supply: t.Callable[[], bytes],
             seal: tuple[bytes, bytes]) -> Finished:
        """The same for a program that begins before its input is known, which it reads where argv says {input}.

        Where argv says {seal} it reads the first half of the seal, and the second one when the input is whole: whenever
        this process dies, the program can tell.
        """
        (reading, writing), (looking, sealing) = os.pipe(), os.pipe()
        with contextlib.ExitStack() as opened:
            for end in (reading, looking):
                opened.callback(os.close, end)
            given, sealed = (opened.enter_context(open(end, "wb", buffering=0)) for end in (writing, sealing))
            sealed.write(seal[0])
            places = {"{input}": f"/proc/self/fd/{reading}", "{seal}": f"/proc/self/fd/{looking}"}
            words = [re.sub(r"\{(input|seal)\}$", lambda found: places[found[0]], word) for word in argv]
            with self._start(words, env, (*self.inherited, reading, looking)) as child:
                try:
                    text = supply()
                except BaseException:
                    given.close()
                    sealed.close()
                    _end(child)
                    raise
                # By another thread: a program that does not read must not make this one wait for ever.
                threading.Thread(target=_pour, args=((given, text), (sealed, seal[1])), daemon=True).start()
                return _result(child, argv, timeout)

    def _start(self, argv: t.Sequence[str], env: t.Mapping[str, str], inherited: t.Sequence[int]
               ) -> subprocess.Popen[str]:
        return subprocess.Popen(self._jailed(argv, env) if self.shown else argv, env=dict(env),
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                pass_fds=inherited, cwd="/", text=True, errors="surrogateescape")

    def _jailed(self, argv: t.Sequence[str], env: t.Mapping[str, str]) -> list[str]:
        program = os.path.realpath(shutil.which(argv[0], path=env.get("PATH")) or argv[0])
        shown = *self.shown, program
        return [sys.executable, "-I", "-S", "-c", inspect.getsource(jail), str(len(shown)), *shown, program, *argv[1:]]


def _pour(*all_of_it: tuple[t.BinaryIO, bytes]) -> None:
    with contextlib.suppress(OSError, ValueError):
        for pipe, text in all_of_it:
            rest = memoryview(text)
            while rest:
                rest = rest[pipe.write(rest):]
            pipe.close()


def _result(child: subprocess.Popen[str], argv: t.Sequence[str], timeout: float) -> Finished:
    try:
        out, err = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        words = _end(child).strip()[-2000:]
        raise FleetError("timeout", f"{' '.join(argv[:1])} took more than {timeout} seconds."
                         + (f" It said: {words}" if words else ""),
                         "Raise timeout, or see what it waits for.") from None
    return Finished(child.returncode, out, err)


def _end(child: subprocess.Popen[str]) -> str:
    """Returns what it had to say."""
    child.send_signal(signal.SIGTERM)  # restic then removes its lock
    try:
        return child.communicate(timeout=20)[1]
    except subprocess.TimeoutExpired:
        child.kill()
        return child.communicate()[1]


@contextlib.contextmanager
def lock(state: str, bot: str, runner: HostRunner) -> t.Iterator[None]:
    """One backup or restore of a bot at a time on this host."""
    os.makedirs(os.path.join(state, "locks"), 0o755, exist_ok=True)
    path = os.path.join(state, "locks", f"backup-{bot}")
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise FleetError("busy", f"Another backup or restore of {bot} is running on this host.",
                             "Wait for it to end.", bot=bot) from None
        runner.inherited = (file.fileno(),)
        try:
            yield
        finally:
            runner.inherited = ()


def _staging(state: str, bot: str) -> str:
    """By its name before the directories of bots: restic goes by names, and reads copies while it looks at the rest."""
    return os.path.join(state, "backup", "staging", bot)


@contextlib.contextmanager
def staging(path: str, stage: t.Callable[[str], Staged]) -> t.Iterator[Staged]:
    """What stage() makes of the name of an unconfirmed run, with the manifest at path as long as it is needed."""
    staged = None
    try:
        staged = stage(_clean(path))
        yield staged
    finally:
        if staged is None or staged.settled:
            shutil.rmtree(path, ignore_errors=True)
        else:
            # The manifest stays: by it the next run knows which snapshot must not count.
            shutil.rmtree(os.path.join(path, "sqlite"), ignore_errors=True)


def _clean(path: str) -> str:
    """Removes what a killed run left and returns that run's name."""
    run = ""
    with contextlib.suppress(OSError, FleetError):
        run = Manifest.from_json(_files.read(os.path.join(path, MANIFEST)) or "").run
    if os.path.lexists(path):
        shutil.rmtree(path)
    return run


@dataclasses.dataclass(frozen=True)
class Tree:
    """A directory to back up, and the patterns below it to leave out."""

    role: str
    path: str
    exclude: tuple[str, ...] = ()


def check_paths(bot: str, paths: t.Sequence[str], roles: t.Sequence[str]) -> None:
    """Every role once, every path plain, and none inside another: restore switches them one by one."""
    if not paths or len(set(roles)) != len(roles):
        raise bad_value(f"bots.{bot}.paths", list(roles), "Give at least one role, and each role once.")
    for path in paths:
        if not is_plain_absolute(path):
            raise bad_value(f"bots.{bot}.paths", path, "Write an absolute path without '..' and a final '/'.")
        if any(other != path and other.startswith(f"{path}/") for other in paths) or list(paths).count(path) > 1:
            raise bad_value(f"bots.{bot}.paths", path, "No path may contain another one.")


class HostSource:
    """A bot's directories on this host, made consistent while the bot runs."""

    def __init__(self, bot: str, fleet: str, host: str, trees: t.Sequence[Tree], substrate: str = "docker",
                 version: str = "", state: str = STATE, timeout: float = 14400) -> None:
        check_paths(bot, [tree.path for tree in trees], [tree.role for tree in trees])
        self.bot, self.fleet, self.host, self.trees = bot, fleet, host, tuple(trees)
        self.substrate, self.version, self.state, self.timeout = substrate, version, state, timeout
        self.runner = HostRunner()
        self.staging = _staging(state, bot)

    def observe(self) -> dict[str, t.Any]:
        for tree in self.trees:
            if not os.path.isdir(tree.path) or os.path.islink(tree.path):
                raise FleetError("path_missing", f"Bot {self.bot}: its {tree.role} {tree.path} is no directory.",
                                 "Install the bot first, or correct the path.", bot=self.bot)
        return {tree.role: tree.path for tree in self.trees}

    @contextlib.contextmanager
    def open(self) -> t.Iterator[Staged]:
        with lock(self.state, self.bot, self.runner), staging(self.staging, self._stage) as staged:
            yield staged

    def _stage(self, unconfirmed: str) -> Staged:
        # Owners of databases pass through these directories to their own copies; nothing in them can be listed.
        os.makedirs(self.staging)
        for directory in (os.path.dirname(self.staging), self.staging):
            os.chmod(directory, 0o711)  # noqa: S103
        staged = Staged(manifest=noted(self.fleet, self.bot, self.host, self.substrate, self.version, ()),
                        directory=self.staging, paths=tuple(tree.path for tree in self.trees), exclude=(),
                        unconfirmed=unconfirmed, confined=_as_root())
        self._write(staged)

        def fill() -> t.Sequence[str]:
            parts, exclude = copied(self.trees, self.staging, self.timeout, staged.confined)
            os.chmod(self.staging, 0o700)
            staged.manifest = dataclasses.replace(staged.manifest, parts=parts)
            self._write(staged)
            return exclude

        staged.fill = fill
        return staged

    def _write(self, staged: Staged) -> None:
        _files.write(os.path.join(self.staging, MANIFEST), staged.manifest.to_json(), 0o600)


def noted(fleet: str, bot: str, host: str, substrate: str, version: str, parts: tuple[Part, ...]) -> Manifest:
    """The manifest of a run that begins."""
    return Manifest(fleet=fleet, bot=bot, host=host, substrate=substrate, bot_version=version, run=uuid.uuid4().hex,
                    created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), parts=parts)


def _as_root() -> bool:
    """Whoever else reads directories of others gets where he may go anyway, and no further."""
    return os.geteuid() == 0


def copied(trees: t.Sequence[Tree], directory: str, timeout: float, confined: bool = False
           ) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """Copies the databases of trees into a directory. Returns the manifest's parts, and what restic has to leave out.

    confined says that there is more on this host than whoever can write to the trees may get to see.
    """
    with sqlite.Copying(directory, timeout, [tree.path for tree in trees] if confined else ()) as copying:
        found = {tree.role: sqlite.find(tree.path, tree.exclude) for tree in trees}
        databases = [database for role in found for database in found[role]]
        copies = copying.copy(databases)
    exclude = [pattern(database.path + ending) for database in databases for ending in sqlite.COMPANIONS]
    exclude += [f"{pattern(tree.path)}/{one}" for tree in trees for one in tree.exclude]

    def note(one: sqlite.Found) -> Database:
        path = os.path.join(directory, copies[one.path])
        return Database(one.relative, copies[one.path], sqlite.sha256(path), os.lstat(path).st_size, one.uid, one.gid,
                        one.mode)

    with concurrent.futures.ThreadPoolExecutor(copier.THREADS) as pool:
        taken = {tree.role: tuple(pool.map(note, (one for one in found[tree.role] if one.path in copies)))
                 for tree in trees}
    return tuple(_part(tree, taken[tree.role]) for tree in trees), tuple(exclude)


def plain(trees: t.Sequence[Tree]) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """As copied(), for trees that nobody writes to: their databases are files like all others, sound or not."""
    exclude = tuple(f"{pattern(tree.path)}/{one}" for tree in trees for one in tree.exclude)
    return tuple(_part(tree) for tree in trees), exclude


def _part(tree: Tree, databases: tuple[Database, ...] = ()) -> Part:
    facts = os.lstat(tree.path)
    return Part(tree.role, tree.path, _owner(facts.st_uid, facts.st_gid), stat.S_IMODE(facts.st_mode), databases)


def _owner(uid: int, gid: int) -> Owner:
    user, group = str(uid), str(gid)
    with contextlib.suppress(KeyError):
        user = pwd.getpwuid(uid).pw_name
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(gid).gr_name
    return Owner(user, uid, group, gid)


@contextlib.contextmanager
def _held(path: str, make: bool = False) -> t.Iterator[str]:
    """A name of what is at a path, for this process, that leads nowhere else when others move the directories above."""
    handle = jail.handle(os.path.dirname(path), make)
    try:
        yield f"/proc/self/fd/{handle}/{os.path.basename(path)}"
    finally:
        os.close(handle)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a role's data goes on this host, and whom it will belong to."""

    role: str
    path: str
    owner: str
    group: str | None = None

    def ids(self) -> tuple[int, int]:
        try:
            account = pwd.getpwnam(self.owner)
            return account.pw_uid, grp.getgrnam(self.group).gr_gid if self.group else account.pw_gid
        except KeyError as error:
            raise FleetError("owner_missing", f"{self.path} shall belong to {self.owner}, but: {error.args[0]}.",
                             "Create the bot's user first: the role clawops.fleet.openclaw_user.") from None


class HostTarget:
    """A bot's directories on this host: filled in a scratch directory on the same file system, then renamed."""

    substrate = "docker_host"

    def __init__(self, bot: str, places: t.Sequence[Place], units: t.Sequence[str] = (), stop: bool = False,
                 keep_previous: bool = False, state: str = STATE) -> None:
        check_paths(bot, [place.path for place in places], [place.role for place in places])
        self.bot, self._places, self.units, self.stop = bot, tuple(places), tuple(units), stop
        self.keep_previous, self.state, self.runner = keep_previous, state, HostRunner()

    def places(self) -> dict[str, str]:
        return {place.role: place.path for place in self._places}

    def record(self) -> Restored | None:
        try:
            return Restored(**_files.read_json(self._record_path))
        except TypeError:
            return None

    def holds(self, snapshot: str) -> bool:
        """Whether the very directories that a restore of this snapshot made are still in place."""
        record = self.record()
        return record is not None and record == Restored(snapshot, self.places(), self._identities(), True) and (
            len(self.occupied()) == len(self._places))

    def _identities(self) -> dict[str, str]:
        return {place.role: identity(place.path) for place in self._places}

    @property
    def _record_path(self) -> str:
        return os.path.join(self.state, "restored", f"{self.bot}.json")

    def _remember(self, snapshot: str, done: bool) -> None:
        restored = Restored(snapshot, self.places(), self._identities(), done)
        _files.write(self._record_path, _files.pretty(dataclasses.asdict(restored)), 0o600)

    def occupied(self) -> list[str]:
        """The paths where data is already."""
        return [place.path for place in self._places if os.path.lexists(place.path) and not _is_empty(place.path)]

    def room(self) -> dict[str, int]:
        """The free bytes of each file system that data come to."""
        return {str(os.stat(path).st_dev): _free(path) for path in map(existing, self.places().values())}

    def check(self, manifest: Manifest, size: int) -> None:
        """Everything that can be known before the first write."""
        mounts = _mounts()
        for place in self._places:
            manifest.part(place.role)
            place.ids()
            if os.path.islink(place.path) or place.path in mounts:
                raise FleetError("target_fixed", f"{place.path} is a symbolic link or a mount point and can't be "
                                                 "switched over.", "Give a directory below it.", bot=self.bot)
        free = min(self.room().values())
        if size > free:
            raise sqlite.disk_full(self._places[0].path, size, free)
        running = [] if self.stop else self._running()
        if running:
            raise FleetError("bot_running", f"Bot {self.bot} runs as {', '.join(running)}.",
                             "Stop it first, or set stop: true.", bot=self.bot)

    def _running(self) -> list[str]:
        return [unit for unit in self.units if _systemctl("is-active", "--quiet", unit)]

    @contextlib.contextmanager
    def open(self, manifest: Manifest) -> t.Iterator[list[Scratch]]:
        """Empty scratch directories, one for each file system; removed at the end whatever happens."""
        with lock(self.state, self.bot, self.runner):
            scratches = self._scratches()
            for scratch in scratches:
                self._recover(scratch)
            try:
                for scratch in scratches:
                    os.mkdir(scratch.directory, 0o700)
                yield scratches
            finally:
                for scratch in scratches:
                    self._recover(scratch)

    def _scratches(self) -> list[Scratch]:
        mounts = _mounts()
        groups: dict[str, list[Place]] = {}
        for place in self._places:
            with _held(place.path, make=True):
                pass
            groups.setdefault(_mount_of(os.path.dirname(place.path), mounts), []).append(place)
        return [Scratch(os.path.join(_trusted(os.path.dirname(places[0].path), mount), f".restore-{self.bot}"),
                        tuple(place.role for place in places)) for mount, places in groups.items()]

    def _recover(self, scratch: Scratch) -> None:
        """Undoes a switch that did not come to its end, then removes the scratch directory."""
        record = self.record()
        for place in self._places if record and not record.done else ():
            aside = os.path.join(scratch.directory, "old", place.role)
            if os.path.lexists(aside):
                with _held(place.path) as path:
                    if os.path.lexists(path):
                        shutil.rmtree(path)
                    os.rename(aside, path)
        if os.path.lexists(scratch.directory):
            shutil.rmtree(scratch.directory)

    def switch(self, scratches: list[Scratch], manifest: Manifest, snapshot: str, staging: str,
               safety: Safety | None = None) -> list[str]:
        """Verifies and finishes the restored trees, then renames them into place. Returns what was kept aside."""
        for scratch in scratches:
            for role in scratch.roles:
                finish(self.bot, scratch.directory, manifest.part(role), staging, self._place(role).ids())
        os.sync()
        self._stop()
        if safety:
            self._save(manifest.fleet, safety)
        self._remember(snapshot, done=False)
        for scratch in scratches:
            os.mkdir(os.path.join(scratch.directory, "old"), 0o700)
            for role in scratch.roles:
                self._rename(scratch, manifest.part(role), self._place(role))
        kept = [path for scratch in scratches for path in self._keep(scratch)] if self.keep_previous else []
        self._lock_out()
        self._remember(snapshot, done=True)
        return kept

    def _lock_out(self) -> None:
        """Who had access at the snapshot's time has no more, where this target knows of such."""

    def _save(self, fleet: str, safety: Safety) -> None:
        """Has what is there taken as it lies: nothing runs that writes to it."""
        occupied = self.occupied()
        trees = [Tree(place.role, place.path, REGENERABLE.get(place.role, ())) for place in self._places
                 if place.path in occupied]
        if not trees:
            return
        directory = _staging(self.state, self.bot)

        def stage(unconfirmed: str) -> Staged:
            os.makedirs(directory, 0o700)
            parts, exclude = plain(trees)
            manifest = noted(fleet, self.bot, safety.host, self.substrate, "", parts)
            _files.write(os.path.join(directory, MANIFEST), manifest.to_json(), 0o600)
            return Staged(manifest, directory, tuple(tree.path for tree in trees), exclude, unconfirmed, safety=True,
                          confined=_as_root())

        with safety.required(), staging(directory, stage) as staged:
            safety.take(staged)

    def _place(self, role: str) -> Place:
        return next(place for place in self._places if place.role == role)

    def _stop(self) -> None:
        running = self._running()
        if running and not self.stop:
            raise FleetError("bot_running", f"Bot {self.bot} was started as {', '.join(running)} during its restore.",
                             "Stop it, or set stop: true.", bot=self.bot)
        for unit in running:
            if not _systemctl("stop", unit):
                raise FleetError("stop_failed", f"{unit} does not stop.", f"See journalctl -u {unit}.", bot=self.bot)

    def _rename(self, scratch: Scratch, part: Part, place: Place) -> None:
        with _held(place.path) as path:
            if os.path.lexists(path):
                os.rename(path, os.path.join(scratch.directory, "old", place.role))
            os.rename(scratch.directory + part.path, path)
            _sync_directory(os.path.dirname(path))

    def _keep(self, scratch: Scratch) -> t.Iterator[str]:
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        for role in scratch.roles:
            aside, path = os.path.join(scratch.directory, "old", role), self._place(role).path
            if os.path.lexists(aside):
                with _held(f"{path}.before-restore-{stamp}") as kept:
                    os.rename(aside, kept)
                yield f"{path}.before-restore-{stamp}"


def finish(bot: str, scratch: str, part: Part, staging: str, owner: tuple[int, int]) -> None:
    """Makes a restored tree whole: the copies of its databases in their places, everything with its new owner."""
    tree = scratch + part.path
    if not os.path.isdir(tree) or os.path.realpath(tree) != tree:
        raise FleetError("unsafe_snapshot", f"Bot {bot}: the snapshot's {part.path} is no directory.",
                         "Choose another snapshot.", bot=bot)
    for database in part.databases:
        _put(bot, f"{scratch}{staging}/{database.copy}", os.path.join(tree, database.path), database)
    _own(tree, part, *owner)


def _put(bot: str, copy: str, path: str, database: Database) -> None:
    directory = os.path.dirname(path)
    if not os.path.isdir(directory) or os.path.realpath(directory) != directory or os.path.lexists(path):
        raise FleetError("unsafe_snapshot", f"Bot {bot}: {database.path} does not lie in a plain directory.",
                         "Choose another snapshot.", bot=bot)
    if not os.path.lexists(copy) or sqlite.sha256(copy) != database.sha256:
        raise FleetError("checksum", f"Bot {bot}: the copy of {database.path} is not what the manifest says.",
                         "Choose another snapshot, and run restic check.", bot=bot)
    times = os.stat(directory)
    os.rename(copy, path)
    os.utime(directory, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.chmod(path, database.mode)
    if os.geteuid() == 0:
        os.chown(path, database.uid, database.gid)


def _own(tree: str, part: Part, uid: int, gid: int) -> None:
    """Gives a restored tree to the bot's user of this host; root's files stay root's when the bot is not root.

    Where that user is the one of the snapshot everything belongs to whom it belonged to. lchown is called for every
    file, changed or not: the kernel then drops set-id bits and file capabilities.
    """

    same = (uid, gid) == (part.owner.uid, part.owner.gid)

    def own(path: str) -> None:
        facts = os.lstat(path)
        if stat.S_ISBLK(facts.st_mode) or stat.S_ISCHR(facts.st_mode):
            raise FleetError("unsafe_snapshot", f"The snapshot holds the device {path[len(tree):]}.",
                             "Somebody tampered with this repository: look at who has its password.")
        os.lchown(path, facts.st_uid if same or facts.st_uid == 0 != part.owner.uid else uid,
                  facts.st_gid if same or facts.st_gid == 0 != part.owner.gid else gid)

    own(tree)
    for directory, directories, files in os.walk(tree):
        for name in directories + files:
            own(os.path.join(directory, name))


def identity(path: str) -> str:
    """Tells a directory from another one that was made later under its name: inode and time of birth."""
    answer = subprocess.run(["stat", "--format=%i %.9W", path], capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def _systemctl(*arguments: str) -> bool:
    try:
        return subprocess.run(["systemctl", *arguments], capture_output=True, check=False, timeout=300).returncode == 0
    except FileNotFoundError:
        return False
    except subprocess.TimeoutExpired:
        raise FleetError("timeout", f"systemctl {' '.join(arguments)} took more than 300 seconds.") from None


def _is_empty(path: str) -> bool:
    return os.path.isdir(path) and not os.listdir(path)


def existing(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _free(path: str) -> int:
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize


def _mounts() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return [re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), line.split()[4]) for line in file]


def _mount_of(path: str, mounts: list[str]) -> str:
    """The mount point that a path lies below; renames work within one only, even on the same file system."""
    real = os.path.realpath(path)
    return max((mount for mount in mounts if f"{real}/".startswith(f"{mount.rstrip('/')}/")), key=len)


def _trusted(path: str, mount: str) -> str:
    """The nearest directory above, on the same mount, in which nobody but root can move things under our hands."""
    path = os.path.realpath(path)
    while not jail.is_roots(path):
        if path == mount:
            raise FleetError("target_open", f"In {path}, which is a mount, and in all below it others than root can "
                                            "exchange what is being restored.",
                             f"Give {path} to root, and to the group of its user with mode 1770: root's stays root's.")
        path = os.path.dirname(path)
    return path
