"""Replicate persistent memory to other machines over RDMA or libfabric.

Two tiers:

* `Pool`: memory, a file or a poolset(5) file with named numpy arrays in it and any number of
  replicas; ``pool.persist(view)`` returns when the view is durable here and on every replica.
* `create`, `open`, `remove` and `Replica`: librpmem's call set, one to one, over a buffer of
  the caller's.

Everything is imported when it is first used: ``import rpmem`` itself loads neither numpy nor a
fabric. Every error is an `RpmemError`; its kinds are in `rpmem.errors` and, by name, here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rpmem import errors
from rpmem._version import __version__
from rpmem.base import parts

if TYPE_CHECKING:
    from rpmem.base.target import ReplicaSpec, Target
    from rpmem.errors import (
        ArrayExists,
        ArrayNotFound,
        AttributesRefused,
        AuthenticationFailed,
        BufferRefused,
        CatalogueCorrupt,
        CatalogueError,
        ClosedError,
        ConfigError,
        ConnectFailed,
        ConnectionRefused,
        CopyCorrupt,
        DaemonMissing,
        DeadlineExceeded,
        DtypeRefused,
        EncryptionRefused,
        EpochRefused,
        FabricError,
        FabricFailure,
        FlushFailed,
        ForkedError,
        HeaderError,
        HostKeyUnknown,
        HostUnknown,
        LaneRefused,
        LaunchError,
        LaunchFailed,
        MalformedMessage,
        MissingExtension,
        NoiseBeforeProtocol,
        NoSpace,
        NotProvenNewest,
        PoolFull,
        PoolSetBusy,
        PoolSetDenied,
        PoolSetError,
        PoolSetExists,
        PoolSetMalformed,
        PoolSetNameRefused,
        PoolSetNotFound,
        PoolSetTooSmall,
        ProtocolError,
        ProviderUnavailable,
        RangeError,
        RegistrationFailed,
        RemoteError,
        ReplicaLost,
        RpmemError,
        SplitBrain,
        StaleReplica,
        TargetSyntaxError,
        UnexpectedMessage,
        UsageError,
        VersionMismatch,
    )
    from rpmem.files.header import PoolAttributes
    from rpmem.memory.region import Region
    from rpmem.pool.pool import Pool
    from rpmem.session.replica import Replica
    from rpmem.session.start import create, open, remove

parts.install()

_HOMES = {
    "Pool": "rpmem.pool.pool",
    "PoolAttributes": "rpmem.files.header",
    "Region": "rpmem.memory.region",
    "Replica": "rpmem.session.replica",
    "ReplicaSpec": "rpmem.base.target",
    "Target": "rpmem.base.target",
    "create": "rpmem.session.start",
    "open": "rpmem.session.start",
    "remove": "rpmem.session.start",
} | {kind.__name__: "rpmem.errors" for kind in errors.KINDS.values()}

__all__ = [
    "ArrayExists",
    "ArrayNotFound",
    "AttributesRefused",
    "AuthenticationFailed",
    "BufferRefused",
    "CatalogueCorrupt",
    "CatalogueError",
    "ClosedError",
    "ConfigError",
    "ConnectFailed",
    "ConnectionRefused",
    "CopyCorrupt",
    "DaemonMissing",
    "DeadlineExceeded",
    "DtypeRefused",
    "EncryptionRefused",
    "EpochRefused",
    "FabricError",
    "FabricFailure",
    "FlushFailed",
    "ForkedError",
    "HeaderError",
    "HostKeyUnknown",
    "HostUnknown",
    "LaneRefused",
    "LaunchError",
    "LaunchFailed",
    "MalformedMessage",
    "MissingExtension",
    "NoSpace",
    "NoiseBeforeProtocol",
    "NotProvenNewest",
    "Pool",
    "PoolAttributes",
    "PoolFull",
    "PoolSetBusy",
    "PoolSetDenied",
    "PoolSetError",
    "PoolSetExists",
    "PoolSetMalformed",
    "PoolSetNameRefused",
    "PoolSetNotFound",
    "PoolSetTooSmall",
    "ProtocolError",
    "ProviderUnavailable",
    "RangeError",
    "Region",
    "RegistrationFailed",
    "RemoteError",
    "Replica",
    "ReplicaLost",
    "ReplicaSpec",
    "RpmemError",
    "SplitBrain",
    "StaleReplica",
    "Target",
    "TargetSyntaxError",
    "UnexpectedMessage",
    "UsageError",
    "VersionMismatch",
    "__version__",
    "create",
    "errors",
    "open",
    "remove",
]


def __getattr__(name: str) -> Any:
    """Import `name` from its home and keep it here (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'rpmem' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
