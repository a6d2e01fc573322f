"""Which explainers are picked for texts, why, and that those picked do explain."""

import gc
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import pnpx
from pnpx import zoo
from pnpx.explainers import GradientExplainer, Point
from pnpx.statistics import Mean
from pnpx.text import TextExplainer
from pnpx.text.recommend import recommend_texts
from tests.errors import raises
from tests.text.tiny import bert, bert_tokenizer, gpt2, llama, t5

SHIPPED = {
    name
    for name, kind in pnpx.all_explainers().items()
    if kind.__module__.startswith("pnpx.") and getattr(sys.modules[kind.__module__], name, None) is kind
}
GRADIENTS = ["IntegratedGradients", "SmoothGrad", "SquareGrad", "VarGrad", "Gradient"]
TEXTS = ["A film of rare beauty", "paris is"]

pytestmark = [pytest.mark.usefixtures("ours_alone"), pytest.mark.filterwarnings("ignore:what .* miss:RuntimeWarning")]


def of_pnpx(found):
    return [one for one in found if one.name in SHIPPED]


def picked(found):
    return [one.name for one in of_pnpx(found) if one.picked]


def why(found, name):
    return next(one.reason for one in found if one.name == name)


def explains(found, texts, targets=None):
    for one in of_pnpx(found):
        if one.picked:
            assert type(one.explainer) is TextExplainer and one.explainer.method.__name__ == one.name
            for explanation in one.explainer(texts, targets):
                assert explanation.scores.isfinite().all() and explanation.scores.any(), one.name


def test_the_zoo():
    texts = list(zoo.sentences().texts[:3])
    found = recommend_texts(zoo.load("sentiment"), zoo.tokenizer("sentiment"), texts)
    assert [one.name for one in found if one.picked and one.name in SHIPPED] == [
        *GRADIENTS, "FeatureAblation", "KernelShap"]
    assert {one.name for one in found} >= SHIPPED and len(found) == len({one.name for one in found})
    assert {one.layer for one in found if one.name in GRADIENTS} == {"bert.embeddings.word_embeddings"}
    explains(found, texts)


@pytest.mark.parametrize("make, texts, layer", [
    (bert, TEXTS, "bert.embeddings.word_embeddings"),
    (lambda: bert("TokenClassification"), TEXTS, "bert.embeddings.word_embeddings"),
    (gpt2, TEXTS[0], "transformer.wte"),
    (llama, TEXTS[0], "model.embed_tokens"),
    (t5, TEXTS[0], "encoder.embed_tokens, decoder.embed_tokens"),
], ids=["bert", "tokens", "gpt2", "llama", "t5"])
def test_each_kind_of_model(tokenizer, make, texts, layer):
    model = make()
    found = recommend_texts(model, tokenizer, texts)
    assert picked(found) == [*GRADIENTS, "FeatureAblation", "Shapley"]
    (place,) = {one.layer for one in found if one.name in GRADIENTS}
    assert place == layer or (make is t5 and place == "shared#1, shared#2")  # the latter before transformers 5
    assert all(one.layer is None for one in found if one.name in ("FeatureAblation", "Shapley"))
    explains(found, texts)


def test_reasons(tokenizer):
    found = recommend_texts(bert(), tokenizer, TEXTS)
    at = "at 'bert.embeddings.word_embeddings', since token ids have no gradient"
    assert {one.name: one.reason for one in of_pnpx(found)} == {
        "IntegratedGradients": "adds up to the score less that of '[MASK]' in place of every token; 32 gradients a "
                               f"text; {at}",
        "SmoothGrad": "the gradient with its sign, rid of what fluctuates near the sample; 20 gradients a text; " + at,
        "SquareGrad": "how strongly the score reacts near the sample, whichever way; 20 gradients a text; " + at,
        "VarGrad": "where the gradient changes near the sample; 20 gradients a text; " + at,
        "Gradient": "the slope at the sample itself, and the cheapest there is; 1 gradient a text; " + at,
        "FeatureAblation": "what the score loses without each of 5 words, by no gradient; 5 forward passes a text",
        "Shapley": "exact Shapley values of 5 words, by no gradient; 31 forward passes a text",
        "ExpectedGradients": "it compares with other samples number by number, which texts of other lengths do not "
                             "allow",
        "GradientXInput": "IntegratedGradients, which is picked, takes the same product all along a path, and so adds "
                          "up",
        "KernelShap": "Shapley, which is picked, gives the same values of 5 words by their definition",
        "Lime": "Shapley, which is picked, shares the score out among the same words, and adds up, which Lime does not",
        "Occlusion": "FeatureAblation, which is picked, does the same with the same groups",
        "Sobol": "Shapley, which is picked, tells how much the same words matter, and also which way",
    }


def test_what_adds_up_is_added_up(tokenizer):
    by_name = {one.name: one for one in recommend_texts(bert(), tokenizer, TEXTS, seed=4)}
    assert by_name["IntegratedGradients"].explainer.reduce == "sum"
    assert by_name["IntegratedGradients"].parameters == {"reduce": "sum"}
    assert by_name["SmoothGrad"].explainer.reduce == "abs_mean"
    assert by_name["SmoothGrad"].parameters == {"seed": 4}
    assert by_name["SmoothGrad"].explainer.parameters["seed"] == 4
    by_name = {one.name: one for one in recommend_texts(bert(), tokenizer, TEXTS, reduce="l2")}
    assert by_name["IntegratedGradients"].explainer.reduce == "l2" and not by_name["IntegratedGradients"].parameters


def test_what_was_picked_can_be_made_again(tokenizer):
    model = bert()
    for one in of_pnpx(recommend_texts(model, tokenizer, TEXTS, granularity="token", batch_size=3)):
        if one.picked:
            again = TextExplainer(one.explainer.method, model, tokenizer, granularity="token", batch_size=3,
                                  **one.parameters)
            for found, expected in zip(again(TEXTS), one.explainer(TEXTS), strict=True):
                assert torch.equal(found.scores, expected.scores)


@pytest.mark.parametrize("replacement, path", [
    ("pad", "'[PAD]' in place of every token"), ("zero", "zeros in place of every token"), ("delete", None)])
def test_what_is_absent(tokenizer, replacement, path):
    found = recommend_texts(bert(), tokenizer, TEXTS, replacement=replacement)
    assert picked(found) == [*GRADIENTS, "FeatureAblation", "Shapley"]
    by_name = {one.name: one.explainer for one in found if one.picked}
    assert by_name["FeatureAblation"].replacement == replacement and by_name["SmoothGrad"].replacement is None
    assert by_name["IntegratedGradients"].replacement == (None if replacement == "delete" else replacement)
    assert (path or "'[MASK]' in place of every token") in why(found, "IntegratedGradients")
    explains(found, TEXTS)


@pytest.mark.parametrize("granularity, counted", [
    ("token", "5 tokens"), ("sentence", "1 sentence"), ([(0, 6), (7, 14)], "2 spans")])
def test_units(tokenizer, granularity, counted):
    found = recommend_texts(bert(), tokenizer, TEXTS[0], granularity=granularity)
    assert f"each of {counted}" in why(found, "FeatureAblation")


def test_shapley_values_of_up_to_nine_words_are_exact(tokenizer):
    found = recommend_texts(bert(), tokenizer, "a film of rare beauty . i left paris")
    one = next(one for one in found if one.name == "Shapley")
    assert one.reason == "exact Shapley values of 9 words, by no gradient; 511 forward passes a text"
    assert one.parameters == {"seed": 0, "n_iter": 64}


def test_the_longest_text_says_how_many_units_there_are(tokenizer):
    long = "a film of rare beauty . i left after ten minutes"
    found = recommend_texts(bert(), tokenizer, ["paris is", long])
    assert "KernelShap" in picked(found) and "Shapley" not in picked(found)
    assert "of 11 words" in why(found, "KernelShap")


@pytest.mark.parametrize("texts, targets", [
    (TEXTS, ["GOOD", "BAD"]), (TEXTS, torch.tensor([0, 1])), (TEXTS, 1), (TEXTS[0], "FAIR"), (TEXTS[0], [0, 2]),
    (("a film", "of beauty"), None), ([["a", "film"], ["of"]], None)], ids=str)
def test_forms_of_texts_and_targets(tokenizer, texts, targets):
    found = recommend_texts(bert(), tokenizer, texts, targets)
    assert picked(found)[:5] == GRADIENTS
    explains(found, texts, targets)


def test_ids_of_the_tokenizer(tokenizer):
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    found = recommend_texts(bert(), tokenizer, batch, [0, 1])
    assert picked(found) == [*GRADIENTS, "FeatureAblation", "Shapley"]
    explains(found, batch, [0, 1])


def test_a_given_layer(tokenizer):
    found = recommend_texts(bert(), tokenizer, TEXTS, layer="bert.embeddings")
    assert picked(found) == [*GRADIENTS, "FeatureAblation", "Shapley"]
    assert {one.layer for one in found if one.picked} == {"bert.embeddings"}
    assert "since token ids" not in why(found, "SmoothGrad")


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(21, 4), nn.Linear(4, 2)

    def forward(self, input_ids, attention_mask):
        kept = attention_mask[..., None].to(self.head.weight)
        return self.head((self.table(input_ids) * kept).sum(1) / 5)


def test_a_bag_of_words_is_linear(tokenizer):
    found = recommend_texts(Bag(), tokenizer, TEXTS)
    assert picked(found) == ["GradientXInput", "Gradient", "FeatureAblation"]
    assert next(one for one in found if one.name == "GradientXInput").parameters == {"reduce": "sum"}
    assert why(found, "VarGrad") == "the score is linear in what is explained, where it is zero everywhere"
    assert why(found, "Shapley") == "the score is linear in what is explained, where it is FeatureAblation"
    explains(found, TEXTS)


@pytest.fixture
def own():
    """Explainers of a user's own, gone when the test is over, lest others find them."""

    @dataclass(frozen=True)
    class TextHalfWay(GradientExplainer):
        """Your own."""

        statistic = Mean

        def points(self, bound, reference):
            yield Point([value.tensor / 2 for value in bound.values])

    @dataclass(frozen=True)
    class TextBreaks(TextHalfWay):
        """One that does not work."""

        def points(self, bound, reference):
            raise ValueError("this cannot be\ndone at all")

    @dataclass(frozen=True)
    class TextNothing(TextHalfWay):
        """One that gives zeros."""

        def points(self, bound, reference):
            clean = [value.tensor for value in bound.values]
            yield Point(clean, factor=[value * 0 for value in clean])

    yield TextHalfWay, TextBreaks, TextNothing
    del TextHalfWay, TextBreaks, TextNothing
    gc.collect()


def test_your_own(tokenizer, own):
    found = recommend_texts(bert(), tokenizer, TEXTS)
    mine = next(one for one in found if one.name == "TextHalfWay")
    assert mine.picked and mine.reason.startswith("your own explainer; at 'bert.embeddings.word_embeddings'")
    assert why(found, "TextBreaks") == "this cannot be"
    assert why(found, "TextNothing") == "it gives nothing but zeros here"


def test_what_fails_for_all_is_each_ones_reason(tokenizer):
    found = recommend_texts(bert(), tokenizer, TEXTS, ["GOOD", "BAAD"][::-1])
    assert picked(found) == []
    assert "'BAD'" in why(found, "Gradient")


def test_errors(tokenizer):
    model = bert()
    with pytest.raises(ValueError, match=r"^granularity must be one of .* but got 'words'; the nearest: 'word'$"):
        recommend_texts(model, tokenizer, TEXTS, granularity="words")
    with pytest.raises(TypeError, match=r"^FeatureAblation has no parameter 'bach_size'; the nearest: 'batch_size'$"):
        recommend_texts(model, tokenizer, TEXTS, bach_size=2)
    with raises(ValueError, "`seed >= 0` must hold, but got seed=-1"):
        recommend_texts(model, tokenizer, TEXTS, seed=-1)
    with raises(ValueError, "there must be a text to recommend explainers for, but there is none; give at least one"):
        recommend_texts(model, tokenizer, [])


@pytest.mark.filterwarnings("error")
def test_trying_warns_of_nothing_and_leaves_the_model_as_it_was():
    model, tokenizer = bert().train(), bert_tokenizer()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    recommend_texts(model, tokenizer, ["a film of rare beauty . i left after ten minutes . paris is a film of rare"])
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_gradients_that_are_not_finite(tokenizer, number):
    class Edge(torch.autograd.Function):
        """A model whose scores are numbers, and whose gradients are not."""

        @staticmethod
        def forward(ctx, logits):
            return logits.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * number

    model = bert()
    model.classifier.register_forward_hook(lambda module, args, output: Edge.apply(output))
    found = recommend_texts(model, tokenizer, TEXTS)
    assert picked(found) == ["FeatureAblation", "Shapley"]
    assert why(found, "Gradient") == "it gives numbers that are not finite here"
