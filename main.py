"""The command line: flags -> settings of each stage -> the task. `--help` lists the flags."""

import _signal  # ty: ignore[import-not-found]  # `signal` would first import other modules
import os
import sys

if __name__ == "__main__":
    # Ctrl-C during the imports below ends in one line; afterwards `main` answers it

    def stop_at_once(*_):
        if os.environ.get("RANK", "0") == "0":
            os.write(2, b"\nmain.py: stopped before it began\n")
        os._exit(130)

    _signal.signal(_signal.SIGINT, stop_at_once)

import warnings
from pathlib import Path

from utils import distributed
from utils.errors import BROKEN_PIPE, UserError, broken_pipe, refuse_other_text, warn
from utils.flags import without
from utils.limits import MEMORY_FLAGS, out_of_memory
from utils.plan import opening_lines, parse, with_sizes


def prepared(plan):
    """The data set of each stage, {name: data.base.Dataset}.

    Mistakes that need no torch to be seen are told here, because importing torch takes seconds.
    """
    import data
    from utils import guards, signals

    for name in plan.training:
        distributed.refuse_uneven(plan.stages[name].batch_size)
    if distributed.rank() == 0:
        guards.refuse_at_once(plan)
    distributed.join(plan.first.device, plan.first.process_timeout)
    loaded = {}
    signals.tell_of_cut_files(lambda: next(filter(None, (d.cut() for d in loaded.values())), None))
    asked = {name: plan.stages[name] for name in plan.asked}
    loaded |= distributed.first_before_others(lambda: data.load_stages(asked))
    return loaded


def trains(plan):
    """Whether the command trains; several processes do nothing else together."""
    other = any(s.dry_run or s.convert or s.on_files or s.shares for s in plan.stages.values())
    return bool(plan.training) and not other


def report(settings):
    """Write the report of the run, and warn of each part that it leaves out."""
    from metrics.results import renew
    from pictures.report import write_report
    from utils.run_folder import RunFolder

    renew(RunFolder(settings).metrics)
    path, left_out = write_report(settings)
    for line in left_out:
        warn(f"report: {line}")
    print(f"report: {path}")


def warn_of_memory(error):
    """Say in one line that memory ran out, and what to lower."""
    what = str(error).strip().splitlines() or [type(error).__name__]
    lower = f"lower {MEMORY_FLAGS} (--dry_run True says what they need)"
    warn(f"out of memory ({what[0]}): {lower}; the saved checkpoints are whole")


def main(argv):
    """Run the command with the flags `argv` and return the exit code.

    A mistake that the user can mend gives one line on stderr and code 2.
    """
    try:
        # a command copied from a web page may hold non-breaking spaces, which a shell keeps
        argv = [part.strip("\xa0") for part in argv if part.strip("\xa0") or not part]
        refuse_other_text(argv)
        plan = with_sizes(parse(argv), argv)
        if not trains(plan):
            if distributed.rank():
                return 0
            distributed.go_on_alone()
        for line in opening_lines(plan):
            print(line, flush=True)
        # huge pages for tensors: torch reads this variable when it is imported
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        warnings.filterwarnings("ignore", message="CUDA initialization")
        settings = plan.first
        if settings.convert is not None:
            if not Path(settings.convert).exists():
                raise UserError(f"cannot read {settings.convert}: found no such file")
            from convert import convert

            convert(settings, argv)
        elif any(settings.dry_run for settings in plan.stages.values()):
            from dry_run import dry_run

            dry_run(plan)
        elif settings.on_files:
            from use import use

            use(settings, argv)
        elif settings.shares:
            from share import share

            share(settings, argv)
        else:
            datasets = prepared(plan)
            from needs import refuse_too_large
            from train_test import run

            if distributed.rank() == 0:
                refuse_too_large(plan)
            run(plan, argv, datasets)
            if distributed.rank() == 0 and any(s.report for s in plan.stages.values()):
                report(settings)
        sys.stdout.flush()
    except distributed.Lost:
        return 2
    except UserError as error:
        if distributed.tells():
            warn(" ".join(str(error).split()))  # a library's message may have several lines
        return 2
    except (MemoryError, RuntimeError, ImportError, OSError) as error:
        if distributed.lost(error):
            if distributed.tells():
                resume = distributed.command(without(argv, "--fresh"))
                warn(f"{distributed.ENDED}; resume from the newest checkpoint with: {resume}")
            return 2
        if out_of_memory(error):
            if distributed.tells():
                warn_of_memory(error)
            return 2
        if not isinstance(error, OSError):
            raise
        if broken_pipe(error):
            warn("stopped: the program that read the output has ended")
            return BROKEN_PIPE
        if error.filename is None and error.errno is None:
            raise  # no file is to blame: a bug of ours
        place = error.filename or "a file of the run"
        warn(f"{place}: {error.strerror}: check the folder and its free space")
        return 2
    except KeyboardInterrupt as stop:
        if distributed.rank() == 0:
            distributed.tells()  # so that the others stay silent
            print(file=sys.stderr)
            resume = distributed.command(without(argv, "--fresh"))
            warn(f"stopped; resume from the newest checkpoint with: {resume}")
        return getattr(stop, "code", 130)
    return 0


if __name__ == "__main__":
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    distributed.quieten()
    distributed.leave(main(sys.argv[1:]))
