"""Memory that threads have freed goes back to where others can have it."""

from __future__ import annotations

import ctypes
import sys

ARENAS = 2
_M_ARENA_MAX = -8
"""Of glibc's malloc.h."""


def share_arenas() -> None:
    """Have all threads of this process allocate from a few arenas of glibc's.

    By default there are eight for each processor, and each keeps for itself what was freed in it: threads that come and
    go with every download leave all of them half empty. Elsewhere than with glibc it does nothing.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_ARENA_MAX, ARENAS)
