# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The one exception that every part of the collection raises for a foreseen failure."""

from __future__ import annotations

import typing as t


class FleetError(Exception):
    """A failure with a remedy.

    code: stable machine-readable word. message: what was asked and what was found.
    hint: what to do about it. details: JSON-able facts, never secrets.
    """

    def __init__(self, code: str, message: str, hint: str = "", **details: t.Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = details

    def result(self) -> dict[str, t.Any]:
        """The arguments for ``fail_json``: ``msg`` for people, ``failure`` for programs."""
        text = f"{self.message} {self.hint}".strip()
        failure = {"code": self.code, "message": self.message, "hint": self.hint, "details": self.details}
        return {"msg": text, "failure": failure}


def bad_value(parameter: str, value: object, remedy: str) -> FleetError:
    """Bad input: names the parameter, the value and the remedy."""
    return FleetError("bad_value", f"{parameter}: {value!r} is not accepted.", remedy, parameter=parameter)
