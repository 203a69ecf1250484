"""Progress of training, on a terminal as a bar and elsewhere as lines, and in TensorBoard."""

import math
import re
import shutil
import struct
import sys
import textwrap
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15
BAR = "{desc} |{bar}| {rate_noinv_fmt}, {remaining} left{postfix}"  # in 80 columns too


class Progress:
    """Shows the losses, the speed and the time left of a stage.

    name: of the stage, as shown. done, total: steps. log: file for the warnings, or None. terms:
    {term of the loss: its plain name}; other terms are shown under their own names.
    """

    def __init__(
        self,
        name: str,
        done: int,
        total: int,
        quiet: bool = False,
        log: Path | None = None,
        terms: Mapping[str, str] | None = None,
    ):
        self.name, self.done, self.total, self.quiet, self.log = name, done, total, quiet, log
        self.terms, self.troubles = terms or {}, {}
        self.began, self.first, self.last_line = time.monotonic(), done, -math.inf
        self.bar = None
        if not quiet and sys.stderr.isatty():
            given = {"total": total, "initial": done, "desc": name, "unit": " steps"}
            self.bar = tqdm(**given, dynamic_ncols=True, bar_format=BAR)

    def begin(self, done: int) -> None:
        """Start again at step `done`, where the stage is resumed."""
        self.done = self.first = done
        self.began = time.monotonic()
        if self.bar is not None:
            self.bar.reset(self.total)
            self.bar.update(done)

    def step(self) -> None:
        """Count one step."""
        self.done += 1
        if self.bar is not None:
            self.bar.update()

    def epoch(self, number: int, last: int, losses: Mapping[str, Sequence[float]]) -> None:
        """Show the losses of epoch `number` of `last`: {term: (raw, weighted)} per sequence.

        The terms have a line of their own, at most every SECONDS_BETWEEN_LINES.
        """
        loss = f"loss {sum(weighted for _, weighted in losses.values()):.1f}"
        if self.troubles:
            loss += f"  ! {', '.join(self.troubles)}"
        if self.bar is not None:
            self.bar.set_description_str(f"{self.name}  epoch {number}/{last}", refresh=False)
            self.bar.set_postfix_str(loss)
        now = time.monotonic()
        if self.quiet or (now - self.last_line < SECONDS_BETWEEN_LINES and number != last):
            return
        self.last_line = now
        if self.bar is None:
            speed = (self.done - self.first) / max(now - self.began, 1e-9)
            left = timedelta(seconds=int((self.total - self.done) / max(speed, 1e-9)))
            rate = f"{speed:.2f} steps/s  {left} left"
            self.say(f"{self.name}  epoch {number}/{last}  {rate}  {loss}")
        parts = ", ".join(
            f"{self.terms.get(name, name)} {raw:.1f}"
            + (f" (weighted {weighted:.1f})" if abs(weighted - raw) > 0.05 else "")
            for name, (raw, weighted) in losses.items()
        )
        line = f"  epoch {number}, nats per sequence: {parts}"
        width = shutil.get_terminal_size().columns if self.bar is not None else len(line)
        self.say("\n".join(textwrap.wrap(line, width, subsequent_indent="    ")))

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self.quiet:
            return
        if self.bar is not None:
            self.bar.write(text)
        else:
            print(text, flush=True)

    def warn(self, text: str) -> None:
        """Print a line on stderr, even with --quiet, and add it to the log."""
        write = print if self.bar is None else self.bar.write
        write(f"{self.name}: {text}", file=sys.stderr)
        if self.log is not None:
            with open(self.log, "a") as file:
                file.write(f"{datetime.now().isoformat(' ', 'seconds')}  {self.name}: {text}\n")

    def trouble(self, warnings: dict[str, str]) -> None:
        """Show the keywords of {keyword: line} beside the losses; print the lines of new ones."""
        for keyword in warnings.keys() - self.troubles.keys():
            self.warn(warnings[keyword])
        self.troubles = warnings

    def close(self) -> None:
        """End the bar and leave it on the terminal."""
        if self.bar is not None:
            self.bar.close()


def turn_of(path: Path) -> int:
    """Which of a stage's files of TensorBoard this is, from 1; 0 in files of earlier versions."""
    match = re.search(r"\.turn(\d+)$", path.name)
    return int(match.group(1)) if match else 0


@contextmanager
def tensorboard(
    folder: Path, wanted: bool, begin: int | None, origin: dict[str, str]
) -> Generator[Callable]:
    """Give a function log(tag, value, epoch) that writes into `folder`.

    A value is a number, a picture [H, W, 3], the bytes of a GIF, or a dict of hyperparameters,
    which TensorBoard shows beside the numbers. The file is made when something is first logged.

    wanted: if False, the function does nothing. begin: the next epoch; TensorBoard drops what a
    killed run logged from there on; None: nothing is dropped. origin: commit and machine, logged as
    text.
    """
    if not wanted:
        yield lambda tag, value, epoch: None
        return
    writer, logged = None, []

    def log(tag, value, epoch):
        nonlocal writer
        if writer is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            turn = 1 + max(map(turn_of, folder.glob("events.*")), default=0)
            writer = SummaryWriter(str(folder), purge_step=begin, filename_suffix=f".turn{turn}")
            text = ", ".join(f"{key} {value}" for key, value in origin.items())
            if text:
                writer.add_text("origin", text, begin)
        file: Any = writer.file_writer
        if isinstance(value, np.ndarray):
            writer.add_image(tag, value, epoch, dataformats="HWC")
        elif isinstance(value, bytes):
            from tensorboard.compat.proto.summary_pb2 import Summary  # ty: ignore

            # torch's add_video needs moviepy to make the GIF that is there already
            width, height = struct.unpack("<HH", value[6:10])
            size = {"height": height, "width": width, "colorspace": 3}
            image = Summary.Image(encoded_image_string=value, **size)
            summary = Summary(value=[Summary.Value(tag=tag, image=image)])
            file.add_summary(summary, epoch)
        elif isinstance(value, dict):
            from torch.utils.tensorboard.summary import hparams

            for summary in hparams(value, dict.fromkeys(logged)):
                file.add_summary(summary)
        else:
            writer.add_scalar(tag, value, epoch)
            logged.append(tag)

    try:
        yield log
    finally:
        if writer is not None:
            writer.close()


def log_epoch(log: Callable, epoch: int, losses: Mapping, schedules: Mapping, steps: Mapping):
    """Log an epoch: losses {term: (raw, weighted)}, and {tag: value} of schedules and of steps."""
    log("total loss", sum(weighted for _, weighted in losses.values()), epoch)
    for term, (raw, weighted) in losses.items():
        log("loss/" + term, raw, epoch)
        log("weighted loss/" + term, weighted, epoch)
    for tag, value in {**schedules, **{f"training/{n}": v for n, v in steps.items()}}.items():
        if value is not None:
            log(tag, value, epoch)


def log_figures(log: Callable, epoch: int, figures: Mapping, settings: Mapping) -> None:
    """Log the figures of an evaluation after `epoch`.

    settings: the flags, which TensorBoard shows beside the figures as hyperparameters.
    """
    for name, value in figures.items():
        log(f"figures/{name}", value, epoch)
    plain = {n: v if isinstance(v, (bool, int, float)) else str(v) for n, v in settings.items()}
    log("hparams", plain, epoch)
