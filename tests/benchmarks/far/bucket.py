# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The few things that restic does not do in a bucket: bucket.py put KEY | get KEY | copy FROM TO | purge PREFIX | drop.

`put` streams standard input into an object and prints its size, `get` streams it out, `copy` takes all below a prefix.
Where and with what keys stands in the environment.
"""

from __future__ import annotations

import os
import sys
import typing as t

import boto3
import boto3.s3.transfer
import botocore.config

NAME = os.environ["BENCH_BUCKET"]
CLIENT = boto3.client("s3", endpoint_url=os.environ["BENCH_ENDPOINT"],
                      config=botocore.config.Config(s3={"addressing_style": "path"}))
EIGHT_AT_A_TIME = boto3.s3.transfer.TransferConfig(max_concurrency=8, multipart_chunksize=16 << 20)


def put(key: str) -> None:
    CLIENT.upload_fileobj(sys.stdin.buffer, NAME, key, Config=EIGHT_AT_A_TIME)
    print(CLIENT.head_object(Bucket=NAME, Key=key)["ContentLength"])


def get(key: str) -> None:
    CLIENT.download_fileobj(NAME, key, sys.stdout.buffer, Config=EIGHT_AT_A_TIME)


def pages(prefix: str) -> t.Iterator[list[str]]:
    for page in CLIENT.get_paginator("list_objects_v2").paginate(Bucket=NAME, Prefix=prefix):
        yield [entry["Key"] for entry in page.get("Contents", [])]


def copy(prefix: str, other: str) -> None:
    for keys in pages(prefix):
        for key in keys:
            CLIENT.copy_object(Bucket=NAME, Key=other + key[len(prefix):], CopySource={"Bucket": NAME, "Key": key})


def purge(prefix: str) -> None:
    for keys in pages(prefix):
        if keys:
            CLIENT.delete_objects(Bucket=NAME, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True})


def drop() -> None:
    purge("")
    CLIENT.delete_bucket(Bucket=NAME)


verbs: dict[str, t.Callable[..., None]] = {"put": put, "get": get, "copy": copy, "purge": purge, "drop": drop}
verbs[sys.argv[1]](*sys.argv[2:])
