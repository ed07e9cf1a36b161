# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""git in a space. It runs there as the space's user, which may have prepared the repository as it likes.

So a token never gets to it: inside_git.py stands in between, as another user, and adds it to what the declared step
sends to the declared server. Hooks don't run, and no configuration of the space decides where the token goes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import posixpath
import re
import threading
import typing as t
import urllib.parse

from .. import _audit
from .._errors import FleetError, bad_value
from . import files, inside_git
from .client import Engine
from .exec import OUT, Exec, Result, run_in
from .names import WORKSPACE
from .work import Container, awake

TIMEOUT = 600.0
USERNAME = "x-access-token"
UPLOAD, RECEIVE = "git-upload-pack", "git-receive-pack"
_USERS = ("65532", "65531")
_URL = re.compile(r"(https?|ssh|git|file)://[^\s\0]+|[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9_.-]+:[^\s\0]+")
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]{0,200}")
_SETTINGS = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "safe.directory=*", "http.followRedirects=false",
             "commit.gpgSign=false")
_ENV = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "/bin/false", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes"}
#: The space's own settings have no say where a token is at work.
_STERILE = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
_PYTHON = 'for p in /usr/bin/python3 /usr/local/bin/python3; do [ -x "$p" ] && exec "$p" "$@"; done; exit 127'
_WHAT_IS = """if [ -e "$1/.git" ]; then echo repository
elif [ -L "$1" ] || [ -e "$1" ] && { [ ! -d "$1" ] || [ -n "$(ls -A -- "$1")" ]; }; then echo occupied
else echo absent; fi"""
_BEGIN = 'rm -rf -- "$1" && mkdir -p -- "${1%/*}"'
_FINISH = 'if [ -d "$2" ]; then rmdir -- "$2"; fi && mv -T -- "$1" "$2"'


@dataclasses.dataclass(frozen=True)
class Remote:
    """One repository on a server, and what opens it."""

    url: str
    token: str | None = dataclasses.field(default=None, repr=False)
    username: str = USERNAME

    def __post_init__(self) -> None:
        if not _URL.fullmatch(self.url):
            raise bad_value("url", self.url, "Write a URL such as https://example.org/group/project.git.")
        parts = urllib.parse.urlsplit(self.url) if "://" in self.url else None
        if parts and parts.scheme in ("http", "https") and "@" in parts.netloc:
            raise FleetError("bad_value", "url: it holds a user name or a password.",
                             "Write it without them, and give the token by itself.", parameter="url")
        if self.token and (not parts or parts.scheme not in ("http", "https") or parts.query or parts.fragment):
            raise bad_value("url", self.url, "A token needs an address that begins with https://.")
        if self.token and not (self.token.isascii() and self.token.isprintable()):
            raise FleetError("bad_value", "token: it has characters that no token has.", parameter="token")

    @property
    def clear(self) -> bool:
        """Whether everybody on the way can read the token."""
        return bool(self.token) and self.url.startswith("http://")

    def settings(self, services: t.Sequence[str], refs: t.Sequence[str]) -> dict[str, t.Any]:
        parts = urllib.parse.urlsplit(self.url)
        return {"tls": parts.scheme == "https", "host": parts.hostname, "port": parts.port, "path": self.path,
                "services": list(services), "refs": list(refs), "username": self.username, "token": self.token}

    @property
    def path(self) -> str:
        return urllib.parse.urlsplit(self.url).path.rstrip("/")


@dataclasses.dataclass
class Way:
    """How git gets to a remote now: the address, and settings and environment for the call."""

    url: str
    settings: tuple[str, ...] = ()
    env: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    broker: Broker | None = None

    def notes(self, key: str) -> list[str]:
        """What the broker has told, if there is one."""
        return self.broker.told(key) if self.broker else []


@dataclasses.dataclass(frozen=True)
class Status:
    """The state of a working tree. head and branch are None before the first commit and off any branch."""

    head: str | None
    branch: str | None
    upstream: str | None
    ahead: int
    behind: int
    changes: list[dict[str, str]]

    def shown(self) -> dict[str, t.Any]:
        return {**dataclasses.asdict(self), "clean": not self.changes}


class Git:
    """git of a space that somebody keeps awake, in one directory."""

    def __init__(self, engine: Engine, container: Container, dest: str, timeout: float = TIMEOUT) -> None:
        self.engine, self.container, self.timeout = engine, container, timeout
        self.dest = place(dest)

    def what_is(self) -> str:
        """repository, absent, or occupied by something else."""
        return self._sh(_WHAT_IS, self.dest).out.decode().strip()

    def origin(self) -> str | None:
        done = self.git("config", "--get", "remote.origin.url", check=False)
        return done.out.decode("utf-8", "replace").strip() or None

    def status(self) -> Status:
        out = self.git("status", "--porcelain=v2", "--branch", "--untracked-files=all", "-z").out
        return parse_status(out.decode("utf-8", "replace"))

    def has_branch(self, branch: str) -> bool:
        return self.git("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}", check=False).rc == 0

    def clone(self, remote: Remote, branch: str | None = None) -> None:
        """Beside, and then in its place: what is there is whole."""
        beside = posixpath.join(posixpath.dirname(self.dest), f".clawops-clone-{posixpath.basename(self.dest)}")
        self._must(self._sh(_BEGIN, beside), "git clone")
        with self.way(remote, [UPLOAD]) as way:
            words = ["clone", "--quiet", "--origin", "origin", *(["--branch", branch] if branch else [])]
            moved = (f"url.{way.url}.insteadOf={remote.url}",) if way.settings else ()
            self._git([*words, "--", remote.url, beside], dataclasses.replace(way, settings=(*way.settings, *moved)),
                      hide=remote.token)
        self._must(self._sh(_FINISH, beside, self.dest), "git clone")

    def switch(self, branch: str, create: bool) -> None:
        self.git("switch", "--quiet", *(["--create"] if create else []), branch)

    def commit(self, message: str, author: tuple[str, str]) -> None:
        """Everything that is new, changed or gone, and not ignored."""
        self.git("add", "--all")
        names = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
                 for what, value in zip(("NAME", "EMAIL"), author)}
        self.git("commit", "--quiet", "--no-verify", "--file=-", stdin=message.encode(), env=names)

    def remote_head(self, remote: Remote, branch: str) -> str | None:
        """The commit that a branch has on the server."""
        with self.way(remote, [UPLOAD]) as way:
            ask = ["-C", self.dest, "ls-remote", "--", way.url, f"refs/heads/{branch}"]
            words = self._git(ask, way, hide=remote.token).out.decode("utf-8", "replace").split()
        return words[0] if words else None

    def push(self, remote: Remote, branch: str) -> None:
        ref = f"refs/heads/{branch}"
        with self.way(remote, [RECEIVE], [ref]) as way:
            self._git(["-C", self.dest, "push", "--quiet", "--no-verify", "--no-follow-tags", "--recurse-submodules=no",
                       "--", way.url, f"HEAD:{ref}"], way, hide=remote.token)
            if way.broker and RECEIVE not in way.notes("forwarded"):
                raise FleetError("git_failed", "git push went somewhere else than to the given URL.",
                                 "Look at url.*.insteadOf in the configuration of the repository.")
        self.git("update-ref", f"refs/remotes/origin/{branch}", "HEAD", check=False)
        self.git("branch", "--quiet", f"--set-upstream-to=origin/{branch}", check=False)

    def git(self, *words: str, stdin: bytes = b"", env: t.Mapping[str, str] | None = None,
            check: bool = True) -> Result:
        """git in the directory, without any remote."""
        return self._git(["-C", self.dest, *words], Way("", env=env or {}), stdin, check)

    def _git(self, words: t.Sequence[str], way: Way, stdin: bytes = b"", check: bool = True,
             hide: str | None = None) -> Result:
        settings = [word for setting in (*_SETTINGS, *way.settings) for word in ("-c", setting)]
        done = run_in(self.engine, self.container, ["git", *settings, *words], stdin, env={**_ENV, **way.env},
                      workdir=WORKSPACE, timeout=self.timeout, limit=4 * 1024**2)
        return self._must(done, f"git {words[2] if words[0] == '-C' else words[0]}", way, hide) if check else done

    def _must(self, done: Result, what: str, way: Way | None = None, hide: str | None = None) -> Result:
        if done.timed_out:
            raise FleetError("timeout", f"{what} did not end within {self.timeout:.0f} seconds.")
        if done.rc:
            words = " ".join([*(way.notes("problem") if way else []), done.last_words])
            raise FleetError("git_failed", f"{what} failed: {words.replace(hide, '(hidden)') if hide else words}")
        if done.truncated:
            raise FleetError("git_failed", f"{what} wrote too much.")
        return done

    def _sh(self, script: str, *words: str) -> Result:
        return run_in(self.engine, self.container, ["/bin/sh", "-c", script, "sh", *words], timeout=60,
                      workdir=WORKSPACE)

    @contextlib.contextmanager
    def way(self, remote: Remote, services: t.Sequence[str], refs: t.Sequence[str] = ()) -> t.Iterator[Way]:
        """Straight to the remote, or with a token through a program that stands in between as long as this lasts."""
        if not remote.token:
            yield Way(remote.url)
            return
        with between(self.engine, self.container, remote.settings(services, refs)) as broker:
            local = f"http://127.0.0.1:{broker.port}"
            yield Way(f"{local}{remote.path}", (f"http.{local}/.proxy=", "credential.helper="), _STERILE, broker)


class Broker:
    """inside_git.py at work."""

    def __init__(self, program: Exec) -> None:
        self.program, self.notes, self.port = program, t.cast("list[dict[str, t.Any]]", []), 0
        self._line, self._err, self._end = bytearray(), bytearray(), threading.Event()

    def begin(self, settings: dict[str, t.Any]) -> None:
        def source() -> t.Iterator[bytes]:
            yield json.dumps(settings).encode() + b"\n"
            self._end.wait()

        self.program.feed(source())
        self.program.read(self._hear, 30, lambda: bool(self.notes))
        if not self.notes or not isinstance(self.notes[0].get("port"), int):
            words = self._err[-300:].decode("utf-8", "replace")
            raise FleetError("no_broker", f"Nothing in the space can stand between git and the token. {words}",
                             "Its image needs python3 with ssl, in /usr/bin or /usr/local/bin.")
        self.port = self.notes[0]["port"]

    def told(self, key: str) -> list[str]:
        """What it has said of that up to now; what it says last may be on its way."""
        self.program.read(self._hear, 0.3)
        return [str(note[key]) for note in self.notes if key in note]

    def end(self) -> None:
        self._end.set()
        if not self.program.read(self._hear, 5):
            self.program.kill()

    def _hear(self, stream: int, data: bytes) -> None:
        if stream != OUT:
            self._err += data
            return
        self._line += data
        while b"\n" in self._line:
            line, _end, rest = self._line.partition(b"\n")
            self._line = bytearray(rest)
            self.notes.append(json.loads(line))


@contextlib.contextmanager
def between(engine: Engine, container: Container, settings: dict[str, t.Any]) -> t.Iterator[Broker]:
    owner = str(container["Config"].get("User") or "0").partition(":")[0]
    if owner in ("0", "root") and not container["HostConfig"].get("ReadonlyRootfs"):
        raise FleetError("unsafe_space", "The space runs as root with a writable root, so it can replace its programs.",
                         "Give no token to such a space; set writable_root: false or another user.")
    user = next((user for user in _USERS if user != owner), "")
    argv = ["/bin/sh", "-c", _PYTHON, "sh", "-I", "-S", "-c", inspect.getsource(inside_git)]
    broker = Broker(Exec(engine, container, argv, workdir="/", user=f"{user}:{user}"))
    try:
        broker.begin(settings)
        yield broker
    finally:
        try:
            broker.end()
        finally:
            broker.program.close()


def place(dest: str) -> str:
    """The absolute path of a directory below the workspace."""
    root, below = files.place(dest)
    if root != WORKSPACE or not below:
        raise bad_value("dest", dest, f"Name a directory below {WORKSPACE}.")
    return f"{root}/{below}"


def check_branch(branch: str | None) -> str | None:
    if branch is not None and (not _BRANCH.fullmatch(branch) or ".." in branch or branch.endswith(("/", ".lock"))):
        raise bad_value("branch", branch, "Write the name of a branch, such as main.")
    return branch


def parse_status(text: str) -> Status:
    """What git status says in its second form for programs."""
    about: dict[str, str] = {}
    changes = []
    words = iter(text.split("\0"))
    for word in words:
        kind, _gap, rest = word.partition(" ")
        if kind == "#":
            name, _gap, value = rest.partition(" ")
            about[name] = value
        elif kind in ("1", "2", "u"):
            fields = rest.split(" ", {"1": 7, "2": 8, "u": 9}[kind])
            changes.append({"path": fields[-1], "status": fields[0]})
            if kind == "2":
                next(words, "")  # the name it had
        elif kind == "?":
            changes.append({"path": rest, "status": "??"})
    ahead, behind = ([int(part) for part in about["branch.ab"].split()] if "branch.ab" in about else [0, 0])
    head, branch = about.get("branch.oid"), about.get("branch.head")
    return Status(head if head != "(initial)" else None, branch if branch != "(detached)" else None,
                  about.get("branch.upstream"), ahead, -behind, changes)


def clone(engine: Engine, name: str, url: str, branch: str | None, dest: str, token: str | None = None,
          username: str = USERNAME, origin: _audit.Origin | None = None) -> str | None:
    """Clones once, into a space that is woken for it, and returns the commit; what is there already stays as it is."""
    remote, branch = Remote(url, token, username), check_branch(branch)
    with awake(engine, name, origin=origin) as container:
        git = Git(engine, container, dest)
        found = git.what_is()
        if found == "absent":
            with _audit.event("space.git", name, origin or _audit.Origin.of(), action="clone", url=url, dest=git.dest):
                git.clone(remote, branch)
        else:
            check_there(git, found, url)
        return git.status().head


def check_there(git: Git, found: str, url: str | None) -> None:
    """Raises unless the directory holds the repository that it shall hold."""
    if found != "repository":
        raise FleetError("not_a_repository", f"{git.dest} is there and no git repository.", "Name another directory.")
    known = git.origin() if url else None
    if url and known != url:
        raise FleetError("other_repository", f"{git.dest} is a repository of {without_secret(known)}, not of {url}.",
                         "Name another directory, or the URL that it has.")


def without_secret(url: str | None) -> str:
    return re.sub(r"//[^/@]*@", "//", url) if url else "no server"
