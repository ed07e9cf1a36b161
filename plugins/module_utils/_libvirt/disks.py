# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Disks of a guest: made beside their place and renamed, grown, never shrunk."""

from __future__ import annotations

import os
import pathlib
import typing as t

from .._errors import FleetError, bad_value
from .._process import Runner, must, run
from . import images, qcow2
from .images import BaseImage

_COPY_SECONDS, _SECONDS = 7200.0, 300.0
_BYTES = 1  # VIR_DOMAIN_BLOCK_RESIZE_BYTES


def fits(parameter: str, size: int, least: int) -> None:
    """Raises when a disk of this size has no room for its image."""
    if size < least:
        raise bad_value(parameter, size, f"The image needs {least} bytes: give that or more.")


def create(path: str | os.PathLike[str], size: int, base: BaseImage | None = None, mode: str = "overlay",
           runner: Runner = run) -> None:
    """An empty disk, one on a base image (overlay), or a copy of it (full). It is there whole, or not at all."""
    place = pathlib.Path(path)
    if place.exists():
        raise FleetError("disk_exists", f"{place} is there already.", "Run it again.")
    beside = place.with_name(f".{place.name}.part")
    # Unlinked, not truncated: a program of a run that was killed may have it open still.
    beside.unlink(missing_ok=True)
    try:
        if base is None:
            _image(runner, f"Making {place}", ["create", "-q", "-f", "qcow2", str(beside), str(size)])
        else:
            fits("vm_disk", size, base.virtual_size)
            with images.hold(base.sha256, shared=True):
                _from_base(beside, size, base, mode, runner)
        _settle(beside, place)
    finally:
        beside.unlink(missing_ok=True)


def grow(path: str | os.PathLike[str], size: int, domain: t.Any = None, runner: Runner = run) -> None:
    """Makes a disk bigger: through QEMU where it runs, in the file otherwise."""
    header = qcow2.read(path)
    if header is None:
        raise FleetError("no_disk", f"{path} is not there.")
    if size < header.virtual_size:
        raise bad_value("size", size, f"{path} has {header.virtual_size} bytes, and disks never shrink.")
    if size == header.virtual_size:
        return
    if domain is not None and domain.isActive():
        domain.blockResize(str(path), size, _BYTES)
    else:
        _image(runner, f"Growing {path}", ["resize", "-q", "-f", "qcow2", str(path), str(size)])


def _from_base(beside: pathlib.Path, size: int, base: BaseImage, mode: str, runner: Runner) -> None:
    if not os.path.exists(base.path):
        raise FleetError("image_gone", f"The base image {base.path} was removed.", "Run it again.")
    if mode == "overlay":
        _image(runner, "Making the root disk",
               ["create", "-q", "-f", "qcow2", "-b", base.path, "-F", "qcow2", str(beside), str(size)])
        return
    _image(runner, "Copying the base image",
           ["convert", "-q", "-f", "qcow2", "-O", "qcow2", base.path, str(beside)], _COPY_SECONDS)
    if size > base.virtual_size:
        _image(runner, "Growing the root disk", ["resize", "-q", "-f", "qcow2", str(beside), str(size)])


def _image(runner: Runner, doing: str, words: t.Sequence[str], timeout: float = _SECONDS) -> None:
    must(runner, ["qemu-img", *words], doing, timeout=timeout)


def _settle(beside: pathlib.Path, place: pathlib.Path) -> None:
    handle = os.open(beside, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fchmod(handle, 0o600)
        os.fsync(handle)
    finally:
        os.close(handle)
    beside.replace(place)
