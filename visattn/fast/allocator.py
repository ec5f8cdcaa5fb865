"""Make glibc keep freed memory, since touching a page for the first time is very slow on virtual machines.

PyTorch's CPU tensors come from malloc. By default glibc returns blocks above a threshold to the kernel when they are
freed, and the next training step faults in every page again. `VISATTN_KEEP_FREED_MEMORY=0` in the environment, or
`VISATTN_FAST=0`, keeps this default.
"""

import ctypes
import logging
import os
import sys

from visattn.fast import enabled

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_THRESHOLD = 32 * 1024**2  # HEAP_MAX_SIZE / 2, the maximum in glibc

log = logging.getLogger(__name__)
_kept = False


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory for this process; call it before anything large is allocated.

    Returns:
        Whether it was done: on Linux with glibc, unless switched off.
    """
    if sys.platform != "linux" or not enabled() or os.environ.get("VISATTN_KEEP_FREED_MEMORY") == "0":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    done = bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
    global _kept
    _kept = done
    if done:
        log.debug("glibc keeps freed memory for this process (VISATTN_KEEP_FREED_MEMORY=0 switches that off)")
    return done


def freed_memory_is_kept() -> bool:
    """Whether `keep_freed_memory` has succeeded in this process."""
    return _kept
