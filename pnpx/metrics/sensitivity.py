"""How much an explanation changes with the inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from pnpx.attributors import Value
from pnpx.explainers.base import Explainer
from pnpx.extractors import Call
from pnpx.metrics.base import Metric
from pnpx.metrics.compared import again, settled
from pnpx.metrics.judge import judged
from pnpx.metrics.trial import Trial
from pnpx.parameters import Range, require_count, require_seed, tunable
from pnpx.scores import Targets
from pnpx.structure import Structure, rebuild, tensors, valid_steps
from pnpx.suggest import nearest

_SCALES = ("range", "absolute")


@dataclass(frozen=True)
class Sensitivity(Metric):
    """The largest relative change of an explanation under small noise at the inputs (Yeh et al., 2019,
    arXiv:1901.09392, max-sensitivity): max ||A(x + d) - A(x)|| / ||A(x)||. Yeh et al. define it without the division,
    max ||A(x + d) - A(x)||; divided is what captum and Quantus give, so that explainers of other units compare.

    The noise is uniform in a box around the inputs that are explained, or that what is explained is computed from; what
    only goes along stays. Each noisy copy is explained for the target of the sample itself, by the same explainer,
    randomness included. The Euclidean norm is over all numbers of a sample's explanation. The lower, the more stable.

    Where A(x) is zero, the value is 0 if no A(x + d) differs from it, and else infinite.

    Args:
        radius: how far the noise goes, either way. At 0 the value is 0.
        n_iter: how many noisy copies. The draws are shared by the batch.
        scale: what the radius is a fraction of: the "range", max - min, of each sample's values of an input; or
            "absolute": it is in the units of the inputs. A sample that is the same number everywhere has no range: with
            "range" it gets no noise, and the value 0.
        seed: of the noise.

    >>> from pnpx import Gradient
    >>> Sensitivity().evaluate(Gradient(torch.nn.Linear(3, 2)), torch.randn(2, 3))
    tensor([0., 0.], dtype=torch.float64)
    """

    _: KW_ONLY
    radius: float = tunable(0.02, Range(0.001, 0.2, log=True))
    n_iter: int = tunable(10, Range(5, 50))
    scale: Literal["range", "absolute"] = "range"
    seed: int = 0

    higher_is_better = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("n_iter", self.n_iter, 1)
        require_seed(self.seed)
        if isinstance(self.radius, bool) or not isinstance(self.radius, (int, float)):
            raise TypeError(f"radius must be a float, but got {self.radius!r}")
        if not 0 <= self.radius < float("inf"):
            raise ValueError(f"`0 <= radius < inf` must hold, but got radius={self.radius}")
        if self.scale not in _SCALES:
            hint = nearest(str(self.scale), _SCALES)
            raise ValueError(f"scale must be one of {_SCALES}, but is {self.scale!r}; {hint}")

    def of_batch(
        self, explainer: Explainer, inputs: Any, targets: Targets, attributions: Structure
    ) -> Mapping[str, Tensor]:
        from tqdm.auto import tqdm

        with torch.inference_mode(False), torch.no_grad():
            call = explainer._call(inputs)
            kinds = sorted({str(leaf.dtype) for leaf in tensors(call.forward)})
            if not any(leaf.is_floating_point() for leaf in tensors(call.forward)):
                raise TypeError(
                    f"Sensitivity adds noise to the inputs, which must be floats, but are {', '.join(kinds)}; choose "
                    "another metric, or explain a model that takes the embeddings"
                )
            targets = settled(explainer, inputs, targets)
            generator = torch.Generator().manual_seed(self.seed)
            # Each copy and tensor has a seed of its own: how long sequences are must not matter to the others.
            seeds = torch.randint(2**62, (self.n_iter, len(tensors(call.forward))), generator=generator).tolist()
            bar = tqdm(seeds, desc="Sensitivity", unit="copy", leave=False, disable=not explainer.progress)
            noisy = [again(explainer, inputs, self._noisy(call, own), targets) for own in bar]
        return judged(explainer, inputs, targets, [attributions, *noisy], self.measure)

    def measure(self, trial: Trial) -> dict[str, Tensor]:
        (clean, *noisy), _ = trial.elements()
        change = torch.stack([torch.linalg.vector_norm(one - clean, dim=2) for one in noisy]).amax(0)
        return {"value": torch.where(change == 0, 0.0, change / torch.linalg.vector_norm(clean, dim=2))}

    def _noisy(self, call: Call, seeds: Sequence[int]) -> Call:
        """The call with noise on the floats among what is explained; padding gets none."""
        found = []
        for leaf, packed, seed in zip(tensors(call.forward), valid_steps(call.forward), seeds, strict=True):
            valid = packed
            if valid is None and call.steps is not None and leaf.shape[:2] == call.steps.shape:
                valid = call.steps
            value = Value(leaf, 0, None if valid is None else valid.to(leaf.device))
            if leaf.is_floating_point():
                generator = torch.Generator().manual_seed(seed)
                noise = 2 * torch.rand(value.sample_shape, generator=generator, dtype=torch.float32) - 1
                radius = value.by_sample(_ranges(value)) if self.scale == "range" else 1.0
                leaf = leaf + self.radius * radius * value.for_all(noise)
            found.append(leaf)
        return replace(call, forward=rebuild(call.forward, found))


def _ranges(value: Value) -> Tensor:
    """(batch,) the largest less the smallest number of each sample, padding left out."""
    rows = value.tensor.flatten(1)
    if value.valid is None:
        return rows.amax(1) - rows.amin(1)
    there = value.valid.reshape(*value.valid.shape, *[1] * (value.tensor.ndim - 2)).expand_as(value.tensor).flatten(1)
    return rows.masked_fill(~there, -torch.inf).amax(1) - rows.masked_fill(~there, torch.inf).amin(1)
