"""Small models with attention: PyTorch's own modules, and tiny BERT and ViT of Hugging Face."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from pnpx.testing.case import Case
from pnpx.testing.plain import SAMPLES, targets


class _Attention(nn.Module):
    """Calls attention on one and the same tensor as query, key and value."""

    def __init__(self, by_keyword: bool, need_weights: bool, batch_first: bool) -> None:
        super().__init__()
        self.by_keyword, self.need_weights, self.batch_first = by_keyword, need_weights, batch_first
        self.mix = nn.Linear(4, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=batch_first, dropout=0.1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        x = self.mix(x) if self.batch_first else self.mix(x).transpose(0, 1)
        if self.by_keyword:
            out, weights = self.attention(query=x, key=x, value=x, need_weights=self.need_weights)
        else:
            out, weights = self.attention(x, x, x, padding, need_weights=self.need_weights)
        out = (out if self.batch_first else out.transpose(0, 1)).mean(1)
        if weights is not None:
            out = out + weights.square().sum((1, 2))[:, None]
        return self.head(torch.tanh(out))  # type: ignore[no-any-return]


def _attention(name: str, by_keyword: bool, *more_layers: str, chain: tuple[str, ...] = ()) -> Case:
    x = torch.randn(SAMPLES, 6, 4)
    model = _Attention(by_keyword, need_weights=not by_keyword, batch_first=True)
    layers = (None, "attention", "attention:input", *more_layers)
    return Case(name, model, x, targets(), layers, args=(x,), first="mix:input", chain=chain)


def attention_positional() -> Case:
    """Attention called by position, which returns its weights as well."""
    return _attention("attention_positional", False, "mix", chain=("mix", "attention"))


def attention_keyword() -> Case:
    """Attention called by keyword, which returns None in place of its weights."""
    return _attention("attention_keyword", True)


def attention_masked() -> Case:
    """Attention over (time, batch, features) with a padding mask that goes along."""
    x, padding = torch.randn(SAMPLES, 6, 4), torch.zeros(SAMPLES, 6, dtype=torch.bool)
    padding[0, 4:] = padding[2, 2:] = True
    return Case(
        "attention_masked",
        _Attention(by_keyword=False, need_weights=False, batch_first=False),
        (x, padding),
        targets(),
        (None, "attention", "attention:input"),
        args=(x, padding),
        parameters={"forward_arg_extractor": 0, "additional_forward_arg_extractor": 1},
        explained=(0,),
        first="mix:input",
    )


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x)[:, 0])  # type: ignore[no-any-return]


def transformer_encoder() -> Case:
    """``nn.TransformerEncoder`` of two layers."""
    x = torch.randn(SAMPLES, 6, 4)
    layers = (None, "encoder.layers.0", "encoder.layers.1.self_attn", "encoder.layers.1.self_attn:input")
    return Case(
        "transformer_encoder",
        _Encoder(),
        x,
        targets(),
        layers,
        args=(x,),
        first="encoder:input",
        chain=("encoder.layers.0", "encoder.layers.1.linear1"),
    )


_SMALL: Mapping[str, Any] = MappingProxyType(
    {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 10,
        "num_labels": 4,
        "initializer_range": 0.4,
    }
)


def _bert(name: str, attention: str, tells_padding: bool) -> Case:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"vocab_size": 20, "max_position_embeddings": 9}
    config = BertConfig(**{**_SMALL, **sizes, "attn_implementation": attention})
    ids, mask = torch.randint(3, 20, (SAMPLES, 7)), torch.ones(SAMPLES, 7, dtype=torch.long)
    mask[0, 5:] = mask[2, 2:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    parameters = {"forward_arg_extractor": "input_ids", "additional_forward_arg_extractor": ["attention_mask"]}
    return Case(
        name,
        BertForSequenceClassification(config),
        {**inputs, "labels": targets()},
        targets(),
        ("bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1.attention", "bert.encoder.layer.1:input"),
        kwargs=inputs,
        parameters={**parameters, "padding_mask_extractor": "attention_mask"} if tells_padding else parameters,
        explained=("input_ids",),
        steps=mask > 0 if tells_padding else None,
        read=_logits,
        chain=("bert.embeddings", "bert.encoder.layer.0", "classifier"),
    )


def bert_sdpa() -> Case:
    """A tiny BERT with padding, with the attention of PyTorch."""
    return _bert("bert_sdpa", "sdpa", tells_padding=False)


def bert_eager() -> Case:
    """A tiny BERT with padding, of which the explainer is told, with attention written out."""
    return _bert("bert_eager", "eager", tells_padding=True)


def vit() -> Case:
    """A tiny ViT."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(image_size=8, patch_size=4, num_channels=2, **_SMALL)
    model = ViTForImageClassification(config)
    # The path of the blocks is not that of every version.
    blocks = [path for path, module in model.named_modules() if type(module).__name__ == "ViTLayer"]
    pixels = torch.randn(SAMPLES, 2, 8, 8)
    return Case(
        "vit",
        model,
        pixels,
        targets(),
        (None, "vit.embeddings", *blocks),
        args=(pixels,),
        read=_logits,
        chain=("vit.embeddings", blocks[1]),
    )


def _logits(output: Any) -> Tensor:
    logits: Tensor = output.logits
    return logits
