"""What is explained at a place: its tensors, as the model computes them for the batch itself."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from pnpx.structure import Structure, tensors


@dataclass(frozen=True)
class Value:
    """One tensor that is explained, as the model computes it for the batch itself.

    ``axis`` is that of the batch; None where the tensor has none. ``valid`` marks, for sequences that were padded,
    the (batch, time) steps that are no padding.
    """

    tensor: Tensor
    axis: int | None = 0
    valid: Tensor | None = None

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample: without the axis of the batch."""
        return tuple(size for index, size in enumerate(self.tensor.shape) if index != self.axis)

    def by_sample(self, quantity: Tensor) -> Tensor:
        """``quantity``, (batch,), shaped so that it multiplies each sample; without a batch axis, a single number."""
        if self.axis is None:
            return quantity.reshape(())
        return quantity.reshape([-1 if index == self.axis else 1 for index in range(self.tensor.ndim)])

    def for_all(self, sample: Tensor) -> Tensor:
        """``sample``, of `sample_shape`, shaped so that it adds to every sample, in this tensor's precision.

        In padded sequences its first step goes to the first that is no padding, and so on; padding gets zeros.
        """
        sample = sample.to(self.tensor)
        if self.valid is None:
            return sample if self.axis is None else sample.unsqueeze(self.axis)
        order = (self.valid.cumsum(1) - 1).clamp(min=0)
        return sample[order] * self.valid.reshape(*self.valid.shape, *[1] * (sample.ndim - 1))


def embedding_in(model: nn.Module) -> str:
    """The path of the first embedding in ``model``; where there is none, what stands for one."""
    kinds = nn.Embedding, nn.EmbeddingBag
    return next((path for path, one in model.named_modules() if isinstance(one, kinds) and path), "path.to.embedding")


def explainable(value: Structure, what: str, remedy: Callable[[], str], floats: bool = True) -> list[int]:
    """Which of the tensors in ``value`` are floats; where none is and floats are not needed, all of them.

    Raises:
        TypeError: there is none.
    """
    leaves = tensors(value)
    chosen = [index for index, leaf in enumerate(leaves) if leaf.is_floating_point()]
    if not chosen and not floats:
        if not leaves:
            raise TypeError(f"there must be a tensor to explain, but {what} is {type(value).__name__}")
        return list(range(len(leaves)))
    if not chosen:
        found = ", ".join(sorted({str(leaf.dtype) for leaf in leaves})) or f"a {type(value).__name__} without tensors"
        raise TypeError(f"gradients need floating-point values, but {what} is {found}; {remedy()}")
    return chosen
