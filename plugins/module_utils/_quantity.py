# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""One notation for memory, storage and processors; converted once for each substrate."""

from __future__ import annotations

import re

from ._errors import bad_value

_UNITS = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4,
          "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4}
_BYTES = re.compile(r"(\d+(?:\.\d+)?)(|k|M|G|T|Ki|Mi|Gi|Ti)")


def parse_bytes(parameter: str, value: object) -> int:
    """Bytes of a quantity such as 2Gi or 500M (Kubernetes notation). Raises on anything else, and on less than 1."""
    match = _BYTES.fullmatch(str(value))
    size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if size < 1:
        raise bad_value(parameter, value, "Write a number with Ki, Mi, Gi, Ti (powers of 1024) or k, M, G, T "
                                          "(powers of 1000), without a blank: 2Gi, 500M.")
    return size


def parse_cpus(parameter: str, value: object) -> float:
    """Processors, as 2, 0.5 or 500m. Raises on anything else, and on less than 0.001."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", str(value))
    cpus = float(match[1]) / (1000 if match[2] else 1) if match else 0.0
    if cpus < 0.001:
        raise bad_value(parameter, value, "Write a number of processors such as 2, 0.5 or 500m.")
    return cpus
