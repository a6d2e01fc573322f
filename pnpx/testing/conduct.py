"""Properties of how an explainer treats the model, the inputs, and the world around it.

Each takes a kind of explainer, a case, and a layer of it, and raises an AssertionError where the property does not
hold.
"""

import copy
import gc
import random
import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from pnpx.attributors.places import Layer
from pnpx.explainers.base import Explainer
from pnpx.structure import map_tensors
from pnpx.testing.case import Case
from pnpx.testing.compare import explainer, require, require_equal
from pnpx.testing.reference import Reference, leaves


class Failure(Exception):
    """What a model is made to raise."""


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """All that an explainer must leave as it was, by what it is."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        found[f"{path}.training"] = module.training
        found[f"{path}.attributes"] = sorted(vars(module))
        found[f"{path}.hooks"] = [
            len(hooks) for name, hooks in sorted(vars(module).items()) if name.endswith("hooks") and hooks is not None
        ]
    for name, weight in model.named_parameters():
        found[f"{name}.weight"] = (id(weight), weight._version, weight.requires_grad, weight.detach().clone())
        found[f"{name}.grad"] = None if weight.grad is None else weight.grad.clone()
    for name, buffer in model.named_buffers():
        found[f"{name}.buffer"] = (id(buffer), buffer.clone())
    return found


def require_untouched(before: dict[str, Any], after: dict[str, Any], what: str) -> None:
    """Require that two fingerprints are the same."""
    changed = [name for name in {**before, **after} if not _same(before.get(name), after.get(name))]
    require(not changed, f"{what} must be left as found, but changed are: {', '.join(changed)}")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def leaves_model_and_inputs_as_found(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """Modes, hooks, weights, their gradients, buffers, and the inputs are what they were."""
    for number, module in enumerate(case.model.modules()):  # a model may be in train mode in part
        module.training = number % 2 == 1
    for number, weight in enumerate(case.model.parameters()):
        weight.requires_grad_(number % 3 > 0)
        weight.grad = torch.full_like(weight, number) if number % 2 else None
    before, inputs = fingerprint(case.model), copy.deepcopy((case.batch, case.targets))
    explainer(kind, case, layer).explain(case.batch, case.targets)
    require_untouched(before, fingerprint(case.model), "the model")
    given = [*_tensors(case.batch), case.targets]
    for tensor, copied in zip(given, [*_tensors(inputs[0]), inputs[1]], strict=True):
        require(torch.equal(tensor, copied), "the batch must not be changed")
        require(not tensor.requires_grad and tensor.grad is None, "the batch must not be made to require gradients")


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    map_tensors(found.append, value if not isinstance(value, PackedSequence) else value.data)
    return found


def leaves_model_as_found_when_it_fails(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """An error inside the model comes out as it is, and leaves nothing behind, in whichever pass it is raised."""
    one, last = explainer(kind, case, layer), _last_module(case)
    calls, limit = 0, float("inf")

    def fail(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal calls
        calls += 1
        if calls >= limit:
            raise Failure

    last.register_forward_hook(fail)
    expected = one.attribute(case.batch, case.targets)
    total, before, grad_mode = calls, fingerprint(case.model), torch.is_grad_enabled()
    for limit in sorted({1, min(2, total), max(total // 2, 1), total}):
        calls = 0
        try:
            one.attribute(case.batch, case.targets)
        except Failure:
            require_untouched(before, fingerprint(case.model), f"a model that failed in its call {limit}")
            require(torch.is_grad_enabled() == grad_mode, "the gradient mode must be what it was after a failure")
        else:
            raise AssertionError(f"an error in the model's call {limit} of {total} must come out")
    limit = float("inf")
    require_equal(one.attribute(case.batch, case.targets), expected, "after failures")


def _last_module(case: Case) -> nn.Module:
    """The module without children that finishes last in a forward pass."""
    ran: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, args, output: ran.append(module))
        for module in case.model.modules()
        if not list(module.children())
    ]
    case.output()
    for hook in hooks:
        hook.remove()
    return ran[-1]


def works_in_any_gradient_mode(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """Neither no_grad, nor inference_mode, nor frozen weights, nor inputs that require gradients make a difference."""
    expected = explainer(kind, case, layer).attribute(case.batch, case.targets)

    def attribute(batch: Any = case.batch) -> Any:
        return explainer(kind, case, layer).attribute(batch, case.targets)

    with torch.no_grad():
        require_equal(attribute(), expected, "under no_grad")
    with torch.inference_mode():
        require_equal(attribute(), expected, "under inference_mode")
        made_there = map_tensors(torch.clone, case.batch)
    require_equal(attribute(made_there), expected, "a batch made under inference_mode")
    following = map_tensors(lambda t: t.clone().requires_grad_() if t.is_floating_point() else t, case.batch)
    require_equal(attribute(following), expected, "a batch that requires gradients")
    require(all(leaf.grad is None for leaf in _tensors(following)), "no gradient may be left in the batch")
    case.model.requires_grad_(False)
    require_equal(attribute(), expected, "frozen weights")


def train_mode_makes_no_difference(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """A model in train mode is explained as in eval mode: no dropout, no statistics of the batch; none is updated."""
    expected = explainer(kind, case, layer).attribute(case.batch, case.targets)
    case.model.train()
    before = fingerprint(case.model)
    require_equal(explainer(kind, case, layer).attribute(case.batch, case.targets), expected, "train mode")
    require_untouched(before, fingerprint(case.model), "a model in train mode")


def repeatable_without_global_randomness(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """The same call gives the same result, whatever the global random states, which are left alone.

    That is so also where the model itself draws random numbers.
    """
    case.model.register_forward_pre_hook(lambda *_: _draw())
    one = explainer(kind, case, layer)
    expected = one.attribute(case.batch, case.targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        states = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)["state"]["key"].copy()
        found = one.attribute(case.batch, case.targets)
        require(torch.equal(torch.get_rng_state(), states[0]), "the global random state of torch must not change")
    require(random.getstate() == states[1], "the random state of Python must not change")
    require(
        bool((np.random.get_state(legacy=False)["state"]["key"] == states[2]).all()),
        "the random state of NumPy must not change",
    )
    require_equal(found, expected, "a second call", tolerance=0)


def lets_go_of_what_it_used(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """When it is done, no tensor is left but the result: none waits, in a cycle of objects, for Python to find it.

    Such cycles can hold the memory of an accelerator for long: Python does not know how large tensors are.
    """
    one = explainer(kind, case, layer)
    one.attribute(case.batch, case.targets)  # what is made once and kept, is made here
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        before = {id(tensor) for tensor in _all_tensors()}
        one.attribute(case.batch, case.targets)
        shapes = [tuple(tensor.shape) for tensor in _all_tensors() if id(tensor) not in before]
    finally:
        if enabled:
            gc.enable()
    require(not shapes, f"no tensor may be left behind, but those of shapes {shapes} are")


def _all_tensors() -> list[Tensor]:
    # By their types: to ask some other objects of what class they are is to warn that they are deprecated.
    return [found for found in gc.get_objects() if issubclass(type(found), Tensor)]


def _draw() -> None:
    torch.rand(1)


def works_in_several_threads(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """Threads may explain one model at the same time, at different places."""
    explainers = [explainer(kind, case, place) for place in (layer, case.layers[-1])] * 2
    expected = [one.attribute(case.batch, case.targets) for one in explainers]
    case.model.train()
    before, found, errors = fingerprint(case.model), {}, []
    barrier = threading.Barrier(len(explainers))

    def work(number: int) -> None:
        try:
            barrier.wait()
            for _ in range(3):
                found[number] = explainers[number].attribute(case.batch, case.targets)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(explainers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise AssertionError(f"in several threads: {errors[0]!r}") from errors[0]
    for number, result in enumerate(expected):
        require_equal(found[number], result, "in several threads")
    require_untouched(before, fingerprint(case.model), "a model explained in several threads")


def explains_what_it_attributes(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """The record of `explain` holds the attributions, what was explained, targets, and what the model said."""
    one = explainer(kind, case, layer)
    record: Any = one.explain(case.batch, case.targets)
    require_equal(record.attributions, one.attribute(case.batch, case.targets), "explain and attribute", tolerance=0)
    require_equal(leaves(record.explained), leaves(Reference(case, layer).value), "what was explained")
    output = case.output()
    require_equal(record.output, output, "the output")
    require(torch.equal(record.targets, case.targets), "the targets must be those given")
    require(torch.equal(record.prediction, output.argmax(1)), "the prediction must be the largest output")
    require_equal(record.probability, output.softmax(1).amax(1), "the probability", tolerance=1e-5)
    require(len(record) == case.size, "the length must be that of the batch")
    require(record.explainer["name"] == kind.__name__, "the record must name its explainer")
