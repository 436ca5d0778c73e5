"""``rpmem remove``: a local pool, or a replica."""

from __future__ import annotations

import click

from rpmem.cli.options import pool_set_argument, where_argument


@click.command(short_help="Remove a local pool or a replica.")
@where_argument
@pool_set_argument
@click.option("--force", is_flag=True, help="Remove what can be removed, and ignore errors.")
@click.option("--pool-set", "pool_set_too", is_flag=True, help="Remove the pool set file as well.")
@click.option("--timeout", type=float, help="Seconds to wait for the target.")
@click.option("--launcher", help="openssh, paramiko or auto.")
def command(
    where: str,
    pool_set: str | None,
    force: bool,
    pool_set_too: bool,
    timeout: float | None,
    launcher: str | None,
) -> None:
    """Remove the files of the pool LOCAL, or of the replica NAME.set on TARGET.

    Without --pool-set the poolset(5) file itself stays. A pool in use is not removed. Replicas of
    a local pool are removed one by one, by name.
    """
    if pool_set is None:
        from rpmem.pool.local import FilePlace

        FilePlace(where).remove(force=force, pool_set_too=pool_set_too)
    else:
        from rpmem.session.start import remove

        remove(where, pool_set, force, pool_set_too, launcher=launcher, timeout=timeout)
