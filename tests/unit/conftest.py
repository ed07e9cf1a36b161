# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Makes ansible_collections.clawops.fleet importable from a clone of any name."""

from __future__ import annotations

import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _importable() -> None:
    if "clawops" in ROOT.parts[-2:] and "ansible_collections" in ROOT.parts:
        tree = ROOT.parents[2]
    else:
        tree = pathlib.Path(tempfile.mkdtemp(prefix="clawops-unit-"))
        (tree / "ansible_collections/clawops").mkdir(parents=True)
        (tree / "ansible_collections/clawops/fleet").symlink_to(ROOT)
    from ansible.utils.collection_loader import _collection_finder as finder

    if not any(isinstance(entry, finder._AnsibleCollectionFinder) for entry in sys.meta_path):
        finder._AnsibleCollectionFinder(paths=[str(tree)])._install()


_importable()
