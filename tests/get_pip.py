# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stands in for the script that ansible-test downloads from a server of its own to put pip into its environments.

With this in ansible-test's cache, the package index is the only thing that has to be reachable.
"""

from __future__ import annotations

import subprocess
import sys

# A process of its own: within this one, ensurepip would switch off pip's configuration for what follows.
subprocess.run([sys.executable, "-m", "ensurepip"], check=True)
# Options of the script that this stands in for; pip does not know them.
arguments = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", *arguments]))
