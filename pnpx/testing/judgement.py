"""Properties of metrics: each takes a kind of metric, a case, and a layer of it, and raises an AssertionError where it
does not hold."""

import copy
import json
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pnpx.attributors.places import Layer
from pnpx.explainers.base import Explainer
from pnpx.explainers.gradient import GradientXInput
from pnpx.metrics.base import Metric
from pnpx.structure import map_tensors, tensors
from pnpx.testing.case import Case
from pnpx.testing.compare import other_targets, require, require_equal
from pnpx.testing.conduct import fingerprint, require_untouched

_FEW = 5  # of what is counted, such as noisy copies: what must hold for many holds for so many


def metric(kind: type[Metric], **parameters: Any) -> Metric:
    """A metric of ``kind`` with few iterations, and ``parameters`` on top."""
    few = {
        f.name: _FEW for f in fields(kind) if "search" in f.metadata and isinstance(f.default, int) and f.default > _FEW
    }
    return kind(**{**few, **parameters})


def explainer(case: Case, layer: Layer, **parameters: Any) -> Explainer:
    """What is judged: an explainer of floats without randomness of its own, whose attributions have signs."""
    return GradientXInput(case.model, layer=layer, **{**case.parameters, **parameters})


def gives_a_number_a_sample(kind: type[Metric], case: Case, layer: Layer) -> None:
    """(batch,), or (batch, n_targets), finite floats on the CPU; several targets are as each alone."""
    one, judged = metric(kind), explainer(case, layer)
    found = one.evaluate(judged, case.batch, case.targets)
    _require_numbers(found, (case.size,))
    both = torch.stack([case.targets, other_targets(case)], dim=1)
    several = one.evaluate(judged, case.batch, both)
    _require_numbers(several, (case.size, 2))
    second = one.evaluate(judged, case.batch, both[:, 1])
    require_equal(several, torch.stack([found, second], dim=1), "several targets and each alone")


def same_in_chunks_of_any_size(kind: type[Metric], case: Case, layer: Layer) -> None:
    """How many rows share a pass makes no difference."""
    one = metric(kind)
    expected = one.evaluate(explainer(case, layer), case.batch, case.targets)
    for size in (1, 2, 64):
        found = one.evaluate(explainer(case, layer, batch_size=size), case.batch, case.targets)
        require_equal(found, expected, f"batch_size={size}")


def same_alone_as_in_a_batch(kind: type[Metric], case: Case, layer: Layer) -> None:
    """What else is in the batch makes no difference."""
    one = metric(kind)
    expected = one.evaluate(explainer(case, layer), case.batch, case.targets)
    for rows in ([0], [1], [2, 1]):
        part = case.samples(rows)
        found = one.evaluate(explainer(part, layer), part.batch, part.targets)
        require_equal(found, expected[rows], f"samples {rows} by themselves")


def given_attributions_equal_computed_ones(kind: type[Metric], case: Case, layer: Layer) -> None:
    """What `attribute` returned, given again, changes nothing; nor does the name of the predicted class."""
    one, judged = metric(kind), explainer(case, layer)
    expected = one.evaluate(judged, case.batch)
    given = one.evaluate(judged, case.batch, None, judged.attribute(case.batch))
    require_equal(given, expected, "attributions that were given", tolerance=0)
    require_equal(one.evaluate(judged, case.batch, case.output().argmax(1)), expected, "the predicted classes")


def finite_on_constant_maps(kind: type[Metric], case: Case, layer: Layer) -> None:
    """Maps that are the same everywhere, zeros among them, or in parts zero, give a finite number."""
    one, judged = metric(kind), explainer(case, layer)
    real = judged.attribute(case.batch, case.targets)
    numbers = (1.0, -2.0, 0.0)
    maps = [map_tensors(lambda part, number=number: torch.full_like(part, number), real) for number in numbers]  # type: ignore[misc]
    maps.append(map_tensors(torch.relu, real))
    if kind.__name__ == "Sensitivity":  # relates what may be zero to what is not
        maps = maps[:2]
    for given in maps:
        _require_numbers(one.evaluate(judged, case.batch, case.targets, given), (case.size,))


def leaves_everything_as_found(kind: type[Metric], case: Case, layer: Layer) -> None:
    """Modes, hooks, weights, buffers, the inputs, and the attributions are what they were."""
    for number, module in enumerate(case.model.modules()):  # a model may be in train mode in part
        module.training = number % 2 == 1
    for number, weight in enumerate(case.model.parameters()):
        weight.requires_grad_(number % 3 > 0)
    judged = explainer(case, layer)
    given = judged.attribute(case.batch, case.targets)
    before, copied = fingerprint(case.model), copy.deepcopy((case.batch, case.targets, given))
    metric(kind).evaluate(judged, case.batch, case.targets, given)
    require_untouched(before, fingerprint(case.model), "the model")
    left, right = (tensors(part) for part in ((case.batch, case.targets, given), copied))
    for one, other in zip(left, right, strict=True):
        require(torch.equal(one, other), "inputs, targets and attributions must not be changed")


def repeatable_without_global_randomness(kind: type[Metric], case: Case, layer: Layer) -> None:
    """The same call gives the same number, whatever the global random state, which is left alone."""
    one, judged = metric(kind), explainer(case, layer)
    expected = one.evaluate(judged, case.batch, case.targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        state = torch.get_rng_state()
        found = one.evaluate(judged, case.batch, case.targets)
        require(torch.equal(torch.get_rng_state(), state), "the global random state must not change")
    require_equal(found, expected, "a second call", tolerance=0)


def true_maps_beat_others(kind: type[Metric], case: Case, layer: Layer) -> None:
    """Of a linear model exact attributions are judged no worse than others, and better than their opposite."""
    one, judged = metric(kind, inference_mode="logits"), explainer(case, layer)
    true = judged.attribute(case.batch, case.targets)
    sign = 1 if kind.higher_is_better else -1
    generator = torch.Generator().manual_seed(0)
    best = sign * one.evaluate(judged, case.batch, case.targets, true)
    for _ in range(5):
        drawn = map_tensors(lambda tensor: torch.randn(tensor.shape, generator=generator).to(tensor), true)
        other = sign * one.evaluate(judged, case.batch, case.targets, drawn)
        require(bool((other <= best + 1e-9).all()), "random attributions must not be judged better than exact ones")
    opposite = sign * one.evaluate(judged, case.batch, case.targets, map_tensors(torch.neg, true))
    require(bool((opposite < best).all()), "the opposite of exact attributions must be judged worse")


def wrong_attributions_are_errors(kind: type[Metric], case: Case, layer: Layer) -> None:
    """Attributions of other inputs are a ValueError that names both shapes."""
    judged = explainer(case, layer)
    given = judged.attribute(case.batch, case.targets)
    for wrong in (map_tensors(lambda tensor: tensor[:-1], given), map_tensors(lambda tensor: tensor[None], given)):
        try:
            metric(kind).evaluate(judged, case.batch, case.targets, wrong)
        except ValueError as error:
            require("what explainer.attribute returns" in str(error), f"the message must say so, but is: {error}")
            continue
        raise AssertionError("attributions of another shape must be a ValueError")


def parameters_are_fixed_and_plain(kind: type[Metric], case: Case, layer: Layer) -> None:
    """A metric is a frozen dataclass; its parameters are JSON; a misspelt one is answered with the nearest."""
    require(is_dataclass(kind), "a metric must be a dataclass")
    require(isinstance(kind.higher_is_better, bool), "higher_is_better must be a bool")
    one = metric(kind)
    require(json.loads(json.dumps(one.parameters))["name"] == kind.__name__, "parameters must name the metric")
    for field in fields(kind):
        try:
            setattr(one, field.name, None)
        except FrozenInstanceError:
            pass
        else:
            raise AssertionError(f"{field.name} must not be settable; use @dataclass(frozen=True)")
        try:
            kind(**{field.name + "x": 1})
        except TypeError as error:
            require(repr(field.name) in str(error), f"a misspelt {field.name} must be answered with it, but: {error}")
        else:
            raise AssertionError(f"a misspelt {field.name} must be a TypeError")
    require(replace(one) == one, "a metric with the same parameters must be the same")


def _require_numbers(found: Tensor, shape: tuple[int, ...]) -> None:
    require(found.shape == shape, f"there must be a number a sample, {shape}, but the shape is {tuple(found.shape)}")
    require(found.dtype in (torch.float32, torch.float64), f"numbers must be floats, but are {found.dtype}")
    require(found.device.type == "cpu" and not found.requires_grad, "numbers must be on the CPU, without gradients")
    require(bool(found.isfinite().all()), f"numbers must be finite, but are {found.tolist()}")
