"""Small feed-forward models: linear, fully connected, convolutional, with several inputs, with a shared module."""

from typing import Any

import torch
from torch import Tensor, nn

from pnpx.testing.case import Case

SAMPLES = 3


def targets(classes: int = 4) -> Tensor:
    """A class for each sample, no two the same."""
    return torch.arange(SAMPLES).flip(0) % classes


def linear() -> Case:
    """One linear layer, whose gradients are its weights."""
    x = torch.randn(SAMPLES, 5)
    return Case("linear", nn.Sequential(nn.Linear(5, 4)), x, targets(), (None, "0"), args=(x,), first="0:input")


def mlp() -> Case:
    """A fully connected net with an in-place ReLU, and a smooth end."""
    model = nn.Sequential(
        nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 6), nn.Dropout(0.5), nn.Tanh(), nn.Linear(6, 4)
    )
    x = torch.randn(SAMPLES, 5)
    return Case(
        "mlp",
        model,
        x,
        targets(),
        (None, "0", "1", "2:input", "4:input"),
        args=(x,),
        first="0:input",
        chain=("0", "2", "4"),
    )


class _Block(nn.Module):
    """A residual block that changes its own values in place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm(self.conv(x))
        residual += x
        return self.relu(residual)  # type: ignore[no-any-return]


class _ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.block = _Block(4)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.relu(self.norm(self.conv(x))))
        return self.head(self.dropout(torch.tanh(self.pool(x)).flatten(1)))  # type: ignore[no-any-return]


def conv() -> Case:
    """A convolutional net with batch norm, a skip connection, dropout, and in-place operations."""
    model = _ConvNet()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after some training
            module.running_mean = torch.randn_like(torch.zeros(4)) / 2
            module.running_var = torch.rand(4) + 0.5
    x = torch.randn(SAMPLES, 2, 6, 6)
    return Case(
        "conv",
        model,
        x,
        targets(5),
        (None, "conv", "norm", "block", "block.norm", "block.relu:input", "head:input"),
        args=(x,),
        first="conv:input",
        chain=("norm", "block", "pool"),
    )


class _TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 6), nn.Conv1d(2, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head(torch.tanh(self.left(a) * self.right(b).mean(2)))  # type: ignore[no-any-return]


def two_inputs() -> Case:
    """Two inputs of different shapes, in a tuple."""
    a, b = torch.randn(SAMPLES, 5), torch.randn(SAMPLES, 2, 4)
    return Case(
        "two_inputs",
        _TwoInputs(),
        (a, b),
        targets(),
        (None, ("left", "right"), ("right:input", "left"), ("a", "right"), "b", "head:input"),
        args=(a, b),
        apart=("left", "right"),
    )


class _Keywords(nn.Module):
    """Takes what it takes by keyword, and returns a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.scale, self.head = nn.Linear(5, 6), nn.Linear(2, 6), nn.Linear(6, 4)

    def forward(self, *, image: Tensor, scale: Tensor | None = None, labels: Tensor | None = None) -> dict[str, Tensor]:
        if labels is not None:
            raise ValueError("labels must not reach the model")
        hidden = torch.sigmoid(self.encode(image))
        if scale is not None:
            hidden = hidden * self.scale(scale)
        return {"logits": self.head(hidden), "hidden": hidden}


def mapping() -> Case:
    """A mapping as batch, labels among it, for a model with keyword-only arguments that returns a mapping."""
    image, scale = torch.randn(SAMPLES, 5), torch.randn(SAMPLES, 2)
    return Case(
        "mapping",
        _Keywords(),
        {"image": image, "scale": scale, "labels": targets()},
        targets(),
        (None, "encode", ("encode", "scale:output"), "scale:argument"),
        kwargs={"image": image, "scale": scale},
        explained=("image", "scale"),
        read=lambda output: output["logits"],
        chain=("encode", "head"),
    )


def labelled() -> Case:
    """A batch (inputs, labels) as data loaders give it, of which only the inputs are for the model."""
    model = nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 4))
    x = torch.randn(SAMPLES, 5)
    return Case(
        "labelled",
        model,
        (x, targets()),
        targets(),
        (None, "0", "2:input"),
        args=(x,),
        parameters={"forward_arg_extractor": 0},
        first="0:input",
        chain=("0", "1"),
    )


class _Shared(nn.Module):
    """Calls each of its modules twice."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.bend, self.head = nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bend(self.mix(x))
        return self.head(torch.tanh(self.bend(self.mix(x)) + x))  # type: ignore[no-any-return]


def shared() -> Case:
    """Modules that run twice in a forward pass."""
    x = torch.randn(SAMPLES, 6)
    return Case(
        "shared",
        _Shared(),
        x,
        targets(),
        (None, "mix#1", "mix#2", "mix#2:input", "bend#1", "bend#2:input"),
        args=(x,),
        first="mix#1:input",
        chain=("mix#1", "mix#2"),
    )


class _Nested(nn.Module):
    """Its trunk returns a mapping with a list, None, ids and a number in it."""

    class _Trunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 6)

        def forward(self, x: Tensor) -> dict[str, Any]:
            hidden = self.linear(x)
            parts = [hidden[:, :2].tanh(), hidden[:, 2:]]
            return {"parts": parts, "cache": None, "top": hidden.argmax(1), "unused": x * 2.0, "depth": 2}

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = self._Trunk(), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self.trunk(x)
        return self.head(torch.cat(found["parts"], dim=1).sigmoid()), found["top"]


def nested() -> Case:
    """A module whose output is a nesting of containers, of which the score uses a part."""
    x = torch.randn(SAMPLES, 5)
    return Case(
        "nested",
        _Nested(),
        x,
        targets(),
        (None, "trunk"),
        args=(x,),
        read=lambda output: output[0],
        first="trunk:input",
        chain=("trunk.linear", "trunk"),
    )
