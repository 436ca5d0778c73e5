"""rpmemd's command line and configuration files.

The options, files, exit codes and the order of precedence are those of PMDK's rpmemd; `protocol`,
`provider`, `file-mode`, `spin-us`, `encryption` and `forced-command` are ours.
"""

from __future__ import annotations

import getopt
import os
import pwd
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from rpmem._version import __version__
from rpmem.base.values import Record, replace
from rpmem.errors import ConfigError
from rpmem.files.drafts import PRIVATE

GLOBAL_FILE = "/etc/rpmemd/rpmemd.conf"
USER_FILE = ".rpmemd.conf"
LEVELS = ("err", "warn", "notice", "info", "debug")
PROTOCOLS = ("native", "pmdk", "both")
ENCRYPTIONS = ("required", "allowed", "off")
BAD_USAGE = 255

_SIZE_LIMIT = 1 << 20
_MOST_THREADS = 1024
_LONGEST_SPIN = 1_000_000

HELP = """
Options:
  -c, --config <path>           read this configuration file and no other
  -r, --remove <set>            remove the pool of a pool set, then exit
  -f, --force                   with --remove: ignore errors
  -s, --pool-set                with --remove: remove the pool set file too
  -t, --nthreads <n>            worker threads; 0: half the cores, 1 to 4, at most one per lane
  -h, --help                    show this help and exit
  -V, --version                 show the version and exit
      --log-file <path>         log to this file instead of syslog
      --poolset-dir <path>      directory of the pool set files ($HOME)
      --persist-apm             let initiators make data durable by reading after writing
      --persist-general         flush on request (always possible)
      --use-syslog              log to syslog
      --log-level <level>       err, warn, notice, info or debug
      --protocol <which>        native, pmdk or both; pmdk cannot authenticate its lanes
      --provider <list>         providers that initiators may use, such as stream
      --file-mode <mode>        permissions of new files, octal (0600)
      --spin-us <n>             microseconds to poll before going to sleep
      --encryption <which>      of lanes: required, allowed or off
      --forced-command          for authorized_keys: accept only --remove from the client's command
All long options except the first five, help, version and forced-command may also be set by a line
"option = value" in /etc/rpmemd/rpmemd.conf or $HOME/.rpmemd.conf; the command line wins."""


class Config(Record):
    """rpmemd's settings.

    Attributes
    ----------
    poolset_dir : str
        Directory that pool set names are relative to.
    remove : str or None
        Pool set to remove instead of serving.
    force, pool_set : bool
        How to remove it.
    nthreads : int
        Worker threads; 0: half the cores, 1 to 4, at most one per lane.
    persist_apm, persist_general : bool
        Which persistency methods are allowed.
    use_syslog, log_file, log_level
        Where messages go, and from which level.
    protocol : {"native", "pmdk", "both"}
        Which protocols are accepted.
    providers : tuple of str
        Providers that initiators may use; empty means any.
    file_mode : int
        Permissions of new pool set files, parts and logs, regardless of the umask.
    spin_us : int or None
        How long to poll before sleeping; None leaves the choice to the service.
    encryption : {"required", "allowed", "off"}
        Whether lanes to other machines have to be encrypted, or must not be.
    forced_command : bool
        Whether an authorized_keys line started us.
    """

    poolset_dir: str
    remove: str | None = None
    force: bool = False
    pool_set: bool = False
    nthreads: int = 0
    persist_apm: bool = False
    persist_general: bool = True
    use_syslog: bool = True
    log_file: str = "/var/log/rpmemd.log"
    log_level: str = "err"
    protocol: str = "both"
    providers: tuple[str, ...] = ()
    file_mode: int = PRIVATE
    spin_us: int | None = None
    encryption: str = "allowed"
    forced_command: bool = False


def read(
    arguments: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    global_file: str = GLOBAL_FILE,
) -> Config:
    """Read the command line, then the configuration files that apply.

    Parameters
    ----------
    arguments : sequence of str
        Without the program's name.
    environ : mapping, optional
        Default: ``os.environ``.
    global_file : str
        The system's configuration file.

    Raises
    ------
    SystemExit
        Help or version were requested (0), or the command line is wrong (255). The message is
        already on stderr.
    ConfigError
        A configuration file is wrong.
    """
    environ = os.environ if environ is None else environ
    home = environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    defaults = Config(poolset_dir=home)
    config, file, given = _read_command_line(arguments, defaults)
    if config.forced_command:
        config = _obey_client(config, environ.get("SSH_ORIGINAL_COMMAND", ""))
    files = [global_file, os.path.join(home, USER_FILE)] if file is None else [file]
    for path in files:
        config = _read_file(path, config, given, required=file is not None)
    return replace(config, poolset_dir=_expand_home(config.poolset_dir, home))


# --- values ---------------------------------------------------------------------------------------


def _text(value: str) -> str:
    if not value:
        raise ValueError("a value is missing")
    return value


def _switch(value: str) -> bool:
    if value not in ("yes", "no"):
        raise ValueError(f"'{value}' is neither yes nor no")
    return value == "yes"


def _one_of(*choices: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value not in choices:
            raise ValueError(f"'{value}' is not one of {', '.join(choices)}")
        return value

    return check


def _number(largest: int) -> Callable[[str], int]:
    def check(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) > largest:
            raise ValueError(f"'{value}' is not a number from 0 to {largest}")
        return int(value)

    return check


def _mode(value: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3}", value) or int(value, 8) & PRIVATE != PRIVATE:
        raise ValueError(f"'{value}' is not a mode such as 0600 or 0640 that lets the owner write")
    return int(value, 8)


def _names(value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(","))
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_;^+-]{1,64}", name):
            raise ValueError(f"'{name}' is not the name of a provider")
    return names


_VALUES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "log-file": ("log_file", _text),
    "poolset-dir": ("poolset_dir", _text),
    "persist-apm": ("persist_apm", _switch),
    "persist-general": ("persist_general", _switch),
    "use-syslog": ("use_syslog", _switch),
    "log-level": ("log_level", _one_of(*LEVELS)),
    "nthreads": ("nthreads", _number(_MOST_THREADS)),
    "protocol": ("protocol", _one_of(*PROTOCOLS)),
    "provider": ("providers", _names),
    "file-mode": ("file_mode", _mode),
    "spin-us": ("spin_us", _number(_LONGEST_SPIN)),
    "encryption": ("encryption", _one_of(*ENCRYPTIONS)),
}
_SWITCHES = ("persist-apm", "persist-general", "use-syslog")
_ONLY_ON_THE_COMMAND_LINE = ("force", "pool-set", "forced-command")

_SHORT = "c:r:fst:hV"
_LONG = [
    *(name if name in _SWITCHES else name + "=" for name in _VALUES),
    *_ONLY_ON_THE_COMMAND_LINE,
    "config=",
    "remove=",
    "help",
    "version",
]
_SHORT_FOR = {
    "-c": "config",
    "-r": "remove",
    "-f": "force",
    "-s": "pool-set",
    "-t": "nthreads",
    "-h": "help",
    "-V": "version",
}


def _with(config: Config, name: str, value: str) -> Config:
    field, convert = _VALUES[name]
    changes: dict[str, Any] = {field: convert(value)}
    if name == "log-file":
        changes["use_syslog"] = False
    return replace(config, **changes)


# --- the command line -----------------------------------------------------------------------------


def _read_command_line(
    arguments: Sequence[str], config: Config
) -> tuple[Config, str | None, frozenset[str]]:
    """Return the configuration, the file named by --config, and the fields set."""
    try:
        options, _ = getopt.gnu_getopt(list(arguments), _SHORT, _LONG)
    except getopt.GetoptError as error:
        _refuse(str(error))
    file = None
    given = set()
    for option, value in options:
        name = _SHORT_FOR.get(option, option.removeprefix("--"))
        if name == "help":
            _say(_usage() + "\n" + _version() + "\n" + HELP)
            raise SystemExit(0)
        if name == "version":
            _say(_version())
            raise SystemExit(0)
        if name == "config":
            file = value
        elif name == "remove":
            config = replace(config, remove=value)
        elif name in _ONLY_ON_THE_COMMAND_LINE:
            config = _with_flag(config, name)
        else:
            try:
                config = _with(config, name, "yes" if name in _SWITCHES else value)
            except ValueError as error:
                _refuse(f"--{name}: {error}")
            given.add(name)
    return config, file, frozenset(given)


def _with_flag(config: Config, name: str) -> Config:
    if name == "force":
        return replace(config, force=True)
    if name == "pool-set":
        return replace(config, pool_set=True)
    return replace(config, forced_command=True)


def _obey_client(config: Config, command: str) -> Config:
    """Apply the request of a client behind a forced command: to serve, or to remove one set."""
    try:
        words = shlex.split(command)
        options, rest = getopt.gnu_getopt(words[1:], "r:fs", ["remove=", "force", "pool-set"])
    except (ValueError, getopt.GetoptError) as error:
        _refuse(f"the client asked for '{command}', which is not allowed: {error}")
    if rest:
        _refuse(f"the client asked for '{command}', which is not allowed")
    for option, value in options:
        name = _SHORT_FOR.get(option, option.removeprefix("--"))
        config = replace(config, remove=value) if name == "remove" else _with_flag(config, name)
    return config


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _usage() -> str:
    return "usage: rpmemd [--version] [--help] [<args>]"


def _version() -> str:
    return f"rpmemd version {__version__}"


def _refuse(reason: str) -> NoReturn:
    _say(f"rpmemd: {reason}\n{_usage()}")
    raise SystemExit(BAD_USAGE)


# --- configuration files --------------------------------------------------------------------------


def _read_file(path: str, config: Config, given: frozenset[str], *, required: bool) -> Config:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_SIZE_LIMIT + 1)
    except OSError as error:
        if required:
            raise ConfigError(f"cannot be read: {error.strerror}", where=path) from error
        # As in PMDK: a file not named explicitly may be missing or unreadable.
        return config
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", where=path) from error
    if len(text) > _SIZE_LIMIT:
        raise ConfigError("is too large to be a configuration file", where=path)
    for number, line in enumerate(text.split("\n"), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        try:
            name, value = _split(content)
            # Checked even if the command line overrides it: a wrong file is an error.
            changed = _with(config, name, value)
        except ValueError as error:
            raise ConfigError(str(error), where=f"{path}:{number}") from error
        if name not in given:
            config = _keep_settled(changed, config, given)
    return config


def _split(content: str) -> tuple[str, str]:
    name, equals, value = (part.strip() for part in content.partition("="))
    if not equals:
        raise ValueError(f"'{content}' is not of the form option = value")
    if name not in _VALUES:
        raise ValueError(f"'{name}' is not an option that a file can set")
    if not value:
        raise ValueError(f"'{name}' has no value")
    return name, value


def _keep_settled(changed: Config, config: Config, given: frozenset[str]) -> Config:
    """Keep a log file from a configuration file from undoing --use-syslog."""
    if "use-syslog" in given:
        return replace(changed, use_syslog=config.use_syslog)
    return changed


def _expand_home(path: str, home: str) -> str:
    return re.sub(r"\$HOME(?![A-Za-z0-9])", lambda _: home, path, count=1)
