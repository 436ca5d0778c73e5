# Nothing here is visible to Python: rpmem.fabric.stream.handshake uses it.
