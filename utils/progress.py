"""What a person sees while a run trains: a bar on a terminal, plain lines elsewhere, nothing with --quiet; and TensorBoard."""

import math
import sys
import time
from contextlib import contextmanager
from datetime import datetime

import numpy as np
from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15


class Progress:
    """Steps `done` of `total` of a stage, with the last losses, steps a second and the time left.

    log: a file that warnings are written to as well, or None.
    """

    def __init__(self, name, done, total, quiet=False, log=None):
        self.name, self.done, self.total, self.quiet, self.log = name, done, total, quiet, log
        self.troubles = {}
        self.began, self.first, self.last_line = time.monotonic(), done, -math.inf
        self.bar = None
        if not quiet and sys.stderr.isatty():
            self.bar = tqdm(total=total, initial=done, desc=name, unit="step", dynamic_ncols=True)

    def begin(self, done):
        """Steps are counted from `done` on: the stage is resumed there."""
        self.done = self.first = done
        self.began = time.monotonic()
        if self.bar is not None:
            self.bar.reset(self.total)
            self.bar.update(done)

    def step(self):
        """One more step is done."""
        self.done += 1
        if self.bar is not None:
            self.bar.update()

    def epoch(self, number, last, losses):
        """Show the losses, {term: (raw, weighted)} in nats a sequence, after epoch `number` of `last`."""
        text = "  ".join(
            f"{name} {raw:.1f}" + (f" ({w:.1f})" if abs(w - raw) > 0.05 else "")
            for name, (raw, w) in losses.items()
        )
        if self.troubles:
            text += f"  ! {', '.join(self.troubles)}"
        if self.bar is not None:
            self.bar.set_postfix_str(text)
            return
        now = time.monotonic()
        if self.quiet or (now - self.last_line < SECONDS_BETWEEN_LINES and number != last):
            return
        self.last_line = now
        speed = (self.done - self.first) / max(now - self.began, 1e-9)
        left = (self.total - self.done) / max(speed, 1e-9)
        print(
            f"{self.name}  epoch {number}/{last}  {text}  {speed:.2f} steps/s  {_clock(left)} left",
            flush=True,
        )

    def say(self, text):
        """A line of its own, above the bar."""
        if self.quiet:
            return
        if self.bar is not None:
            self.bar.write(text)
        else:
            print(text, flush=True)

    def warn(self, text):
        """A line on stderr, --quiet or not, and in the log."""
        (self.bar.write if self.bar is not None else print)(f"{self.name}: {text}", file=sys.stderr)
        if self.log is not None:
            with open(self.log, "a") as file:
                file.write(f"{datetime.now().isoformat(' ', 'seconds')}  {self.name}: {text}\n")

    def trouble(self, found):
        """Show what is wrong now, {in a word: a line}, beside the losses; a line is said once, when it begins."""
        for word in found.keys() - self.troubles.keys():
            self.warn(found[word])
        self.troubles = found

    def close(self):
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()


@contextmanager
def tensorboard(folder, wanted, begin, origin):
    """A function log(tag, value or picture [H, W, 3], epoch) that writes to TensorBoard in `folder`, or nowhere if not `wanted`.

    begin: the first epoch to come; what a killed run logged of it and later is taken back. origin: commit and machine, logged as
    text.
    """
    if not wanted:
        yield lambda tag, value, epoch: None
        return
    from torch.utils.tensorboard import SummaryWriter  # slow to import

    with SummaryWriter(str(folder), purge_step=begin) as writer:
        writer.add_text(
            "origin", ", ".join(f"{key} {value}" for key, value in origin.items()), begin
        )

        def log(tag, value, epoch):
            if isinstance(value, np.ndarray):
                writer.add_image(tag, value, epoch, dataformats="HWC")
            else:
                writer.add_scalar(tag, value, epoch)

        yield log


def _clock(seconds):
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
