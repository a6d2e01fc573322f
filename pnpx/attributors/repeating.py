"""Along which axes tensors inside a model hold the batch, so that they can be repeated and explained by sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from pnpx.extractors import Call
from pnpx.structure import Structure, is_packed, tensors

Axes = tuple[list[int | None], list[list[int | None]]]
"""The axes of the batch: in the tensors at the places, and in those of each output of what runs before them."""


def axes_of(value: Structure, batch_size: int) -> list[int | None]:
    """For each tensor the axis of the batch, as far as its shape tells: the first axis if it fits, or the only one."""

    def axis_of(leaf: Tensor, packed: bool) -> int | None:
        fitting = [axis for axis, size in enumerate(leaf.shape) if size == batch_size]
        if packed or 0 in fitting:
            return 0
        return fitting[0] if len(fitting) == 1 else None

    return [axis_of(leaf, packed) for leaf, packed in zip(tensors(value), is_packed(value), strict=True)]


def axes_seen(value: Structure, other: Structure, batch_size: int) -> list[int | None]:
    """For each tensor the axis of the batch, from the same value for another number of samples.

    It is the axis whose size follows the number of samples: one sample where ``batch_size`` is over 1, else two.

    Raises:
        ValueError: the values do not have the same tensors.
    """

    def axis_of(leaf: Tensor, twin: Tensor, packed: bool) -> int | None:
        if packed:
            return 0
        if leaf.ndim != twin.ndim:
            raise ValueError("a tensor has another number of axes for another number of samples")
        ratio = (batch_size, 1) if batch_size > 1 else (1, 2)
        for axis, (size, twin_size) in enumerate(zip(leaf.shape, twin.shape, strict=True)):
            if size != twin_size and size * ratio[1] == twin_size * ratio[0]:
                return axis
        return None

    pairs = zip(tensors(value), tensors(other), is_packed(value), strict=True)
    return [axis_of(leaf, twin, packed) for leaf, twin, packed in pairs]


@dataclass(frozen=True)
class Sizes:
    """What the sizes of tensors tell of the axes of the batch, in one call of a model.

    ``place`` is what was found at the places, ``outputs`` what the modules before them returned.
    """

    model: nn.Module
    call: Call
    place: Structure
    outputs: Sequence[Structure]

    @property
    def axes(self) -> Axes:
        """The axes that have the size of the batch."""
        size = self.call.batch_size
        return axes_of(self.place, size), [axes_of(output, size) for output in self.outputs]

    @property
    def tell(self) -> bool:
        """Whether they are sure to be those of the batch: each is the first, and nothing else has its size."""
        first = all(leaf.ndim > 0 and leaf.shape[0] == self.call.batch_size for leaf in tensors(self.place))
        return first and not self._elsewhere([self.place, self.outputs])

    @property
    def suggest(self) -> bool:
        """Whether they are likely to be, though only a pass of two copies can prove it.

        They are where one axis alone has that size in each tensor at the places, such as the second of a recurrent
        net's state, and nothing else has but an axis inside the model, such as the height of feature maps.
        """
        size, leaves = self.call.batch_size, tensors(self.place)
        return (
            size > 1
            and all(leaf.is_floating_point() and tuple(leaf.shape).count(size) == 1 for leaf in leaves)
            and not self.tell
            and not self._elsewhere([])
        )

    def _elsewhere(self, values: Sequence[Structure]) -> bool:
        """Whether anything else has the size of the batch: an axis, not the first, of ``values`` or of the arguments,
        such as the length of sequences; or a weight or buffer, which a table of positions would be cut from."""
        call = self.call
        given = [call.forward, call.additional_args, dict(call.additional_kwargs)]
        own = [axis for leaf in tensors((given, values)) for axis in leaf.shape[1:]]
        return call.batch_size in own or call.batch_size in self._sizes_of_tables

    @cached_property
    def _sizes_of_tables(self) -> frozenset[int]:
        """The sizes of the axes of weights and buffers."""
        held = (
            table
            for module in self.model.modules()
            for table in (*module._parameters.values(), *module._buffers.values())
        )
        return frozenset(size for table in held if table is not None for size in table.shape)
