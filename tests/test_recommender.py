"""Which explainers are picked, why, and that those picked do explain."""

import gc
import sys
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import pnpx
from pnpx import zoo
from pnpx.explainers import GradientExplainer, Point
from pnpx.recommender import Recommendation, recommend
from pnpx.statistics import Mean
from pnpx.structure import tensors
from pnpx.testing import available, case
from tests.errors import raises

SHIPPED = {
    name
    for name, kind in pnpx.all_explainers().items()
    if kind.__module__.startswith("pnpx.") and getattr(sys.modules[kind.__module__], name, None) is kind
}
GRADIENTS = ["IntegratedGradients", "ExpectedGradients", "SmoothGrad", "SquareGrad", "VarGrad", "Gradient"]
ON_IDS = [name for name in GRADIENTS if name != "ExpectedGradients"]

pytestmark = [
    pytest.mark.usefixtures("ours_alone"),
    pytest.mark.filterwarnings("ignore:what .* steps miss:RuntimeWarning"),
]


def of_pnpx(found):
    """The recommendations, those of explainers that other tests define left out."""
    return [one for one in found if one.name in SHIPPED]


def picked(found):
    return [one.name for one in of_pnpx(found) if one.picked]


def why(found, name):
    return next(one.reason for one in found if one.name == name)


def net(*sizes):
    torch.manual_seed(0)
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def explains(found, batch, targets):
    """Whatever is picked gives finite numbers that are not all zero."""
    for one in of_pnpx(found):
        if one.picked:
            values = tensors(one.explainer.explain(batch, targets).attributions)
            assert all(value.isfinite().all() for value in values), one.name
            assert any((value != 0).any() for value in values), one.name


def is_complete(found):
    """Every explainer is there once, the picked ones first; each with a reason, the picked ones ready."""
    names = [one.name for one in found]
    assert {*names} >= SHIPPED and len(names) == len({*names})
    flags = [one.picked for one in found]
    assert flags == sorted(flags, reverse=True)
    for one in found:
        assert one.reason and "\n" not in one.reason
        assert (one.explainer is None) is not one.picked
        if one.picked:
            assert type(one.explainer).__name__ == one.name
        else:
            assert one.layer is None and not one.parameters


@pytest.mark.parametrize("targets", ["given", "predicted"])
@pytest.mark.parametrize("name", available())
def test_what_is_picked_explains_every_case(name, targets):
    made = case(name)
    wanted = made.targets if targets == "given" else None
    found = recommend(made.model, made.batch, wanted, **made.parameters)
    is_complete(found)
    explains(found, made.batch, wanted)
    names = picked(found)
    if name == "linear":
        assert names == ["GradientXInput", "Gradient"]
        return
    ids = name in ("rnn_tokens", "bert_sdpa", "bert_eager")
    assert names[:-2] == (ON_IDS if ids else GRADIENTS)
    assert names[-2] in ("Occlusion", "FeatureAblation") and names[-1] in ("Shapley", "KernelShap")
    places = {one.layer for one in of_pnpx(found) if one.picked and one.explainer.needs_floats}
    assert places == ({"embedding" if name == "rnn_tokens" else "bert.embeddings"} if ids else {None})
    assert all(one.layer is None for one in found if one.picked and not one.explainer.needs_floats)


@pytest.mark.parametrize("name, last", [
    ("digits_cnn", ["Occlusion", "KernelShap"]),
    ("digits_lstm", ["Occlusion", "Shapley"]),
    ("digits_rnn", ["Occlusion", "Shapley"]),
    ("digits_attention", ["Occlusion", "KernelShap"]),
    ("breast_cancer_mlp", ["FeatureAblation", "KernelShap"]),
])
def test_the_zoo(name, last):
    entry = zoo.entry(name)
    data = zoo.data(entry.data)
    model = zoo.load(name)
    found = recommend(model, data.inputs[:4], data.targets[:4])
    is_complete(found)
    assert picked(found) == GRADIENTS + last
    explains(found, data.inputs[:4], data.targets[:4])
    explains(found, data.inputs[4:6], None)  # another batch, and another size


def test_on_one_sample_without_a_background():
    found = recommend(net(4, 6, 3), normal(1, 4))
    assert picked(found) == [*ON_IDS, "FeatureAblation", "Shapley"]
    assert why(found, "ExpectedGradients") == "it compares with other samples, and the batch has one; give a background"


# Reasons


def test_reasons():
    found = recommend(net(4, 6, 3), normal(3, 4))
    assert {one.name: one.reason for one in of_pnpx(found)} == {
        "IntegratedGradients": "adds up to the score less that of zeros; 32 gradients a sample",
        "ExpectedGradients": "adds up, on average over draws, to the score less the mean score of the 3 samples of the "
                             "batch itself; 50 gradients a sample",
        "SmoothGrad": "the gradient with its sign, rid of what fluctuates near the sample; 20 gradients a sample",
        "SquareGrad": "how strongly the score reacts near the sample, whichever way; 20 gradients a sample",
        "VarGrad": "where the gradient changes near the sample; 20 gradients a sample",
        "Gradient": "the slope at the sample itself, and the cheapest there is; 1 gradient a sample",
        "FeatureAblation": "what the score loses without each of 4 elements, by no gradient; 4 forward passes a sample",
        "Shapley": "exact Shapley values of 4 elements, by no gradient; 15 forward passes a sample",
        "GradientXInput": "IntegratedGradients, which is picked, takes the same product all along a path, and so adds "
                          "up",
        "KernelShap": "Shapley, which is picked, gives the same values of 4 elements by their definition",
        "Lime": "Shapley, which is picked, shares the score out among the same elements, and adds up, which Lime does "
                "not",
        "Occlusion": "FeatureAblation, which is picked, does the same with the same groups",
        "Sobol": "Shapley, which is picked, tells how much the same elements matter, and also which way",
    }
    assert str(found[-1]).startswith("- ") and str(Recommendation("A", "b", explainer=1)) == "+ A: b"


class Counting(nn.Module):
    """Notes the rows of its passes."""

    def __init__(self, model):
        super().__init__()
        self.inner, self.rows = model, []

    def forward(self, x):
        self.rows.append(len(x))
        return self.inner(x)


@pytest.mark.parametrize("size", [4, 9, 12])
def test_the_passes_told_are_those_taken(size):
    x = normal(1, size)
    found = [one for one in of_pnpx(recommend(net(size, 6, 3), x)) if one.picked]
    for one in found:
        count = int(one.reason.split("; ")[1].split()[0])
        model = Counting(net(size, 6, 3))
        type(one.explainer)(model, **one.parameters).attribute(x, 1)
        assert count <= sum(model.rows) <= count + 8, one.name  # beside them the clean pass, and the self-check


# Which of those that are equal


@pytest.mark.parametrize("size, wanted", [(6, "Shapley"), (9, "Shapley"), (10, "KernelShap"), (30, "KernelShap")])
def test_exact_shapley_values_where_groups_are_few(size, wanted):
    x = normal(2, size)
    found = recommend(net(size, 5, 3), x)
    assert [name for name in picked(found) if name in ("Shapley", "KernelShap")] == [wanted]
    one = next(one for one in found if one.name == wanted)
    if wanted == "Shapley":
        everything = one.explainer.design(size).rows
        assert everything == 2**size - 1
        exact = pnpx.KernelShap(one.explainer.model, n_iter=2**size)
        torch.testing.assert_close(one.explainer.attribute(x, 1), exact.attribute(x, 1), rtol=1e-3, atol=1e-5)


def test_many_groups_get_more_coalitions_and_too_many_none():
    found = recommend(net(200, 5, 3), normal(2, 200))
    assert next(one for one in found if one.name == "KernelShap").parameters["n_iter"] == 800
    found = recommend(net(1500, 5, 3), normal(2, 1500))
    assert picked(found) == GRADIENTS
    for name in ("FeatureAblation", "Occlusion", "KernelShap", "Shapley", "Lime", "Sobol"):
        assert why(found, name) == ("it would take 1500 passes of the model or more for each sample, of 1500 elements; "
                                    "make it yourself, with fewer and larger groups")


def test_windows_of_long_series_and_channels_first():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 198, 2))
    x = normal(2, 2, 200)
    found = recommend(model, x)
    one = next(one for one in found if one.name == "Occlusion")
    assert one.parameters == {"groups": 4, "channel_axis": 1}
    assert "each of 50 windows of 4 steps" in one.reason
    map_ = one.explainer.attribute(x)
    assert torch.equal(map_[:, 0], map_[:, 1]) and torch.equal(map_[:, :, 0], map_[:, :, 3])
    assert not torch.equal(map_[:, :, 3], map_[:, :, 4])
    explains(found, x, None)


def test_what_was_picked_can_be_made_again_from_its_parameters():
    x = normal(3, 12)
    model = net(12, 5, 3)
    for one in of_pnpx(recommend(model, x, seed=7, batch_size=5)):
        if one.picked:
            again = type(one.explainer)(model, layer=one.layer, batch_size=5, **one.parameters)
            assert torch.equal(again.attribute(x), one.explainer.attribute(x))
            assert one.explainer.batch_size == 5 and getattr(one.explainer, "seed", 7) == 7


# Linear models


LINEAR = {
    "ExpectedGradients": "it is GradientXInput less its mean over the background",
    "IntegratedGradients": "it is GradientXInput, but for what the baseline contributes",
    "SmoothGrad": "it is Gradient itself",
    "SquareGrad": "it is the square of Gradient",
    "VarGrad": "it is zero everywhere",
    **dict.fromkeys(("FeatureAblation", "Occlusion", "Shapley", "KernelShap"), "it is {}"),
    "Lime": "it estimates {}",
    "Sobol": "it follows from the square of {}",
}


@pytest.mark.parametrize("model", [
    nn.Linear(4, 3),
    nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3)),
    nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 2), nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(6, 3)),
], ids=["linear", "deep", "convolution"])
@pytest.mark.parametrize("x", [normal(3, 4), torch.ones(3, 4), torch.zeros(3, 4), 1000 * normal(3, 4)],
                         ids=["usual", "constant", "zero", "large"])
def test_of_a_linear_model_the_gradient_tells_all(model, x):
    found = recommend(model, x)
    zero = not x.any()  # where the product with the value tells nothing
    assert picked(found) == (["Gradient"] if zero else ["GradientXInput", "Gradient"])
    worth = f"{'Gradient times the value' if zero else 'GradientXInput'}, summed over groups"
    for name, comes_to in LINEAR.items():
        said = f"the score is linear in what is explained, where {comes_to.format(worth)}"
        assert why(found, name) == said


@pytest.mark.parametrize("model", [
    nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)),
    nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)),
    nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)),
], ids=["relu", "tanh", "softmax"])
@pytest.mark.parametrize("x", [normal(3, 4), torch.ones(3, 4), torch.zeros(3, 4)], ids=["usual", "constant", "zero"])
def test_others_are_not_taken_for_linear(model, x):
    torch.manual_seed(0)
    for module in model:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
    assert not any("linear" in one.reason and "Lime" not in one.name for one in of_pnpx(recommend(model, x)))


def test_bent_only_on_the_way_from_zero():
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 3))
    torch.manual_seed(0)
    nn.init.ones_(model[0].weight)
    nn.init.constant_(model[0].bias, -200.0)
    x = 100 + normal(3, 4)
    assert {"IntegratedGradients", "Shapley"} <= {*picked(recommend(model, x))}


def test_linear_as_scores_are_read():
    x = normal(3, 4)
    assert picked(recommend(nn.Linear(4, 3), x)) == ["GradientXInput", "Gradient"]
    assert "VarGrad" in picked(recommend(nn.Linear(4, 3), x, inference_mode="softmax"))
    assert picked(recommend(net(4, 5, 3), x, layer="1")) == ["GradientXInput", "Gradient", "FeatureAblation"]


class Bag(nn.Module):
    """The mean of the vectors of tokens."""

    def __init__(self, bend=False):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head, self.bend = nn.Embedding(10, 4, padding_idx=1), nn.Linear(4, 2), bend

    def forward(self, ids):
        mean = self.table(ids).mean(1)
        return self.head(mean.tanh() if self.bend else mean)


def test_a_bag_of_words():
    ids = torch.randint(2, 10, (3, 5), generator=torch.Generator().manual_seed(0))
    found = recommend(Bag(), ids)
    assert picked(found) == ["GradientXInput", "Gradient", "FeatureAblation"]
    assert why(found, "Shapley") == "the score is linear in what is explained, where it is FeatureAblation"
    by_name = {one.name: one.explainer for one in found if one.picked}
    exact = pnpx.Shapley(by_name["Gradient"].model, baseline=1).attribute(ids)
    torch.testing.assert_close(by_name["FeatureAblation"].attribute(ids), exact)


# Token ids


def test_ids_are_explained_at_their_embedding_and_padding_is_what_is_absent():
    ids = torch.randint(2, 10, (3, 5), generator=torch.Generator().manual_seed(0))
    found = recommend(Bag(bend=True), ids)
    assert picked(found) == [*ON_IDS, "FeatureAblation", "Shapley"]
    by_name = {one.name: one for one in found}
    assert by_name["SmoothGrad"].layer == "table" and by_name["Shapley"].layer is None
    assert by_name["SmoothGrad"].reason.endswith("; at 'table', since token ids have no gradient")
    assert by_name["IntegratedGradients"].parameters == {"baseline": 1}
    assert "less that of token 1 everywhere" in by_name["IntegratedGradients"].reason
    assert by_name["FeatureAblation"].parameters == {"baseline": 1}
    assert by_name["Shapley"].reason == "exact Shapley values of 5 tokens, by no gradient; 31 forward passes a sample"
    assert by_name["ExpectedGradients"].reason == (
        "it compares with other samples number by number, and token ids are no numbers")
    explains(found, ids, None)


def test_ids_that_no_module_looks_up():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(10, 2)

        def forward(self, ids):
            return self.head(torch.nn.functional.one_hot(ids, 10).float().amax(1)).tanh()

    found = recommend(Counts(), torch.tensor([[1, 2, 3], [4, 5, 6]]))
    assert picked(found) == ["FeatureAblation", "Shapley"]
    assert why(found, "SmoothGrad").startswith("gradients need floating-point values, but the input is torch.int64; ")


def test_models_of_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2, n_positions=24, pad_token_id=0,
                                     bos_token_id=1, eos_token_id=2, initializer_range=0.4)
    model = transformers.GPT2ForSequenceClassification(config)
    batch = {"input_ids": torch.randint(3, 30, (3, 12)), "attention_mask": torch.ones(3, 12, dtype=torch.long)}
    found = recommend(model, batch)
    assert picked(found) == [*ON_IDS, "FeatureAblation", "KernelShap"]
    assert {one.layer for one in found if one.name in ON_IDS} == {"transformer.wte"}
    explains(found, batch, None)
    with_two = transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2))
    batch = {"input_ids": torch.randint(3, 50, (2, 5)), "decoder_input_ids": torch.randint(3, 50, (2, 2))}
    score = {"score": lambda output, targets: output[:, -1, 3], "output_extractor": "logits"}
    found = recommend(with_two, batch, **score)
    place = next(one.layer for one in found if one.name == "VarGrad")
    assert place in ("encoder.embed_tokens, decoder.embed_tokens", "shared#1, shared#2")  # the latter before version 5
    explains(found, batch, None)


def test_floats_and_integers_together():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.hidden, self.head = nn.Embedding(5, 3), nn.Linear(7, 4), nn.Linear(4, 2)

        def forward(self, x, kind):
            return self.head(self.hidden(torch.cat([x, self.table(kind[:, 0])], 1)).tanh())

    torch.manual_seed(0)
    batch = (normal(3, 4), torch.tensor([[1], [2], [3]]))
    found = recommend(Mixed(), batch)
    assert picked(found) == [*GRADIENTS, "FeatureAblation", "Shapley"]
    assert why(found, "VarGrad").endswith("; of the floats alone, since integers have no gradient")
    assert "each of 5 groups of elements" in why(found, "FeatureAblation")


# A background


@pytest.mark.parametrize("given, said", [
    (None, "the 3 samples of the batch itself"),
    (normal(7, 4), "the 7 samples of the background"),
    (normal(1, 4), "the 1 sample of the background"),
    (normal(7, 4).numpy(), "the 7 samples of the background"),
    ((normal(7, 4), torch.zeros(7)), "the 7 samples of the background"),
], ids=["itself", "tensor", "one", "array", "batch"])
def test_the_background(given, said):
    batch = (normal(3, 4), torch.tensor([0, 1, 2]))
    found = recommend(net(4, 6, 3), batch, background=given, forward_arg_extractor=0)
    assert said in why(found, "ExpectedGradients")
    one = next(one for one in found if one.name == "ExpectedGradients")
    wanted = batch[0] if given is None else torch.as_tensor(given[0] if isinstance(given, tuple) else given)
    assert torch.equal(one.parameters["baselines"], wanted)
    explains(found, batch, None)


def test_a_background_of_other_shape():
    told = "the background must be a batch as that explained, of samples of shape (4,), but is of shape (7, 5)"
    with raises(ValueError, told):
        recommend(net(4, 6, 3), normal(3, 4), background=normal(7, 5))


def test_backgrounds_of_several_inputs():
    for name in ("two_inputs", "mapping"):
        made = case(name)
        found = recommend(made.model, made.batch, made.targets, background=made.batch)
        assert "the 3 samples of the background" in why(found, "ExpectedGradients")


# Your own


@pytest.fixture
def own():
    """Explainers of a user's own, gone when the test is over, lest others find them."""

    @dataclass(frozen=True)
    class OwnHalfWay(GradientExplainer):
        """The gradient halfway to zero."""

        portion: float = 0.5
        statistic = Mean

        def points(self, bound, reference):
            yield Point([value.tensor * self.portion for value in bound.values])

    @dataclass(frozen=True, kw_only=True)
    class Wants(OwnHalfWay):
        """One that wants to be told something."""

        hint: str

    @dataclass(frozen=True)
    class Breaks(OwnHalfWay):
        """One that does not work."""

        def points(self, bound, reference):
            raise ValueError("this cannot be\ndone at all")

    @dataclass(frozen=True)
    class Late(OwnHalfWay):
        """One that a rehearsal does not see fail."""

        def points(self, bound, reference):
            yield from super().points(bound, reference)
            raise RuntimeError("too late")

    @dataclass(frozen=True)
    class Unending(OwnHalfWay):
        """One that gives numbers that are none."""

        def points(self, bound, reference):
            clean = [value.tensor for value in bound.values]
            yield Point(clean, factor=[value * torch.inf for value in clean])

    @dataclass(frozen=True)
    class Nothing(OwnHalfWay):
        """One that gives zeros."""

        def points(self, bound, reference):
            clean = [value.tensor for value in bound.values]
            yield Point(clean, factor=[value * 0 for value in clean])

    class Undesigned(pnpx.PerturbationExplainer):
        """One that has no design for so many groups."""

        def design(self, groups):
            raise ValueError(f"{groups} are too many")

    yield OwnHalfWay, Wants, Breaks, Late, Unending, Nothing, Undesigned
    del OwnHalfWay, Wants, Breaks, Late, Unending, Nothing, Undesigned
    gc.collect()


OWN = {
    "Wants": "its parameter 'hint' has no default; make it yourself",
    "Breaks": "this cannot be",
    "Late": "too late",
    "Unending": "it gives numbers that are not finite here",
    "Nothing": "it gives nothing but zeros here",
    "Undesigned": "4 are too many",
}


def test_your_own_explainers_come_first_if_they_work(own):
    found = recommend(net(4, 6, 3), normal(3, 4), seed=3)
    mine = next(one for one in found if one.name == "OwnHalfWay")
    assert mine.picked and mine.reason == "your own explainer" and mine.parameters == {}
    assert found.index(mine) < min(index for index, one in enumerate(found) if one.name in SHIPPED)
    assert {name: why(found, name) for name in OWN} == OWN
    assert not any(one.picked for one in found if one.name in OWN)


def test_your_own_gradients_are_taken_at_the_embedding_as_well(own):
    ids = torch.randint(2, 10, (3, 5), generator=torch.Generator().manual_seed(0))
    mine = next(one for one in recommend(Bag(bend=True), ids) if one.name == "OwnHalfWay")
    assert mine.layer == "table" and mine.reason == "your own explainer; at 'table', since token ids have no gradient"


# Models that are hard to explain


class Steps(nn.Module):
    """A score that changes by steps, whose gradient is zero."""

    def __init__(self, severed):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.severed = nn.Linear(4, 3), severed

    def forward(self, x):
        return self.head((x > 0).float() + (0 if self.severed else 0 * x))


@pytest.mark.parametrize("severed", [True, False])
def test_steps_have_no_gradient(severed):
    found = recommend(Steps(severed), normal(3, 4))
    assert picked(found) == ["FeatureAblation", "Shapley"]
    said = "the score does not depend on the inputs, so there is no gradient; " if severed else "it gives nothing but "
    assert why(found, "SmoothGrad").startswith(said)


def test_steps_at_a_layer_are_not_taken_for_linear():
    found = recommend(nn.Sequential(nn.Linear(4, 4), Steps(severed=False)), normal(3, 4), layer="0")
    assert picked(found) == ["FeatureAblation", "Shapley"]


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_of_a_constant_nothing_is_picked(value):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 3), value) + 0 * x[:, :1]

    found = recommend(Constant(), normal(3, 4))
    is_complete(found)
    assert picked(found) == []


def test_a_function_without_layers():
    class Function(nn.Module):
        def forward(self, x):
            return torch.stack([x.square().sum(1), x.prod(1)], 1)

    found = recommend(Function(), normal(3, 4))
    assert picked(found) == [*GRADIENTS, "FeatureAblation", "Shapley"]
    explains(found, normal(3, 4), None)


def test_a_net_of_gru_alone():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(4, 3, batch_first=True)

        def forward(self, x):
            return self.gru(x)[0][:, -1]

    torch.manual_seed(0)
    found = recommend(Net(), normal(3, 6, 4))
    assert picked(found) == [*GRADIENTS, "Occlusion", "Shapley"]
    explains(found, normal(3, 6, 4), None)


def test_what_the_model_raises_is_the_reason():
    found = recommend(nn.Linear(3, 2), normal(3, 4))
    is_complete(found)
    assert picked(found) == []
    assert why(found, "Gradient") == "mat1 and mat2 shapes cannot be multiplied (3x4 and 3x2)"


def test_targets_that_are_none():
    found = recommend(net(4, 5, 3), normal(3, 4), 7)
    assert picked(found) == [] and "0 to 2" in why(found, "Gradient")
    assert picked(recommend(net(4, 5, 3), normal(3, 4), [0, 1, 7])) == []  # not among the two that are explained


def test_a_model_that_gives_nan():
    class Nan(nn.Module):
        def forward(self, x):
            return (-1 - x[:, :2].square()).log()

    found = recommend(Nan(), normal(3, 4))
    assert picked(found) == [] and why(found, "Gradient") == "the model gives nan here, which nothing explains"


def test_a_model_of_whole_batches_only():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            if len(x) % 3:
                raise ValueError("three samples at a time")
            return self.head(x.reshape(-1, 3, 4)).reshape(-1, 3).tanh()

    torch.manual_seed(0)
    found = recommend(Fixed(), normal(3, 4), batch_size=3, targets=0)
    explains(found, normal(3, 4), 0)
    assert "SmoothGrad" in picked(found)


def test_zeros_of_the_first_samples_are_not_taken_for_all():
    x = normal(5, 4)
    x[:2] = 0
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    assert "IntegratedGradients" in picked(recommend(model, x))


def test_a_batch_as_large_as_a_data_set_is_not_run_at_once():
    model = Counting(net(4, 6, 3))
    recommend(model, normal(5000, 4))
    assert 0 < max(model.rows) <= 64


def test_the_model_is_left_as_it_was_and_so_is_the_random_state():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Tanh(), nn.Linear(6, 3)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    with torch.no_grad():
        found = recommend(model, normal(3, 4))
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(one.grad is None and one.requires_grad for one in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert "VarGrad" in picked(found)


@pytest.mark.filterwarnings("error")
def test_trying_warns_of_nothing():
    recommend(net(40, 6, 3), normal(2, 40))


# What all have in common


def test_shared_parameters_reach_every_explainer():
    x = normal(3, 2, 6, 6)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))
    found = recommend(model, x, reducer="mean", batch_size=4, layer="1", inference_mode="log_softmax")
    assert picked(found) == [*GRADIENTS, "Occlusion", "KernelShap"]
    for one in found:
        if one.picked:
            assert (one.explainer.reducer, one.explainer.batch_size, one.layer) == ("mean", 4, "1")
            assert one.explainer.attribute(x).shape == (3, 4, 4)
            assert not {"reducer", "batch_size", "layer"} & {*one.parameters}
    assert "each of 16 groups of elements" in why(found, "Occlusion")


def test_a_layer_may_be_a_module_or_several():
    model = net(4, 5, 6, 3)
    assert recommend(model, normal(3, 4), layer=model[1])[0].layer == "1"
    assert recommend(model, normal(3, 4), layer=["0", "2"])[0].layer == "0, 2"


def test_numpy_batches():
    found = recommend(net(4, 6, 3), normal(3, 4).numpy().astype(np.float64))
    assert picked(found) == [*GRADIENTS, "FeatureAblation", "Shapley"]


def test_errors():
    model, x = net(4, 5, 3), normal(3, 4)
    with raises(TypeError, "'bach_size' is no parameter of every explainer; the nearest: 'batch_size'"):
        recommend(model, x, bach_size=3)
    with raises(TypeError, "'noise_level' is no parameter of every explainer; it is one of SmoothGrad: set it "
                           "afterwards, by dataclasses.replace(...)"):
        recommend(model, x, noise_level=0.2)
    with raises(ValueError, "modality must be one of image, series, tabular, text, but is 'tabluar'; the nearest: "
                            "'tabular'"):
        recommend(model, x, modality="tabluar")
    with raises(ValueError, "`batch_size >= 1` must hold, but got batch_size=0"):
        recommend(model, x, batch_size=0)
    with raises(LookupError, "no module 'hiden' in the model; there are: '0', '1', '2', 'input'"):
        recommend(model, x, layer="hiden")
    with raises(ValueError, "`seed >= 0` must hold, but got seed=-1"):
        recommend(model, x, seed=-1)
    with raises(TypeError, "recommend takes one batch, but got a DataLoader; give its first one, next(iter(...))"):
        recommend(model, torch.utils.data.DataLoader(x))
    with raises(TypeError, "the model must be a torch.nn.Module, but is a str"):
        recommend("resnet18", x)
    with pytest.raises(TypeError, match=r"a batch must be|must hold a tensor"):
        recommend(model, "x")
    with pytest.raises(ValueError, match="the batch is empty"):
        recommend(model, x[:0])


def test_in_half_precision_small_losses_count():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )
    nn.init.constant_(model[-1].bias, 1.0)
    x = normal(3, 3, 16, 16)
    losses = pnpx.FeatureAblation(model).attribute(x)
    assert 0 < float(losses.abs().max()) < 0.0625 * float(model(x).detach().max())
    wanted = ["FeatureAblation", "KernelShap", "Lime", "Occlusion"]
    found = recommend(model.bfloat16(), x.bfloat16(), wanted=wanted)
    assert {*wanted} <= {*picked(found)}, [one.reason for one in found if one.name in wanted]


def test_a_score_beside_larger_outputs_counts_for_itself():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net(4, 5, 1)

        def forward(self, x):
            return torch.cat([self.inner(x), torch.full((len(x), 1), 1e7)], 1)

    model, x = Beside(), normal(3, 4)
    assert {"FeatureAblation", "Shapley"} <= {*picked(recommend(model, x, 0))}


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_of_a_constant_in_half_precision_nothing_is_picked(value):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 3), value, dtype=x.dtype) + 0 * x[:, :1]

    assert picked(recommend(Constant(), normal(3, 4).bfloat16())) == []


def test_what_is_wrong_of_token_ids_is_told_and_not_that_they_are_integers():
    """A model that says something of each token: which of it is explained must be said."""
    transformers = pytest.importorskip("transformers", reason="it has the model; pip install transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2, n_positions=16, eos_token_id=1,
                                     bos_token_id=1)
    model = transformers.GPT2LMHeadModel(config).eval()
    batch = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 6]])}
    found = recommend(model, batch)
    assert not picked(found)
    assert why(found, "Gradient").startswith("targets=None needs one predicted class")
    found = recommend(model, batch, (2, 7))
    assert "SmoothGrad" in picked(found)
    assert next(one.layer for one in found if one.name == "Gradient") == "transformer.wte"
