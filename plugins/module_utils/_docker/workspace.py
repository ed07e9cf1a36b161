# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Where the files at /workspace are from: a volume, a directory of the host, a copy of one, or a worktree of git."""

from __future__ import annotations

import os
import pathlib
import shutil
import stat
import tarfile
import typing as t

from .. import _process
from .._errors import FleetError, bad_value
from . import names
from .client import Json
from .space import Space
from .state import Record

_PART = 1 << 20
#: Directories of the host that no space gets, whatever is allowed: who writes there owns the host.
_NEVER = ("/proc", "/sys", "/dev", "/etc", "/run", "/var/run", "/boot", "/usr", "/bin", "/sbin", "/lib", "/lib64",
          "/var/lib/docker", "/var/lib/containerd", "/var/lib/clawops", "/root/.ssh")


def _within(path: str, base: str) -> bool:
    return path == base or path.startswith(base.rstrip("/") + "/")


def source(space: Space, allowed: t.Sequence[str]) -> str | None:
    """The directory of the host that the space works on, without symbolic links; None for a volume alone."""
    path = space.workspace.path
    if path is None:
        return None
    where = f"space_workspace.path of {space.name}"
    real = os.path.realpath(path)
    if not any(_within(real, os.path.realpath(base)) for base in allowed):
        said = ", ".join(allowed) or "there are none"
        raise bad_value(where, path, f"It is not below one of allowed_paths ({said}).")
    never = next((base for base in _NEVER if _within(real, base) or _within(base, real)), None)
    if never:
        raise bad_value(where, path, f"A space never gets {never}, nor what contains it.")
    if not os.path.isdir(real):
        raise bad_value(where, path, "There is no such directory on this host.")
    if space.workspace.strategy == "worktree" and not os.path.isdir(os.path.join(real, ".git")):
        raise bad_value(where, path, "It is not the top of a git repository with a working tree.")
    return real


def mounts(space: Space, real: str | None, record: Record) -> list[Json]:
    """What is mounted into the space."""
    strategy, target = space.workspace.strategy, names.WORKSPACE
    if strategy == "bind":
        result = [_bind(str(real), target)]
    elif strategy == "worktree":
        tree, git = worktree(record), f"{real}/.git"
        # Who could write one of these two would have git on the host run what he likes.
        result = [_bind(str(tree), target), _bind(f"{tree}/.git", f"{target}/.git", True), _bind(git, git, True)]
    else:
        result = [{"Type": "volume", "Source": names.volume(space.name), "Target": target}]
    return [*result, _bind(str(record.secrets), names.SECRETS, True)] if space.secret_env else result


def _bind(where: str, target: str, read_only: bool = False) -> Json:
    return {"Type": "bind", "Source": where, "Target": target, "ReadOnly": read_only,
            "BindOptions": {"Propagation": "rprivate"}}


def worktree(record: Record) -> pathlib.Path:
    """Beside what is only root's: the repository's owner has to reach it. git names its notes after the last part."""
    return record.path.parent.parent / "worktrees" / record.name


class Worktree:
    """A worktree of a repository of this host. Git runs as the repository's owner, and never in the worktree:
    what a space writes there must not steer a program of the host."""

    def __init__(self, space_name: str, repository: str, record: Record, run: _process.Runner = _process.run) -> None:
        self.name, self.repository, self.run = space_name, repository, run
        self.path = worktree(record)

    def make(self, branch: str | None, uid: int, gid: int) -> None:
        """Begins anew what a killed run left half done."""
        self._clear()
        owner = os.stat(os.path.join(self.repository, ".git"))
        self.path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o755)
        _chown(self.path, owner.st_uid, owner.st_gid)
        name = branch or f"space/{self.name}"
        known = self._git("rev-parse", "--verify", "--quiet", f"refs/heads/{name}").rc == 0
        how = [str(self.path), name] if known else ["-b", name, str(self.path)]
        done = self._git("worktree", "add", "--force", *how)
        if done.rc:
            raise FleetError("no_worktree", f"git can't make a worktree of {self.repository} for the space "
                                            f"{self.name}: {done.last_words}")
        for folder, folders, files in os.walk(self.path):
            for entry in [*folders, *files]:
                _chown(pathlib.Path(folder, entry), uid, gid)
        _chown(self.path, uid, gid)
        _chown(self.path / ".git", 0, 0)

    def remove(self) -> None:
        self._clear()

    def _clear(self) -> None:
        if self.path.exists():
            shutil.rmtree(self.path)
        if os.path.isdir(os.path.join(self.repository, ".git")):
            self._git("worktree", "prune")

    def _git(self, *argv: str) -> _process.Finished:
        owner = os.stat(os.path.join(self.repository, ".git"))
        become = [] if os.geteuid() else ["setpriv", f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}",
                                          "--clear-groups", "--"]
        return self.run([*become, "git", "-c", "core.hooksPath=/dev/null", "-C", self.repository, *argv],
                        env={"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent", "LC_ALL": "C"})


def _chown(path: pathlib.Path, uid: int, gid: int) -> None:
    if os.geteuid() == 0:
        os.chown(path, uid, gid, follow_symlinks=False)


def snapshot(folder: str, uid: int, gid: int) -> t.Iterator[bytes]:
    """A tar of what is in a directory, as it is read: files, directories and links, and who they belong to from now on.

    Symbolic links stay links, and nothing is read through one. Each name of a file becomes a file of its own.
    """
    for base, folders, files in os.walk(folder):
        folders.sort()
        for entry in [*folders, *sorted(files)]:
            path = os.path.join(base, entry)
            info = tarfile.TarInfo(os.path.relpath(path, folder))
            info.uid, info.gid = uid, gid
            try:
                yield from _member(info, path)
            except FileNotFoundError:
                continue
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(info: tarfile.TarInfo, path: str) -> t.Iterator[bytes]:
    found = os.lstat(path)
    info.mode, info.mtime = found.st_mode & 0o777, int(found.st_mtime)
    if stat.S_ISREG(found.st_mode):
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            info.size = os.fstat(stream.fileno()).st_size
            yield info.tobuf(tarfile.PAX_FORMAT)
            yield from _content(stream, info.size)
        return
    if stat.S_ISDIR(found.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(found.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
    else:
        # Sockets, devices and pipes have no place in a space.
        return
    yield info.tobuf(tarfile.PAX_FORMAT)


def _content(stream: t.BinaryIO, size: int) -> t.Iterator[bytes]:
    left = size
    while left:
        # A file that shrinks while it is read is filled up, as its size is written already.
        part = stream.read(min(_PART, left)) or bytes(min(_PART, left))
        left -= len(part)
        yield part
    if size % tarfile.BLOCKSIZE:
        # Nothing is never yielded: on the wire it would be the end.
        yield bytes(-size % tarfile.BLOCKSIZE)
