"""Which pages of a region were written: as the kernel saw it, or by their digests."""
