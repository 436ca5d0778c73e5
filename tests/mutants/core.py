"""Mistakes in the hot path: ranges, lanes, steps, what is flushed here and what is waited for."""

from __future__ import annotations

from tests.mutants import Mutant

_LOCAL = ("tests/unit/test_core_local.py",)
_RECORDED = ("tests/integration/test_recorded_pools.py",)
_MESSAGES = ("tests/integration/test_messages_counted.py",)
_LANES = ("tests/integration/test_lanes.py",)
_REPLICA = ("tests/integration/test_replica.py",)
_RANGES = ("tests/unit/test_ranges.py",)
_PMEM = ("tests/unit/test_pmem.py",)
_CLAIMS = ("tests/faults/test_durability_claims.py",)

MUTANTS = (
    Mutant(
        "no local flush where there are replicas",
        "Replicator.run",
        "if self.local:",
        "if self.local and self.engine.group_count == 0:",
        _RECORDED,
    ),
    Mutant(
        "several ranges: the end of the last, not the largest",
        "Replicator.local_durable",
        "high = max(high, ranges[i].offset + ranges[i].length)",
        "high = ranges[i].offset + ranges[i].length",
        _RECORDED,
    ),
    Mutant(
        "several ranges: the start of the last, not the smallest",
        "Replicator.local_durable",
        "low = min(low, ranges[i].offset)",
        "low = ranges[i].offset",
        _RECORDED,
    ),
    Mutant(
        "no drain after several ranges on persistent memory",
        "Replicator.local_durable",
        """            return 0
        return self.region.c_drain()""",
        """            return 0
        return 0""",
        _RECORDED,
    ),
    Mutant(
        "a local drain does nothing",
        "Replicator.local_durable",
        """        if flags & OPERATION_DRAIN:
            return self.region.c_drain()""",
        """        if flags & OPERATION_DRAIN:
            return 0""",
        _RECORDED,
    ),
    Mutant(
        "deep is only persist, locally",
        "Replicator.local_durable",
        "return self.region.c_deep(ranges[0].offset, ranges[0].length)",
        "return self.region.c_persist(ranges[0].offset, ranges[0].length)",
        _RECORDED,
    ),
    Mutant(
        "a local failure is forgotten",
        "Replicator.run",
        "outcome.fault = FAULT_LOCAL",
        "outcome.fault = 0",
        _RECORDED,
    ),
    Mutant(
        "drain skips a failed replica",
        "Replicator.drain",
        "wanted = wanted or group.links[i].undrained or group.failed",
        "wanted = wanted or group.links[i].undrained",
        _RECORDED,
    ),
    Mutant(
        "the header may be written",
        "Replicator.check",
        "ranges[i].length, self.floor, self.size)",
        "ranges[i].length, 0, self.size)",
        _REPLICA,
    ),
    Mutant(
        "only the first range is checked",
        "Replicator.check",
        "for i in range(count):",
        "for i in range(min(count, <size_t> 1)):",
        ("tests/unit/test_pool_local.py", *_RANGES),
    ),
    Mutant(
        "a range may end one byte behind the pool",
        "range_outside",
        "offset > size - length",
        "offset > size - length + 1",
        _RANGES,
    ),
    Mutant(
        "the rest of a pool is one page short",
        "Replicator.call",
        "ranges.items[0].length = self.size - self.floor",
        "ranges.items[0].length = self.size - self.floor - 4096",
        _RECORDED,
    ),
    Mutant(
        "a view with negative strides begins at its first element",
        "strided",
        "base += (e - 1) * s",
        "base += 0",
        _RANGES,
    ),
    Mutant(
        "the last run of a strided view is left out",
        "strided",
        "if counter[i] < extent[i]:",
        "if counter[i] < extent[i] - 1:",
        _RANGES,
    ),
    Mutant(
        "a lost replica is not marked",
        "lose",
        "engine.groups[g].failed = 1",
        "engine.groups[g].failed = 0",
        _REPLICA,
    ),
    Mutant(
        "the error of a lost replica is swallowed",
        "lose",
        "outcome.fault = fault",
        "outcome.fault = 0",
        _REPLICA,
    ),
    Mutant(
        "a replica that failed before is left out without a word",
        "engine_begin",
        "rc = LANE_ABORTED",
        "rc = 1",
        _REPLICA,
    ),
    Mutant(
        "only the first replica gets the data",
        "engine_begin",
        "if group != EVERY_GROUP and group != <int32_t> g:",
        "if (group != EVERY_GROUP and group != <int32_t> g) or (group == EVERY_GROUP and g > 0):",
        ("tests/integration/test_pool.py", *_RECORDED),
    ),
    Mutant(
        "two threads get the same lane",
        "handout_take",
        "return !__atomic_exchange_n(&h->taken[lane], 1, __ATOMIC_SEQ_CST);",
        "return 1;",
        _LANES,
    ),
    Mutant(
        "nobody is woken when a lane comes free",
        "handout_release",
        "pthread_cond_broadcast(&h->freed);",
        ";",
        _LANES,
    ),
    Mutant(
        "one message too many is under way",
        "send_updates",
        "if link.sequence - link.answered >= link.window:",
        "if link.sequence - link.answered >= link.window + 1:",
        _MESSAGES,
    ),
    Mutant(
        "a deep persist is not asked for",
        "send_update",
        "header.flags = UPDATE_DEEP if operation.flags & OPERATION_DEEP else 0",
        "header.flags = 0",
        _MESSAGES,
    ),
    Mutant(
        "a persist does not wait for its answer",
        "waiting",
        """    if <int>(link.answered - operation.last_sequence) < 0:
        return OPERATION_PENDING
    if operation.flags & OPERATION_DRAIN:""",
        """    if operation.flags & OPERATION_DRAIN:""",
        _CLAIMS,
    ),
    Mutant(
        "one-sided posts are not waited for",
        "waiting",
        """    if link.outstanding:
        return OPERATION_PENDING
    if <int>""",
        """    if <int>""",
        (*_REPLICA, *_CLAIMS),
    ),
    Mutant(
        "a refused message counts as answered",
        "native_complete",
        "if reply.status != REPLY_DONE:",
        "if False:",
        _REPLICA,
    ),
    Mutant(
        "an answer to a message never sent is believed",
        "native_complete",
        "or reply.sequence - link.answered > link.sequence - link.answered):",
        "):",
        ("tests/faults/test_hostile_target.py",),
    ),
    Mutant(
        "what was deferred is dropped by the drain",
        "begin_flush_or_drain",
        "operation.count = link.deferred_count",
        "operation.count = 0",
        (*_REPLICA, *_RECORDED),
    ),
    Mutant(
        "a deferred flush does not mark its lane",
        "defer",
        "link.undrained = True",
        "link.undrained = False",
        (*_REPLICA, *_RECORDED),
    ),
    Mutant(
        "flushes that do not fit are kept and forgotten",
        "defer",
        "link.deferred_bytes = total",
        "link.deferred_bytes = 0",
        (*_MESSAGES, *_REPLICA),
    ),
    Mutant(
        "the last piece of a long range is not sent",
        "send_update",
        "if n < left:",
        "if n < left - 1:",
        _REPLICA,
    ),
    Mutant(
        "the wrong bytes are gathered",
        "send_update",
        "tail = link.pool + offset",
        "tail = link.pool + offset + 8",
        _REPLICA,
    ),
    Mutant(
        "a relaxed range is written from its beginning again and again",
        "write_ranges",
        "lane.ops.write(lane, link.pool + r.offset + operation.done,",
        "lane.ops.write(lane, link.pool + r.offset,",
        _REPLICA,
    ),
    Mutant(
        "the end of a read is missing",
        "read_direct",
        "n = part_of(lane, r.length - operation.done)",
        "n = part_of(lane, r.length - operation.done - (8 if r.length > 8 else 0)) or 8",
        _REPLICA,
    ),
    Mutant(
        "read-after-write does not read",
        "read_after_write",
        "operation.phase = PHASE_READ",
        "operation.phase = PHASE_WAIT",
        ("tests/integration/test_replica.py", "tests/unit/test_steps_posts.py"),
    ),
    Mutant(
        "the delivery of the last write is not asked for",
        "delivered_write",
        "POST_SIGNAL | POST_DELIVERED",
        "POST_MORE",
        _CLAIMS,
    ),
    Mutant(
        "words may be torn",
        "rpmem_copy_words",
        "RPMEM_STORE(uint64_t, to, from); to += 8; from += 8; left -= 8;\n            }\n        }",
        "memcpy(to, from, 1); memcpy(to + 1, from + 1, 7); to += 8; from += 8; left -= 8;"
        "\n            }\n        }",
        _PMEM,
    ),
    Mutant(
        "msync leaves the first page out",
        "page_sync",
        "cdef uintptr_t first = <uintptr_t> address & ~(<uintptr_t> PAGE - 1)",
        "cdef uintptr_t first = (<uintptr_t> address + PAGE - 1) & ~(<uintptr_t> PAGE - 1)",
        _PMEM,
    ),
    Mutant(
        "msync's error is ignored",
        "page_sync",
        "return errno",
        "return 0",
        _PMEM,
    ),
    Mutant(
        "a range over two parts flushes the first only",
        "across",
        "low += 1",
        "low += 1\n        break",
        _PMEM,
    ),
    Mutant(
        "the failure of the first of two parts is forgotten",
        "across",
        "if rc != 0 and first_failure == 0:",
        "if False:",
        _PMEM,
    ),
    Mutant(
        "tmpfs passes for a disk",
        "set_medium_of_file",
        "if info.f_type == TMPFS_MAGIC or",
        "if",
        _PMEM,
    ),
    Mutant(
        "a pool half on tmpfs passes for durable",
        "settle",
        "elif is_volatile(segment):\n            nothing = True",
        "elif is_volatile(segment):\n            pages = True",
        _PMEM,
    ),
    Mutant(
        "a file shorter than its mapping is mapped",
        "prepare",
        "if S_ISREG(info.st_mode) and not region_holds(info.st_size, offset, length):",
        "if False:",
        _PMEM,
    ),
    Mutant(
        "a region is closed under a view",
        "Region.close",
        "if self.exports:",
        "if False:",
        _PMEM,
    ),
    Mutant(
        "a forked child may use its parent's lanes",
        "Replicator.usable",
        "if self.born != fork_generation:",
        "if False:",
        ("tests/unit/test_pool_local.py", "tests/integration/test_pool.py"),
    ),
    Mutant(
        "PMDK: a reply nobody waits for is taken",
        "pmdk_complete",
        "or link.answered == link.sequence:",
        "or False:",
        ("tests/faults/test_hostile_target.py",),
    ),
    Mutant(
        "PMDK: a persist does not wait",
        "waiting",
        "if link.outstanding or link.answered != link.sequence:",
        "if link.outstanding:",
        ("tests/interop/test_ours_against_original_rpmemd.py",),
    ),
    Mutant(
        "PMDK: a deep persist is an ordinary one",
        "general_ranges",
        "mode = PMDK_DEEP_PERSIST",
        "mode = PMDK_FLUSH_WRITE",
        ("tests/unit/test_steps_posts.py",),
    ),
)
