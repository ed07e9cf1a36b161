# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The backup step on the host, against restic by itself and a compressed stream."""

from __future__ import annotations

import json
import pathlib
import shlex

from box import BOT, WORK, Box
from measure import Row, faster, longer, seconds
from place import Task

FIRST, SECOND, RESTORES = 3, 5, 3
STATE, RESTORED = f"{WORK}/state", f"{WORK}/restored"
USER = "nobody"
BUCKET = "clawops-bench"
CACHES = "/var/cache/clawops/restic"
RESTIC = "restic --quiet -o s3.bucket-lookup=path"


def run(box: Box) -> list[Row]:
    box.up("minio")
    credentials = json.loads(pathlib.Path(box.bed["CLAWOPS_BED_S3_CREDENTIALS"]).read_text())
    keys = {name: credentials[name] for name in ("access_key", "secret_key")}
    endpoint = box.bed["CLAWOPS_BED_S3_ENDPOINT"]
    box.tasks({"name": "What backups need", "ansible.builtin.include_role": {
        "name": "clawops.fleet.backup", "tasks_from": "install.yml"}})
    environment(box, endpoint, keys)
    box.shell(f"python3 {box.send('made.py')} make {STATE} && chown -R {USER}: {STATE}")
    common: Task = {"endpoint": endpoint, "bucket": BUCKET, "fleet": BOT, "password": "bench-password", **keys}
    repository = box.module("clawops.fleet.backup_repository", {**common, "bots": [{"name": BOT}]})
    bucket = f". {WORK}/env; python3 {box.send('bucket.py')}"
    box.later(tidy, box, bucket)
    fresh = {"ours": f"{bucket} purge {BOT}/; {repository.run}",
             "restic": f"{bucket} purge peer/; {RESTIC} init", "tar": ""}
    box.shell(repository.run)  # makes the bucket
    return backups(box, common, fresh, bucket) + restores(box, common)


def environment(box: Box, endpoint: str, keys: dict[str, str]) -> None:
    """What the peers need, in a file: secrets are no arguments."""
    values = {"BENCH_BUCKET": BUCKET, "BENCH_ENDPOINT": endpoint, "AWS_ACCESS_KEY_ID": keys["access_key"],
              "AWS_SECRET_ACCESS_KEY": keys["secret_key"], "AWS_DEFAULT_REGION": "us-east-1",
              "RESTIC_REPOSITORY": f"s3:{endpoint}/{BUCKET}/peer", "RESTIC_PASSWORD": "bench-password",
              "RESTIC_CACHE_DIR": f"{WORK}/cache"}
    box.send("env", "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items()))


def tidy(box: Box, bucket: str) -> None:
    box.shell(f"""{bucket} drop || :
        rm -f /var/lib/clawops/restored/{BOT}.json /var/lib/clawops/locks/backup-{BOT}
        find {CACHES} -mindepth 1 -maxdepth 1 -type d -newer {WORK}/env -exec rm -rf {{}} +""")


def backups(box: Box, common: Task, fresh: dict[str, str], bucket: str) -> list[Row]:
    module = box.module("clawops.fleet.backup_snapshot", {
        **common, "bots": [{"name": BOT, "paths": [{"role": "state", "path": STATE}]}]})
    commands = {"ours": module.run, "restic": f". {WORK}/env; {RESTIC} backup {STATE}",
                "tar": f"tar -C {STATE} -cf - . | zstd -3 -T2 -q | ({bucket} put tar)"}
    sides = {name: {"before": fresh[name], "run": command} for name, command in commands.items()}
    first = box.clock(FIRST, {**sides, "start": module.check})
    second = box.clock(SECOND, {**commands, "start": module.check}, f"python3 {WORK}/made.py change {STATE}")
    added = json.loads(second.last["ours"])["snapshots"][0]["bytes_added"]
    stream = int(second.last["tar"])
    return [*against(first.times, "first backup; restic backup", 1.1),
            *against(second.times, "1 % changed; restic backup", 1.2),
            faster("1 % changed; tar | zstd | S3", second.times["ours"], second.times["tar"], 2),
            Row("1 % changed, stored; tar | zstd | S3", "1", f"{added / 1e6:.1f} MB", f"{stream / 1e6:.1f} MB",
                f"{added / stream:.1%}", "<= 10%", added <= stream / 10)]


def restores(box: Box, common: Task) -> list[Row]:
    place = {"role": "state", "path": RESTORED, "owner": USER}
    module = box.module("clawops.fleet.backup_restore", {
        **common, "bots": [{"name": BOT, "overwrite": True, "units": [], "paths": [place]}]})
    sides = {"ours": module.run, "start": module.check,
             "restic": f". {WORK}/env; {RESTIC} restore latest --target {RESTORED}"}
    times = box.clock(RESTORES, {name: {"before": f"rm -rf {RESTORED}; sync", "run": command}
                                 for name, command in sides.items()}).times
    return against(times, "restore; restic restore", 1.1)


def against(times: dict[str, list[float]], what: str, most: float) -> list[Row]:
    """The whole module, and the step itself: without the fixed start, which is what check mode takes."""
    work = [whole - start for whole, start in zip(times["ours"], times["start"])]
    return [longer(f"{what}, whole module", times["ours"], times["restic"]),
            longer(f"{what}, without its start of {seconds(times['start'])}", work, times["restic"], most)]
