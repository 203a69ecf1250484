"""How much memory this process may take, and the errors that say it took too much.

Nothing here imports torch.
"""

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

MEMORY_FLAGS = "--bs, --seq_len, --frames_per_clip or the sizes of the model"
# what torch, oneDNN, CUDA and the C++ library say when there is no memory left
NO_MEMORY = (
    "can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "bad allocation",
    "cannot allocate memory", "can't start new thread", "could not create a memory",
    "could not create a primitive", "failed to map segment",
    "storage size calculation overflowed", "alloc_failed",
)  # fmt: skip


def human(size: float) -> str:
    """A number of bytes in a suitable unit."""
    if size < 1000:
        return f"{size:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:,.1f} TB"


def resident() -> int:
    """Bytes of memory that this process holds. 0 where the system does not tell."""
    return _status("VmRSS")


def _status(name):
    """A number of bytes in Linux's account of this process; 0 elsewhere."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


def memory() -> tuple[int, str]:
    """Bytes of memory that this process may hold in all, and what sets that limit.

    The smallest of the machine's memory with its swap space, the limits of the control groups, and
    `ulimit -v`, which counts what is reserved: libraries reserve more than they hold.
    """
    limits = [(_machine(), "the machine")]
    limits += [(size, "the memory limit of the container") for size in _control_groups()]
    with suppress(ImportError):  # Windows has no such module
        import resource

        for kind, name in ((resource.RLIMIT_AS, "-v"), (resource.RLIMIT_DATA, "-d")):
            soft = resource.getrlimit(kind)[0]
            if soft != resource.RLIM_INFINITY:
                reserved = _status("VmSize" if name == "-v" else "VmData")
                limits.append((soft - reserved + resident(), f"`ulimit {name}`"))
    return min(limits)


def _machine():
    """Bytes of memory and swap space."""
    with suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        return sizes["MemTotal"] + sizes.get("SwapTotal", 0)
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return sys.maxsize


def _control_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")):
    """Memory limits, bytes, of the control groups (both versions) that this process is in."""
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, kinds, place = line.split(":", 2)
            if kinds not in ("", "memory"):
                continue
            name = "memory.limit_in_bytes" if kinds else "memory.max"
            top, inner = root / kinds, place.strip("/")
            for folder in (top / inner, *(top / inner).parents):
                with suppress(OSError, ValueError):  # 'max': no limit
                    yield int((folder / name).read_text())
                if folder == top:
                    break


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on the CPU or on a GPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, (RuntimeError, ImportError)):
        return any(words in str(error).lower() for words in NO_MEMORY)
    return isinstance(error, MemoryError)
