# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import shutil
import struct
import threading
import time

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._libvirt import disks, images, qcow2
from ansible_collections.clawops.fleet.plugins.module_utils._libvirt.spec import Image
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished

GIB = 1024**3


@contextlib.contextmanager
def refused(says: str):
    """Expects a FleetError with these words in its message or its hint."""
    with pytest.raises(FleetError) as caught:
        yield caught
    assert says in caught.value.result()["msg"]


def header(size: int, backing: str = "", features: int = 0, version: int = 3) -> bytes:
    """As much of a qcow2 file as is read here."""
    at = 512 if backing else 0
    begin = struct.pack(">4sIQIIQ", b"QFI\xfb", version, at, len(backing), 16, size).ljust(72, b"\0")
    return (begin + struct.pack(">Q", features)).ljust(512, b"\0") + backing.encode()


class QemuImg:
    """A runner that plays qemu-img."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.fails = ""

    def __call__(self, argv, stdin=None, env=None, timeout=None):
        argv = list(argv)
        self.calls.append(argv)
        assert argv[0] == "qemu-img" and timeout
        if self.fails == argv[1]:
            return Finished(1, "", "no space left on device")
        getattr(self, "do_" + argv[1])(argv[2:])
        return Finished(0, "{}", "")

    def do_check(self, words):
        pass

    def do_create(self, words):
        *_options, path, size = words
        backing = words[words.index("-b") + 1] if "-b" in words else ""
        pathlib.Path(path).write_bytes(header(int(size), backing))

    def do_convert(self, words):
        pathlib.Path(words[-1]).write_bytes(pathlib.Path(words[-2]).read_bytes())

    def do_resize(self, words):
        *_options, path, size = words
        found = qcow2.read(path)
        pathlib.Path(path).write_bytes(header(int(size), found.backing or ""))


@pytest.fixture(autouse=True)
def locks(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "LOCKS", tmp_path / "locks")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "images"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "debian.qcow2"
    path.write_bytes(header(2 * GIB))
    os.utime(path, (1, 1))
    return path


def sha256(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def settled(monkeypatch) -> None:
    """As if some time had passed since the file was written."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 60)


def base_of(path: pathlib.Path, size: int = GIB) -> images.BaseImage:
    path.write_bytes(header(size))
    return images.BaseImage(str(path), sha256(path), size)


def test_header(tmp_path):
    file = tmp_path / "disk"
    assert qcow2.read(file) is None
    file.write_bytes(header(GIB, "/images/base.qcow2"))
    assert qcow2.read(file) == qcow2.Header(GIB, "/images/base.qcow2")
    file.write_bytes(header(GIB, features=4))
    assert qcow2.read(file).external_data
    file.write_bytes(header(GIB, version=2, features=4))
    assert not qcow2.read(file).external_data
    for wrong in (b"", b"raw" * 100, header(GIB, version=9)):
        file.write_bytes(wrong)
        with refused("no qcow2 image"):
            qcow2.read(file)


def test_a_file_becomes_a_base_image(folder, source):
    qemu = QemuImg()
    assert images.check(Image(path=str(source)), folder) == 2 * GIB and not folder.exists()
    made = images.ensure(Image(path=str(source)), folder, qemu)
    assert made == images.BaseImage(str(folder / f"{sha256(source)}.qcow2"), sha256(source), 2 * GIB)
    stored = pathlib.Path(made.path)
    assert stored.read_bytes() == source.read_bytes() and stored.stat().st_mode & 0o777 == 0o444
    assert [call[1] for call in qemu.calls] == ["check"]
    source.unlink()
    known = Image(path=str(source), sha256=made.sha256)
    assert images.ensure(known, folder, qemu) == made and images.check(known, folder) == 2 * GIB
    assert len(qemu.calls) == 1 and not list(folder.glob(".*.part"))


def test_a_known_file_is_not_read_again(folder, source, monkeypatch):
    settled(monkeypatch)
    image = Image(path=str(source))
    assert images.find(image, folder) is None
    made = images.ensure(image, folder, QemuImg())
    monkeypatch.setattr(images, "_copy", None)
    assert images.find(image, folder) == images.ensure(image, folder) == made
    os.utime(source, (2, 2))
    assert images.find(image, folder) is None
    assert (folder / images.INDEX).stat().st_mode & 0o777 == 0o600


def test_a_file_written_a_moment_ago_is_read_again(folder, source):
    images.ensure(Image(path=str(source)), folder, QemuImg())
    assert images.find(Image(path=str(source)), folder) is None


def test_a_file_that_changed_is_another_image(folder, source, monkeypatch):
    settled(monkeypatch)
    first = images.ensure(Image(path=str(source)), folder, QemuImg())
    source.write_bytes(header(3 * GIB))
    second = images.ensure(Image(path=str(source)), folder, QemuImg())
    assert second.virtual_size == 3 * GIB and pathlib.Path(first.path).exists()


def test_the_index_forgets_images_that_are_gone(folder, source, tmp_path, monkeypatch):
    settled(monkeypatch)
    other = tmp_path / "other.qcow2"
    other.write_bytes(header(GIB))
    pathlib.Path(images.ensure(Image(path=str(other)), folder, QemuImg()).path).unlink()
    images.ensure(Image(path=str(source)), folder, QemuImg())
    assert list(json.loads((folder / images.INDEX).read_text())) == [str(source)]
    (folder / images.INDEX).write_text("[broken")
    assert images.find(Image(path=str(source)), folder) is None


@pytest.mark.parametrize(("content", "says"), [
    (None, "no such file"), (b"raw", "no qcow2 image"), (header(GIB, "/etc/shadow"), "stands on another file"),
    (header(GIB, features=4), "stands on another file")])
def test_what_is_no_base_image(folder, source, content, says):
    if content is None:
        source.unlink()
    else:
        source.write_bytes(content)
    for call in (lambda image: images.check(image, folder), lambda image: images.ensure(image, folder, QemuImg())):
        with refused(says) as caught:
            call(Image(path=str(source)))
        assert caught.value.code == "bad_value"
    assert not [file for file in folder.glob("*") if file.is_file()]


def test_a_wrong_digest_leaves_nothing(folder, source):
    with refused("expected is aaaa") as caught:
        images.ensure(Image(path=str(source), sha256="a" * 64), folder, QemuImg())
    assert caught.value.code == "wrong_digest" and not list(folder.iterdir())


def test_what_qemu_refuses_leaves_nothing(folder, source):
    qemu = QemuImg()
    qemu.fails = "check"
    with refused("is cut off or damaged"):
        images.ensure(Image(path=str(source)), folder, qemu)
    assert not list(folder.iterdir())


def test_too_little_room(folder, source, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 10}))
    with refused("has 10 left"):
        images.ensure(Image(path=str(source)), folder, QemuImg())
    assert not list(folder.iterdir())


def test_what_a_killed_run_left_is_replaced(folder, source):
    folder.mkdir()
    leftover, other, busy = (folder / f".{key}.part" for key in (sha256(source), "a" * 64, "b" * 64))
    index, fresh = folder / "..sources.json.abc", folder / "..sources.json.def"
    for file in (leftover, other, busy, index, fresh):
        file.write_bytes(b"half")
    os.utime(index, (1, 1))
    with images.hold("b" * 64):
        images.ensure(Image(path=str(source), sha256=sha256(source)), folder, QemuImg())
    assert (leftover.exists(), other.exists(), busy.exists()) == (False, False, True)
    assert not index.exists() and fresh.exists()


def test_two_runs_fetch_once(folder, source):
    qemu, image = QemuImg(), Image(path=str(source), sha256=sha256(source))
    threads = [threading.Thread(target=images.ensure, args=(image, folder, qemu)) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(qemu.calls) == 1


def test_a_lock_is_waited_for_in_vain(folder):
    with images.hold("a"), refused("A base image is in use"), images.hold("a", timeout=0.0):
        pass
    with images.hold("a", shared=True), images.hold("a", shared=True, timeout=0.0):
        pass


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as its class attributes say."""

    body, told, pause, code = b"", None, 0.0, 200

    def do_GET(self):
        self.send_response(self.code)
        if self.told is not None:
            self.send_header("Content-Length", str(self.told))
        self.end_headers()
        with contextlib.suppress(OSError):
            for at in range(0, len(self.body), 1024):
                self.wfile.write(self.body[at:at + 1024])
                time.sleep(self.pause)

    def log_message(self, *_words):
        pass


@pytest.fixture
def web(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    handler = type("Handler", (Server,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    handler.url = f"http://127.0.0.1:{server.server_port}/debian.qcow2?token=secret"
    yield handler
    server.shutdown()
    server.server_close()


def test_a_download(folder, web):
    web.body = header(GIB) * 9
    web.told = len(web.body)
    digest = hashlib.sha256(web.body).hexdigest()
    image = Image(url=web.url, sha256=digest)
    assert images.check(image, folder) is None and images.find(image, folder) is None
    made = images.ensure(image, folder, QemuImg())
    assert made == images.find(image, folder) == images.BaseImage(str(folder / f"{digest}.qcow2"), digest, GIB)
    assert not (folder / images.INDEX).exists()


@pytest.mark.parametrize(("settings", "limits", "says"), [
    ({"code": 404}, {}, "answers 404"),
    ({"told": 99999}, {}, "broke off after 4608 of 99999 bytes"),
    ({"told": 99999}, {"size": 5000}, "more than 5000 bytes"),
    ({}, {"size": 2000}, "more than 2000 bytes"),
    ({"pause": 0.2}, {"seconds": 0.3}, "the time was over"),
    ({"told": 99999, "pause": 0.5}, {"silence": 0.2}, "timed out"),
    ({}, {}, "expected is"),
])
def test_a_download_that_fails(folder, web, settings, limits, says):
    web.body = header(GIB) * 9
    for key, value in settings.items():
        setattr(web, key, value)
    with refused(says) as caught:
        images.ensure(Image(url=web.url, sha256="a" * 64), folder, QemuImg(), images.Limits(**limits))
    assert "secret" not in caught.value.message and not list(folder.iterdir())


def test_a_download_without_a_server(folder, web):
    with refused("Connection refused"):
        images.ensure(Image(url="http://127.0.0.1:1/x", sha256="a" * 64), folder, QemuImg())
    with refused("http"):
        images.ensure(Image(url="file:///etc/passwd", sha256="a" * 64), folder, QemuImg())


def test_users_of_a_base_image(tmp_path, folder):
    folder.mkdir()
    guests, elsewhere = tmp_path / "vms", tmp_path / "elsewhere"
    for made in (guests / "zap", elsewhere):
        made.mkdir(parents=True)
    digest = "b" * 64
    base = folder / f"{digest}.qcow2"
    base.write_bytes(header(GIB))
    assert images.users(base, [guests, folder]) == []
    ours, foreign = guests / "zap/root.qcow2", folder / "foreign.img"
    other, direct = elsewhere / "other.qcow2", elsewhere / "link.qcow2"
    ours.write_bytes(header(GIB, str(base)))
    foreign.write_bytes(header(GIB, base.name))
    other.write_bytes(header(GIB, f'json:{{"file.filename": "/elsewhere/{base.name}"}}'))
    direct.symlink_to(base)
    (guests / "zap/serial.log").write_text("no disk")
    (guests / "zap/stranger.qcow2").write_bytes(header(GIB, "/somewhere/else.qcow2"))
    (guests / "zap/linked.qcow2").symlink_to(ours)
    everybody = [str(ours), str(foreign), str(other), str(direct)]
    assert images.users(base, [guests, folder], [str(other), str(direct), "/gone"]) == sorted(everybody)
    assert not images.remove(digest, folder, [guests, folder]) and base.exists()
    ours.unlink()
    foreign.unlink()
    assert not images.remove(digest, folder, [guests, folder], [str(other)])
    assert images.remove(digest, folder, [guests, folder]) and not base.exists()
    assert images.remove(digest, folder, [guests, folder])


def test_disks(tmp_path):
    qemu, base = QemuImg(), base_of(tmp_path / "base.qcow2")
    for name, options, expected in [
            ("empty", {}, qcow2.Header(2 * GIB, None)),
            ("overlay", {"base": base}, qcow2.Header(2 * GIB, base.path)),
            ("full", {"base": base, "mode": "full"}, qcow2.Header(2 * GIB, None))]:
        disks.create(tmp_path / name, 2 * GIB, runner=qemu, **options)
        assert qcow2.read(tmp_path / name) == expected
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    disks.create(tmp_path / "same", GIB, base, "full", qemu)
    assert [call[1] for call in qemu.calls] == ["create", "create", "convert", "resize", "convert"]
    with refused("is there already"):
        disks.create(tmp_path / "same", GIB, runner=qemu)
    assert not list(tmp_path.glob(".*.part"))


def test_a_disk_that_fails_leaves_nothing(tmp_path):
    qemu, base = QemuImg(), base_of(tmp_path / "base.qcow2", 2 * GIB)
    with refused(f"needs {2 * GIB} bytes") as caught:
        disks.create(tmp_path / "root.qcow2", GIB, base, runner=qemu)
    assert caught.value.code == "bad_value" and not qemu.calls
    qemu.fails = "resize"
    (tmp_path / ".root.qcow2.part").write_bytes(b"of a run that was killed")
    with refused("no space left"):
        disks.create(tmp_path / "root.qcow2", 3 * GIB, base, "full", qemu)
    pathlib.Path(base.path).unlink()
    with refused("was removed"):
        disks.create(tmp_path / "root.qcow2", 3 * GIB, base, runner=qemu)
    assert not list(tmp_path.glob("*root*"))


class Domain:
    def __init__(self, active: bool) -> None:
        self.active, self.calls = active, []

    def isActive(self):
        return int(self.active)

    def blockResize(self, *words):
        self.calls.append(words)


def test_growing(tmp_path):
    qemu, disk = QemuImg(), tmp_path / "root.qcow2"
    disk.write_bytes(header(GIB))
    disks.grow(disk, GIB, runner=qemu)
    running, off = Domain(True), Domain(False)
    disks.grow(disk, 2 * GIB, running, qemu)
    assert running.calls == [(str(disk), 2 * GIB, 1)] and not qemu.calls
    disks.grow(disk, 2 * GIB, off, qemu)
    assert qcow2.read(disk).virtual_size == 2 * GIB and not off.calls
    with refused("never shrink"):
        disks.grow(disk, GIB, runner=qemu)
    with refused("not there"):
        disks.grow(tmp_path / "none", GIB, runner=qemu)
