# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""The program of a ProxyCommand, started by path, wherever the collection is installed."""

from __future__ import annotations

import importlib
import pathlib
import sys

if __name__ == "__main__":
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[2])
    raise SystemExit(importlib.import_module("module_utils._ssh.tunnel").main())
