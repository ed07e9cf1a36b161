# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Paths in directories of others, and a place from which a few paths of this host can be seen and nothing else.

Whoever may write to a directory can put a symbolic link in place of what root is about to open there. handle() follows
none of his. In the jail, where everything has the path it always has, they lead to nothing that is not shown.

Also a program of its own: its arguments are the number of paths, these, and what to start there. It shall begin at
once, and imports little.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Sequence

#: What programs need, as far as it is there: everybody on this host can read it. Of files by number their own alone.
SYSTEM = ("/bin", "/lib", "/lib64", "/usr/bin", "/usr/lib", "/usr/lib64", "/dev/null", "/dev/urandom", "/proc/self/fd",
          "/etc/group", "/etc/host.conf", "/etc/hosts", "/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf",
          "/etc/passwd", "/etc/resolv.conf", "/etc/ssl/certs", "/run/avahi-daemon", "/run/nscd", "/run/systemd/resolve")
SIGN = "no private view of this host"
HINT = ("Root needs the right to mount (CAP_SYS_ADMIN). On the way to what is shown no symbolic link may lie in a "
        "directory that others may write to.")
#: Any directory that every host has: what is made there is seen in the jail alone.
_TOP = "/tmp"  # noqa: S108
_NEWNS, _BIND, _REC, _PRIVATE = 0x20000, 0x1000, 0x4000, 1 << 18


def lasting(directory: os.stat_result, uid: int) -> bool:
    """Whether what this user has in a directory is exchanged by nobody but root, or who runs this."""
    mine = 0, os.geteuid()
    return directory.st_uid in mine and (not directory.st_mode & 0o022 or (
        bool(directory.st_mode & stat.S_ISVTX) and uid in mine))


def handle(path: str, make: bool = False, strict: bool = False) -> int:
    """Opens a path for nothing but naming it; no symbolic link is followed that others could have put there.

    make makes the directories that are missing, strict refuses whatever others can exchange.
    """
    names, links, here = path.split("/")[::-1], 40, os.open("/", os.O_PATH)
    try:
        while names:
            name = names.pop()
            if name in ("", "."):
                continue
            below = _below(here, name, make)
            facts, safe = os.fstat(below), lasting(os.fstat(here), os.fstat(below).st_uid)
            link = stat.S_ISLNK(facts.st_mode)
            if (not safe and (link or strict)) or not links:
                os.close(below)
                raise OSError(errno.ELOOP, f"Others may put a symbolic link in the place of {name}", path)
            if link:
                links -= 1
                target = os.readlink(name, dir_fd=here)
                names += target.split("/")[::-1]
                os.close(below)
                below = os.open("/", os.O_PATH) if target.startswith("/") else os.dup(here)
            os.close(here)
            here = below
    except BaseException:
        os.close(here)
        raise
    return here


def _below(here: int, name: str, make: bool) -> int:
    try:
        return os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=here)
    except FileNotFoundError:
        if not make:
            raise
    os.mkdir(name, 0o755, dir_fd=here)
    return _below(here, name, False)


def is_roots(path: str) -> bool:
    """Whether this directory stays where it is, and what root puts into it, too, whatever others do."""
    try:
        found = handle(path, strict=True)
    except OSError:
        return False
    try:
        return lasting(os.fstat(found), 0)
    finally:
        os.close(found)


def enter(paths: Sequence[str], more: Sequence[str] = ()) -> None:
    """Shows this process these paths, and more as far as they are there."""
    try:
        _enter(paths, more)
    except OSError as error:
        raise SystemExit(f"{SIGN}: {error}") from None


def _enter(paths: Sequence[str], more: Sequence[str]) -> None:
    import ctypes  # here, for those that only want to open something

    libc = ctypes.CDLL(None, use_errno=True)

    def must(code: int, what: str) -> None:
        if code:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), what)

    def mount(source: str, target: str, kind: bytes | None, flags: int, options: bytes | None = None) -> None:
        must(libc.mount(os.fsencode(source), os.fsencode(target), kind, ctypes.c_ulong(flags), options), target)

    must(libc.unshare(_NEWNS), "unshare")
    mount("none", "/", None, _REC | _PRIVATE)
    # All of them before one is covered by what comes.
    shown = {path: handle(path) for path in paths}
    shown.update({path: found for path in more for found in _if_there(path)})
    mount("jail", _TOP, b"tmpfs", 0, b"mode=755,size=16m")
    umask = os.umask(0o022)
    for path in sorted(shown):
        if not any(path.startswith(f"{other}/") for other in shown):
            source = f"/proc/self/fd/{shown[path]}"
            if path in more and stat.S_ISREG(os.fstat(shown[path]).st_mode):
                _copy(source, _TOP + path)
            else:
                _make(shown[path], _TOP + path)
                mount(source, _TOP + path, None, _BIND | _REC)
        os.close(shown[path])
    os.umask(umask)
    os.chroot(_TOP)
    os.chdir("/")


def _if_there(path: str) -> list[int]:
    try:
        return [handle(path)]
    except OSError:
        return []


def _copy(source: str, path: str) -> None:
    """A file that was exchanged under a mount of its own, as containers have them in /etc, can't be mounted again."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(source, "rb") as file, open(path, "xb") as copy:
        copy.write(file.read())


def _make(like: int, path: str) -> None:
    """Something of the same kind to mount on."""
    directory = stat.S_ISDIR(os.fstat(like).st_mode)
    os.makedirs(path if directory else os.path.dirname(path), exist_ok=True)
    if not directory:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


if __name__ == "__main__":
    count = int(sys.argv[1])
    enter(sys.argv[2:2 + count], SYSTEM)
    os.execv(sys.argv[2 + count], sys.argv[2 + count:])  # noqa: S606
