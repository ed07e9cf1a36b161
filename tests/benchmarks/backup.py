# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A bot of 1 GiB backed up and restored, against restic by itself, rclone sync, and a compressed stream.

What is judged is the module's work, its start and imports apart. The whole module and the whole playbook are told.
"""

from __future__ import annotations

import json
import pathlib
import shlex
import typing as t

from box import BOT, WORK, Box
from measure import Row, faster, longer
from place import Task

FIRST, SECOND, WHOLE, RESTORES = 3, 5, 3, 3
STATE, CONFIG = f"/var/lib/clawops/bots/{BOT}", f"/opt/openclaw/{BOT}/config"
RESTORED = f"{WORK}/restored"
USER = "nobody"
BUCKET = "clawops-bench"
OURS = f"{BOT}/bots/{BOT}/"
CACHES = "/var/cache/clawops/restic"
CHANGE = f"python3 {WORK}/made.py change {STATE}"
RESTIC = f". {WORK}/env; restic --quiet -o s3.bucket-lookup=path"
RCLONE = f". {WORK}/env; {WORK}/rclone/usr/bin/rclone --transfers 8"
# What its manual says for S3: no question for each object, as long as nobody moves old files in.
QUICK = "--fast-list --update --use-server-modtime"
STREAM, TUNED = f"bench:{BUCKET}/rclone", f"bench:{BUCKET}/tuned"


def run(box: Box) -> list[Row]:
    box.up("minio")
    credentials = json.loads(pathlib.Path(box.bed["CLAWOPS_BED_S3_CREDENTIALS"]).read_text())
    keys = {name: credentials[name] for name in ("access_key", "secret_key")}
    endpoint = box.bed["CLAWOPS_BED_S3_ENDPOINT"]
    box.tasks({"name": "What backups need", "ansible.builtin.include_role": {
        "name": "clawops.fleet.backup", "tasks_from": "install.yml"}})
    box.shell(f"cd {WORK} && apt-get -q download rclone && dpkg-deb --extract rclone_*.deb rclone && rm rclone_*.deb")
    environment(box, endpoint, keys)
    bucket = f". {WORK}/env; python3 {box.send('bucket.py')}"
    box.later(tidy, box, bucket)
    box.shell(f"""set -e; rm -rf {STATE}; mkdir -p {CONFIG}
        python3 {box.send('made.py')} make {STATE}; chown -R {USER}: {STATE}""")
    return Bench(box, {"endpoint": endpoint, "bucket": BUCKET, "fleet": BOT, "password": "bench-password", **keys},
                 bucket).run()


def environment(box: Box, endpoint: str, keys: dict[str, str]) -> None:
    """What the peers need, in a file: secrets are no arguments."""
    values = {"BENCH_BUCKET": BUCKET, "BENCH_ENDPOINT": endpoint, "AWS_ACCESS_KEY_ID": keys["access_key"],
              "AWS_SECRET_ACCESS_KEY": keys["secret_key"], "AWS_DEFAULT_REGION": "us-east-1",
              "RESTIC_REPOSITORY": f"s3:{endpoint}/{BUCKET}/peer", "RESTIC_PASSWORD": "bench-password",
              "RESTIC_CACHE_DIR": f"{WORK}/cache", "RCLONE_CONFIG": "", "RCLONE_CONFIG_BENCH_TYPE": "s3",
              "RCLONE_CONFIG_BENCH_PROVIDER": "Minio", "RCLONE_CONFIG_BENCH_ENV_AUTH": "true",
              "RCLONE_CONFIG_BENCH_ENDPOINT": endpoint}
    box.send("env", "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items()))


def tidy(box: Box, bucket: str) -> None:
    box.shell(f"""{bucket} drop || :
        rm -rf {STATE} {CONFIG.rpartition('/')[0]}
        rm -f /var/lib/clawops/restored/{BOT}.json /var/lib/clawops/locks/backup-{BOT}
        find {CACHES} -mindepth 1 -maxdepth 1 -type d -newer {WORK}/env -exec rm -rf {{}} +""")


class Bench:
    """The sides, all with the same data in one bucket."""

    def __init__(self, box: Box, common: Task, bucket: str) -> None:
        self.box, self.common, self.bucket = box, common, bucket
        paths = [{"role": "state", "path": STATE}, {"role": "config", "path": CONFIG}]
        self.snapshot = "clawops.fleet.backup_snapshot", {**common, "bots": [{"name": BOT, "paths": paths}]}
        place = {"role": "state", "path": RESTORED, "owner": USER}
        entry = {"name": BOT, "overwrite": True, "units": [], "paths": [place]}
        self.restore = "clawops.fleet.backup_restore", {**common, "safety": False, "bots": [entry]}
        self.tar = f"tar -C {STATE} -cf - . | zstd -3 -T2 -q | ({bucket} put tar)"

    def run(self) -> list[Row]:
        repository = self.box.module("clawops.fleet.backup_repository", {**self.common, "bots": [{"name": BOT}]}).run
        # The work that opens a repository is drawn by restic when it makes it: both sides begin with copies of one.
        self.box.shell(f"{repository}; {self.bucket} copy {OURS} empty/")
        ours = {"run": self.box.body_command(*self.snapshot), "reads": "seconds"}
        self.box.shell(ours["run"])  # for the imports
        return [*self.first(ours), *self.second(ours), *self.whole(), *self.back()]

    def first(self, ours: Task) -> list[Row]:
        bare = {"run": f"{RESTIC} backup --no-scan {STATE}"}
        sides = {"ours": {**ours, "before": self.empty(OURS)}, "restic": {**bare, "before": self.empty("peer/")},
                 "tar": self.tar}
        times = self.box.clock(self.box.some(FIRST, 1), sides).times
        slow = self.box.clock(1, {
            "rclone": {"run": f"{RCLONE} sync {STATE} {STREAM}", "before": f"{self.bucket} purge rclone/"},
            "tuned": {"run": f"{RCLONE} sync {QUICK} {STATE} {TUNED}", "before": f"{self.bucket} purge tuned/"}}).times
        return [longer("first backup; restic backup", times["ours"], times["restic"], 1.1),
                longer("first backup; tar | zstd | S3", times["ours"], times["tar"]),
                faster("first backup; rclone sync", times["ours"], slow["rclone"])]

    def empty(self, repository: str) -> str:
        return f"{self.bucket} purge {repository}; {self.bucket} copy empty/ {repository}"

    def second(self, ours: Task) -> list[Row]:
        sides = {"ours": ours, "restic": f"{RESTIC} backup --no-scan {STATE}", "tar": self.tar,
                 "rclone": f"{RCLONE} sync {STATE} {STREAM}", "tuned": f"{RCLONE} sync {QUICK} {STATE} {TUNED}"}
        times = self.box.clock(self.box.some(SECOND, 1), sides, CHANGE).times
        return [longer("1 % changed; restic backup", times["ours"], times["restic"], 1.2),
                faster("1 % changed; tar | zstd | S3", times["ours"], times["tar"], 2),
                faster("1 % changed; rclone sync", times["ours"], times["rclone"], 4),
                faster("1 % changed, bare restic in our place; rclone sync", times["restic"], times["rclone"]),
                faster(f"1 % changed; rclone sync {QUICK}", times["ours"], times["tuned"])]

    def whole(self) -> list[Row]:
        """With the start of Python and Ansible's part in it; the playbook with all that it does besides."""
        module = self.box.module(*self.snapshot)
        clock = self.box.clock(self.box.some(WHOLE, 1), {
            "ours": module.run, "restic": f"{RESTIC} backup --no-scan {STATE}", "tar": self.tar}, CHANGE)
        added = json.loads(clock.last["ours"])["snapshots"][0]["bytes_added"]
        stream = int(clock.last["tar"])
        played: dict[bool, list[float]] = {True: [], False: []}
        for _round in range(self.box.some(WHOLE, 1)):
            self.box.shell(CHANGE)
            for check in played:
                played[check].append(self.verb(check))
        return [Row("1 % changed, stored; tar | zstd | S3", "1", f"{added / 1e6:.1f} MB", f"{stream / 1e6:.1f} MB",
                    f"{added / stream:.1%}", "<= 10%", added <= stream / 10),
                longer("1 % changed, whole module; restic backup", clock.times["ours"], clock.times["restic"]),
                longer("1 % changed, whole playbook; the same in check mode", played[False], played[True])]

    def verb(self, check: bool) -> float:
        store = {name: self.common[name] for name in ("endpoint", "bucket")}
        return self.box.verb("backup", *(["--check"] if check else []), fleet_name=BOT, fleet_backup=store,
                             fleet_backup_password=self.common["password"]).seconds

    def back(self) -> list[Row]:
        empty = f"rm -rf {RESTORED}"
        ours = {"run": self.box.body_command(*self.restore), "reads": "seconds", "before": empty}
        self.box.shell(ours["run"])  # for the imports
        # Ours ends when all of it is on the disk, so theirs do.
        sides = {"restic": f"{RESTIC} restore latest --sparse --verify --target {RESTORED}; sync"}
        peers = {"tar": f"mkdir {RESTORED}; ({self.bucket} get tar) | zstd -dq | tar -C {RESTORED} -xf -; sync",
                 "rclone": f"{RCLONE} sync {STREAM} {RESTORED}; sync"}
        times = self.box.clock(self.box.some(RESTORES, 1), {"ours": ours, **prepared(sides, empty)}).times
        slow = self.box.clock(1, prepared(peers, empty)).times
        return [longer("restore; restic restore", times["ours"], times["restic"], 1.1),
                longer("restore; S3 | zstd | tar", times["ours"][:1], slow["tar"]),
                faster("restore; rclone sync", times["ours"], slow["rclone"])]


def prepared(sides: t.Mapping[str, str], before: str) -> dict[str, Task]:
    return {name: {"run": command, "before": before} for name, command in sides.items()}
