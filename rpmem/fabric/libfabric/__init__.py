"""Lanes over libfabric."""
