"""Statistics of the gradients at noisy copies of what is explained."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from pnpx.attributors import Bound, Value
from pnpx.explainers.points import GradientExplainer, Point
from pnpx.extractors import Call
from pnpx.parameters import Range, require_count, require_seed, tunable
from pnpx.sampling import SAMPLERS, Sampler, independent, spread
from pnpx.statistics import Mean, MeanSquare, Variance
from pnpx.suggest import nearest

SamplerName = Literal["independent", "antithetic", "orthogonal", "latin", "orthogonal_latin"]


@dataclass(frozen=True)
class NoisyGradient(GradientExplainer):
    """A statistic of the gradients under Gaussian noise at the place that is explained.

    The noise is added to the inputs or, at a layer, to what the layer gives. No noise-free sample is among the
    ``n_iter``. One draw is shared by the whole batch, scaled to each sample; it depends on ``seed`` alone, not on the
    global random state, the ``batch_size`` or the other samples.

    Args:
        noise_level: the standard deviation, as a fraction of the range (max - min) of each sample's value.
        n_iter: how many noisy copies.
        noise_std: the standard deviation itself, in the units of the value; then ``noise_level`` is not used.
        sampler: "independent" draws, mirrored pairs ("antithetic"), mirrored pairs along orthogonal directions
            ("orthogonal"), a Latin hypercube ("latin"), or one whose numbers are nearly uncorrelated
            ("orthogonal_latin"); None: the one that estimates this statistic best at equal cost, as far as is known.
            See `pnpx.sampling`.
        input_x_gradient: multiply each gradient by the "clean" or the "noisy" value before the statistic (True: clean).
        seed: of the noise.
    """

    _: KW_ONLY
    noise_level: float = tunable(0.1, Range(0.01, 1.0, log=True))
    n_iter: int = tunable(20, Range(10, 100))
    noise_std: float | None = None
    sampler: SamplerName | None = None
    input_x_gradient: bool | Literal["clean", "noisy"] = False
    seed: int = 0

    default_sampler: ClassVar[Sampler] = independent
    least_iter: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("n_iter", self.n_iter, self.least_iter)
        require_seed(self.seed)
        for name in ("noise_level", "noise_std"):
            level = getattr(self, name)
            if name == "noise_std" and level is None:
                continue
            if isinstance(level, bool) or not isinstance(level, (int, float)):
                raise TypeError(f"{name} must be a number, but got {level!r}")
            if not 0 <= level < float("inf"):
                raise ValueError(f"`0 <= {name} < inf` must hold, but got {name}={level}")
        if self.sampler is not None and self.sampler not in list(SAMPLERS):
            raise ValueError(f"no sampler {self.sampler!r}; {nearest(str(self.sampler), SAMPLERS)}")
        if self.input_x_gradient not in (True, False, "clean", "noisy"):
            raise ValueError(f"input_x_gradient must be a bool, 'clean' or 'noisy', but is {self.input_x_gradient!r}")

    @property
    def n_points(self) -> int:
        return self.n_iter

    def points(self, bound: Bound, reference: Call | None) -> Iterator[Point]:
        """The noisy copies."""
        clean = [value.tensor for value in bound.values]
        scales = [self._scale(value, bound) for value in bound.values]
        # A generator for each tensor, lest the draws of one depend on the size of another.
        draws = [self._draws(value, self.seed + _STRIDE * index) for index, value in enumerate(bound.values)]
        for noises in zip(*draws, strict=True):
            noisy = [
                torch.addcmul(value.tensor, scale, value.for_all(noise))
                for value, scale, noise in zip(bound.values, scales, noises, strict=True)
            ]
            factor = None
            if self.input_x_gradient:
                factor = noisy if self.input_x_gradient == "noisy" else clean
            yield Point(noisy, factor)

    def _draws(self, value: Value, seed: int) -> Iterator[Tensor]:
        """Standard normal noise for a sample of ``value``, ``n_iter`` times."""
        sample = SAMPLERS[self.sampler] if self.sampler else type(self).default_sampler
        if value.valid is None:
            return sample(value.sample_shape, self.n_iter, torch.Generator().manual_seed(seed))
        # A generator for each step of a sequence, lest the draws depend on how long the longest one beside it is.
        steps, *shape = value.sample_shape
        seeds = [seed + _STEP * step for step in range(steps)]
        of_steps = [sample(shape, self.n_iter, torch.Generator().manual_seed(seed)) for seed in seeds]
        return (torch.stack(noises) for noises in zip(*of_steps, strict=True))

    def _scale(self, value: Value, bound: Bound) -> Tensor:
        """The standard deviation for each sample, shaped to multiply noise for all of them."""
        if self.noise_std is not None:
            return torch.full_like(value.by_sample(_zeros(value)), float(self.noise_std))
        return value.by_sample(float(self.noise_level) * _span(value, bound))


_STRIDE = 1_000_003  # sets the seeds of a place's tensors apart
_STEP = 7_919  # and those of the steps of a sequence of its own length


def _zeros(value: Value) -> Tensor:
    size = 1 if value.axis is None else value.tensor.shape[value.axis]
    return value.tensor.new_zeros(size)


def _span(value: Value, bound: Bound) -> Tensor:
    """The range of each sample, max - min, (batch,); padding left out."""
    tensor = value.tensor
    if not tensor.numel():
        return _zeros(value)
    rows = tensor[None] if value.axis is None else tensor.movedim(value.axis, 0)
    rows = rows.reshape(len(rows), -1)
    if value.valid is None:
        high, low = rows.amax(1), rows.amin(1)
    else:
        padding = ~value.valid.reshape(*value.valid.shape, *[1] * (tensor.ndim - 2)).expand_as(tensor).flatten(1)
        high = rows.masked_fill(padding, -torch.inf).amax(1)
        low = rows.masked_fill(padding, torch.inf).amin(1)
    span = high - low
    if not torch.isfinite(span).all():
        raise ValueError(
            "the noise is a fraction of the range of each sample, but the range of the values at "
            f"{bound.describe()} is not finite (a mask, or NaN); explain another place, or give noise_std"
        )
    return span


class SmoothGrad(NoisyGradient):
    """The mean of the gradients under noise (Smilkov et al., 2017, arXiv:1706.03825).

    Args:
        noise_level: the standard deviation of the noise, as a fraction of the range (max - min) of each sample's value.
        n_iter: how many noisy copies. The sample itself is none of them.
        noise_std: the standard deviation itself, in the units of the value; then ``noise_level`` is not used.
        sampler: "independent", "antithetic", "orthogonal", "latin" or "orthogonal_latin", see `pnpx.sampling`; None: a
            Latin hypercube, "orthogonal_latin" for 16 copies or more of few numbers (of one step, with a padding mask):
            see `pnpx.sampling.spread`.
        input_x_gradient: multiply each gradient by the "clean" or the "noisy" value before the statistic (True: clean).
        seed: of the noise, which is the same for all samples of a batch, but for its scale.

    The other parameters are those of `Explainer`.
    """

    statistic = Mean
    default_sampler = spread


class SquareGrad(NoisyGradient):
    """The mean of the squared gradients under noise, element by element (Hooker et al., 2019, arXiv:1806.10758).

    Args:
        noise_level: the standard deviation of the noise, as a fraction of the range (max - min) of each sample's value.
        n_iter: how many noisy copies. The sample itself is none of them.
        noise_std: the standard deviation itself, in the units of the value; then ``noise_level`` is not used.
        sampler: "independent", "antithetic", "orthogonal", "latin" or "orthogonal_latin", see `pnpx.sampling`; None: a
            Latin hypercube, "orthogonal_latin" for 16 copies or more of few numbers (of one step, with a padding mask):
            see `pnpx.sampling.spread`.
        input_x_gradient: multiply each gradient by the "clean" or the "noisy" value before the statistic (True: clean).
        seed: of the noise, which is the same for all samples of a batch, but for its scale.

    The other parameters are those of `Explainer`.
    """

    statistic = MeanSquare
    default_sampler = spread


class VarGrad(NoisyGradient):
    """The unbiased variance of the gradients under noise (Adebayo et al., 2018, arXiv:1810.03307).

    The draws are independent: those of other samplers bias it, as they make the mean that it is taken around too good.

    Args:
        noise_level: the standard deviation of the noise, as a fraction of the range (max - min) of each sample's value.
        n_iter: how many noisy copies, 2 at least. The sample itself is none of them.
        noise_std: the standard deviation itself, in the units of the value; then ``noise_level`` is not used.
        sampler: "independent", "antithetic", "orthogonal", "latin" or "orthogonal_latin", see `pnpx.sampling`; None:
            independent draws.
        input_x_gradient: multiply each gradient by the "clean" or the "noisy" value before the statistic (True: clean).
        seed: of the noise, which is the same for all samples of a batch, but for its scale.

    The other parameters are those of `Explainer`.
    """

    statistic = Variance
    least_iter = 2
