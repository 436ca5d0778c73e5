"""All mutants there are."""

from __future__ import annotations

from tests.mutants import (
    codec,
    copies,
    core,
    daemon,
    details_core,
    details_daemon,
    details_files,
    details_hot,
    details_links,
    details_pool,
    details_target,
    differences,
    epochs,
    files,
    lent,
    libraries,
    links,
    losses,
    maps,
    pagemap,
    pool,
    records,
    restoring,
    secret,
    settling,
    stream,
    tracking,
    verify,
)

_MODULES = (
    codec,
    copies,
    core,
    daemon,
    differences,
    epochs,
    files,
    lent,
    libraries,
    links,
    losses,
    maps,
    pagemap,
    pool,
    records,
    restoring,
    secret,
    settling,
    stream,
    tracking,
    verify,
)
_DETAILS = (
    details_core,
    details_daemon,
    details_files,
    details_hot,
    details_links,
    details_pool,
    details_target,
)

ALL = tuple(mutant for module in (*_MODULES, *_DETAILS) for mutant in module.MUTANTS)
