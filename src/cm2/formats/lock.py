"""One writer an output: a lock that a second run meets as a clear sentence instead of a garbled file.

The lock lives in the temporary folder under a name made from the output's real path, so nothing is left beside the
output; the operating system frees it when its holder ends, however it ends.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from cm2.errors import CM2Error


def lock_output(path: str) -> FileLock:
    """Take the lock of an output file or URL; `release()` it when done.

    Raises:
        CM2Error: another run holds it.
    """
    name = path if "://" in path else os.path.realpath(path)
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    folder = Path(tempfile.gettempdir()) / f"cm2-locks-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = FileLock(folder / f"{digest}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        message = f"another run is writing {path}"
        raise CM2Error(message, fix="wait until it has ended, or give -o another name") from None
    return lock
