"""The gradient itself, and its product with the input."""

from collections.abc import Iterator

from pnpx.attributors import Bound
from pnpx.explainers.points import GradientExplainer, Point
from pnpx.extractors import Call
from pnpx.statistics import Mean


class Gradient(GradientExplainer):
    """The gradient of the score, with its sign (Simonyan, Vedaldi and Zisserman, 2014, arXiv:1312.6034).

    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, -1.0]]))
    >>> Gradient(model).attribute(torch.zeros(1, 2))
    tensor([[ 3., -1.]])
    """

    statistic = Mean
    needs_graph = True

    def points(self, bound: Bound, reference: Call | None) -> Iterator[Point]:
        yield Point([value.tensor for value in bound.values])

    @property
    def n_points(self) -> int:
        return 1


class GradientXInput(Gradient):
    """The gradient times the value it is taken at, element by element (Shrikumar et al., 2016, arXiv:1605.01713).

    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, -1.0]]))
    >>> GradientXInput(model).attribute(torch.tensor([[2.0, 5.0]]))
    tensor([[ 6., -5.]])
    """

    def points(self, bound: Bound, reference: Call | None) -> Iterator[Point]:
        clean = [value.tensor for value in bound.values]
        yield Point(clean, factor=clean)
