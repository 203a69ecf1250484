"""Densities that are fitted to the codes of a trained model, for drawing codes like its own.

The codes of real clips need not fill the prior. A mixture of Gaussians is therefore fitted, after
training, to the codes of training clips. Source: Ghosh et al., 'From Variational to Deterministic
Autoencoders', ICLR 2020, section 4 (ex-post density estimation).
"""

import json
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.checkpoints import undisturbed
from utils.errors import UserError, warn
from utils.files import regular, replacing

COMPONENTS = 1, 2, 4, 8, 16, 32  # the candidates; each needs PER_COMPONENT codes per component
PER_COMPONENT = 5
JUDGED = 1000  # draws of a mixture whose distances to the training codes are measured
LEARNT_FROM = 2000  # training clips, and validation clips, at most
MOST = 4000  # codes at most: stage 1 of VDSM has one per frame
SMOOTHING = 1e-4  # added to the variances, as a share of the mean variance of the codes
FIELDS = "weights", "means", "factors", "codes", "rows", "typical"


def some_rows(count: int) -> np.ndarray:
    """Rows of the clips of a split that are learnt from: at most LEARNT_FROM, always the same."""
    return np.random.default_rng(0).permutation(count)[:LEARNT_FROM]


class Density:
    """A mixture of M Gaussians over codes of D dimensions, with the codes that it was fitted to.

    weights [M], means [M, D], factors [M, D, D]: Cholesky factors of the covariances. codes [n, D]:
    training codes; rows [n]: the rows of their clips in the training split. typical: the median
    distance of a validation code to the nearest training code.
    """

    def __init__(self, weights, means, factors, codes, rows, typical):
        self.weights, self.means, self.factors = weights, means, factors
        self.codes, self.rows, self.typical = codes, rows, typical

    def sample(self, count: int) -> Tensor:
        """Codes [count, D] drawn from the mixture."""
        component = torch.multinomial(self.weights, count, replacement=True)
        drawn = torch.randn(count, self.means.shape[1])
        for m in component.unique():
            drawn[component == m] = drawn[component == m] @ self.factors[m].T + self.means[m]
        return drawn

    def nearest(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Distance [n] of codes [n, D] to the nearest training code, and the row of its clip."""
        distance, place = torch.cdist(codes, self.codes).min(1)
        return distance, self.rows[place]


def fit(train: Tensor, val: Tensor, rows: np.ndarray) -> Density:
    """The mixture fitted to codes train [n, D] or [n, T, D], of clips at `rows` [n].

    Two mixtures are fitted: in one, each component has its own covariance; in the other, all
    components share one. The number of components is that of the highest likelihood of the codes
    `val` [m, D] or [m, T, D]. The mixture whose draws lie nearer to the training codes is returned.
    If there are few codes, a component with its own covariance often joins two groups; a shared
    covariance blurs groups of unequal shape.
    """
    row = torch.from_numpy(rows).repeat_interleave(train[0, ..., 0].numel())
    codes, held_out = (code.flatten(0, -2) for code in (train, val))
    every, every_held_out = -(-len(codes) // MOST), -(-len(held_out) // MOST)
    codes, row, held_out = codes[::every], row[::every], held_out[::every_held_out]
    typical = torch.cdist(held_out, codes).amin(1).median()
    mixtures = (_mixture(codes, held_out, kind) for kind in ("full", "tied"))
    candidates = [Density(*parts, codes, row, typical) for parts in mixtures]
    with undisturbed(codes.device):
        torch.manual_seed(0)
        distances = [d.nearest(d.sample(JUDGED))[0].median().item() for d in candidates]
    return candidates[int(np.argmin(distances))]


def _mixture(codes, held_out, kind):
    """Weights, means and Cholesky factors of the covariances, as a `Density` holds them.

    codes [n, D], held_out [m, D]. kind: scikit-learn's covariance_type, 'full' or 'tied'.
    """
    # Imported here: scikit-learn takes a second, and most commands do without.
    from sklearn.mixture import GaussianMixture

    x = codes.double().numpy()
    x = np.repeat(x, 2, 0) if len(x) == 1 else x  # the least that scikit-learn takes
    smoothing = SMOOTHING * x.var(0).mean() + 1e-12
    counts = [m for m in COMPONENTS if m == 1 or m * PER_COMPONENT <= len(x)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a mixture that has not converged may still be the best
        mixtures = [
            GaussianMixture(m, covariance_type=kind, reg_covar=smoothing, random_state=0).fit(x)
            for m in counts
        ]
    best = max(mixtures, key=lambda mixture: mixture.score(held_out.double().numpy()))
    factors = np.linalg.cholesky(best.covariances_)
    factors = np.broadcast_to(factors, (len(best.means_), *factors.shape[-2:])).copy()
    return [torch.from_numpy(part).float() for part in (best.weights_, best.means_, factors)]


def flat(densities: dict[str, Density]) -> dict[str, Tensor]:
    """The tensors of densities, {'code.field': tensor}."""
    return {f"{n}.{field}": getattr(d, field) for n, d in densities.items() for field in FIELDS}


def of_flat(tensors: dict[str, Tensor], names: list[str]) -> dict[str, Density]:
    """The densities `names`, in this order, that `flat` gave. ValueError or KeyError if wrong."""
    densities = {}
    for name in names:
        parts = [tensors[f"{name}.{field}"] for field in FIELDS]
        densities[name] = Density(*parts)
        weights, means, factors, codes, rows, typical = (part.shape for part in parts)
        (count,), (_, size), (found, _) = weights, means, codes
        expected = (count, size), (count, size, size), (found, size), (found,), ()
        if (means, factors, codes, rows, typical) != expected or not (parts[0] >= 0).all():
            raise ValueError(f"the density of '{name}' has other shapes")
    return densities


def save(path: Path, densities: dict[str, Density], about: dict[str, Any]) -> None:
    """Write densities by the name of their code, and what they were made from, to `path`."""
    arrays, about = flat(densities), about | {"codes": list(densities)}
    try:
        with replacing(path) as beside, open(beside, "wb") as file:
            np.savez(file, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
    except OSError as error:
        warn(f"cannot write {path} ({error.strerror}): the densities will be fitted again")


def load(path: Path, about: dict[str, Any]) -> dict[str, Density] | None:
    """The densities at `path`; None if there are none, or if they were made from something else."""
    try:
        regular(path)
        with np.load(path, allow_pickle=False) as file:
            found = json.loads(str(file["about"]))
            names = found.pop("codes")
            if not about.items() <= found.items():
                return None
            arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "about"}
        if not all(array.numel() and array.isfinite().all() for array in arrays.values()):
            return None
        return {n: Density(*(arrays[f"{n}.{field}"] for field in FIELDS)) for n in names}
    except (OSError, UserError, ValueError, LookupError, TypeError, EOFError, RuntimeError):
        return None
    except (AttributeError, zipfile.BadZipFile, zlib.error):
        return None


def fitted(view: Any, network: nn.Module, dataset: Any, seq_len: int, path: Path):
    """The densities {name: Density} of the codes that view.fitted_codes names, from `path`.

    They are fitted and written to `path` if the file is missing or of other weights or clips.
    view: the trained network's models.view.VideoModel. dataset: a data.base.Dataset.
    """
    splits = [dataset.split(name) for name in ("train", "val")]
    length = min(seq_len, *(clips.num_frames for clips in splits))
    about = _of(network) | {"data": dataset.fingerprint, "frames": length}
    densities = load(path, about)
    if densities is None:
        rows = [some_rows(len(clips)) for clips in splits]
        codes = [
            view.fitted_codes(*view.encode_clips(clips, some, length))
            for clips, some in zip(splits, rows)
        ]
        train, val = codes
        densities = {name: fit(train[name], val[name], rows[0]) for name in train}
        save(path, densities, about)
    return densities


def beside(path: Path, network: nn.Module) -> dict[str, Density]:
    """The densities at `path` that were fitted to codes of this network. UserError if none were."""
    densities = load(path, _of(network))
    if densities is None:
        make = "test the run with --draw_from fitted to make it, or draw from the prior"
        raise UserError(f"{path} is not there, or is of other weights: {make}")
    return densities


def _of(network):
    """What densities say of the network whose codes they were fitted to."""
    weights = 0
    for name, tensor in network.state_dict().items():
        weights = zlib.crc32(tensor.cpu().numpy().tobytes(), zlib.crc32(name.encode(), weights))
    return {"version": 2, "weights": weights}
