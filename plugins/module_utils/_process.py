# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Running other programs: one protocol, so that the logic is tested without them."""

from __future__ import annotations

import subprocess
import typing as t

from ._errors import FleetError


class Finished(t.NamedTuple):
    """A program that has ended."""

    rc: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The end of what it said, for an error message."""
        return (self.err.strip() or self.out.strip())[-2000:]


class Runner(t.Protocol):
    """Runs a program by argv; never through a shell, never with a secret in argv."""

    def __call__(self, argv: t.Sequence[str], stdin: str | None = None, env: t.Mapping[str, str] | None = None,
                 timeout: float | None = None) -> Finished: ...


def run(argv: t.Sequence[str], stdin: str | None = None, env: t.Mapping[str, str] | None = None,
        timeout: float | None = None) -> Finished:
    """The real Runner. env replaces the whole environment; timeout is in seconds."""
    try:
        done = subprocess.run(argv, input=stdin, env=env, timeout=timeout, capture_output=True, text=True,
                              stdin=None if stdin is not None else subprocess.DEVNULL, check=False)
    except FileNotFoundError:
        raise FleetError("no_program", f"The program {argv[0]} is not installed on this host.",
                         "Install it, or run the role that does.") from None
    except subprocess.TimeoutExpired:
        raise FleetError("timeout", f"{argv[0]} did not end within {timeout:.0f} seconds.") from None
    return Finished(done.returncode, done.stdout, done.stderr)


def must(runner: Runner, argv: t.Sequence[str], doing: str, **options: t.Any) -> str:
    """Standard output of a program that has to succeed."""
    done = runner(argv, **options)
    if done.rc:
        raise FleetError("program_failed", f"{doing} failed ({argv[0]} ended with {done.rc}): {done.last_words}")
    return done.out
