"""``rpmemd``: what ssh starts on the target."""

from __future__ import annotations

import os
import sys

from rpmem.errors import ConfigError, MissingExtension, PoolSetError, RpmemError
from rpmemd import config as configuration
from rpmemd.database import Database, removal_status
from rpmemd.log import Log

_BAD_CONFIGURATION = 22


def main() -> int:
    """Run rpmemd with the process's arguments; return its exit status."""
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
    """Tell the initiator why there will be no session; return the exit status."""
    log.err(str(error))
    if not log.on_stderr:
        # The initiator reads it there and nowhere else.
        print(f"rpmemd: {error}", file=sys.stderr)
    from rpmem.control.handshake import pack_status

    os.write(1, pack_status(status))
    return 1


def remove(config: configuration.Config, log: Log) -> int:
    """Remove a pool; the exit status is what librpmem reports as errno."""
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
        from rpmemd.session import Session, Stream
    except MissingExtension as error:
        return refuse(error, log, error.errno)

    # Whatever a library prints on stdout must not end up between the messages.
    sink = os.dup(1)
    os.dup2(2, 1)
    # sshd says where the initiator reached us: "client port server port".
    words = os.environ.get("SSH_CONNECTION", "").split()
    peer, address = (words[0], words[2]) if len(words) == 4 else ("127.0.0.1", "127.0.0.1")
    session = Session(config, log, Stream(0, sink), database, address=address, peer=peer)
    try:
        return session.run()
    except RpmemError as error:
        log.err(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
