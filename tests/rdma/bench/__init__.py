"""The bench: an emulated machine with RDMA devices and persistent memory, made of packages.

``python -m tests.rdma.bench`` (``make test-rdma``) fetches a kernel and a userland, builds the
project for that userland, boots it in QEMU and runs the tests of ``tests/rdma`` inside.
Nothing is installed, and no hardware is used, not even for virtualization.
"""
