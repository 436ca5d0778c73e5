"""Lanes over RDMA verbs, without libfabric."""
