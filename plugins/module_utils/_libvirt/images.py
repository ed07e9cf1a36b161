# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# Private to clawops.fleet: no promise is made about names or signatures in this file.
"""Base images: fetched once, known by their SHA-256, never written again, removed only when no disk stands on them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import shutil
import time
import typing as t

from .. import _files as files
from .. import _lock
from .._errors import FleetError, bad_value
from .._process import Runner, run
from . import names, qcow2

if t.TYPE_CHECKING:
    from .spec import Image

FOLDER = names.IMAGES
LOCKS = pathlib.Path("/run/clawops/images")
#: Which digest a file of the host had, as long as nobody touched it.
INDEX = ".sources.json"
BLOCK = 1024**2
#: A file that changed a moment ago may change again without another time.
_SETTLED = 2.0
#: Seconds after which nobody writes the index any more.
_WRITTEN = 600.0
#: What qemu-img check ends with when clusters are unused: harmless.
_ONLY_LEAKS = 3


@dataclasses.dataclass(frozen=True)
class BaseImage:
    """An image in the folder; virtual_size is in bytes."""

    path: str
    sha256: str
    virtual_size: int


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a download may take: bytes, seconds as a whole, and seconds without a byte."""

    size: int = 64 * 1024**3
    seconds: float = 3600.0
    silence: float = 60.0


def find(image: Image, folder: pathlib.Path = FOLDER) -> BaseImage | None:
    """The image where it has been fetched before."""
    sha256 = image.sha256 or _known(image, folder)
    return _base(sha256, folder) if sha256 else None


def check(image: Image, folder: pathlib.Path = FOLDER) -> int | None:
    """The virtual size, None for a URL that was not fetched yet. Raises for a file that can't become a base image."""
    found = find(image, folder)
    if found:
        return found.virtual_size
    return _check_format(image.path, image) if image.path else None


def ensure(image: Image, folder: pathlib.Path = FOLDER, runner: Runner = run, limits: Limits = Limits()) -> BaseImage:
    """Fetches the image unless it is there. Afterwards it is there whole, or as before."""
    found = find(image, folder)
    if found:
        return found
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    key = image.sha256 or hashlib.sha256(image.source.encode()).hexdigest()
    with hold(key, timeout=limits.seconds):
        _sweep(folder)
        return find(image, folder) or _fetch(image, folder, key, runner, limits)


def users(path: str | os.PathLike[str], folders: t.Iterable[pathlib.Path] = (names.STATE, FOLDER),
          others: t.Iterable[str] = ()) -> list[str]:
    """The files that stand on this image: below the folders, and among the disks of other domains."""
    base = os.path.realpath(path)
    digest = os.path.basename(base)
    disks = {file for folder in folders for file in qcow2.within(folder)}
    standing = {disk for disk, backing in qcow2.backings(disks | set(others)).items()
                # Its name is its digest: found in every way to write a backing file, as JSON for instance.
                if digest in backing or os.path.realpath(os.path.join(os.path.dirname(disk), backing)) == base}
    return sorted(standing | {disk for disk in others if os.path.realpath(disk) == base})


def remove(sha256: str, folder: pathlib.Path = FOLDER, folders: t.Iterable[pathlib.Path] = (names.STATE, FOLDER),
           others: t.Iterable[str] = ()) -> bool:
    """Removes an image that nothing stands on; False when something does."""
    path = _path(sha256, folder)
    with hold(sha256):
        if users(path, folders, others):
            return False
        path.unlink(missing_ok=True)
    return True


def hold(key: str, shared: bool = False, timeout: float = 600.0) -> t.ContextManager[None]:
    """The lock of one image: shared while a disk is made on it, exclusive to fetch or remove it."""
    return _lock.hold(LOCKS / f"{key}.lock", "A base image", shared, timeout)


def _sweep(folder: pathlib.Path) -> None:
    """Removes what runs that were killed have left."""
    for beside in folder.glob(".*.part"):
        with contextlib.suppress(FleetError), hold(beside.name[1:-len(".part")], timeout=0.0):
            beside.unlink(missing_ok=True)
    for beside in folder.glob(f".{INDEX}.*"):
        with contextlib.suppress(OSError):
            if time.time() - beside.stat().st_mtime > _WRITTEN:
                beside.unlink()


def _path(sha256: str, folder: pathlib.Path) -> pathlib.Path:
    return folder / f"{sha256}.qcow2"


def _base(sha256: str, folder: pathlib.Path) -> BaseImage | None:
    path = _path(sha256, folder)
    header = qcow2.read(path)
    return BaseImage(str(path), sha256, header.virtual_size) if header else None


def _stamp(found: os.stat_result) -> list[int]:
    """Another one whenever the file may have another content: nobody can set the time of its last change."""
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _index(folder: pathlib.Path) -> dict[str, t.Any]:
    found = files.read_json(folder / INDEX)
    return found if isinstance(found, dict) else {}


def _known(image: Image, folder: pathlib.Path) -> str | None:
    entry = _index(folder).get(str(image.path))
    if not isinstance(entry, dict) or not image.path:
        return None
    with contextlib.suppress(OSError):
        return str(entry.get("sha256")) if _stamp(os.stat(image.path)) == entry.get("stamp") else None
    return None


def _remember(path: str, before: os.stat_result, sha256: str, folder: pathlib.Path) -> None:
    if time.time() - before.st_ctime < _SETTLED:
        return
    kept = {source: entry for source, entry in _index(folder).items()
            if isinstance(entry, dict) and _path(str(entry.get("sha256")), folder).exists()}
    kept[path] = {"stamp": _stamp(before), "sha256": sha256}
    files.write(folder / INDEX, files.pretty(kept), 0o600)


def _fetch(image: Image, folder: pathlib.Path, key: str, runner: Runner, limits: Limits) -> BaseImage:
    check(image, folder)
    beside = folder / f".{key}.part"
    before = os.stat(image.path) if image.path else None
    try:
        with _source(image, limits) as (blocks, size):
            _check_room(image, folder, size)
            sha256 = _copy(blocks, beside)
        _check_digest(image, sha256)
        _check_format(str(beside), image)
        _check_whole(str(beside), image, runner)
        if before is not None and _stamp(os.stat(str(image.path))) != _stamp(before):
            raise FleetError("image_changed", f"{image.path} was written while it was read.", "Run it again.")
        beside.chmod(0o444)
        beside.replace(_path(sha256, folder))
    except OSError as error:
        raise FleetError("image_not_fetched", f"The base image {image.shown} can't be stored in {folder}: "
                         f"{error.strerror or error}.") from None
    finally:
        beside.unlink(missing_ok=True)
    if before is not None:
        _remember(str(image.path), before, sha256, folder)
    return t.cast(BaseImage, _base(sha256, folder))


def _copy(blocks: t.Iterable[bytes], beside: pathlib.Path) -> str:
    digest = hashlib.sha256()
    beside.unlink(missing_ok=True)
    with open(beside, "xb") as stream:
        os.fchmod(stream.fileno(), 0o600)
        for block in blocks:
            digest.update(block)
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def _check_room(image: Image, folder: pathlib.Path, size: int | None) -> None:
    free = shutil.disk_usage(folder).free
    if size is not None and size > free:
        raise FleetError("no_room", f"The base image {image.shown} has {size} bytes, {folder} has {free} left.",
                         "Make room there.")


def _check_digest(image: Image, sha256: str) -> None:
    if image.sha256 and sha256 != image.sha256:
        raise FleetError("wrong_digest", f"{image.shown} has the SHA-256 {sha256}, expected is {image.sha256}.",
                         "Correct vm_image.sha256, or mend the file.", found=sha256, expected=image.sha256)


def _check_format(path: str, image: Image) -> int:
    """Its virtual size. One that points to another file is refused: it would hand that file to the guest."""
    try:
        header = qcow2.read(path)
    except FleetError as error:
        if error.code != "no_qcow2":
            raise
        raise bad_value("vm_image", image.shown, "It is no qcow2 image: convert it with qemu-img convert -O qcow2."
                        ) from None
    if header is None:
        raise bad_value("vm_image.path", image.shown, "There is no such file on the VM host.")
    if header.backing or header.external_data:
        raise bad_value("vm_image", image.shown,
                        "It stands on another file: make it whole with qemu-img convert -O qcow2.")
    return header.virtual_size


def _check_whole(path: str, image: Image, runner: Runner) -> None:
    done = runner(["qemu-img", "check", "-q", "-f", "qcow2", path], timeout=600)
    if done.rc not in (0, _ONLY_LEAKS):
        raise FleetError("damaged_image", f"{image.shown} is cut off or damaged: {done.last_words}",
                         "Fetch it again.")


Blocks = t.Iterator[bytes]


def _source(image: Image, limits: Limits) -> contextlib.AbstractContextManager[tuple[Blocks, int | None]]:
    return _file(image.path) if image.path else _download(image, limits)


@contextlib.contextmanager
def _file(path: str) -> t.Iterator[tuple[Blocks, int | None]]:
    with open(path, "rb") as stream:
        yield iter(lambda: stream.read(BLOCK), b""), os.fstat(stream.fileno()).st_size


@contextlib.contextmanager
def _download(image: Image, limits: Limits) -> t.Iterator[tuple[Blocks, int | None]]:
    """By the proxies and the certificates that this host is set up with."""
    if not str(image.url).startswith(("http://", "https://")):
        raise bad_value("vm_image.url", image.shown, "Give an address that begins with https:// or http://.")
    # Most runs download nothing, and these take long to import.
    import http.client
    import urllib.error

    from ansible.module_utils.urls import open_url
    try:
        with open_url(str(image.url), http_agent="clawops.fleet", timeout=limits.silence) as answer:
            told = answer.headers.get("Content-Length", "")
            size = int(told) if told.isdigit() else None
            if size is not None and size > limits.size:
                raise _too_big(image, limits)
            yield _received(image, answer, size, limits), size
    except urllib.error.HTTPError as error:
        raise _failed(image, f"the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _failed(image, str(error.reason)) from None
    except (http.client.HTTPException, TimeoutError) as error:
        raise _failed(image, str(error) or type(error).__name__) from None


def _received(image: Image, answer: t.Any, size: int | None, limits: Limits) -> Blocks:
    end, got = time.monotonic() + limits.seconds, 0
    while True:
        # read1 comes back with what there is: a slow server can't hold us beyond the end.
        try:
            block = answer.read1(BLOCK)
        except OSError as error:
            raise _failed(image, f"it broke off after {got} bytes ({error})") from None
        if not block:
            break
        got += len(block)
        if got > limits.size:
            raise _too_big(image, limits)
        if time.monotonic() > end:
            raise _failed(image, f"{got} bytes came in {limits.seconds:.0f} seconds, and then the time was over")
        yield block
    if size is not None and got < size:
        raise _failed(image, f"it broke off after {got} of {size} bytes")


def _too_big(image: Image, limits: Limits) -> FleetError:
    return FleetError("image_too_big", f"The base image {image.shown} has more than {limits.size} bytes.")


def _failed(image: Image, why: str) -> FleetError:
    return FleetError("download_failed", f"The base image {image.shown} can't be downloaded: {why}.",
                      "Check the address, and the proxy and certificates of the VM host.")
