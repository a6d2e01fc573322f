"""A model under gradient checkpointing is explained as the same model without it."""

from functools import partial

import pytest
import torch
import torch.utils.checkpoint as library
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
from transformers import BertConfig, BertForSequenceClassification

import pnpx

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
LAYERS = [None, "first", "block:input", "block.0", "block.2:input", "block.3", "block", "head", ["first", "block.1"]]


class Net(nn.Module):
    """Checkpoints a block whatever its mode; ``reentrant`` None: not at all."""

    def __init__(self, reentrant):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 5)
        self.block = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh())
        self.head = nn.Linear(5, 3)
        self.reentrant, self.runs = reentrant, []
        self.block[0].register_forward_pre_hook(self.count)

    def count(self, *_):
        self.runs.append(None)

    def forward(self, x):
        x = self.first(x).sin()
        x = self.block(x) if self.reentrant is None else checkpoint(self.block, x, use_reentrant=self.reentrant)
        return self.head(x).tanh()


class InARow(Net):
    def forward(self, x):
        return self.head(checkpoint_sequential(self.block, 2, self.first(x).sin(), use_reentrant=self.reentrant)).tanh()


def explainers(model, layer):
    yield pnpx.Gradient(model, layer=layer)
    yield pnpx.SmoothGrad(model, layer=layer, n_iter=4)
    yield pnpx.IntegratedGradients(model, layer=layer, n_steps=3)
    yield pnpx.FeatureAblation(model, layer=layer)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("kind", [Net, InARow])
@pytest.mark.parametrize("reentrant", [True, False])
def test_the_same_as_without_checkpoints(kind, reentrant, layer):
    if kind is InARow and layer in ("block", "block:input"):
        layer = "block.0:input"  # the parts are run, and not the whole
    pairs = zip(explainers(kind(reentrant), layer), explainers(Net(None), layer), strict=True)
    for explainer, plain in pairs:
        torch.testing.assert_close(explainer.attribute(X, 1), plain.attribute(X, 1))


@pytest.mark.parametrize("reentrant", [True, False])
def test_at_the_inputs_memory_is_saved_as_ever(reentrant):
    """The block runs forward, and again for the gradient."""
    model = Net(reentrant)
    pnpx.Gradient(model).attribute(X, 1)
    again = len(model.runs)
    model = Net(None)
    pnpx.Gradient(model).attribute(X, 1)
    assert again == len(model.runs) + 1


def test_checkpoints_are_what_they_were_afterwards():
    before = dict(vars(library))
    model = Net(True)
    pnpx.SmoothGrad(model, layer="block.0", n_iter=2).attribute(X, 1)
    with pytest.raises(RuntimeError):
        pnpx.Gradient(model, layer="block.0").attribute(torch.ones(3, 7), 1)
    assert vars(library) == before
    x = X.clone().requires_grad_()
    model(x).sum().backward()  # as in training
    assert model.runs and model.first.weight.grad is not None


@pytest.mark.parametrize("reentrant", [True, False])
def test_hugging_face_models_in_training(reentrant):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
                        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model, ids = BertForSequenceClassification(config), {"input_ids": torch.tensor([[3, 4, 5], [6, 7, 8]])}
    layers = ["bert.embeddings", "bert.encoder.layer.0.attention", "bert.encoder.layer.1:input"]
    plain = [pnpx.Gradient(model.eval(), layer=layer).attribute(ids, 1) for layer in layers]
    for module in model.modules():  # what gradient_checkpointing_enable sets, under a name that is about to change
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = True
            module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=reentrant)
    model.train()
    assert model.bert.encoder.layer[0].training
    for layer, expected in zip(layers, plain, strict=True):
        torch.testing.assert_close(pnpx.Gradient(model, layer=layer).attribute(ids, 1), expected)
    assert model.training
