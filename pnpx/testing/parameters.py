"""Properties of an explainer's parameters, of the inputs and targets it takes, and of its errors.

Each takes a kind of explainer, a case, and a layer of it, and raises an AssertionError where the property does not
hold.
"""

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pnpx.attributors.places import Layer
from pnpx.explainers.base import Explainer
from pnpx.testing.case import Case
from pnpx.testing.compare import classes, explainer, other_targets, require, require_equal
from pnpx.testing.conduct import fingerprint, require_untouched
from pnpx.testing.reference import leaves


def constructing_only_stores(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """A constructor neither runs the model, nor changes it, nor looks for the layer."""
    case.model.train()

    def fail(*_: Any) -> None:
        raise AssertionError("the model must not run before attribute")

    hook = case.model.register_forward_pre_hook(fail)
    before = fingerprint(case.model)
    made = explainer(kind, case, "no.such.layer")
    require_untouched(before, fingerprint(case.model), "a model whose explainer is constructed")
    hook.remove()
    require(made.model is case.model, "the explainer must hold the model itself")


def is_frozen(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """Parameters cannot be set, only replaced; what is replaced is another explainer, the rest as before."""
    require(is_dataclass(kind), "an explainer must be a dataclass")
    one = explainer(kind, case, layer)
    for field in fields(one):
        try:
            setattr(one, field.name, None)
        except FrozenInstanceError:
            continue
        raise AssertionError(f"{field.name} must not be settable; use @dataclass(frozen=True)")
    other = replace(one, batch_size=5)
    require(other.batch_size == 5 and one.batch_size != 5, "replace must give another explainer")
    same = [f.name for f in fields(one) if getattr(one, f.name) is not getattr(other, f.name)]
    require(same == ["batch_size"], f"replace must keep the other parameters, but changed {same}")


def retuning_changes_the_result(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """Every tunable parameter matters: at both ends of its range the result differs; its default lies in the range."""
    one = explainer(kind, case, layer)
    for field in fields(kind):
        search = field.metadata.get("search")
        if search is None:
            continue
        require(search.low <= field.default <= search.high, f"the default of {field.name} must lie in {search}")
        low, high = (
            leaves(replace(one, **{field.name: value}).attribute(case.batch, case.targets))
            for value in (search.low, search.high)
        )
        direct = leaves(explainer(kind, case, layer, **{field.name: search.high}).attribute(case.batch, case.targets))
        require_equal(high, direct, f"{field.name} replaced and given to the constructor", tolerance=0)
        apart = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(low, high, strict=True))
        require(apart > 1e-6, f"{field.name}={search.low} and {field.name}={search.high} must not give the same result")


def misspelt_parameters_are_errors(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """An unknown parameter is a TypeError that names it, and the nearest one that there is."""
    known = [field.name for field in fields(kind) if field.init]
    for name in known:
        wrong = name[:2] + name[3:]
        message = _error(TypeError, partial(explainer, kind, case, layer, **{wrong: 1}))
        require(repr(wrong) in message and repr(name) in message, f"{wrong!r} must name {name!r}, but: {message}")


def wrong_values_are_errors(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """What cannot be explained is a built-in error that says what must hold and what was given."""
    last = next(path for path, _ in list(case.model.named_modules())[-1:])
    n_classes = classes(case)

    def attribute(layer: Any = layer, targets: Any = case.targets, batch: Any = case.batch, **parameters: Any) -> Any:
        return explainer(kind, case, layer, **parameters).attribute(batch, targets)

    expected: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (LookupError, f"no module '{last}x' in the model; the nearest: '{last}'", lambda: attribute(f"{last}x")),
        (LookupError, "this Linear is none of them", lambda: attribute(nn.Linear(5, 7))),
        (TypeError, "a layer must be a str or a module", lambda: attribute(3)),
        (ValueError, f"in the range 0 to {n_classes - 1}, but got {n_classes}", lambda: attribute(targets=n_classes)),
        (ValueError, f"in the range 0 to {n_classes - 1}, but got -1", lambda: attribute(targets=-1)),
        (ValueError, "the batch is empty", lambda: attribute(batch=case.batch[:0])),
        (ValueError, "inputs need a batch axis", lambda: attribute(batch=case.batch.sum())),
        (ValueError, "`batch_size >= 1` must hold", lambda: attribute(batch_size=0)),
        (ValueError, "n_classes=99 was given", lambda: attribute(n_classes=99)),
        (ValueError, "reducer must be", lambda: attribute(reducer="avg")),
        (ValueError, "inference_mode must be one of", lambda: attribute(inference_mode="logit")),
        (ValueError, "score must be one of", lambda: attribute(score="classify")),
        (TypeError, "the model must be a torch.nn.Module", lambda: replace(explainer(kind, case), model=len)),  # type: ignore[arg-type]
        (TypeError, "a DataLoader; use explain", lambda: attribute(batch=DataLoader([1]))),  # type: ignore[arg-type]
    ]
    for error, words, call in expected:
        message = _error(error, call)
        require(words in message, f"the message must say {words!r}, but is: {message}")


def _error(expected: type[Exception], call: Callable[[], Any]) -> str:
    try:
        call()
    except expected as error:
        return str(error)
    raise AssertionError(f"a {expected.__name__} must be raised")


def parameters_are_plain(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """Name and parameters can be written as JSON; the repr does not print the weights."""
    one = explainer(kind, case, layer)
    told = json.loads(json.dumps(one.parameters))
    missing = {field.name for field in fields(kind) if field.init} - {"model"} - set(told)
    require(not missing and told["name"] == kind.__name__, f"parameters must tell the name and also {missing}")
    require(repr(one).startswith(f"{kind.__name__}(") and "Linear(" not in repr(one), f"a plain repr, not {one!r}")


def precision_is_that_of_the_model_or_float32(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """float64 stays, narrower floats give float32; bfloat16 models are explained as well as their precision allows."""
    expected = leaves(explainer(kind, case, layer).attribute(case.batch, case.targets))
    for dtype, tolerance in ((torch.float32, 1e-3), (torch.bfloat16, 0.3)):
        narrow = case.to(dtype)
        found = leaves(explainer(kind, narrow, layer).attribute(narrow.batch, narrow.targets))
        for tensor, exact in zip(found, expected, strict=True):
            require(tensor.dtype == torch.float32, f"{dtype} must give float32, but gave {tensor.dtype}")
            require_equal(tensor, exact, f"{dtype}", tolerance)


def targets_of_any_form_are_one(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """A class is given as an int, a NumPy int, a list, an array, weights of one and zeros, or a callable, alike;
    another class gives another result."""
    one, n_classes, size = explainer(kind, case, layer), classes(case), case.size
    rows = torch.arange(size)
    weights = torch.zeros(size, n_classes, dtype=torch.float64)
    weights[rows, case.targets] = 1.0
    forms = [case.targets.tolist(), case.targets.numpy(), case.targets.int(), weights, weights.numpy()]
    forms += [lambda output, batch: output[rows, case.targets]]
    expected = one.attribute(case.batch, case.targets)
    for form in forms:
        require_equal(one.attribute(case.batch, form), expected, f"targets={form!r}")
    others = leaves(one.attribute(case.batch, other_targets(case)))
    apart = max(float((a - b).abs().max()) for a, b in zip(leaves(expected), others, strict=True))
    require(apart > 1e-6, "other targets must give another result")
    for_all = one.attribute(case.batch, torch.full((size,), 2))
    for form in (2, np.int64(2), torch.tensor(2), (2,)):
        require_equal(one.attribute(case.batch, form), for_all, f"targets={form!r}")
    predicted = one.attribute(case.batch, case.output().argmax(1))
    require_equal(one.attribute(case.batch), predicted, "targets=None and the predicted classes")
    difference = weights.roll(1, 1) - weights
    require_equal(
        leaves(one.attribute(case.batch, difference.float())),
        leaves(one.attribute(case.batch, lambda output, batch: (output * difference).sum(1))),
        "weights and the callable that they stand for",
    )


def arrays_and_loaders_are_taken(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """NumPy arrays are taken as tensors; `explain` goes through a loader batch by batch."""
    one = explainer(kind, case, layer)
    expected = one.attribute(case.batch, case.targets)
    require_equal(one.attribute(case.batch.numpy(), case.targets.numpy()), expected, "a NumPy array")
    pairs = DataLoader(TensorDataset(case.batch, case.targets), batch_size=2)
    loading = replace(one, forward_arg_extractor=0)
    found = list(loading.explain(pairs, lambda output, batch: output.gather(1, batch[1][:, None])[:, 0]))
    require([len(record) for record in found] == [2, case.size - 2], "a loader must give a record a batch")
    for tensor, *batches in zip(leaves(expected), *(leaves(record.attributions) for record in found), strict=True):
        require_equal(torch.cat(batches), tensor, "the batches of a loader")


def reducers_pool_the_channels(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """A reducer pools the channel axis of the result: 1 of images, the last of series, or the one that is named."""
    pools: dict[str, Callable[[Tensor, int], Tensor]] = {
        "mean": lambda tensor, axis: tensor.mean(axis),
        "sum": lambda tensor, axis: tensor.sum(axis),
        "max": lambda tensor, axis: tensor.amax(axis),
        "min": lambda tensor, axis: tensor.amin(axis),
    }
    for given, axis in ((None, 1), (2, 2), (-1, 3)):
        # Where the channels are may matter for what is explained together as well.
        whole = explainer(kind, case, layer, channel_axis=given).attribute(case.batch, case.targets)
        for name, pool in pools.items():
            found = explainer(kind, case, layer, reducer=name, channel_axis=given)
            require_equal(found.attribute(case.batch, case.targets), pool(whole, axis), f"reducer={name!r}")
    several = torch.stack([case.targets, case.targets], dim=1)
    whole = explainer(kind, case, layer).attribute(case.batch, case.targets)
    found = explainer(kind, case, layer, reducer="sum").attribute(case.batch, several)
    expected = torch.stack([whole.sum(1)] * 2, dim=1)
    require_equal(found, expected, "a reducer with several targets")
