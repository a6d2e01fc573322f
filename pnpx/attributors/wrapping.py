"""What ``torch.compile``, ``DataParallel`` and the distributed wrappers put around a user's module."""

from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own module in what ``torch.compile``, ``DataParallel`` or the distributed wrappers made of it."""
    while (name := wrapping(model)) is not None:
        model = getattr(model, name)
    return model


def wrapping(model: nn.Module) -> str | None:
    """Under which name a wrapper holds the wrapped module; None if ``model`` is no wrapper."""
    if type(model).__name__ == "OptimizedModule":
        return "_orig_mod"
    return "module" if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)) else None
