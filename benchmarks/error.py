"""How exact the samplers are at equal cost: squared errors against a very long run. ``python -m benchmarks.error``."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.command import Options, main
from benchmarks.table import Table
from pnpx import zoo
from pnpx.explainers.noise import NoisyGradient, SamplerName
from pnpx.statistics import Mean, MeanSquare, Statistic, Variance
from pnpx.zoo.train import RECIPES, train

KINDS = ("SmoothGrad", "SquareGrad", "VarGrad")
SAMPLERS: tuple[SamplerName, ...] = ("independent", "antithetic", "orthogonal", "latin")
N_ITER = (10, 20, 50)
IMAGES = 4
SEEDS = 48
PARTS, PART = 16, 192  # of the reference run: 3072 independent samples
PLACES = {"digits_cnn": "conv1", "digits_attention": "block1", "digits_lstm": "lstm"}


class AtOnce(Statistic):
    """The statistics of `KINDS`, stacked in their order: one run of the model serves all three."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: tuple[Statistic, ...] = (Mean(), MeanSquare(), Variance())

    def update(self, samples: Tensor) -> None:
        for part in self._parts:
            part.update(samples)

    def merge(self, other: "AtOnce") -> None:
        for part, its in zip(self._parts, other._parts, strict=True):
            part.merge(its)

    @property
    def value(self) -> Tensor:
        return torch.stack([part.value for part in self._parts])


class Estimates(NoisyGradient):
    """SmoothGrad, SquareGrad and VarGrad in one tensor, (kinds, *shape of the value)."""

    statistic = AtOnce


@dataclass(frozen=True)
class Net:
    """A trained network in float64, what its non-linearity is, and a few held-out samples."""

    name: str
    model: nn.Module
    layer: str
    inputs: Tensor
    targets: Tensor


def nets() -> Iterator[Net]:
    """The zoo's networks; those that have ReLU or GELU also with the other one, trained in the same way."""
    for name, layer in PLACES.items():
        data = zoo.data(zoo.entry(name).data, "test")
        rows = slice(0, IMAGES)
        inputs, targets = data.inputs[rows].double(), data.targets[rows]
        model = zoo.load(name)
        kinds = {type(module) for module in model.modules()} & {nn.ReLU, nn.GELU}
        own = next(iter(kinds)).__name__ if kinds else "tanh"
        yield Net(f"{name}, {own}", model.double(), layer, inputs, targets)
        if kinds:
            other = nn.GELU if own == "ReLU" else nn.ReLU
            entry = zoo.entry(name)
            changed = replace(entry, build=partial(_built_with, entry.build, other))
            trained = train(changed, RECIPES[name], zoo.data(entry.data, "train"))
            yield Net(f"{name}, {other.__name__}", trained.double(), layer, inputs, targets)


def _built_with(build: Callable[[], nn.Module], activation: type[nn.Module]) -> nn.Module:
    model = build()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, (nn.ReLU, nn.GELU)):
                setattr(module, name, activation())
    return model


def error(options: Options) -> list[Table]:
    """The table: for each network, place and statistic, how many times smaller the error is."""
    table = Table(
        "Squared error of independent noise over that of other samplers, at equal cost",
        ["network", "at", "explainer", *(f"{sampler}, n={n}" for sampler in SAMPLERS[1:] for n in N_ITER)],
        [
            f"Over 1 is better than independent. The error is against {PARTS * PART} independent samples in float64, "
            f"whose own error is subtracted: the mean over {IMAGES} held-out digits, their elements and {SEEDS} seeds. "
            "Wanted: 2 or more for SmoothGrad and SquareGrad, which draw a Latin hypercube by default; VarGrad draws "
            "independent noise by default. Squares have outliers: even so many seeds leave some tenths open.",
        ],
    )
    for net in nets():
        for layer in (None, net.layer):
            errors = _errors(net, layer)
            for number, kind in enumerate(KINDS):
                ratios = [
                    _ratio(errors["independent", n][number], errors[sampler, n][number])
                    for sampler in SAMPLERS[1:]
                    for n in N_ITER
                ]
                table.add(net.name, layer or "input", kind, *ratios)
    return [table]


def _ratio(independent: Tensor, other: Tensor) -> str:
    # The score is linear in the outputs of a layer without another non-linearity behind it.
    return "no error" if not independent and not other else f"{float(independent / other):.2f}"


def _errors(net: Net, layer: str | None) -> dict[tuple[SamplerName, int], Tensor]:
    """The mean squared errors, (kinds,), of each sampler for each number of samples."""

    def estimate(sampler: SamplerName, n_iter: int, seed: int) -> Tensor:
        explainer = Estimates(net.model, layer=layer, sampler=sampler, n_iter=n_iter, seed=seed, batch_size=256)
        found = explainer.attribute(net.inputs, net.targets)
        return found if isinstance(found, Tensor) else found[0]  # an LSTM's outputs, without its last states

    # Seeds far from those of the estimates.
    parts = torch.stack([estimate("independent", PART, 10**6 + part) for part in range(PARTS)])
    reference = parts.mean(0)
    own_error = parts.var(0).flatten(1).mean(1) / PARTS
    errors: dict[tuple[SamplerName, int], Tensor] = {}
    for sampler in SAMPLERS:
        for n_iter in N_ITER:
            deviations = [estimate(sampler, n_iter, seed) - reference for seed in range(SEEDS)]
            squares = torch.stack([deviation.square().flatten(1).mean(1) for deviation in deviations])
            errors[sampler, n_iter] = squares.mean(0) - own_error
    return errors


if __name__ == "__main__":
    main(error, __doc__, ("threads",))
