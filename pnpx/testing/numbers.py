"""Properties of the numbers that an explainer gives.

Each takes a kind of explainer, a case, and a layer of it, and raises an AssertionError where the property does not
hold.
"""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from pnpx.attributors.places import Layer
from pnpx.explainers.base import Explainer
from pnpx.testing.case import Case
from pnpx.testing.compare import explainer, other_targets, parts, require, require_equal
from pnpx.testing.reference import Reference, leaves


def mirrors_what_is_explained(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """The result has the structure and the shapes of what is explained, is finite and carries no gradients."""
    found = list(parts(explainer(kind, case, layer).attribute(case.batch, case.targets)))
    expected = list(_shapes(Reference(case, layer).value))
    shapes = [(path, None if tensor is None else tuple(tensor.shape)) for path, tensor in found]
    require(shapes == expected, f"the attributions must have the shapes {expected}, but have {shapes}")
    for path, tensor in found:
        if tensor is not None:
            require(tensor.dtype == torch.float64, f"the dtype at {path} must be float64, but is {tensor.dtype}")
            require(not tensor.requires_grad, f"what is at {path} must not require a gradient")
            require(bool(torch.isfinite(tensor).all()), f"what is at {path} must be finite")


def _shapes(value: object, path: str = "") -> "list[tuple[str, tuple[int, ...] | None]]":
    """The shapes that attributions of ``value`` must have; None for what is not explained."""
    if isinstance(value, dict):
        return [entry for key, part in value.items() for entry in _shapes(part, f"{path}[{key!r}]")]
    if isinstance(value, (tuple, list)) and not hasattr(value, "batch_sizes"):
        return [entry for index, part in enumerate(value) for entry in _shapes(part, f"{path}[{index}]")]
    found = leaves(value)
    return [(path, tuple(found[0].shape) if found else None)]


def same_alone_as_in_a_batch(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """A sample's attributions do not depend on the other samples of the batch, nor on their order."""
    axes = Reference(case, layer).axes
    given = kind.example_parameters(case.inputs)  # may be made of the batch, but is none of it
    whole = leaves(explainer(kind, case, layer).attribute(case.batch, case.targets))
    for row in range(case.size):
        alone = case.samples([row])
        found = leaves(explainer(kind, alone, layer, **given).attribute(alone.batch, alone.targets))
        for tensor, together, axis in zip(found, whole, axes, strict=True):
            require_equal(_padded(tensor, together, axis), together.narrow(axis, row, 1), f"sample {row} alone")
    turned = case.samples(list(reversed(range(case.size))))
    found = leaves(explainer(kind, turned, layer, **given).attribute(turned.batch, turned.targets))
    for tensor, together, axis in zip(found, whole, axes, strict=True):
        require_equal(tensor, together.flip(axis), "the samples in the opposite order")


def _padded(alone: Tensor, together: Tensor, axis: int) -> Tensor:
    """``alone``, as long as in the batch: sequences packed together are as long as the longest."""
    shape = [1 if index == axis else size for index, size in enumerate(together.shape)]
    whole = alone.new_zeros(shape)
    whole[tuple(slice(size) for size in alone.shape)] = alone
    return whole


def same_in_chunks_of_any_size(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """The result does not depend on how many rows share a pass: one sample, some of the batch, some copies of it."""
    expected = explainer(kind, case, layer).attribute(case.batch, case.targets)
    for size in (1, case.size - 1, 2 * case.size):
        found = explainer(kind, case, layer, batch_size=size).attribute(case.batch, case.targets)
        require_equal(found, expected, f"batch_size={size}")


def same_without_replay(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """Leaving out what runs before a layer gives what full passes give."""
    expected = explainer(kind, case, layer, replay=False).attribute(case.batch, case.targets)
    require_equal(explainer(kind, case, layer).attribute(case.batch, case.targets), expected, "replay")


def several_targets_equal_one_at_a_time(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """Several targets a sample give what each gives by itself, along an axis after that of the batch."""
    targets = torch.stack([case.targets, other_targets(case)], dim=1)
    one = explainer(kind, case, layer)
    together = leaves(one.attribute(case.batch, targets))
    for index in range(2):
        alone = leaves(one.attribute(case.batch, targets[:, index]))
        for tensor, several, axis in zip(alone, together, Reference(case, layer).axes, strict=True):
            require(several.ndim == tensor.ndim + 1, "several targets must have an axis of their own")
            require_equal(several.select(axis + 1, index), tensor, f"target {index} of two")


def first_layers_input_is_the_models_input(kind: type[Explainer], case: Case, layer: Layer = None) -> None:
    """What the first layer takes is explained as the input of the model is, noise included."""
    found = explainer(kind, case, case.first).attribute(case.batch, case.targets)
    expected = explainer(kind, case).attribute(case.batch, case.targets)
    require_equal(list(leaves(found)), list(leaves(expected)), f"{case.first} and the input")


def a_module_and_its_path_are_one_layer(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """A path, the path with its side, and the module itself mean the same."""
    if not isinstance(layer, str):
        raise TypeError(f"a path is wanted, but the layer is {layer!r}")
    expected = explainer(kind, case, layer).attribute(case.batch, case.targets)
    for same in (f"{layer}:output", case.model.get_submodule(layer)):
        require_equal(explainer(kind, case, same).attribute(case.batch, case.targets), expected, f"layer={same!r}")


def a_sequence_of_layers_gives_a_tuple(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """A sequence of one layer gives a tuple of one."""
    if layer is None or not isinstance(layer, (str, nn.Module)):
        raise TypeError(f"a single layer is wanted, but it is {layer!r}")
    expected = explainer(kind, case, layer).attribute(case.batch, case.targets)
    found = explainer(kind, case, [layer]).attribute(case.batch, case.targets)
    require(isinstance(found, tuple), f"a sequence of layers must give a tuple, but gave a {type(found).__name__}")
    require_equal(found, (expected,), "a sequence of one layer")


def layers_in_a_chain_equal_each_alone(kind: type[Explainer], case: Case, layer: Layer = None) -> None:
    """Layers computed from one another give together, in any order, what each gives alone."""
    alone = {name: explainer(kind, case, name).attribute(case.batch, case.targets) for name in case.chain}
    for order in (case.chain, case.chain[::-1]):
        found = explainer(kind, case, order).attribute(case.batch, case.targets)
        require_equal(found, tuple(alone[name] for name in order), f"layer={order}")


def in_place_operations_change_nothing(kind: type[Explainer], case: Case, layer: Layer) -> None:
    """What changes a value in place, after it was explained, does not change the explanation."""
    careful = copy.deepcopy(case.model)
    for module in careful.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010  (a Module declares no such attribute)
    found = explainer(kind, case, layer)
    expected = replace(found, model=careful)
    require_equal(
        found.attribute(case.batch, case.targets),
        expected.attribute(case.batch, case.targets),
        "a model with and without in-place operations",
    )
