"""python -m tests.torture --minutes M: kill, damage and mistake, for as long as you like.

Prints a table (class, tried, passed, failed) and for each failure the command that repeats it.
docs/RELIABILITY.md says what is promised. Needs Linux. The exit status is 1 if anything failed.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"  # before torch is imported

from tests.torture import work  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the torture and print its table. Returns 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long [1]")
    parser.add_argument("--only", nargs="+", choices=work.CLASSES, help="classes [all]")
    parser.add_argument("--seed", type=int, default=0, help="decides every case [0]")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time [1]")
    parser.add_argument("--count", type=int, help="cases of each class, in place of --minutes")
    parser.add_argument("--case", type=int, help="one case of one class, told in full; it is kept")
    given = parser.parse_args(argv)
    names = given.only or list(work.CLASSES)
    if given.case is not None:
        if len(names) != 1:
            parser.error("--case goes with --only CLASS")
        scratch = Path(tempfile.mkdtemp(prefix="torture-"))
        work.ready(scratch)
        result = work.one(names[0], given.seed, given.case, scratch, keep=True)
        print(*result.notes, result.failure or "passed", f"kept in {scratch}", sep="\n")
        return int(bool(result.failure))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # shows the table
    results, began = [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-") as scratch:
        try:
            for result in work.torture(names, given, Path(scratch)):
                results.append(result)
                if result.failure:
                    print(f"{result.command}\n    {result.failure}", flush=True)
        except KeyboardInterrupt:
            pass  # the table shows what there is
    print(work.table(names, results, (time.monotonic() - began) / 60))
    return int(any(result.failure for result in results))


if __name__ == "__main__":
    sys.exit(main())
