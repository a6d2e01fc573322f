"""FeatureAblation against captum and direct passes, and what all perturbation explainers share."""


import pytest
import torch
from torch import nn

import pnpx
from pnpx.baselines import Token
from pnpx.explainers.games import Game
from pnpx.explainers.perturbation import PerturbationExplainer
from tests.errors import raises

KINDS = [kind for kind in pnpx.all_explainers().values() if issubclass(kind, PerturbationExplainer)]


class Net(nn.Module):
    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 3, 3, padding=1, dtype=dtype)
        self.head = nn.Linear(3 * 16, 4, dtype=dtype)
        self.rows, self.grad = [], []

    def forward(self, x):
        self.rows.append(len(x))
        self.grad.append(torch.is_grad_enabled())
        return self.head(torch.tanh(self.conv(x)).flatten(1))


def images(rows=3):
    return torch.randn(rows, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_the_registry_has_them():
    names = {"FeatureAblation", "KernelShap", "Lime", "Occlusion", "Shapley", "Sobol"}
    assert {kind.__name__ for kind in KINDS} >= names


@pytest.mark.parametrize("groups", ["elements", "positions", "channels", 2])
def test_as_captum(groups):
    from captum.attr import FeatureAblation

    ids = {
        "elements": torch.arange(32).reshape(2, 4, 4),
        "positions": torch.arange(16).reshape(1, 4, 4).expand(2, 4, 4),
        "channels": torch.arange(2)[:, None, None].expand(2, 4, 4),
        2: torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]).expand(2, 4, 4),
    }[groups][None]
    baseline = torch.randn(1, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    targets = torch.tensor([3, 0, 1])
    expected = FeatureAblation(Net()).attribute(images(), baselines=baseline, target=targets, feature_mask=ids)
    found = pnpx.FeatureAblation(Net(), groups=groups, baseline=baseline).attribute(images(), targets)
    torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=1e-7)


def test_at_a_layer_as_captum():
    from captum.attr import LayerFeatureAblation

    model = Net()
    expected = LayerFeatureAblation(model, model.conv).attribute(images(), target=1, layer_baselines=0.25)
    explainer = pnpx.FeatureAblation(model, layer="conv", groups="elements", replacement=0.25)
    torch.testing.assert_close(explainer.attribute(images(), 1), expected.double(), rtol=1e-6, atol=1e-7)


def test_by_direct_passes_at_both_sides_of_a_layer():
    """At a layer the baseline is what the layer gives for it; its input is the model's input."""
    model, gone = Net(), torch.full((2, 4, 4), 0.5, dtype=torch.float64)
    x = images(1)
    with torch.no_grad():
        clean, after, absent = model(x)[0, 2], model.conv(x), model.conv(gone[None])
        expected = torch.zeros(3, 4, 4, dtype=torch.float64)
        for channel in range(3):
            edited = after.clone()
            edited[0, channel] = absent[0, channel]
            expected[channel] = clean - model.head(torch.tanh(edited).flatten(1))[0, 2]
    found = pnpx.FeatureAblation(model, layer="conv", groups="channels", baseline=0.5).attribute(x, 2)
    torch.testing.assert_close(found[0], expected)
    one = pnpx.FeatureAblation(model, groups=2).attribute(x, 2)
    torch.testing.assert_close(pnpx.FeatureAblation(model, layer="conv:input", groups=2).attribute(x, 2), one)


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradients_and_no_more_rows_than_allowed(kind):
    model = Net()
    kind(model, batch_size=7).attribute(images(), 0)
    assert not any(model.grad)
    assert max(model.rows) == 6  # two copies of three samples


@pytest.mark.parametrize("kind", KINDS)
def test_several_targets_share_their_passes(kind):
    model = Net()
    kind(model).attribute(images(), 0)
    once, model.rows = list(model.rows), []
    targets = torch.tensor([[0, 3, 1]] * 3)
    found = kind(model).attribute(images(), targets)
    assert model.rows == once
    assert found.shape == (3, 3, 2, 4, 4)
    for index, target in enumerate((0, 3, 1)):
        torch.testing.assert_close(found[:, index], kind(model).attribute(images(), target))


@pytest.mark.parametrize("kind", KINDS)
def test_out_of_memory_halves_the_passes(kind):
    """Whatever does not fit is done in smaller parts, with the same result, and nothing is left out or twice."""
    model, seen = Net(), []

    class Small(nn.Module):
        def forward(self, x):
            seen.append(len(x))
            if len(x) > 5:
                raise torch.cuda.OutOfMemoryError("too many rows")
            return model(x)

    x = images(1)
    torch.testing.assert_close(kind(Small()).attribute(x, 0), kind(model).attribute(x, 0))
    assert max(seen) > 5 and sum(rows > 5 for rows in seen) <= 4

    class Full(nn.Module):
        def forward(self, x):
            raise torch.cuda.OutOfMemoryError("not even one row")

    with pytest.raises(torch.cuda.OutOfMemoryError, match="not even one row"):
        kind(Full()).attribute(x, 0)


def test_a_model_of_one_copy_at_a_time():
    """A model that mixes the rows of a batch gets one copy of it in a pass."""
    class Mixing(nn.Module):
        def forward(self, x):
            return (x - x.mean(0)).square()

    x = torch.tensor([[1.0, 2.0], [3.0, 7.0]], dtype=torch.float64)
    expected = torch.zeros(2, 2, dtype=torch.float64)
    expected[:, 0] = (x[:, 0] - 2).square()  # where the column is zero for both, nothing is left
    torch.testing.assert_close(pnpx.FeatureAblation(Mixing()).attribute(x, 0), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats(dtype):
    model, x = Net(dtype), images().to(dtype)
    found = pnpx.FeatureAblation(model, groups=2).attribute(x, 1)
    assert found.dtype == torch.float32 and found.shape == x.shape
    edited = x.clone()
    edited[:, :, :2, :2] = 0
    with torch.no_grad():
        expected = model(x)[:, 1].float() - model(edited)[:, 1].float()
    torch.testing.assert_close(found[:, 0, 0, 0], expected, rtol=0, atol=0.02)


def test_the_record_has_the_groups():
    record = pnpx.FeatureAblation(Net(), groups="channels").explain(images(), torch.tensor([[0, 1]] * 3))
    assert record.diagnostics["by_group"].shape == (3, 2, 2)
    torch.testing.assert_close(record.diagnostics["by_group"], record.attributions[:, :, :, 0, 0])
    torch.testing.assert_close(record.explained, images())
    assert record.explainer["groups"] == "channels"


def tiny_bert():
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=10,
        max_position_embeddings=9, num_labels=3, initializer_range=0.4,
    )).double().eval()


BATCH = {
    "input_ids": torch.tensor([[1, 8, 9, 10, 2], [1, 12, 2, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    "token_type_ids": torch.zeros(2, 5, dtype=torch.long),
}


def test_token_ids_of_a_bert():
    """Token ids are explained as they are, from a whole batch; masks and token types are no features."""
    bert, expected = tiny_bert(), torch.zeros(2, 5, dtype=torch.float64)
    with torch.no_grad():
        clean = bert(**BATCH).logits[:, 1]
        for place in range(5):
            ids = BATCH["input_ids"].clone()
            ids[:, place] = 4
            expected[:, place] = clean - bert(**{**BATCH, "input_ids": ids}).logits[:, 1]
    for batch_size in (1, 32):
        found = pnpx.FeatureAblation(bert, baseline=4, batch_size=batch_size).attribute(BATCH, 1)
        assert set(found) == {"input_ids"}
        torch.testing.assert_close(found["input_ids"], expected)
    only = {"forward_arg_extractor": "input_ids", "additional_forward_arg_extractor": ["attention_mask"]}
    torch.testing.assert_close(pnpx.FeatureAblation(bert, baseline=4, **only).attribute(BATCH, 1), expected)
    for layer in ("input_ids", "bert.embeddings.word_embeddings:input"):
        found = pnpx.FeatureAblation(bert, baseline=4, layer=layer, **only).attribute(BATCH, 1)
        torch.testing.assert_close(found, expected)


def test_token_embeddings_for_a_token():
    """At the embedding a token is replaced by what the embedding gives for the baseline's token at its position."""
    bert = tiny_bert()
    only = {"forward_arg_extractor": "input_ids", "additional_forward_arg_extractor": ["attention_mask"], "baseline": 4}
    ids = pnpx.FeatureAblation(bert, **only).attribute(BATCH, 1)
    embedded = pnpx.FeatureAblation(bert, layer="bert.embeddings", **only).attribute(BATCH, 1)
    torch.testing.assert_close(embedded, ids[:, :, None].expand(2, 5, 8))


def test_special_tokens_and_padding_stay():
    bert, special = tiny_bert(), torch.tensor([0, 1, 2])
    groups = torch.arange(5).expand(2, 5).masked_fill(torch.isin(BATCH["input_ids"], special), -1)
    only = {"forward_arg_extractor": "input_ids", "additional_forward_arg_extractor": ["attention_mask"]}
    found = pnpx.KernelShap(bert, groups=groups, baseline=4, **only).attribute(BATCH, 1)
    assert (found == 0).tolist() == [[True, False, False, False, True], [True, False, True, True, True]]
    kept = pnpx.KernelShap(bert, baseline=Token(4, keep=(0, 1, 2)), **only).attribute(BATCH, 1)
    torch.testing.assert_close(found, kept)  # what stays the same is worth nothing
    with torch.no_grad():
        edited = BATCH["input_ids"].where(groups < 0, 4)
        gap = [bert(ids, attention_mask=BATCH["attention_mask"]).logits[:, 1] for ids in (BATCH["input_ids"], edited)]
    torch.testing.assert_close(found.sum(1), gap[0] - gap[1])
    padded = pnpx.KernelShap(bert, baseline=4, padding_mask_extractor="attention_mask", **only).attribute(BATCH, 1)
    short = {name: value[1:, :3] for name, value in BATCH.items()}
    alone = pnpx.KernelShap(bert, baseline=4, padding_mask_extractor="attention_mask", **only).attribute(short, 1)
    torch.testing.assert_close(padded[1:, :3], alone)
    assert (padded[1, 3:] == 0).all()


def test_integers_beside_floats():
    class Mixed(nn.Module):
        def forward(self, x, ids):
            return x.sum(1, keepdim=True) + 10.0 * ids[:, :1]

    x, ids = torch.tensor([[1.0, 2.0]]), torch.tensor([[3, 4]])
    for kind, n_iter in ((pnpx.FeatureAblation, {}), (pnpx.KernelShap, {})):
        left, right = kind(Mixed(), **n_iter).attribute((x, ids))
        torch.testing.assert_close(left, x)
        torch.testing.assert_close(right, torch.tensor([[30.0, 0.0]]))
    with pytest.raises(TypeError, match=r"gradients need floating-point values, but the input is torch\.int64"):
        pnpx.Gradient(nn.Embedding(9, 2)).attribute(ids)


def test_places_of_integers_are_explained_one_by_one():
    bert = tiny_bert()
    only = {"forward_arg_extractor": "input_ids", "additional_forward_arg_extractor": ["attention_mask"], "baseline": 4}
    ids, embedded = pnpx.FeatureAblation(bert, layer=["input_ids", "bert.embeddings"], **only).attribute(BATCH, 1)
    torch.testing.assert_close(ids, pnpx.FeatureAblation(bert, **only).attribute(BATCH, 1))
    torch.testing.assert_close(embedded[:, :, 0], ids)


def test_what_replaces():
    class First(nn.Module):
        def forward(self, x):
            return x.flatten(1)

    x = torch.tensor([[1.0, 2.0, 6.0]])
    ablate = pnpx.FeatureAblation
    for baseline, expected in ((0.5, 0.5), ("mean", -2.0), (torch.tensor([4.0, 0.0, 0.0]), -3.0), (lambda x: -x, 2.0)):
        assert ablate(First(), baseline=baseline).attribute(x, 0).tolist() == [[expected, 0.0, 0.0]]
        assert ablate(First(), replacement=baseline).attribute(x, 0).tolist() == [[expected, 0.0, 0.0]]
    image = torch.rand(1, 1, 8, 8)
    found = ablate(First(), groups="elements", baseline="blur").attribute(image, 0)
    torch.testing.assert_close(found[0, 0, 0, 0], (image - pnpx.baselines.blur(image))[0, 0, 0, 0])


def test_where_the_batch_is_not_the_first_axis():
    """Replacements and groups are those of samples, wherever their axis is."""
    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.turn = nn.Identity()

        def forward(self, x):
            return self.turn(x.transpose(0, 1)).sum(0)

    x = torch.rand(3, 5, 2, dtype=torch.float64)
    found = pnpx.FeatureAblation(TimeFirst(), layer="turn", replacement="mean").attribute(x, 1)
    torch.testing.assert_close(found, (x[:, :, 1] - x.mean((1, 2))[:, None]).T[:, :, None].expand(5, 3, 2))


def test_a_game_of_ones_own():
    """Where copies have another length than the sample, as texts that lose words, only the game is another."""
    words = [["not", "bad", "at", "all"], ["bad"]]
    value = {"not": 0.0, "bad": -2.0, "at": 0.5, "all": 1.0}

    class Deletion(Game):
        counts = (4, 1)
        copies = 3

        def score(self, kept):
            total = sum(value[word] for word in kept)
            return -total if "not" in kept else total

        def play(self, kept):
            chosen = [[[w for w, k in zip(text, row, strict=False) if k] for text, row in zip(words, copy, strict=True)]
                      for copy in kept]
            return torch.tensor([[self.score(text) for text in copy] for copy in chosen], dtype=torch.float64)[None]

        clean = torch.tensor([[0.5, -2.0]], dtype=torch.float64)

    game = Deletion()
    found = pnpx.FeatureAblation(nn.Identity()).solve(game)
    assert found[0, 1].tolist() == [-2.0, 0.0, 0.0, 0.0]
    assert found[0, 0].tolist() == [0.5 - (-0.5), 0.5 - (-1.5), 0.5 - 1.0, 0.5 - 1.5]
    shapley = pnpx.Shapley(nn.Identity()).solve(game)
    torch.testing.assert_close(shapley.sum(2), torch.tensor([[0.5, -2.0]]).double())
    torch.testing.assert_close(pnpx.KernelShap(nn.Identity()).solve(game), shapley)


@pytest.mark.parametrize("parameters, kind, message", [
    ({"baseline": "zero"}, ValueError, "no baseline 'zero'; the nearest: 'zeros'"),
    ({"group": 3}, TypeError, "FeatureAblation has no parameter 'group'; the nearest: 'groups'"),
    ({"layer": "conv", "replacement": torch.zeros(7)}, ValueError,
     "a baseline must have the shape of the input, (3, 3, 4, 4), or expand to it, but has (7,)"),
])
def test_wrong_parameters(parameters, kind, message):
    with raises(kind, message):
        pnpx.FeatureAblation(Net(), **parameters).attribute(images(), 0)


def test_wrong_tokens():
    ids = torch.tensor([[1, 2]])
    with pytest.raises(ValueError, match=r"^a baseline of torch.int64 must be whole numbers, such as a token's id, but "
                       r"is 0\.5$"):
        pnpx.FeatureAblation(nn.Embedding(9, 2), baseline=0.5).attribute(ids)
    with pytest.raises(TypeError, match=r"^Token replaces token ids, which are ints, but got torch.float64$"):
        pnpx.FeatureAblation(Net(), baseline=Token(4)).attribute(images(), 0)
