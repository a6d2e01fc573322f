"""The samples that others are compared with, as ExpectedGradients takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pnpx.recommender.trial import Refused, Trial
from pnpx.structure import tensors


@dataclass(frozen=True)
class Background:
    """Samples to compare with, or why there are none.

    Args:
        baselines: as of `pnpx.ExpectedGradients`; None: there are none.
        said: which these are, in words; or why there are none.
    """

    baselines: Any
    said: str

    def required(self) -> Any:
        """The samples.

        Raises:
            Refused: there are none.
        """
        if self.baselines is None:
            raise Refused(self.said)
        return self.baselines


def background_of(trial: Trial, given: Any, values: Sequence[Tensor], tokens: bool) -> Background:
    """The background for a batch.

    Args:
        trial: the model and the batch.
        given: a batch, taken apart as the batch itself is, or what it gives: a tensor, or a tuple or mapping of them;
            None: the batch itself.
        values: the explained tensors of the batch.
        tokens: whether these are token ids.

    Raises:
        ValueError: what is given does not fit the batch.
    """
    if tokens:
        return Background(None, "it compares with other samples number by number, and token ids are no numbers")
    own = given is None
    for found in _forms(trial, trial.inputs if own else given):
        parts = [torch.from_numpy(one) if isinstance(one, np.ndarray) else one for one in _parts(found)]
        leaves = [leaf for part in parts for leaf in tensors(part)]
        if len(leaves) != len(values) or any(
            leaf.shape[1:] != value.shape[1:] for leaf, value in zip(leaves, values, strict=True)
        ):
            continue
        count = len(leaves[0])
        if own and count < 2:
            return Background(None, "it compares with other samples, and the batch has one; give a background")
        several = "" if count == 1 else "s"
        said = f"the {count} sample{several} of the {'batch itself' if own else 'background'}"
        return Background(_like(found, leaves), said)
    shapes = ", ".join(str(tuple(value.shape[1:])) for value in values)
    if own:
        return Background(None, "it compares with other samples, which cannot be told here; give a background")
    what = f"a {type(given).__name__}"
    if isinstance(given, (Tensor, np.ndarray)):
        what = f"of shape {tuple(given.shape)}"
    raise ValueError(f"the background must be a batch as that explained, of samples of shape {shapes}, but is {what}")


def _forms(trial: Trial, given: Any) -> list[Any]:
    """What may be meant: what the model would be given of a batch, or that itself."""
    try:
        return [trial.call(given).forward, given]
    except (TypeError, ValueError, LookupError):  # no batch for the extractors: bare tensors, or what is refused below
        return [given]


def _parts(found: Any) -> list[Any]:
    if isinstance(found, Mapping):
        return list(found.values())
    return list(found) if type(found) in (tuple, list) else [found]


def _like(found: Any, leaves: list[Tensor]) -> Any:
    if isinstance(found, Mapping):
        return dict(zip(found, leaves, strict=True))
    return tuple(leaves) if type(found) in (tuple, list) else leaves[0]
