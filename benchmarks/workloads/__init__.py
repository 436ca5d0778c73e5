"""The measurements. A workload is a generator of contests, or of single figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.contest import Contest, Plan
from benchmarks.workloads import (
    batch,
    instead,
    life,
    persist,
    polling,
    pools,
    reading,
    replicas,
    threads,
    verbs,
)

Workload = Callable[[Plan], Iterator[Contest]]

#: In the order of the report.
WORKLOADS: dict[str, Workload] = {
    "persist": persist.by_size,
    "commit": persist.commit,
    "read-after-write": persist.read_after_write,
    "bandwidth": persist.bandwidth,
    "batch": batch.flush_drain,
    "scattered": batch.scattered,
    "read": reading.read,
    "threads": threads.threads,
    "replicas": replicas.replicas,
    "pools": pools.pools,
    "polling": polling.polling,
    "verbs": verbs.verbs,
    "instead": instead.instead,
    "life": life.life,
}
