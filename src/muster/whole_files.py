"""Files that are there as a whole or not at all, and have their mode from their first moment.

Not here: what stands in them, and what is told when they cannot be written.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PRIVATE_FILE = 0o600
PUBLIC_FILE = 0o644
"""As far as the user's umask allows."""


class NewFile(NamedTuple):
    """A file that is to be written."""

    path: Path
    content: bytes
    mode: int


def write_private(path: Path, content: bytes) -> None:
    """Write a file, or replace it, so that it survives a crash. Raises OSError."""
    temporary = _beside(path)
    _create(temporary, content, PRIVATE_FILE, replace=True, durable=True)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink()
        raise


def write_together(files: Sequence[NewFile], *, replace: bool) -> None:
    """Write all or none. With ``replace`` what was there stays until all new ones are complete.

    Directories are made as needed. Raises OSError; FileExistsError when one is there already, and not to be replaced.
    """
    created: list[Path] = []
    try:
        for path, content, mode in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            target = _beside(path) if replace else path
            _create(target, content, mode, replace=replace, durable=False)
            created.append(target)
        for path, _, _ in files if replace else ():
            _beside(path).replace(path)
    except OSError:
        for target in created:
            target.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _create(path: Path, content: bytes, mode: int, *, replace: bool, durable: bool) -> None:
    """Make a file that nobody else has made; with ``replace`` what was there is removed first."""
    if replace:
        path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
