"""Runs main.py with a clock in it: `python -m benchmarks.instrument FILE COMMAND_TIME FLAGS...`.

The parts of a run are functions of the program (PARTS). Each is replaced, from outside and as soon
as its module is imported, by one that charges its time to its part. A part does not count the time
of the parts within it, so that the parts add up to the whole. Nothing here imports torch, and the
program itself holds no clock. `benchmarks.run` starts this module and reads FILE.
"""

import builtins
import functools
import importlib
import json
import sys
import threading
import time
from pathlib import Path

STARTING, IMPORTS, OTHER = "starting python", "imports", "everything else"
OUTSIDE = "outside the stages"
STEPS, PICTURES, EVALUATION = "training steps", "pictures", "evaluation"
# {module:function: part}
PARTS = {
    "data:load": "data",
    "train_test:begin": "weights and start",
    "train_test:attempt": STEPS,
    "models.vdsm.stages:SeqStage.codes": "frozen codes",
    "train_test:end_of_epoch": "logs and warnings",
    "train_test:validation_loss": "validation losses",
    "train_test:draw_stage": PICTURES,
    "utils.checkpoints:Saver.save": "checkpoints",
    "utils.checkpoints:Saver.wait": "checkpoints",
    "train_test:evaluate": EVALUATION,
    "metrics.evaluate:load_or_train_judge": "training the judge",
    "train_test:export": "export",
    "pictures.report:write_report": "report",
}
BEHIND = {
    "utils.checkpoints:Saver._write": "checkpoints, in the background"
}  # threads of their own
STAGE, STEP = "train_test:train", "utils.progress:Progress.step"


class Clock:
    """Charges the main thread's time to parts, by stage. command: time.time() of the command."""

    def __init__(self, command: float):
        self.seconds, self.behind = {}, {}  # {stage: {part: seconds}}
        self.steps, self.first_step = {}, None
        self.command, self.stage = command, OUTSIDE
        self.open, self.since = [STARTING], command
        self.thread = threading.get_ident()

    def mark(self) -> None:
        """Charge the time since the last mark to the innermost part."""
        now, parts = time.time(), self.seconds.setdefault(self.stage, {})
        parts[self.open[-1]] = parts.get(self.open[-1], 0.0) + now - self.since
        self.since = now

    def part(self, name: str, function):
        """`function`, whose time in the main thread is charged to the part `name`."""

        @functools.wraps(function)
        def timed(*args, **kwargs):
            if threading.get_ident() != self.thread:
                return function(*args, **kwargs)
            self.mark()
            self.open.append(name)
            try:
                return function(*args, **kwargs)
            finally:
                self.mark()
                self.open.pop()

        return timed

    def in_background(self, name: str, function):
        """`function`, whose time is added to `name`, whatever the main thread does."""

        @functools.wraps(function)
        def timed(*args, **kwargs):
            start = time.time()
            try:
                return function(*args, **kwargs)
            finally:
                parts = self.behind.setdefault(self.stage, {})
                parts[name] = parts.get(name, 0.0) + time.time() - start

        return timed

    def of_stage(self, function):
        """train_test.train, whose time is charged to its stage."""

        @functools.wraps(function)
        def timed(settings, name, *args, **kwargs):
            self.mark()
            self.stage = f"stage {settings.number(name)}"
            try:
                return function(settings, name, *args, **kwargs)
            finally:
                self.mark()
                self.stage = OUTSIDE

        return timed

    def counted(self, function):
        """Progress.step, which the training loop calls after each optimiser step."""

        @functools.wraps(function)
        def step(*args, **kwargs):
            if self.first_step is None:
                self.first_step = time.time() - self.command
            self.steps[self.stage] = self.steps.get(self.stage, 0) + 1
            return function(*args, **kwargs)

        return step

    def wrappers(self) -> dict:
        """{module:function: what replaces it, as a function of the function}."""
        of = {name: functools.partial(self.part, part) for name, part in PARTS.items()}
        of |= {n: functools.partial(self.in_background, part) for n, part in BEHIND.items()}
        return of | {STAGE: self.of_stage, STEP: self.counted}


def replace(name: str, wrap) -> None:
    """Replace the function `name`, 'module:function' or 'module:Class.function', by wrap(it)."""
    module, path = name.split(":")
    *owners, last = path.split(".")
    owner = functools.reduce(getattr, owners, sys.modules[module])
    setattr(owner, last, wrap(getattr(owner, last)))


def watch_imports(clock: Clock) -> dict:
    """Charge imports to their part, and let them bring in the wrappers of the functions.

    Returns the wrappers that wait for their module.
    """
    waiting, inside = clock.wrappers(), [False]

    def charged(importing):
        timed = clock.part(IMPORTS, importing)

        @functools.wraps(importing)
        def load(*args, **kwargs):
            # An import that runs others is charged as a whole.
            if inside[0] or threading.get_ident() != clock.thread:
                return importing(*args, **kwargs)
            inside[0] = True
            try:
                module = timed(*args, **kwargs)
            finally:
                inside[0] = False
            for name in [name for name in waiting if imported(name)]:
                replace(name, waiting.pop(name))
            return module

        return load

    importlib.import_module = charged(importlib.import_module)
    builtins.__import__ = charged(builtins.__import__)
    return waiting


def imported(name: str) -> bool:
    """Whether the module of the function `name` is imported to its end."""
    module = sys.modules.get(name.split(":")[0])
    return module is not None and not getattr(module.__spec__, "_initializing", False)


def main(argv: list[str]) -> int:
    file, command, *flags = argv
    clock = Clock(float(command))
    waiting = watch_imports(clock)
    import main as program

    clock.mark()
    clock.open[0] = OTHER
    code = program.main(flags)
    clock.mark()
    figures = {
        "seconds": clock.seconds,
        "background": clock.behind,
        "steps": clock.steps,
        "first step": clock.first_step,
        "code": code,
        "not imported": list(waiting),
        "ended": time.time(),
    }
    Path(file).write_text(json.dumps(figures))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
