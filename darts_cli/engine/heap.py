"""Giving freed memory back to the system."""

import ctypes
from functools import cache
from typing import Any


class _Mallinfo2(ctypes.Structure):
    """What glibc's `mallinfo2` returns; `fordblks` are the bytes in free blocks."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks")),
        ("keepcost", ctypes.c_size_t),
    )


@cache
def _glibc() -> Any:
    """The C library where it is glibc 2.33 or newer, else None."""
    try:
        library = ctypes.CDLL("libc.so.6")
        library.mallinfo2.restype = _Mallinfo2
        _ = library.malloc_trim
    except (OSError, AttributeError):
        return None
    return library


def give_back_freed(above: int) -> bool:
    """Let glibc return its free blocks, if they are more than `above` bytes.

    Torch asks for aligned blocks, and until version 2.38 glibc puts no aligned
    block where one of the same size was: after a few passes as much lies free as
    is in use. Returning it costs a page fault for each page that is used again.

    Returns:
        Whether there was something to return.
    """
    library = _glibc()
    if library is None or library.mallinfo2().fordblks <= above:
        return False
    library.malloc_trim(0)
    return True
