"""An index folder appears whole or not at all, and one process at a time works on it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ovd_envs.errors import OVDError

#: Names of folders that do not tell what the folder is called: ".", "/" and "..".
_NAMELESS = ("", "..")


def place_of(folder: Path) -> Path:
    """Where ``folder`` is built before it is renamed into its place."""
    return _beside(folder, "building")


@contextlib.contextmanager
def building(folder: Path) -> Iterator[Path]:
    """An empty folder beside ``folder``, for one process at a time; gone when the block ends.

    What a killed process left there is removed. Raises ``OVDError`` where another builds it now,
    and for a folder as "." or "..", which cannot be renamed.
    """
    if folder.name in _NAMELESS:
        raise OVDError(
            f"{folder}: an index is renamed into its place; expected a folder by its name, "
            "from outside it"
        )
    place = place_of(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        restore(folder)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def take_place(place: Path, folder: Path) -> None:
    """Rename ``place`` to ``folder``, whose old contents go; who has them open reads on."""
    old = _old(folder)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    place.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def restore(folder: Path) -> None:
    """Put the old folder back where a kill fell between the two renames."""
    if not folder.exists():
        with contextlib.suppress(FileNotFoundError):
            _old(folder).rename(folder)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time; the system ends it with the process, however that ends.

    Raises ``OVDError`` where another process has it.
    """
    path = _beside(folder, "lock")
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), path.stat()):
                break
        except BlockingIOError:
            os.close(lock)
            raise OVDError(f"{folder}: another process works on this index at present") from None
        except FileNotFoundError:
            pass  # its owner ended, and removed it, between our two calls
        os.close(lock)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def _old(folder: Path) -> Path:
    return _beside(folder, "old")


def _beside(folder: Path, ending: str) -> Path:
    """The hidden place beside ``folder`` that ``ending`` is for; also where that is "."."""
    if folder.name in _NAMELESS:
        folder = Path(os.path.abspath(folder))
    return folder.parent / f".{folder.name}.{ending}"
