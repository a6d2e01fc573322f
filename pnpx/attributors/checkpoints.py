"""Explaining models that use gradient checkpointing: ``torch.utils.checkpoint`` and what Hugging Face builds on it.

A checkpointed part runs again in the backward pass. Its older, reentrant kind takes no gradients but those of
parameters; and at a layer inside such a part, the second run would not have what was put there in the first.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch.utils.checkpoint as library


class _Reentrant:
    """Stands for the reentrant kind, and has the other one do its work, which computes the same."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        return library.checkpoint(function, *args, use_reentrant=False, preserve_rng_state=preserve_rng_state)


def _only_once(*args: Any, **kwargs: Any) -> Iterator[None]:
    """What `torch.utils.checkpoint.checkpoint` puts around a part, for one that is not to run again: nothing."""
    yield


def without_reentrance() -> Callable[[], None]:
    """Let reentrant checkpoints be of the other kind, and give what undoes that."""
    return _replaced(["CheckpointFunction"], _Reentrant)


def without_checkpoints() -> Callable[[], None]:
    """Let checkpointed parts run once, as any other, and give what undoes that."""
    names = ["_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl"]
    return _replaced(names, _only_once)


def _replaced(names: Sequence[str], stand_in: Any) -> Callable[[], None]:
    # Models hold the function itself, so it is what the function looks up that has to change: under the one name or the
    # other, as the version of PyTorch has it. Where it has none, its own errors say what it cannot do.
    originals = {name: getattr(library, name) for name in names if hasattr(library, name)}
    for name in originals:
        setattr(library, name, stand_in)

    def undo() -> None:
        for name, original in originals.items():
            setattr(library, name, original)

    return undo
