"""Where the numbers of a stage go: to TensorBoard's files and, with --track, to trackio or W&B."""

import dataclasses
import importlib
import io
import json
import os
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from utils.errors import in_short
from utils.files import read_json, write_bytes
from utils.progress import Progress, tensorboard
from utils.run_folder import RunFolder
from utils.settings import RunSettings

PROJECT = "vdsm-in-practice"
UPLOAD = 60  # seconds for which W&B may upload the rest when a stage ends; `wandb sync` does more


class Tracker:
    """The run of one stage in trackio or W&B. An error there is told once and never raised.

    again: send epochs that were sent before, too. Otherwise a resumed run leaves them out.
    """

    failed: set[Path] = set()  # folders of runs that have lost their tracker

    def __init__(
        self,
        folder: RunFolder,
        stage_name: str,
        settings: RunSettings,
        progress: Progress,
        again: bool,
    ):
        self.name, self.root = settings.track, folder.root
        self.progress, self.again = progress, again
        self.file = self.root / f"{self.name}_{stage_name}.json"
        self.sent = {}  # what the tracker has: 'id' of the run, the last 'epoch', number of 'rows'
        self.run, self.row, self.epoch = None, {}, 0
        if self.root in self.failed:
            return
        name = f"{settings.RUN}-{stage_name}"
        with self._harmless(), self._silent():
            if self.file.exists():
                self.sent = dict(read_json(self.file))
            self.run = self._begin(name, settings)
        if self.run is not None:
            place = getattr(self.run, "url", None) or f"run {name} of its project {PROJECT}"
            progress.say(f"{progress.name}: tracked by {self.name}: {place}")

    def _begin(self, name, settings) -> Any:
        """A new run in the tracker, or the one that `self.sent` tells of."""
        tracker = importlib.import_module(self.name)
        given = {"project": PROJECT, "name": name, "group": settings.RUN}
        given |= {"config": plain(settings), "resume": "allow" if self.sent else "never"}
        if self.name == "trackio":  # it finds the run by its name
            return tracker.init(**given)
        # no text of the terminal, and no paths, command or packages of this machine
        options: dict[str, Any] = {"silent": True, "console": "off", "finish_timeout": UPLOAD}
        options |= {"x_disable_meta": True, "x_save_requirements": False}
        options |= {"disable_git": True, "save_code": False}
        known = {n: v for n, v in options.items() if n in tracker.Settings.model_fields}
        given |= {"id": self.sent.get("id"), "dir": str(self.root)}
        run = tracker.init(**given, settings=tracker.Settings(**known))
        run.define_metric("epoch")
        run.define_metric("*", step_metric="epoch")
        return run

    def add(self, tag: str, value: Any, epoch: int) -> None:
        """Keep a number for the next `flush`. Pictures, animations and dicts are passed over."""
        if self.run is None or isinstance(value, (bytes, dict)) or getattr(value, "ndim", 0):
            return
        with self._harmless():
            if self.again or epoch > self.sent.get("epoch", -1):
                self.row[tag], self.epoch = float(value), epoch

    def flush(self) -> None:
        """Send the numbers of an epoch."""
        row, self.row = self.row, {}
        if self.run is None or not row:
            return
        with self._harmless():
            rows = self.sent.get("rows", 0)
            if self.name == "trackio":
                self.run.log(row, step=self.epoch)
            else:  # W&B drops a row whose step is not above all steps before
                self.run.log(row | {"epoch": self.epoch}, step=rows)
            last = max(self.epoch, self.sent.get("epoch", -1))
            self.sent = {"id": self.run.id, "epoch": last, "rows": rows + 1}
            write_bytes(self.file, json.dumps(self.sent).encode(), sync=False)

    def close(self) -> None:
        """Send the rest and end the run, which a later command can resume."""
        self.flush()
        if self.run is not None:
            with self._harmless(), self._silent():
                importlib.import_module(self.name).finish()

    @contextmanager
    def _harmless(self):
        """Make one warning of an error in the block; from then on, the run is not tracked."""
        try:
            yield
        except Exception as error:  # the libraries have no common class of errors
            self.progress.warn(f"--track {self.name}: {in_short(error)}: goes on without it")
            self.failed.add(self.root)
            self.run = None

    @contextmanager
    def _silent(self):
        """Print nothing of the library, so that it asks nothing, and raise what it warns of."""
        text = io.StringIO()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with redirect_stdout(text), redirect_stderr(text):
                yield
        for warning in told:
            if warning.category is UserWarning and self.name in Path(warning.filename).parts:
                raise RuntimeError(warning.message)


class Log:
    """log(tag, value, epoch) hands a value to every sink. See `sinks`."""

    def __init__(self, events: Callable, trackers: list[Tracker]):
        self.events, self.trackers = events, trackers

    def __call__(self, tag: str, value: Any, epoch: int) -> None:
        self.events(tag, value, epoch)
        for tracker in self.trackers:
            tracker.add(tag, value, epoch)

    def flush(self) -> None:
        """Say that the values of an epoch are complete."""
        for tracker in self.trackers:
            tracker.flush()


@contextmanager
def sinks(
    folder: RunFolder,
    stage_name: str,
    settings: RunSettings,
    progress: Progress,
    begin: int | None = None,
    origin: dict[str, str] | None = None,
    wanted: bool = True,
) -> Generator[Log]:
    """Give the `Log` of a stage, for --tboard_log and --track. Not wanted: it does nothing.

    begin and origin: see `utils.progress.tensorboard`. begin None: a value of any epoch is taken.
    """
    place, trackers = folder.tensorboard / stage_name, []
    with tensorboard(place, wanted and settings.tboard_log, begin, origin or {}) as events:
        if wanted and settings.track != "none":
            trackers = [Tracker(folder, stage_name, settings, progress, again=begin is None)]
        try:
            yield Log(events, trackers)
        finally:
            for tracker in trackers:
                tracker.close()


def plain(settings: RunSettings) -> dict:
    """The flags as values of JSON; of an absolute path, which tells of the machine, the name."""

    def of(value):
        if isinstance(value, (list, tuple)):
            return [of(one) for one in value]
        hidden = isinstance(value, str) and os.path.isabs(value)
        return Path(value).name if hidden else value

    return {name: of(value) for name, value in dataclasses.asdict(settings).items()}
