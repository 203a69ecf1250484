"""CUDA graphs: a function is recorded once, and a GPU then repeats its kernels without the host."""

from collections.abc import Callable
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch

MOST_SENT = 512  # steps whose inputs lie on the device at a time
WARM_UP = 3  # calls before a function is recorded, in which libraries choose and load their kernels


class Recorder:
    """Records functions as CUDA graphs, which share the memory of intermediate results."""

    def __init__(self):
        self.stream, self.pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    @contextmanager
    def warm_up(self):
        """The block runs on the stream that records, as torch asks of the calls before."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            yield
        torch.cuda.current_stream().wait_stream(self.stream)

    def record(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """A function that repeats the kernels of `function()` and returns the same tensors.

        Nothing is computed while recording. Raises RuntimeError if `function` cannot be recorded,
        for instance because it waits for the device.
        """
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                output = function()
        except RuntimeError:
            self._abandon(stream)
            raise

        def repeat():
            graph.replay()
            return output

        return repeat

    def _abandon(self, stream):
        """Undo what torch leaves of a recording that failed, so that plain steps can go on."""
        device = torch.cuda.current_device()
        torch.cuda.set_stream(stream)
        with suppress(RuntimeError):  # where the recording of memory has ended by itself
            torch._C._cuda_endAllocateToPool(device, self.pool)
        # The generator still records its draws. A copy of its state does not.
        generator = torch.cuda.default_generators[device]
        generator.graphsafe_set_state(generator.clone_state())


class Graphs:
    """Calls `function(inputs)` at first plainly, then as a recorded graph.

    inputs: {name: tensor, or a number}. `function` gets tensors that stay in place, into which each
    call copies its own. There is a graph per combination of numbers, recorded after WARM_UP plain
    calls with these. What `function` returns is overwritten by the next call.

    recorder: a `Recorder`; None for plain calls throughout. warn: shows a line if recording fails;
    the plain calls then go on.
    """

    def __init__(self, function: Callable[[dict], Any], recorder: Any, warn: Callable[[str], None]):
        self.function, self.recorder, self.warn = function, recorder, warn
        self.inputs: dict[str, torch.Tensor] = {}
        self.calls: dict[tuple, int] = {}
        self.graphs: dict[tuple, Callable[[], Any]] = {}

    def __call__(self, inputs: dict[str, Any]) -> Any:
        if self.recorder is None:
            return self.function(inputs)
        tensors = {n: value for n, value in inputs.items() if isinstance(value, torch.Tensor)}
        numbers = {n: value for n, value in inputs.items() if n not in tensors}
        for name, value in tensors.items():
            if name not in self.inputs:
                self.inputs[name] = torch.empty_like(value)
            self.inputs[name].copy_(value)
        key = tuple(numbers.items())
        if key in self.graphs:
            return self.graphs[key]()
        fixed = {**numbers, **self.inputs}
        with self.recorder.warm_up():
            output = self.function(fixed)
        self.calls[key] = self.calls.get(key, 0) + 1
        if self.calls[key] == WARM_UP:
            self._record(self.recorder, key, fixed)
        return output

    def _record(self, recorder, key, fixed):
        try:
            self.graphs[key] = recorder.record(lambda: self.function(fixed))
        except RuntimeError as error:
            self.recorder, self.graphs = None, {}
            # The first error is the cause; torch adds that the recording is not valid.
            cause = error.__context__ or error
            reason = (str(cause).splitlines() or [type(cause).__name__])[0]
            self.warn(f"the steps run without a CUDA graph, which takes longer: {reason}")


class DeviceSteps:
    """The optimiser steps of a stage on a GPU: the host sends them ahead and waits for nothing.

    take(inputs, annealed) takes one step and returns the names and the values of its losses.
    values(step) gives the `Annealed` and the learning rate of a step. stage, batches: as in the
    training loop, whose batches lie on the device. recorder, warn: see `Graphs`.
    """

    def __init__(self, take, values, stage, batches, stepper, recorder, warn):
        self.take, self.values, self.stepper = take, values, stepper
        self.stage, self.batches = stage, batches
        self.graphs = Graphs(self._take, recorder, warn)
        self.sent: dict[int, dict[str, Any]] = {}
        self.gradients: list[torch.Tensor | None] = []
        # On a GPU, Adam reads a learning rate in float32.
        self.of_rates = np.float64 if batches.device.type == "cpu" else np.float32

    def send(self, step: int, stop: int) -> None:
        """Draw the inputs of the steps from `step` to `stop` and send them to the device."""
        inputs = [self._inputs(each) for each in range(step, min(stop, step + MOST_SENT))]
        self.sent = dict(enumerate(self.batches.send_steps(inputs), step))

    def _inputs(self, step):
        annealed, rate = self.values(step)
        rates = np.array([rate * share for share in self.stepper.shares], self.of_rates)
        schedules = np.array(annealed.values(), np.float32)
        return self.stage.inputs(self.batches, step) | {"schedules": schedules, "rates": rates}

    def __call__(self, step: int, stop: int):
        """Take `step` and return its losses. Inputs that are missing are sent up to `stop`."""
        if step not in self.sent:
            self.send(step, stop)
        names, losses, gradients = self.graphs(self.sent.pop(step))
        if gradients is not self.gradients:
            # Each graph writes gradients of its own; the message about a bad one reads these.
            self.gradients = gradients
            for parameter, gradient in zip(self.stepper.parameters, gradients):
                parameter.grad = gradient
        # The next step overwrites the losses.
        return names, losses.clone()

    def _take(self, inputs):
        self.gradients = []  # frees those of the step before
        schedules, rates = inputs["schedules"].unbind(), inputs["rates"].unbind()
        annealed = self.values(0)[0].with_values(schedules)
        inputs = {n: value for n, value in inputs.items() if n not in ("schedules", "rates")}
        with self.stepper.rates_from(rates):
            names, losses = self.take(inputs, annealed)
        return names, losses, [p.grad for p in self.stepper.parameters]
