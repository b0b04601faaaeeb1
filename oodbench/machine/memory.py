"""Memory use of this process: at present, and its peak."""

import ctypes
from contextlib import suppress
from pathlib import Path


def forget_peak() -> bool:
    """Reset the peak of memory use; False if the system does not support it (Linux does)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_mib() -> float | None:
    """Peak memory use in MiB since ``forget_peak``; None if the system does not tell."""
    return _status("VmHWM")


def resident_mib() -> float | None:
    """Present memory use in MiB; None if the system does not tell."""
    return _status("VmRSS")


def give_back() -> None:
    """Give memory that is free back to the system, which the allocator of several threads keeps otherwise."""
    with suppress(OSError, AttributeError):  # of another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> float | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), None)
