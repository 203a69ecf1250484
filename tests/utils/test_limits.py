"""utils/limits.py: how much memory there is, and which errors say that there is none left."""

import errno
import subprocess
import sys

import pytest

from utils import limits


def test_the_limits_of_control_groups(tmp_path):
    own = tmp_path / "own"
    own.write_text("4:memory:/docker/a\n3:cpu:/b\n0::/jobs/run\n")
    for folder, name, value in (
        ("memory", "memory.limit_in_bytes", "9000"),
        ("memory/docker/a", "memory.limit_in_bytes", "7000"),
        ("", "memory.max", "max"),
        ("jobs", "memory.max", "8000"),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_text(value)
    assert set(limits._control_groups(tmp_path, own)) == {9000, 7000, 8000}
    assert list(limits._control_groups(tmp_path, tmp_path / "none")) == []


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v has no effect elsewhere")
def test_the_limit_of_the_shell():
    code = "from utils.limits import memory; print(memory())"
    shell = f"ulimit -v 1000000; {sys.executable} -c '{code}'"
    said = subprocess.run(["bash", "-c", shell], capture_output=True, text=True).stdout
    size, place = eval(said)
    assert "ulimit -v" in place and 0.9e9 < size < 1.024e9
    assert limits.memory()[0] > 1e9 and limits.resident() > 1e7


@pytest.mark.parametrize(
    "error, expected",
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True),
        (ImportError("cannot import name 'x'"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_say_that_there_is_no_memory(error, expected):
    assert limits.out_of_memory(error) is expected
