"""The memory of this process: how much it takes, and what says that there is no more."""

from pathlib import Path


def is_exhausted(error: BaseException) -> bool:
    """Whether an exception says that there is no more memory, of the machine or of a GPU."""
    if isinstance(error, MemoryError):
        return True
    # What torch raises on the CPU has no type of its own, and on a GPU one that is a RuntimeError.
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "out of memory", "could not create a primitive")
    )


def forget_peak() -> bool:
    """Begin to look for a new peak; False where the system has no way to (Linux has)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_mib() -> float | None:
    """MiB that were in use at the most since ``forget_peak``; None where the system does not tell."""
    return _status("VmHWM")


def resident_mib() -> float | None:
    """MiB in use now; None where the system does not tell."""
    return _status("VmRSS")


def _status(field: str) -> float | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), None)
