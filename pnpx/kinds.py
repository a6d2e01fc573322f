"""What kind of layer a module is: by its class where that is PyTorch's, by its name and its parts where it is not."""

import re
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.activation import __all__ as _ACTIVATIONS
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.pooling import __all__ as _POOLINGS

_CLASSES: dict[str, tuple[type, ...]] = {
    "convolution": (_ConvNd,),
    "lstm": (nn.LSTM, nn.LSTMCell),
    "gru": (nn.GRU, nn.GRUCell),
    "rnn": (nn.RNN, nn.RNNCell),
    "attention": (nn.MultiheadAttention,),
    "transformer layer": (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer),
    "embedding": (nn.Embedding, nn.EmbeddingBag),
    "linear": (nn.Linear, nn.Bilinear),
    "batch norm": (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    "layer norm": (nn.LayerNorm, nn.RMSNorm),
    "normalisation": (_NormBase, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.LocalResponseNorm),
    "pooling": tuple(getattr(nn, name) for name in _POOLINGS),
    "activation": tuple(getattr(nn, name) for name in _ACTIVATIONS if name != "MultiheadAttention"),
    "dropout": (_DropoutNd,),
}

KINDS = tuple(_CLASSES)
"""The kinds there are. Every "batch norm" and "layer norm" is a "normalisation" as well."""

_ASKED = re.compile(
    r"(^|_)(q|k|v|qk|kv|qkv|query|queries|key|keys|value|values)($|_)|query_key|qkv|^c_attn$|^w(q|k|v|qkv)$"
    r"|^(in|input)_proj(_weight)?$",
    re.IGNORECASE,
)
"""How attention calls the maps that make its queries, keys and values: ``query``, ``q_proj``, ``qkv``, ``c_attn``."""


def kinds_of(module: nn.Module) -> Iterator[str]:
    """The kinds of one module, by itself: none for containers, and for what is not known.

    >>> list(kinds_of(nn.BatchNorm2d(3)))
    ['batch norm', 'normalisation']
    >>> list(kinds_of(nn.Sequential()))
    []
    """
    known = _class_of(module)
    found = [kind for kind, classes in _CLASSES.items() if issubclass(known, classes)]
    return iter(found or _by_name(module))


def _class_of(module: nn.Module) -> type:
    """The class; of a scripted module, which has lost it, that of torch.nn which it was."""
    if isinstance(module, torch.jit.ScriptModule):
        original = getattr(nn, str(module.original_name), None)
        return original if isinstance(original, type) else type(module)
    return type(module)


def _by_name(module: nn.Module) -> Iterator[str]:
    """The kinds of a module that is none of PyTorch's, such as those of transformers, torchvision or timm."""
    names = _names(module)
    own = dict(module.named_parameters(recurse=False))
    leaf = next(module.children(), None) is None
    if any("attention" in name.casefold() or name.endswith("Attn") for name in names) and _makes_queries(module):
        yield "attention"
    elif not leaf:
        return
    elif "Conv1D" in names and "weight" in own and own["weight"].ndim == 2:  # GPT-2's, a transposed linear layer
        yield "linear"
    elif any(name.endswith("Norm") for name in names) and all(one.ndim == 1 for one in own.values()):
        if any(name.endswith(("LayerNorm", "RMSNorm")) for name in names):
            yield "layer norm"
        yield "normalisation"
    elif any(name in ("DropPath", "StochasticDepth") or name.endswith(("Dropout", "DropPath")) for name in names):
        yield "dropout"
    elif any(name.endswith("Activation") for name in names):
        yield "activation"


def _names(module: nn.Module) -> list[str]:
    """The names of the class and of those that it is derived from, PyTorch's own left out."""
    if isinstance(module, torch.jit.ScriptModule):
        return [str(module.original_name)]
    return [kind.__name__ for kind in type(module).__mro__ if not kind.__module__.startswith("torch.nn.")]


def _makes_queries(module: nn.Module) -> bool:
    """Whether it has, itself, what makes queries, keys or values."""
    own = [name for name, _ in (*module.named_children(), *module.named_parameters(recurse=False))]
    return any(_ASKED.search(name) for name in own)
