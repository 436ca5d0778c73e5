"""The control session between initiator and target, without I/O: bytes in, events out.

Two protocols share one vocabulary: the native one (`rpmem.control.initiator`,
`rpmem.control.target`) and PMDK 0.1 (`rpmem.control.pmdk_initiator`,
`rpmem.control.pmdk_target`). `rpmem.control.handshake` finds out which one is spoken.
"""
