"""How many features an explanation is spread over."""

import torch
from torch import Tensor

from pnpx.metrics.shares import Shares


class Complexity(Shares):
    """The entropy of the shares that elements have in the explanation (Bhatt, Weller and Moura, 2020,
    arXiv:2005.00631, complexity), in nats.

    The share of an element is the magnitude of its attribution over the sum of all magnitudes of the sample, in all
    tensors; padding is left out. 0 where one element alone has any, log(d) where d elements have the same: the lower,
    the simpler. A map of zeros tells no element from another, as a constant one, and has log(d) as well.

    >>> from pnpx import GradientXInput
    >>> model = torch.nn.Linear(4, 1, bias=False)
    >>> _ = model.weight.data.fill_(0.5)
    >>> Complexity().evaluate(GradientXInput(model), torch.tensor([[1.0, 1, 1, 1], [0, 0, 3, 0]])).exp()
    tensor([4., 1.], dtype=torch.float64)
    """

    higher_is_better = False

    def of_row(self, shares: Tensor) -> Tensor:
        terms: Tensor = torch.special.xlogy(shares, shares)
        return 0.0 - terms.sum()
