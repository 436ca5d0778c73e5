"""What is mapped at an address of this process, as the kernel lists it."""

from __future__ import annotations

#: Files that only exist in memory.
_OF_MEMORY = (b"/memfd:", b"/SYSV", b"/dev/zero (deleted)")


def files_at(address: int, length: int) -> set[bytes]:
    """Return the paths of the files that are mapped there, but for those that are only memory."""
    return {
        path
        for low, high, _, path in _mappings()
        if low < address + length and high > address
        if path.startswith(b"/") and not path.startswith(_OF_MEMORY)
    }


def is_shared(address: int, length: int) -> bool:
    """Return whether all that is mapped there may be unmapped, and then comes back as it was."""
    end = address
    for low, high, modes, _ in _mappings():
        if low <= end < high and modes.endswith(b"s"):
            end = high
    return end >= address + length


def _mappings() -> list[tuple[int, int, bytes, bytes]]:
    """Return begin, end, modes and path of each mapping, in order."""
    found = []
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            span, modes, _, _, _, *path = line.rstrip(b"\n").split(None, 5)
            low, _, high = span.partition(b"-")
            found.append((int(low, 16), int(high, 16), modes, path[0] if path else b""))
    return found
