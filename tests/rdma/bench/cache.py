"""A folder of things that are made once and then kept."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

_MARK = ".complete"


class Cache:
    """Everything that the bench fetches or makes.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def default() -> Path:
        """Return RPMEM_BENCH_CACHE, or a folder in the user's cache."""
        chosen = os.environ.get("RPMEM_BENCH_CACHE")
        if chosen:
            return Path(chosen).absolute()
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        return Path(cache) / "rpmem" / "bench"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from filling the cache at the same time."""
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def __call__(self, kind: str, recipe: str, make: Callable[[Path], None]) -> Path:
        """Return the folder for a recipe, made by `make` when it is not there whole.

        Folders of the same kind made from other recipes are removed.
        """
        digest = hashlib.sha256(recipe.encode()).hexdigest()[:12]
        path = self.folder / f"{kind}-{digest}"
        if (path / _MARK).exists():
            return path
        for old in (path, *self.folder.glob(f"{kind}-????????????")):
            shutil.rmtree(old, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix=f".new-{kind}-", dir=self.folder))
        try:
            new.chmod(0o755)
            make(new)
            (new / _MARK).touch()
            new.rename(path)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        return path
