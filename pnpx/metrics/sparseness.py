"""How much of an explanation few features have."""

import torch
from torch import Tensor

from pnpx.metrics.shares import Shares


class Sparseness(Shares):
    """The Gini index of the magnitudes of a sample's attributions (Chalasani et al., 2020, arXiv:1810.06583; Hurley and
    Rickard, 2009, doi:10.1109/TIT.2009.2027527).

    0 where all d elements have the same, as in a map of zeros, and 1 - 1/d where one has all: the higher, the sparser.
    The elements are those of all tensors; padding is left out.

    >>> from pnpx import GradientXInput
    >>> model = torch.nn.Linear(4, 1, bias=False)
    >>> _ = model.weight.data.fill_(0.5)
    >>> Sparseness().evaluate(GradientXInput(model), torch.tensor([[1.0, 1, 1, 1], [0, 0, 3, 0]]))
    tensor([0.0000, 0.7500], dtype=torch.float64)
    """

    higher_is_better = True

    def of_row(self, shares: Tensor) -> Tensor:
        size = len(shares)
        places = 2 * torch.arange(1, size + 1, dtype=shares.dtype) - size - 1
        return (places * shares.sort().values).sum() / size
