"""Digests: whether a folder still holds what was written into it.

A checkpoint is complete when it bears its name (see `cm2.train.runs`), yet a disk, a copy or a crash of the machine can
change it afterwards. So a digest of every file is written beside the files before the folder takes its name, and read
back before anything is resumed from it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from cm2.formats.jsonlines import encode

FILE = "digests.json"


def write_digests(folder: Path) -> None:
    """Put FILE into the folder: a digest for every file in it."""
    found = {file.relative_to(folder).as_posix(): digest_of(file) for file in _files(folder)}
    (folder / FILE).write_bytes(encode(found))


def fault_of(folder: Path) -> str | None:
    """What is wrong with a folder that has digests, None where nothing is. One without digests is not looked at."""
    try:
        told = msgspec.json.decode((folder / FILE).read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return None  # of a version that wrote none
    except (OSError, msgspec.DecodeError) as error:
        return f"{FILE} does not read: {error}"
    for name, digest in told.items():
        try:
            if digest_of(folder / name) != digest:
                return f"{name} is not what was written"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} does not read: {error.strerror}"
    return None


def digest_of(file: Path) -> str:
    """The digest of one file."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != FILE)
