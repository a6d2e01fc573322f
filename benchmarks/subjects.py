"""The models that are timed, with random weights, and each cut by hand into what comes before a layer and after it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

SIZES = ("small", "full")


@dataclass(frozen=True)
class Cut:
    """A model cut in two at a layer: ``prefix()`` gives the one tensor there, ``suffix(value)`` the logits.

    ``layer`` is named as an explainer names it: a module, of whose output the tensor is the first, or "module:input".
    """

    layer: str
    prefix: Callable[[], Tensor]
    suffix: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Subject:
    """A model, a batch, and ways to run it.

    ``inputs`` is the tensor explained at the input, and ``forward(inputs)`` gives the logits; ``batch`` is the same as
    an explainer takes it. ``layer_batch`` is the batch with which layers are explained, and ``cuts`` are those layers.
    """

    name: str
    model: nn.Module
    inputs: Tensor
    forward: Callable[[Tensor], Tensor]
    batch: Any
    layer_batch: Any
    cuts: Sequence[Cut] = field(default=())
    rows: int = 32

    @property
    def targets(self) -> Tensor:
        """A class for each sample, (batch,)."""
        return torch.arange(len(self.inputs)) % 10

    @property
    def copies(self) -> int:
        """How many noisy copies of the batch share a forward pass."""
        return max(1, self.rows // len(self.inputs))

    def run(self, copies: int) -> Tensor:
        """The logits of so many copies of `layer_batch`, by the whole model."""
        if isinstance(self.layer_batch, dict):
            arguments = {name: _repeated(tensor, copies) for name, tensor in self.layer_batch.items()}
            logits: Tensor = self.model(**arguments).logits
        else:
            logits = self.model(_repeated(self.layer_batch, copies))
        return logits


def _repeated(tensor: Tensor, copies: int) -> Tensor:
    return tensor.repeat(copies, *[1] * (tensor.ndim - 1))


def subjects(names: Sequence[str], size: str) -> Iterator[Subject]:
    """The models called ``names``, one at a time: each is large. ``size`` is "small" or "full"."""
    makers = {"resnet18": resnet18, "bert": bert, "lstm": lstm}
    for name in names:
        torch.manual_seed(0)
        yield makers[name](size)


def resnet18(size: str) -> Subject:
    """A ResNet-18 (He et al., 2015, arXiv:1512.03385), 16 images of 64x64, or 224x224."""
    from torchvision.models import resnet18 as build  # type: ignore[import-untyped]

    model = build(num_classes=10).eval()
    extent = {"small": 64, "full": 224}[size]
    images = torch.rand(16, 3, extent, extent)
    stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
    stages = [model.layer1, model.layer2, model.layer3, model.layer4]
    head = nn.Sequential(model.avgpool, nn.Flatten(1), model.fc)

    def cut(index: int) -> Cut:
        before, after = nn.Sequential(stem, *stages[: index + 1]), nn.Sequential(*stages[index + 1 :], head)
        return Cut(f"layer{index + 1}", lambda: before(images), after)

    cuts = [cut(index) for index in range(4)]
    return Subject(f"ResNet-18, 16 x 3x{extent}x{extent}", model, images, model, images, images, cuts)


def bert(size: str) -> Subject:
    """BERT-base (Devlin et al., 2018, arXiv:1810.04805), 4 sequences of 16 tokens, or 8 of 64."""
    from transformers import BertConfig, BertForSequenceClassification

    config: Any = BertConfig()
    config.num_labels = 10
    model: Any = BertForSequenceClassification(config).train(False)
    batch, length = {"small": (4, 16), "full": (8, 64)}[size]
    ids = torch.randint(1000, 20000, (batch, length))
    with torch.no_grad():
        embedded = model.bert.embeddings.word_embeddings(ids).clone()
    layers = model.bert.encoder.layer

    def after(count: int) -> Callable[[Tensor], Tensor]:
        def suffix(hidden: Tensor) -> Tensor:
            for layer in layers[count:]:
                out = layer(hidden)
                hidden = out if isinstance(out, Tensor) else out[0]
            logits: Tensor = model.classifier(model.bert.pooler(hidden))
            return logits

        return suffix

    def before(count: int) -> Callable[[], Tensor]:
        def prefix() -> Tensor:
            hidden: Tensor = model.bert.embeddings(input_ids=ids)
            for layer in layers[:count]:
                out = layer(hidden)
                hidden = out if isinstance(out, Tensor) else out[0]
            return hidden

        return prefix

    cuts = [Cut("bert.embeddings", before(0), after(0))]
    cuts += [Cut(f"bert.encoder.layer.{index}", before(index + 1), after(index + 1)) for index in (5, 10)]
    return Subject(
        f"BERT-base, {batch} x {length} tokens",
        model,
        embedded,
        lambda values: model(inputs_embeds=values).logits,
        {"inputs_embeds": embedded},
        {"input_ids": ids},
        cuts,
    )


class Recurrent(nn.Module):
    """Two LSTMs, one after the other, and a linear layer on the last step."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.LSTM(features, hidden, batch_first=True)
        self.second = nn.LSTM(hidden, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 10)

    def forward(self, series: Tensor) -> Tensor:
        """Series (batch, time, features) to logits (batch, 10)."""
        return self.after(self.first(series)[0])

    def after(self, outputs: Tensor) -> Tensor:
        """What follows the first LSTM."""
        logits: Tensor = self.head(self.second(outputs)[0][:, -1])
        return logits


def lstm(size: str) -> Subject:
    """Two LSTMs of 128 units on 16 series of 50 steps, or 200."""
    steps = {"small": 50, "full": 200}[size]
    model = Recurrent(32, 128).eval()
    series = torch.randn(16, steps, 32)

    def prefix() -> Tensor:
        outputs: Tensor = model.first(series)[0]
        return outputs

    # At the first one's output the states (h, c) are explained as well, which a suffix of one tensor leaves out.
    cuts = [Cut("second:input", prefix, model.after)]
    return Subject(f"two LSTMs, 16 x {steps} steps", model, series, model, series, series, cuts)
