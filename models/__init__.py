"""The models. `load` reads a trained one."""

from typing import Any


def load(place: Any, **options: Any) -> Any:
    """The trained model in a run, such as "runs/demo", or in a checkpoint: see `api.load`."""
    # `api` stands above this folder, because it also reads clips and run folders. It imports torch.
    from api import load

    return load(place, **options)
