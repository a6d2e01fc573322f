"""How many points share a pass of the model."""

from math import ceil

from pnpx.attributors import Bound

DEFAULT_ROWS = 32
"""The most rows in a pass where `Explainer.batch_size` is None, as long as nothing is known of what they take."""

_MOST_ROWS = 1024
# How many bytes a pass may make before more rows are not worth while. Measured on one core, those of the zoo's networks
# are fastest at 2 to 10 MiB, and slow down beyond: the caches are full. But a pass also reads its weights, which more
# rows share: the later layers of ResNet-18, of small images, gain up to a fifth until they make as much as they read.
# An accelerator wants many more rows, and has the memory (which is not measured); what does not fit there is halved.
_WANTED, _WANTED_FOR_WEIGHTS, _WANTED_ON_ACCELERATORS = 8 * 2**20, 64 * 2**20, 256 * 2**20
_COPIES = 4  # of the value of each point: the point itself, all joined, gradients, a statistic
_WORTH = 3  # passes left, at least: more rows in a pass have to be checked anew


class Room:
    """How many `copies` of the batch, one a point, share a pass.

    They have at most ``batch_size`` rows. Where that is None they begin with `DEFAULT_ROWS`; the first pass shows how
    much memory it takes, and if that is little, later ones take more.

    Args:
        batch_size: that of the explainer.
        bound: the place.
        n_points: how many points there are, if that is known.
    """

    def __init__(self, batch_size: int | None, bound: Bound, n_points: int | None) -> None:
        self.copies = self._modest = max(1, (batch_size or DEFAULT_ROWS) // bound.batch_size)
        self._bound, self._left = bound, n_points
        self._values = [value.tensor for value in bound.values]
        self._may_grow = batch_size is None and self._worth_it(self.copies)
        if self._may_grow:
            if all(tensor.device.type == "cpu" for tensor in self._values):
                self._wanted = min(max(_WANTED, bound.weights_read), _WANTED_FOR_WEIGHTS)
            else:
                self._wanted = _WANTED_ON_ACCELERATORS
            bound.measure(self._wanted // 2)

    def took(self, points: int, fitted: int) -> None:
        """Note that a pass was given so many ``points``, and how many of them did fit."""
        if self._left is not None:
            self._left -= points
        if fitted < points:
            self.copies, self._may_grow = fitted, False
        elif self._may_grow and self._bound.several:
            self._may_grow = False
            if self._bound.held is not None and self._worth_it():
                self.copies = max(self.copies, self._most(self._bound.held))
        elif self._bound.held is None:  # passes are not any more what they were when that was measured
            self.copies = min(self.copies, self._modest)
        if self._bound.most is not None:
            self.copies = min(self.copies, self._bound.most)

    def _worth_it(self, taken: int = 0) -> bool:
        return self._left is None or self._left - taken > _WORTH * self.copies

    def _most(self, held: int) -> int:
        held += _COPIES * sum(tensor.numel() * max(tensor.element_size(), 4) for tensor in self._values)
        most = min(self._wanted // max(held, 1), _MOST_ROWS // self._bound.batch_size)
        if self._left is not None and most:
            most = ceil(self._left / ceil(self._left / most))  # as even as can be
        return most
