"""The least that anyone could do: the forward and backward passes and nothing else."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """``model`` with weights that need no gradient, as explainers have it."""
    thawed = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in thawed:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in thawed:
            weight.requires_grad_(True)


def chunks(value: Tensor, copies: Sequence[int], level: float = 0.1) -> list[Tensor]:
    """Noisy copies of ``value``, made beforehand: so many of them in each chunk."""
    generator = torch.Generator().manual_seed(0)
    noise = level * float(value.max() - value.min())
    return [
        torch.cat([value + noise * torch.randn(value.shape, generator=generator) for _ in range(count)])
        for count in copies
    ]


def even(n_iter: int, copies: int) -> list[int]:
    """How many copies each chunk has where none has more than ``copies``.

    >>> even(5, 2)
    [2, 2, 1]
    """
    return [min(copies, n_iter - start) for start in range(0, n_iter, copies)]


def bare_loop(forward: Callable[[Tensor], Tensor], made: Sequence[Tensor], targets: Tensor) -> None:
    """One forward and backward pass for each chunk; what comes out is thrown away."""
    for chunk in made:
        values = chunk.detach().requires_grad_()
        scores = forward(values)[torch.arange(len(values)), targets.repeat(len(values) // len(targets))]
        torch.autograd.grad(scores.sum(), values)
