"""The small models that explainers are examined on, by name."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import MappingProxyType

import torch

from pnpx.suggest import nearest
from pnpx.testing import attentive, plain, recurrent
from pnpx.testing.case import Case

_MAKERS: tuple[Callable[[], Case], ...] = (
    plain.linear,
    plain.mlp,
    plain.conv,
    plain.two_inputs,
    plain.mapping,
    plain.labelled,
    plain.shared,
    plain.nested,
    recurrent.lstm,
    recurrent.gru_sequence_first,
    recurrent.rnn_tokens,
    recurrent.packing,
    recurrent.packed,
    attentive.attention_positional,
    attentive.attention_keyword,
    attentive.attention_masked,
    attentive.transformer_encoder,
    attentive.bert_sdpa,
    attentive.bert_eager,
    attentive.vit,
)

MODELS: Mapping[str, Callable[[], Case]] = MappingProxyType({maker.__name__: maker for maker in _MAKERS})
"""What makes each case, by name; use `case` for a case whose weights are the same every time."""

HUGGING_FACE = ("bert_sdpa", "bert_eager", "vit")
"""The cases that need the package transformers."""


def available() -> list[str]:
    """The names of the cases that can be made here: all of them, or without transformers those that do without."""
    return [name for name in MODELS if name not in HUGGING_FACE or find_spec("transformers") is not None]


def case(name: str) -> Case:
    """The case called ``name``, made anew: the model in eval mode and float64, always with the same weights.

    >>> case("linear").model
    Sequential(
      (0): Linear(in_features=5, out_features=4, bias=True)
    )

    Raises:
        LookupError: there is none of this name.
        ImportError: it needs transformers, which is missing.
    """
    if name not in MODELS:
        raise LookupError(f"no model {name!r} to examine explainers on; {nearest(name, MODELS)}")
    if name not in available():
        raise ImportError(f"the model {name!r} needs transformers; install it: pip install transformers tokenizers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = MODELS[name]()
    made.model.eval()
    return made.to(torch.float64)
