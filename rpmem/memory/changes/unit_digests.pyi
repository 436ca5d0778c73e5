from rpmem.memory.region import Region

def unit_digests(region: Region, offset: int, length: int, unit: int, key: bytes) -> bytes:
    """Return digests of the units of a range, one behind the other."""
