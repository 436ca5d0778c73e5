"""The log that ``RPMEM_LOG_LEVEL`` and ``RPMEM_LOG_FILE`` ask for.

Without them rpmem logs like any other library: to the logger ``rpmem``, which the application may
set up. With them that logger is also written to the file, together with what is otherwise not
logged because the application gets it as an exception: every call that begins or ends a session,
and how it failed.

======  ==================================================================
level   what is written
======  ==================================================================
0       nothing
1       errors and warnings
2       calls as well, and messages from the target
3, 4    everything
======  ==================================================================
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING

from rpmem.errors import ConfigError, RpmemError

if TYPE_CHECKING:
    from rpmem.base.environment import Environment

_LEVELS = (logging.CRITICAL + 1, logging.WARNING, logging.INFO, logging.DEBUG)
_FORMAT = "%(asctime)s rpmem[%(process)d] %(levelname)s: %(message)s"

_log = logging.getLogger("rpmem")
# Not for the application's handlers: the application gets the same as an exception.
_calls = logging.getLogger("rpmem.calls")
_calls.propagate = False
_calls.addHandler(logging.NullHandler())

_lock = threading.Lock()
_current: Environment | None = None
_handler: logging.Handler | None = None


class _PrivateFile(logging.FileHandler):
    """A log file that is created readable and writable by its owner only."""

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.baseFilename, flags, 0o600)
        return TextIOWrapper(
            open(descriptor, "ab"), encoding=self.encoding, errors=self.errors, line_buffering=True
        )


def set_up(environment: Environment) -> None:
    """Set up logging as in the environment; cheap if nothing has changed.

    Raises
    ------
    ConfigError
        The log file cannot be opened.
    """
    global _current
    with _lock:
        if environment is _current:
            return
        _take_down()
        if environment.log_level:
            _put_up(environment)
        _current = environment


def _put_up(environment: Environment) -> None:
    global _handler
    path = environment.log_path()
    if path is None:
        _handler = logging.StreamHandler()
    else:
        try:
            _handler = _PrivateFile(path, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise ConfigError(
                f"RPMEM_LOG_FILE is '{path}', which cannot be written: {error.strerror}",
                where="environment",
                errno=error.errno,
            ) from error
    level = _LEVELS[min(environment.log_level, len(_LEVELS) - 1)]
    _handler.setLevel(level)
    _handler.setFormatter(logging.Formatter(_FORMAT))
    for logger in (_log, _calls):
        logger.addHandler(_handler)
        logger.setLevel(level)


def _take_down() -> None:
    global _handler
    if _handler is None:
        return
    for logger in (_log, _calls):
        logger.removeHandler(_handler)
        logger.setLevel(logging.NOTSET)
    _handler.close()
    _handler = None


@contextmanager
def call(what: str) -> Iterator[None]:
    """Log the beginning of a call and how it ends."""
    _calls.info("%s", what)
    try:
        yield
    except RpmemError as error:
        _calls.error("%s: %s", what, error)
        raise
    _calls.debug("%s: done", what)


def lost(error: RpmemError) -> None:
    """Log the loss of a replica."""
    _calls.error("%s", error)
