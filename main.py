"""VDSM's command line: flags -> settings of both stages -> train or test. See README.md; `--help` lists the flags."""

import os
import sys
import warnings

from utils.config import parse, preset_lines
from utils.errors import UserError


def main(argv):
    """Run the command with flags `argv`; returns the exit code: 2 with one line on stderr where the user can mend it."""
    try:
        plan = parse(argv)
        for line in preset_lines(plan):
            print(line)
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages for tensors; torch reads it when it is imported
        warnings.filterwarnings("ignore", message="CUDA initialization")
        if any(settings.dry_run for settings in plan.stages.values()):
            from utils.dry_run import dry_run

            dry_run(plan)
        else:
            from train_test import run

            run(plan, argv)
    except UserError as error:
        print(f"main.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("main.py: stopped; the same command goes on from the newest checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
