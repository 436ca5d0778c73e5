"""Figures over RDMA devices: rpmem, raw libibverbs, librpma and perftest, in one run.

``scripts/test-rdma --figures`` runs ``python -m benchmarks.rdma`` in the emulated machine of
``tests/rdma/bench`` and writes docs/benchmarks-rdma.md; on a machine with a device it runs
directly.
"""
