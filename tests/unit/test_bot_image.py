# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The images of bots in a cluster: when they are made, and what is in them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import runpy
import subprocess
import tarfile

import pytest
from ansible_collections.clawops.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.clawops.fleet.plugins.module_utils._openclaw import bot_image, desktop
from ansible_collections.clawops.fleet.plugins.module_utils._openclaw.bot_image import BotImages, Order
from ansible_collections.clawops.fleet.plugins.module_utils._process import Finished

PEM = "-----BEGIN CERTIFICATE-----\nQUJD\nREVG\n-----END CERTIFICATE-----\n"
OTHER = PEM.replace("QUJD", "R0hJ")
OK, NO = Finished(0, "", ""), Finished(1, "", "No such image")
UNKNOWN = Finished(1, "", "no such manifest: registry.example/openclaw-gateway")


class Machine:
    """An engine and a registry that know the images of which the name has one of these words in it."""

    def __init__(self, local=(), pushed=(), registry=UNKNOWN, insecure=None):
        self.local, self.pushed, self.registry, self.insecure = local, pushed, registry, insecure or {}
        self.calls, self.context = [], []

    def __call__(self, argv, stdin=None, env=None, timeout=None):
        argv = list(argv)
        self.calls.append(argv)
        if argv[:3] == ["docker", "image", "inspect"]:
            return OK if any(word in argv[-1] for word in self.local) else NO
        if argv[:2] == ["docker", "manifest"]:
            return OK if any(word in argv[-1] for word in self.pushed) else self.registry
        if argv[:2] == ["docker", "info"]:
            return Finished(0, json.dumps(self.insecure), "")
        if argv[0] == "zstd":
            pathlib.Path(argv[4]).write_text("tar")
        if "mmdebstrap" in argv:
            pathlib.Path(argv[-1]).write_text("tar")
        if argv[:2] == ["docker", "build"]:
            folder = pathlib.Path(argv[-1])
            self.context.append({str(p.relative_to(folder)): p for p in folder.rglob("*")})
            self.dockerfile = pathlib.Path(argv[argv.index("--file") + 1]).read_text()
        return OK

    def verbs(self):
        return [call[1] if call[0] == "docker" else call[0] for call in self.calls]


def order(tmp_path, **values):
    archive = tmp_path / "openclaw-1.2.3-linux-x64.tar.zst"
    archive.write_text("")
    return Order("1.2.3", str(archive), **values)


def write_verbs(machine):
    return [verb for verb in machine.verbs() if verb not in ("version", "image", "manifest", "info")]


def test_the_tag_stands_for_everything_that_goes_in(tmp_path):
    first = order(tmp_path)
    sources = tmp_path / "sources"
    sources.write_text("deb http://mirror.example/debian trixie main\n")
    others = [dataclasses.replace(first, **change) for change in (
        {"archive": "/x/openclaw-1.2.3-linux-arm64.tar.zst"}, {"suite": "forky"}, {"packages": ("ffmpeg",)},
        {"certificates": (PEM,)}, {"serial": "2026-11"}, {"sources": str(sources)})]
    tags = [BotImages(Machine(), one).tags for one in (first, *others)]
    assert tags[0] == BotImages(Machine(), first).tags
    for profile in ("gateway", "desktop"):
        assert len({one[profile] for one in tags}) == len(tags)
        assert tags[0][profile].startswith(f"openclaw-{profile}:1.2.3-")


def test_homebrew_concerns_the_desktop_alone(tmp_path):
    plain = BotImages(Machine(), order(tmp_path)).tags
    brewed = BotImages(Machine(), order(tmp_path, homebrew="/x", homebrew_sha256="0" * 64)).tags
    assert plain["gateway"] == brewed["gateway"] and plain["desktop"] != brewed["desktop"]


def test_where_the_cache_is_does_not_matter(tmp_path):
    assert BotImages(Machine(), order(tmp_path, cache="/a")).tags == BotImages(Machine(), order(tmp_path)).tags


def test_nothing_is_done_when_the_registry_has_them(tmp_path):
    machine = Machine(pushed=["openclaw-"])
    plan = BotImages(machine, order(tmp_path, registry="registry.example/bots")).plan()
    assert not plan.changed and plan.complete
    assert write_verbs(machine) == []


def test_what_the_engine_has_is_only_pushed(tmp_path):
    machine = Machine(local=["openclaw-gateway:"], pushed=["openclaw-desktop"])
    images = BotImages(machine, order(tmp_path, registry="registry.example"))
    assert images.apply(images.plan()) == {"images": images.tags}
    assert write_verbs(machine) == ["push"]
    assert images.tags["gateway"].startswith("registry.example/openclaw-gateway:1.2.3-")


def test_both_are_built_of_one_unpacked_archive(tmp_path):
    machine = Machine()
    images = BotImages(machine, order(tmp_path, cache=str(tmp_path / "cache")))
    images.apply(images.plan())
    assert write_verbs(machine) == ["unshare", "zstd", "import"] * 2 + ["tar", "build", "build"]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == sorted(
        base.kept.name for base in images.bases.values())


def test_a_kept_root_file_system_is_not_made_again_and_older_ones_go(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "gateway-base-trixie-0123456789ab.tar.zst").write_text("old")
    wanted = order(tmp_path, profiles=("gateway",), cache=str(cache))
    for expected in (["unshare", "zstd", "import"], ["zstd", "import"]):
        machine = Machine()
        images = BotImages(machine, wanted)
        images.apply(images.plan())
        assert write_verbs(machine) == [*expected, "tar", "build"]
        assert [path.name for path in cache.iterdir()] == [images.bases["gateway"].kept.name]


@pytest.mark.parametrize(("registry", "insecure", "options"), [
    ("127.0.0.1:5000", {}, ["--insecure"]),
    ("localhost:5000/x", {}, ["--insecure"]),
    ("registry.example", {"registry.example": {"Secure": False}}, ["--insecure"]),
    ("registry.example", {"docker.io": {"Secure": True}}, []),
    ("registry.example", None, []),
])
def test_plain_http_is_for_whom_the_engine_uses_it(tmp_path, registry, insecure, options):
    machine = Machine(insecure=insecure)
    BotImages(machine, order(tmp_path, registry=registry)).plan()
    asked = next(call for call in machine.calls if call[1] == "manifest")
    assert asked[3:-1] == options


def test_a_registry_that_says_nothing_is_not_an_empty_one(tmp_path):
    machine = Machine(registry=Finished(1, "", "dial tcp: connection refused"))
    assert not BotImages(machine, order(tmp_path, registry="registry.example")).plan().complete


def test_an_engine_that_is_not_there_is_said(tmp_path):
    def nothing(argv, stdin=None, env=None, timeout=None):
        raise FleetError("no_program", "docker is not installed")

    assert not BotImages(nothing, order(tmp_path)).plan().complete


def test_a_missing_archive_is_named(tmp_path):
    images = BotImages(Machine(), Order("1.2.3", "/not/there.tar.zst"))
    with pytest.raises(FleetError, match=r"/not/there\.tar\.zst"):
        images.apply(images.plan())


@pytest.mark.parametrize("values", [
    {"certificates": ("no certificate",)},
    {"homebrew": "/x", "homebrew_sha256": "sha256:abc"},
])
def test_bad_values_are_refused_at_once(tmp_path, values):
    with pytest.raises(FleetError) as caught:
        BotImages(Machine(), order(tmp_path, **values))
    assert caught.value.code == "bad_value"


def test_certificates_reach_the_system_and_the_browser(tmp_path):
    machine = Machine()
    images = BotImages(machine, order(tmp_path, profiles=("desktop",), certificates=(PEM + OTHER,)))
    images.apply(images.plan())
    context = machine.context[0]
    assert "desktop/usr/local/share/ca-certificates/clawops-2.crt" in context
    policy = bot_image.files("desktop", images.certificates)["/etc/chromium/policies/managed/clawops.json"]
    assert json.loads(policy) == {"CACertificates": ["QUJDREVG", "R0hJREVG"]}


def test_homebrew_is_laid_beside_its_place(tmp_path):
    (tmp_path / "brew-1").mkdir()
    archive = tmp_path / "brew.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "brew-1", "brew-1")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    machine = Machine()
    images = BotImages(machine, order(tmp_path, homebrew=str(archive), homebrew_sha256=digest))
    images.apply(images.plan())
    assert "homebrew/bin/brew" in machine.context[1]
    assert "COPY --chown=1000:1000 homebrew /opt/homebrew" in machine.dockerfile
    wrong = BotImages(Machine(), order(tmp_path, homebrew=str(archive), homebrew_sha256="0" * 64))
    with pytest.raises(FleetError, match=digest):
        wrong.apply(wrong.plan())


def test_scripts_are_executable_and_the_rest_is_readable(tmp_path):
    bot_image.lay(tmp_path, {"/a/script": "#!/bin/sh\n", "/a/file": "text"})
    assert [oct((tmp_path / "a" / name).stat().st_mode & 0o777) for name in ("script", "file")] == ["0o755", "0o644"]


def test_sshd_takes_keys_only_and_forwards_to_the_bots_services_alone():
    settings = dict(line.split(" ", 1) for line in desktop.SSHD.splitlines() if not line.startswith("#"))
    assert settings["AuthenticationMethods"] == "publickey" and settings["PermitRootLogin"] == "no"
    assert settings["MaxAuthTries"] == "3" and settings["MaxStartups"] == "10:30:60"
    assert settings["PermitOpen"].split() == [f"{host}:{port}" for host in ("127.0.0.1", "localhost")
                                              for port in (18789, 6081, 6082)]


def test_every_enabled_unit_is_there():
    own = [unit.rstrip("12") for unit in desktop.ENABLED if unit != "ssh"]
    assert {f"{unit}.service" for unit in own} <= set(desktop.UNITS)
    assert "\\\n" not in "".join(desktop.UNITS.values())


@pytest.fixture(name="environment")
def _environment(tmp_path):
    script = tmp_path / "environment.py"
    script.write_text(desktop.ENVIRONMENT)
    return runpy.run_path(str(script))


def test_the_shell_reads_back_what_the_bot_was_given(tmp_path, environment):
    values = {"A_KEY": 'a"b\\c`d$e f\ng', "B": ""}
    found = environment["started_with"]("".join(f"{key}={value}\0" for key, value in values.items()) + "odd-name=1\0")
    assert found == values
    file = tmp_path / "file"
    file.write_text(environment["assignments"](values))
    shown = subprocess.run(["/bin/sh", "-c", '. "$1"; printf %s "$A_KEY"', "sh", str(file)], capture_output=True,
                           text=True, check=True)
    assert shown.stdout == values["A_KEY"]


@pytest.mark.parametrize(("given", "security"), [
    ({"VNC_PASSWORD": "12345678"}, "-SecurityTypes=VncAuth -PasswordFile=/run/openclaw/vnc.password"),
    ({"VNC_PASSWORDLESS": "1"}, "-SecurityTypes=None"),
    ({"VNC_PASSWORDLESS": "0"}, None),
    ({"VNC_PASSWORD": "short"}, None),
    ({}, None),
])
def test_a_desktop_is_open_only_when_that_was_said(environment, given, security):
    settings = environment["desktop"](given)
    assert (settings and settings["VNC_SECURITY"]) == security
