# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the bed keeps what it built, what it made once (keys), and what it changed on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import typing as t

STATE = pathlib.Path("/run/clawops-bed/state.json")


def root() -> pathlib.Path:
    """The cache of the whole collection."""
    own = os.environ.get("CLAWOPS_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(own) if own else pathlib.Path(base) / "clawops-fleet"


def folder(*names: str) -> pathlib.Path:
    """A folder of the bed, made when it is not there."""
    path = root().joinpath("bed", *names)
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(*inputs: object) -> str:
    """The name under which a result of these inputs is kept."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()[:12]


def artefact(kind: str, key: str, build: t.Callable[[pathlib.Path], None]) -> pathlib.Path:
    """The file that build() makes, built once for each key; older ones of its kind are dropped."""
    home = folder("artefacts")
    path = home / f"{kind}-{key}"
    with lock(f"artefact-{kind}"):
        if not path.exists():
            for old in home.glob(f"{kind}-*"):
                old.unlink()
            with tempfile.TemporaryDirectory(dir=home, prefix="building-") as work:
                made = pathlib.Path(work) / "out"
                build(made)
                made.replace(path)
    return path


def write(path: pathlib.Path, text: str, mode: int = 0o600) -> pathlib.Path:
    """Write a file in one step, with its mode from the start."""
    fd, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(fd, "w") as out:
        out.write(text)
    pathlib.Path(name).chmod(mode)
    return pathlib.Path(name).replace(path)


@contextlib.contextmanager
def lock(name: str) -> t.Iterator[None]:
    """Exclude other threads and other runs; a killed holder leaves nothing behind."""
    with (folder("lock") / name).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def state() -> dict[str, t.Any]:
    """What the bed changed on this machine since it booted."""
    try:
        kept = json.loads(STATE.read_text())
    except (OSError, ValueError):
        kept = {}
    return kept if kept.get("boot") == _boot() else {"boot": _boot()}


def remember(**facts: t.Any) -> None:
    """Add to the state; None forgets."""
    with lock("state"):
        STATE.parent.mkdir(parents=True, exist_ok=True)
        kept = {key: value for key, value in {**state(), **facts}.items() if value is not None}
        write(STATE, json.dumps(kept, indent=1))


def forget() -> None:
    """Nothing of the bed is left on this machine."""
    shutil.rmtree(STATE.parent, ignore_errors=True)


def _boot() -> str:
    return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
