"""``rpmemd``: the program that ssh starts on the target."""

from __future__ import annotations

import os
import resource
import sys

from rpmem.base.values import replace
from rpmem.errors import ConfigError, MissingExtension, PoolSetError, RpmemError
from rpmemd import config as configuration
from rpmemd.database import Database, removal_status
from rpmemd.log import Log

_BAD_CONFIGURATION = 22
_ENOUGH = 65536


def main() -> int:
    """Run rpmemd with the process's arguments; return its exit status."""
    if not _has_streams():
        return 1
    log = Log()
    try:
        config = configuration.read(sys.argv[1:])
        log.configure(config)
        if config.remove is not None:
            return remove(config, log)
        database = Database(config.poolset_dir, file_mode=config.file_mode)
    except ConfigError as error:
        return refuse(error, log, _BAD_CONFIGURATION)
    return serve(config, log, database)


def refuse(error: RpmemError, log: Log, status: int) -> int:
    """Tell the initiator why there is no session; return the exit status."""
    log.err(str(error))
    if not log.on_stderr:
        # The only place where the initiator reads it.
        print(f"rpmemd: {error}", file=sys.stderr)
    from rpmem.control.handshake import pack_status

    os.write(1, pack_status(status))
    return 1


def remove(config: configuration.Config, log: Log) -> int:
    """Remove a pool; librpmem reports the exit status as errno."""
    assert config.remove is not None
    try:
        Database(config.poolset_dir).remove(
            config.remove, force=config.force, pool_set=config.pool_set
        )
    except (PoolSetError, MissingExtension) as error:
        log.err(str(error))
        print(f"rpmemd: {error}", file=sys.stderr)
        return removal_status(error, config.remove)
    return 0


def serve(config: configuration.Config, log: Log, database: Database) -> int:
    """Serve the initiator on stdin and stdout."""
    try:
        from rpmemd.session import Session
        from rpmemd.stream import Stream
    except MissingExtension as error:
        return refuse(error, log, error.errno)

    _raise_limits()
    # Set by sshd to show where the initiator reached us: "client port server port".
    words = os.environ.get("SSH_CONNECTION", "").split()
    peer, address = (words[0], words[2]) if len(words) == 4 else ("127.0.0.1", "127.0.0.1")
    if not words and config.encryption == "required":
        # Nothing leaves the machine of whoever started us as a child.
        config = replace(config, encryption="allowed")
    try:
        # Anything that a library prints to stdout must not end up between the messages.
        sink = os.dup(1)
        session = Session(config, log, Stream(0, sink), database, address=address, peer=peer)
        os.dup2(2, 1)
    except OSError as error:
        why = f"no session can be served: {error.strerror}"
        return refuse(RpmemError(why), log, error.errno or _BAD_CONFIGURATION)
    try:
        return session.run()
    except RpmemError as error:
        log.err(str(error))
        return 1


def _has_streams() -> bool:
    """Check the standard streams, and fill gaps so that no other file becomes one of them."""
    missing = []
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            missing.append(number)
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor: this one
    if 2 in missing:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if 0 in missing or 1 in missing:
        print("rpmemd: stdin and stdout must be open: they lead to the initiator", file=sys.stderr)
        return False
    return True


def _raise_limits() -> None:
    """Raise limits as far as allowed: a thousand lanes need several descriptors each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
