# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A bootable cloud image of Debian, built from packages, with what the official one has; and a server that offers it.

Partitions as in the official image: 14 BIOS boot, 15 EFI, 1 root; it boots by BIOS and by UEFI. Neither a loop device
nor a mount is needed to build it.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import struct
import sys
import urllib.request

from . import cache, debian, machine, net
from .daemon import Daemon
from .job import Job

INSTANCES = DEFAULT = ["cloudimage"]
SUITE = "trixie"
NAME = f"debian-{SUITE}.qcow2"
SERVING = Daemon("cloudimage")
PORT = 8080
TOOLS = {"sfdisk": "fdisk", "mcopy": "mtools", "mkfs.vfat": "dosfstools", "mke2fs": "e2fsprogs",
         "qemu-img": "qemu-utils"}
PACKAGES = """linux-image-cloud-amd64 initramfs-tools systemd-sysv dbus libpam-systemd udev cloud-init cloud-guest-utils
    cloud-initramfs-growroot openssh-server sudo netplan.io systemd-resolved systemd-timesyncd qemu-guest-agent
    grub-pc-bin grub-efi-amd64-bin grub2-common python3 python3-apt acl ca-certificates iproute2 iputils-ping e2fsprogs
    fdisk less cron kmod zstd nftables curl locales procps"""
SECTOR = 512
SECTORS = 2048 * 2**20 // SECTOR
BIOS, EFI, ROOT = 2048, 8192, 75776  # first sectors
UUID, SERIAL = "c1a0b5ed-0001-4000-8000-00000000c10d", "C1A0-B5ED"
PARTITIONS = f"""label: gpt
first-lba: 34
14 : start={BIOS}, size={EFI - BIOS}, type=21686148-6449-6E6F-744E-656564454649
15 : start={EFI}, size=65536, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
1 : start={ROOT}, size={SECTORS - ROOT - 2048}, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709
"""
FILES = {
    "/etc/fstab": f"UUID={UUID} / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1\n"
                  f"UUID={SERIAL} /boot/efi vfat umask=0077,nofail 0 1\n",
    "/etc/hosts": "127.0.0.1 localhost\n",
    "/etc/hostname": "debian\n",
    "/etc/cloud/cloud.cfg.d/01_image.cfg":
        "apt: {preserve_sources_list: true}\nmanage_etc_hosts: true\nlocale: C.UTF-8\n",
    "/etc/cloud/cloud.cfg.d/90_dpkg.cfg": "datasource_list: [ NoCloud, ConfigDrive, None ]\n",
    "/boot/grub/grub.cfg": f"""set timeout=0
serial --unit=0 --speed=115200
terminal_output serial console
search --no-floppy --fs-uuid --set=root {UUID}
linux /vmlinuz root=UUID={UUID} ro console=tty0 console=ttyS0,115200 consoleblank=0
initrd /initrd.img
boot
""",
    "/tmp/early.cfg": f"search --no-floppy --fs-uuid --set=root {UUID}\n"  # noqa: S108 (in the image)
                      "set prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n",
}
MODULES = "part_gpt ext2 search search_fs_uuid configfile normal linux serial terminal echo"
# Boot loaders by the image's own GRUB; what a first boot makes must not be there.
CONFIGURE = rf"""set -eu
cd "$1"
chroot . grub-mkimage -O i386-pc -o /tmp/core.img -c /tmp/early.cfg -p /boot/grub biosdisk {MODULES}
chroot . grub-mkimage -O x86_64-efi -o /tmp/bootx64.efi -c /tmp/early.cfg -p /boot/grub fat efi_gop all_video {MODULES}
mkdir -p ../loaders boot/efi
mv tmp/core.img tmp/bootx64.efi ../loaders/
cp usr/lib/grub/i386-pc/boot.img ../loaders/
chroot . update-ca-certificates
: >etc/machine-id
ln -sf ../run/systemd/resolve/stub-resolv.conf etc/resolv.conf
rm -rf tmp/* etc/ssh/ssh_host_* var/lib/dbus/machine-id var/lib/systemd/random-seed
"""
PRUNE = r"""set -eu
cd "$1"
rm -rf var/lib/apt/lists/* var/cache/apt/*
mkdir -p var/lib/apt/lists/partial var/cache/apt/archives/partial
# Ansible asks by this time whether the lists are fresh.
touch -d 2020-01-01 var/lib/apt/lists
"""


def folder() -> pathlib.Path:
    """What is handed out: the image and SHA256SUMS."""
    return cache.folder("cloudimage")


def url() -> str:
    """Where it is handed out."""
    return f"http://{net.v4('cloudimage')}:{PORT}/{NAME}"


def sha256() -> str:
    """The image's digest; empty before the first `up`."""
    sums = folder() / "SHA256SUMS"
    return sums.read_text().split()[0] if sums.exists() else ""


def up(job: Job, _name: str) -> None:
    """The image, and the server."""
    offer(job)
    net.ensure(job)
    net.attach(job, "cloudimage")
    version = cache.digest(str(folder()), sys.version)
    if SERVING.alive(version) and _answers():
        return
    SERVING.stop()
    serve = ["-m", "http.server", "--bind", net.v4("cloudimage"), "--directory", folder(), PORT]
    SERVING.start(job, ["ip", "netns", "exec", net.namespace("cloudimage"), sys.executable, *serve], version, _answers)


def offer(job: Job) -> None:
    """The image of today's recipe in the folder."""
    image = build(job)
    with cache.lock("cloudimage"):
        here = folder() / NAME
        if here.exists() and here.samefile(image) and sha256():
            return
        here.unlink(missing_ok=True)
        os.link(image, here)
        with here.open("rb") as data:
            digest = hashlib.file_digest(data, "sha256") if sys.version_info >= (3, 11) else hashlib.sha256(data.read())
        cache.write(folder() / "SHA256SUMS", f"{digest.hexdigest()}  {NAME}\n", 0o644)


def build(job: Job) -> pathlib.Path:
    """The image, built and kept."""
    recipe = [*debian.inputs(SUITE), debian.EXCLUDED, PACKAGES, SECTORS, PARTITIONS, FILES, CONFIGURE, PRUNE]

    def make(out: pathlib.Path) -> None:
        job.say(f"building the cloud image of Debian {SUITE} from packages (log: {job.log})")
        root, raw, efi = (out.with_name(name) for name in ("root", "raw", "efi"))
        machine.need(job, TOOLS)
        debian.bootstrap(job, SUITE, root, PACKAGES, FILES, [CONFIGURE, PRUNE], form="directory")
        loaders = out.with_name("loaders")
        with raw.open("wb") as disk:
            disk.truncate(SECTORS * SECTOR)
        job.run(["sfdisk", "-q", raw], data=PARTITIONS.encode())
        size = (SECTORS - ROOT - 2048) * SECTOR // 4096
        where = ["-L", "root", "-U", UUID, "-E", f"offset={ROOT * SECTOR}"]
        job.run(["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", *where, "-d", root, raw, size])
        job.run(["mkfs.vfat", "-C", "-i", SERIAL.replace("-", ""), "-n", "ESP", efi, 65536 * SECTOR // 1024])
        job.run(["mmd", "-i", efi, "::/EFI", "::/EFI/BOOT"])
        job.run(["mcopy", "-i", efi, loaders / "bootx64.efi", "::/EFI/BOOT/BOOTX64.EFI"])
        job.run(["dd", f"if={efi}", f"of={raw}", f"bs={SECTOR}", f"seek={EFI}", "conv=notrunc,sparse", "status=none"])
        with raw.open("r+b") as disk:
            for sector, code in boot_code((loaders / "boot.img").read_bytes(), (loaders / "core.img").read_bytes()):
                disk.seek(sector * SECTOR)
                disk.write(code)
        job.run(["qemu-img", "convert", "-q", "-O", "qcow2", raw, out])

    return cache.artefact("cloudimage", cache.digest(recipe), make)


def boot_code(boot: bytes, core: bytes) -> list[tuple[int, bytes]]:
    """What grub-bios-setup writes, by sector: it needs a device, which a file is not."""
    if len(core) > (EFI - BIOS) * SECTOR:
        raise ValueError(f"GRUB's core image has {len(core)} bytes, more than its partition")
    first, rest = bytearray(boot[:440]), bytearray(core)
    first[0x5C:0x64] = struct.pack("<Q", BIOS)  # where the core image begins
    first[0x66:0x68] = b"\x90\x90"  # the drive is the one that the firmware names
    rest[0x1F4:0x1FC] = struct.pack("<Q", BIOS + 1)  # where the core image goes on
    return [(0, bytes(first)), (BIOS, bytes(rest))]


def _answers() -> bool:
    try:
        with urllib.request.urlopen(f"{url().rpartition('/')[0]}/SHA256SUMS", timeout=2) as reply:  # noqa: S310
            return bool(reply.status == 200)
    except OSError:
        return False


def down(_job: Job, _name: str) -> None:
    """No server; the image stays in the cache."""
    SERVING.stop()
    net.detach("cloudimage")


def status(_name: str) -> tuple[str, str]:
    """State and address."""
    return ("up" if SERVING.alive() and _answers() else "down"), url()
