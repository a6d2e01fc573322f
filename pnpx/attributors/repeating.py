"""Along which axes tensors inside a model hold the batch, so that they can be repeated and explained by sample."""

from torch import Tensor

from pnpx.structure import Structure, is_packed, tensors


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
