"""Which kinds of layers a model is made of: PyTorch's, those of other packages, and none."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from pnpx import zoo
from pnpx.detector import detect
from pnpx.kinds import KINDS, kinds_of
from tests.errors import raises

SMALL = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 50}


@pytest.mark.parametrize("module, kinds", [
    (nn.Linear(2, 2), ["linear"]),
    (nn.LazyLinear(2), ["linear"]),
    (nn.Bilinear(2, 2, 2), ["linear"]),
    (nn.Conv1d(2, 2, 1), ["convolution"]),
    (nn.Conv3d(2, 2, 1), ["convolution"]),
    (nn.ConvTranspose2d(2, 2, 1), ["convolution"]),
    (nn.LazyConv2d(2, 1), ["convolution"]),
    (nn.LSTM(2, 2), ["lstm"]),
    (nn.LSTMCell(2, 2), ["lstm"]),
    (nn.GRU(2, 2), ["gru"]),
    (nn.GRUCell(2, 2), ["gru"]),
    (nn.RNN(2, 2), ["rnn"]),
    (nn.RNNCell(2, 2), ["rnn"]),
    (nn.MultiheadAttention(2, 1), ["attention"]),
    (nn.TransformerEncoderLayer(2, 1, 2), ["transformer layer"]),
    (nn.TransformerDecoderLayer(2, 1, 2), ["transformer layer"]),
    (nn.Embedding(2, 2), ["embedding"]),
    (nn.EmbeddingBag(2, 2), ["embedding"]),
    (nn.BatchNorm2d(2), ["batch norm", "normalisation"]),
    (nn.InstanceNorm1d(2), ["normalisation"]),
    (nn.LayerNorm(2), ["layer norm", "normalisation"]),
    (nn.RMSNorm(2), ["layer norm", "normalisation"]),
    (nn.GroupNorm(1, 2), ["normalisation"]),
    (nn.MaxPool2d(2), ["pooling"]),
    (nn.AdaptiveAvgPool1d(2), ["pooling"]),
    (nn.GELU(), ["activation"]),
    (nn.Softmax(1), ["activation"]),
    (nn.Dropout2d(), ["dropout"]),
    (nn.Flatten(), []),
    (nn.Sequential(), []),
    (nn.Identity(), []),
], ids=lambda one: type(one).__name__ if isinstance(one, nn.Module) else "")
def test_layers_of_torch(module, kinds):
    assert list(kinds_of(module)) == kinds
    traits = detect(nn.Sequential(module))
    assert {kind: "0" in traits.modules.get(kind, ()) for kind in kinds} == dict.fromkeys(kinds, True)
    assert set(kinds) <= set(KINDS)


def test_subclasses_count_as_what_they_are_derived_from():
    class Own(nn.GRU):
        pass

    class Mine(nn.Conv2d):
        pass

    traits = detect(nn.ModuleDict({"a": Own(2, 2), "b": Mine(1, 1, 1)}))
    assert traits.modules == {"convolution": ("b",), "gru": ("a",)}


def test_a_net_of_gru_alone_is_seen():
    traits = detect(nn.GRU(3, 4))
    assert traits.modules == {"gru": ("",)} and "gru" in traits and "lstm" not in traits
    assert str(traits) == "GRU x1"


def test_a_model_without_layers():
    class Function(nn.Module):
        def forward(self, x):
            return x.sin()

    traits = detect(Function())
    assert traits.modules == {} and str(traits) == "no layers of a known kind"
    assert not any(kind in traits for kind in KINDS)


def test_scripted_layers_are_known_by_what_they_were():
    scripted = torch.jit.script(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.GRU(3, 2)))
    traits = detect(scripted)
    assert traits.modules["linear"] == ("0",) and traits.modules["activation"] == ("1",)
    assert traits.modules["gru"] == ("2",)


def test_wrappers_are_looked_into():
    model = nn.Sequential(nn.Linear(2, 2))
    assert detect(nn.DataParallel(model)) == detect(model)
    assert detect(torch.compile(model)) == detect(model)


def test_a_module_used_twice_counts_once():
    linear = nn.Linear(2, 2)
    assert detect(nn.Sequential(linear, nn.ReLU(), linear)).modules["linear"] == ("0",)


def test_what_a_line_of_a_report_says():
    assert str(detect(zoo.load("digits_cnn"))) == "convolution x2, linear x2, batch norm x2"
    assert str(detect(zoo.load("digits_lstm"))) == "LSTM x1, linear x1"
    assert str(detect(zoo.load("digits_attention"))) == "convolution x1, attention x2, linear x7, layer norm x5"
    assert str(detect(nn.Sequential(nn.LayerNorm(2), nn.GroupNorm(1, 2)))) == "layer norm x1, other norm x1"


def test_channels_of_series():
    assert detect(nn.Sequential(nn.Conv1d(3, 5, 1), nn.ConvTranspose1d(5, 2, 1))).series_channels == (3, 5)
    assert detect(nn.Conv2d(3, 5, 1)).series_channels == ()


def test_errors():
    with raises(TypeError, "the model must be a torch.nn.Module, but is a str"):
        detect("resnet18")
    with raises(LookupError, "there is no kind of layer 'linaer'; the nearest: 'linear'"):
        _ = "linaer" in detect(nn.Linear(1, 1))


def test_nothing_is_run_or_changed():
    class Spy(nn.Linear):
        def forward(self, x):
            raise AssertionError("it must not run")

    model = nn.Sequential(Spy(2, 2)).train()
    detect(model)
    assert model.training and not model[0]._forward_hooks


def test_what_is_called_as_gpt2s_linear_layer_and_is_a_convolution():
    class Conv1D(nn.Module):
        def __init__(self, *shape):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(*shape))

    assert list(kinds_of(Conv1D(4, 8))) == ["linear"]
    assert list(kinds_of(Conv1D(8, 4, 3))) == []


# Attention that is not PyTorch's


class Attention(nn.Module):
    """As timm's."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(4, 12), nn.Linear(4, 4)


class AttentionBlock(nn.Module):
    """A wrapper: it has no queries of its own."""

    def __init__(self, inner):
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(4), inner


class CrossAttention(nn.Module):
    """With maps of its own around PyTorch's."""

    def __init__(self):
        super().__init__()
        self.query, self.inner = nn.Linear(4, 4), nn.MultiheadAttention(4, 1)


class ChannelAttention(nn.Module):
    """Squeeze and excitation: nothing is asked for."""

    def __init__(self):
        super().__init__()
        self.squeeze, self.excite = nn.Linear(4, 1), nn.Linear(1, 4)


class ByParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.w_q = nn.Parameter(torch.zeros(2, 2))


class OwnAttn(ByParameter):
    pass


class Equal(nn.Module):
    """Keys, but no attention by name."""

    def __init__(self):
        super().__init__()
        self.key, self.value = nn.Linear(2, 2), nn.Linear(2, 2)


@pytest.mark.parametrize("model, paths", [
    (Attention(), ("",)),
    (nn.Sequential(AttentionBlock(Attention()), AttentionBlock(Attention())), ("0.inner", "1.inner")),
    (nn.Sequential(CrossAttention()), ("0.inner",)),
    (ChannelAttention(), None),
    (OwnAttn(), ("",)),
    (ByParameter(), None),
    (Equal(), None),
    (nn.Sequential(type("Renamed", (Attention,), {})()), ("0",)),
    (nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 4), 2, enable_nested_tensor=False),
     ("layers.0.self_attn", "layers.1.self_attn")),
], ids=lambda one: type(one).__name__)
def test_attention_by_name_and_parts(model, paths):
    assert detect(model).modules.get("attention") == paths


def small(family, **config):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    made = getattr(transformers, f"{family}Config")(**config)
    return getattr(transformers, f"{family}Model")(made)


@pytest.mark.parametrize("family, config, attentions, embeddings", [
    ("Bert", SMALL, 2, 3),
    ("Roberta", SMALL, 2, 3),
    ("Electra", {**SMALL, "embedding_size": 16}, 2, 3),
    ("DistilBert", {"dim": 16, "n_heads": 2, "hidden_dim": 32, "n_layers": 2, "vocab_size": 50}, 2, 2),
    ("GPT2", {"n_embd": 16, "n_head": 2, "n_layer": 2, "vocab_size": 50}, 2, 2),
    ("Llama", SMALL, 2, 1),
    ("ViT", {**SMALL, "image_size": 8, "patch_size": 4}, 2, None),
    ("Swin", {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2],
              "window_size": 2}, 2, None),
    ("T5", {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}, 6, ...),
], ids=lambda one: one if isinstance(one, str) else "")
def test_models_of_transformers(family, config, attentions, embeddings):
    traits = detect(small(family, **config))
    found = traits.modules["attention"]
    assert len(found) == attentions
    assert not any(other.startswith(f"{one}.") for one in found for other in found)
    expected = {"linear", "normalisation", "activation"} | ({"dropout"} if family != "Llama" else set())
    assert expected <= {*traits.modules}
    if embeddings is None:
        assert "embedding" not in traits and "convolution" in traits
    elif embeddings is not ...:
        assert len(traits.modules["embedding"]) == embeddings


def test_layers_that_transformers_writes_itself():
    gpt2 = detect(small("GPT2", n_embd=16, n_head=2, n_layer=1, vocab_size=50))
    assert gpt2.modules["linear"] == ("h.0.attn.c_attn", "h.0.attn.c_proj", "h.0.mlp.c_fc", "h.0.mlp.c_proj")
    llama = detect(small("Llama", **SMALL))
    assert len(llama.modules["layer norm"]) == 5 and "layers.0.mlp.act_fn" in llama.modules["activation"]
    t5 = detect(small("T5", vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2))
    assert "encoder.final_layer_norm" in t5.modules["layer norm"]


@pytest.mark.parametrize("name, expected", [
    ("resnet18", "convolution x20, linear x1, batch norm x20"),
    ("swin_t", "convolution x1, attention x12, linear x52, layer norm x29"),
    ("vit_b_16", "convolution x1, attention x12, linear x37, layer norm x25"),
])
def test_models_of_torchvision(name, expected):
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        model = getattr(torchvision.models, name)()
    assert str(detect(model)) == expected
    if name == "swin_t":
        assert "features.1.0.attn" in detect(model).modules["attention"]
        assert "features.1.0.stochastic_depth" in detect(model).modules["dropout"]


def test_detecting_brings_nothing_heavy_along():
    code = ("import sys, torch, pnpx.recommender; "
            "print(*sorted({'transformers', 'torchvision', 'matplotlib', 'sklearn', 'timm'} & {*sys.modules}))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == ""
