"""What a life may leave: how it may end, and what its run must hold."""

from pathlib import Path

import torch

from tests.runs import SUFFIX, assert_same_checkpoint
from tests.torture.server import Life


class Failed(Exception):
    """The program broke a promise of docs/RELIABILITY.md."""


def ended(life: Life, *codes: int, warnings: int = 0) -> None:
    """Raise Failed unless the life ended with one of `codes` (default: 0 or 2), as it should.

    Code 2 comes with one line on stderr, which main.py wrote. warnings: lines that may stand before
    it. A traceback, a hang and every other code are failures.
    """
    if life.hung:
        raise Failed(f"no end within {life.seconds:.0f} s")
    if "Traceback (most" in life.err + life.out:
        raise Failed(f"a traceback: {life.err.strip().splitlines()[-1][:200]}")
    if life.code not in (codes or (0, 2)):
        raise Failed(str(life))
    if life.code == 2:
        lines = life.err.splitlines()
        if not lines or len(lines) > 1 + warnings or not lines[-1].startswith("main.py: "):
            raise Failed(f"expected one line on stderr, found {life.err[:300]!r}")


def newest(checkpoints: Path) -> dict[str, Path]:
    """The newest checkpoint of each stage, {name of the stage: path}."""

    def place(path):
        numbers = [int(part) for part in path.name.split("_") if part.isdecimal()]
        return (numbers[0] + 1, 0) if len(numbers) == 1 else tuple(numbers)

    paths = {name: [*checkpoints.glob(f"*[0-9]_{end}.pth")] for name, end in SUFFIX.items()}
    return {name: max(found, key=place) for name, found in paths.items() if found}


def same_end(run: Path, reference: Path) -> None:
    """Raise Failed unless the newest checkpoint of each stage is that of the undisturbed run."""
    mine, other = (newest(folder / "checkpoints") for folder in (run, reference))
    names = [{name: path.name for name, path in found.items()} for found in (mine, other)]
    if names[0] != names[1]:
        raise Failed(f"the newest checkpoints are {names[0]}, undisturbed they are {names[1]}")
    for name, path in mine.items():
        states = [torch.load(file, weights_only=True) for file in (path, other[name])]
        try:  # weights, Adam's state and random state
            assert_same_checkpoint(*states)
        except (AssertionError, ValueError, LookupError, TypeError, AttributeError) as error:
            where = f"{type(error).__name__} {error}".splitlines()[0][:100]
            raise Failed(f"{path.name} differs from the undisturbed run: {where}") from None


def all_finite(checkpoints: Path) -> None:
    """Raise Failed if a checkpoint holds a weight that is not finite."""
    for path in checkpoints.glob("*.pth"):
        for name, values in torch.load(path, weights_only=True)["model"].items():
            if not torch.isfinite(values).all():
                raise Failed(f"{path.name} was saved with {name} not finite")
