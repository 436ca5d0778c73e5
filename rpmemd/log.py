"""rpmemd's own log: a file or syslog, or stderr until that is decided; never stdout.

``logging`` would take more start-up time than everything else here together.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import TextIO

from rpmem.base.printable import printable
from rpmem.errors import ConfigError
from rpmem.files.drafts import PRIVATE
from rpmemd.config import LEVELS, Config

Sink = Callable[[str, str], None]

_LONGEST = 4000


def _open_private(path: str, mode: int) -> int:
    """Open a log for appending; a new one gets `mode`, regardless of the umask."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT, PRIVATE)
    os.fchmod(descriptor, mode)
    return descriptor


class Log:
    """The destination of messages.

    A new log writes to stderr, which a person or an initiator sees; :meth:`configure` redirects it
    as configured. Messages are one line each: text from a peer cannot forge another line.

    Attributes
    ----------
    level : str
        Messages less severe than this are dropped.
    sink : callable or None
        Also gets (level, message); a session uses it to send them to its initiator.
    """

    def __init__(self, level: str = "err", file: TextIO | None = None) -> None:
        self.level = level
        self.sink: Sink | None = None
        self._file: TextIO | None = sys.stderr if file is None else file
        self._owned = False
        self._syslog: Callable[[int, str], None] | None = None
        self._priorities: dict[str, int] = {}

    def configure(self, config: Config) -> None:
        """Log to syslog or a file from now on.

        Raises
        ------
        ConfigError
            The log file cannot be opened.
        """
        self.level = config.log_level
        if config.use_syslog:
            self._open_syslog()
            return
        try:
            descriptor = _open_private(config.log_file, config.file_mode)
        except OSError as error:
            raise ConfigError(
                f"the log file cannot be opened: {error.strerror}",
                where=config.log_file,
                errno=error.errno,
            ) from error
        self.close()
        self._file = os.fdopen(descriptor, "a", encoding="utf-8", errors="replace")
        self._owned = True

    def _open_syslog(self) -> None:
        import syslog

        self.close()
        syslog.openlog("rpmemd", syslog.LOG_PID, syslog.LOG_DAEMON)
        self._syslog = syslog.syslog
        severities = (
            syslog.LOG_ERR,
            syslog.LOG_WARNING,
            syslog.LOG_NOTICE,
            syslog.LOG_INFO,
            syslog.LOG_DEBUG,
        )
        self._priorities = dict(zip(LEVELS, severities, strict=True))

    @property
    def on_stderr(self) -> bool:
        """Whether messages go to stderr."""
        return self._file is sys.stderr

    def write(self, level: str, message: str) -> None:
        """Log a message, if its level is enabled."""
        if LEVELS.index(level) > LEVELS.index(self.level):
            return
        line = printable(message, _LONGEST)
        if self._syslog is not None:
            self._syslog(self._priorities[level], line)
        elif self._file is not None:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S ") if self._owned else ""
            try:
                print(f"{stamp}rpmemd[{os.getpid()}] {level}: {line}", file=self._file, flush=True)
            except (OSError, ValueError):
                # A full disk or a closed stderr must not end the session that is logged.
                self._file = None
        if self.sink is not None:
            self.sink(level, line)

    def err(self, message: str) -> None:
        """Log an error."""
        self.write("err", message)

    def warn(self, message: str) -> None:
        """Log a warning."""
        self.write("warn", message)

    def notice(self, message: str) -> None:
        """Log something normal but notable."""
        self.write("notice", message)

    def lines(self, level: str, messages: Iterable[str]) -> None:
        """Log several lines that belong together."""
        for message in messages:
            self.write(level, message)

    def info(self, message: str) -> None:
        """Log an activity."""
        self.write("info", message)

    def debug(self, message: str) -> None:
        """Log a detail that helps to find a fault."""
        self.write("debug", message)

    def close(self) -> None:
        """Stop logging; messages are dropped from now on."""
        if self._owned and self._file is not None:
            self._file.close()
        self._owned = False
        self._file = None
        self._syslog = None
