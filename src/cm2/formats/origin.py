"""Origin: the note beside a store that says what it was made from, so that it is never continued on something else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import fsspec
import msgspec

from cm2.errors import ConfigError, DataError, Where
from cm2.formats.pipe import open_bytes
from cm2.formats.target import replacing


def claim(output: str, source: dict[str, str], note: bool = True) -> None:
    """Make sure that the store at `output` was begun on `source`; with `note`, begin it where it is still empty.

    Looked at before the store is opened, because opening mends a torn last line and a file that is no store of ours
    must not be touched; noted only under the store's lock, so that a second run cannot rename the input of the first.

    Raises:
        ConfigError: the store holds results of another input, or of one that is not known.
    """
    store, beside = Path(output), Path(f"{output}.input.json")
    if store.exists() and store.stat().st_size:
        fix = f"give -o another name, or remove {store} and {beside} to begin anew"
        try:
            begun = msgspec.json.decode(beside.read_bytes())
        except (FileNotFoundError, msgspec.DecodeError) as error:
            raise ConfigError(f"{store} holds something, but {beside} does not say of which input", fix=fix) from error
        if begun != source:
            changed = ", ".join(sorted(key for key in {*source, *begun} if source.get(key) != begun.get(key)))
            raise ConfigError(f"{store} holds results of other data ({changed} changed)", fix=fix)
    elif note and (store.is_file() or not store.exists()):  # /dev/null remembers nothing
        with replacing(beside) as draft:
            draft.write_bytes(msgspec.json.encode(source))


def fingerprint(path: str) -> str:
    """A digest of the content of a file, or of a folder's files by name.

    Raises:
        ConfigError: it is a pipe.
        DataError: there is none.
    """
    fs, root = fsspec.core.url_to_fs(path)
    if not fs.exists(root):
        raise DataError("there is no such file or folder", where=Where(file=path), fix="check the path")
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(fs.find(root)) if fs.isdir(root) else [root]:
        if name != root:
            digest.update(name[len(root) :].encode() + b"\0")
        with open_bytes(path) if name == root else fs.open(name, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
