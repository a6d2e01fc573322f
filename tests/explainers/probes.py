"""Models that tell what an explainer gives to them, and models whose gradients are plain."""

import torch
from torch import nn


class Spy(nn.Module):
    """Records what reaches it, and goes on with that."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return x * 1.0

    @property
    def rows(self):
        """All that it has seen, pass after pass, (rows, ...)."""
        return torch.cat(self.seen)


class Quadratic(nn.Module):
    """f(x) = a |x|^2 / 2, whose gradient is a x."""

    def __init__(self, a=2.0):
        super().__init__()
        self.a = a

    def forward(self, x):
        return self.a / 2 * x.square().flatten(1).sum(1, keepdim=True)
