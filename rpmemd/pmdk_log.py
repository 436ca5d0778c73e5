"""The log lines of PMDK's rpmemd about a session, in its wording: scripts look for them."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from rpmem.base.steps import READ_AFTER_WRITE
from rpmem.control.messages import Create, Open, Ready
from rpmem.files.attributes import PoolAttributes


def request_lines(request: Create | Open) -> Iterator[str]:
    """Yield the lines about a request."""
    yield f"{type(request).__name__.lower()} request:"
    yield f"pool descriptor: '{request.pool_set}'"
    yield f"pool size: {request.pool_size}"
    yield f"nlanes: {request.lanes}"
    yield f"provider: {request.providers[0]}"
    yield f"buff_size: {request.message_size}"


def attribute_lines(packed: bytes) -> Iterator[str]:
    """Yield the lines about a pool's attributes."""
    attributes = PoolAttributes.unpack(packed)
    signature = attributes.signature.rstrip(b"\0").decode("ascii", "backslashreplace")
    yield "pool attributes:"
    yield f"signature: '{signature}'"
    yield f"major: {attributes.major}"
    yield f"compat_features: {attributes.compat:#x}"
    yield f"incompat_features: {attributes.incompat:#x}"
    yield f"ro_compat_features: {attributes.ro_compat:#x}"
    for name in ("poolset_uuid", "uuid", "next_uuid", "prev_uuid"):
        yield f"{name}: {UUID(bytes=getattr(attributes, name))}"


def policy_lines(answer: Ready) -> Iterator[str]:
    """Yield the lines about how data becomes durable."""
    apm = answer.steps[0] == READ_AFTER_WRITE.name
    method = "Appliance" if apm else "General Purpose Server"
    flush = "none" if apm else "pmem_persist" if answer.medium == "pmem" else "pmem_msync"
    yield "persistency policy:"
    yield f"persist method: {method} Persistency Method"
    yield f"persist flush: {flush}"
