"""VDSM's command line: flags -> settings of both stages -> train or test. See README.md; `--help` lists the flags."""

import os
import shlex
import sys
import warnings

from utils.config import opening_lines, parse, without
from utils.errors import UserError


def main(argv):
    """Run the command with flags `argv`; returns the exit code: 2 with one line on stderr where the user can mend it."""
    try:
        # a command copied from a web page brings non-breaking spaces, which a shell takes for words
        argv = [part.strip("\xa0") for part in argv if part.strip("\xa0") or not part]
        plan = parse(argv)
        for line in opening_lines(plan):
            print(line, flush=True)
        os.environ.setdefault(
            "THP_MEM_ALLOC_ENABLE", "1"
        )  # huge pages for tensors; torch reads it when it is imported
        warnings.filterwarnings("ignore", message="CUDA initialization")
        settings = plan.first
        if settings.convert is not None:
            from convert import convert

            convert(settings, argv)
        elif any(settings.dry_run for settings in plan.stages.values()):
            from dry_run import dry_run

            dry_run(plan)
        else:
            from train_test import run

            run(plan, argv)
            if any(settings.report for settings in plan.stages.values()):
                from pictures.report import write_report

                print(f"report: {write_report(next(iter(plan.stages.values())))}")
    except UserError as error:
        return _refuse(error)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise  # of no file: a bug of ours
        return _refuse(
            f"{error.filename or 'a file of the run'}: {error.strerror}: see to the place or to its free space"
        )
    except KeyboardInterrupt as stop:
        command = shlex.join(["python", "main.py", *without(argv, "--fresh")])
        print(
            f"\nmain.py: stopped; it goes on from the newest checkpoint with: {command}",
            file=sys.stderr,
        )
        return getattr(stop, "code", 130)
    return 0


def _refuse(error):
    print(
        "main.py: " + " ".join(str(error).split()), file=sys.stderr
    )  # one line, whatever a library put into its message
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
