"""Against interpreto 0.5, on the same noise: equal where it is right, and by how much it deviates where it is not.

Its deviations: it squares and averages after pooling the components of an embedding; its integrated gradients are
magnitudes and do not add up; its KernelSHAP draws coalitions by the inverse of the Shapley kernel; its LIME weighs the
farthest samples most. It needs older versions of other packages, so that it is not among the requirements of the tests.
"""

import itertools
import math

import pytest
import torch
from torch import nn

import pnpx
from pnpx.explainers import GradientExplainer, Point
from pnpx.statistics import Mean, MeanSquare, Variance

interpreto = pytest.importorskip("interpreto", reason="needs interpreto 0.5, in an environment of its own")

from interpreto.attributions.aggregations.linear_regression_aggregation import (  # noqa: E402
    DistancesFromMask,
    LinearRegressionAggregator,
)
from interpreto.attributions.perturbations.shap_perturbation import ShapTokenPerturbator  # noqa: E402
from interpreto.commons.granularity import GranularityAggregationStrategy  # noqa: E402

from pnpx.text import TextExplainer  # noqa: E402
from tests.text import tiny  # noqa: E402

WORDS = [*tiny.SPECIAL, *["a", "film", "of", "rare", "beau", "##ty", "left", "paris"]]
TEXT, STD, COUNT = "a film of rare beauty", 0.1, 6


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.bert_tokenizer(words=WORDS)


@pytest.fixture(scope="module")
def bert():
    return tiny.bert(words=WORDS, id2label={0: "BAD", 1: "GOOD"}, initializer_range=0.3).float()


def theirs(method, *arguments, **options):
    torch.manual_seed(0)  # they draw from the global generator
    (found,) = method(*arguments, granularity=interpreto.Granularity.ALL_TOKENS, **options)([TEXT], [1])
    return found.attributions[0]


def noise():
    """What they add to the embeddings of the text, and the first that they draw: (samples, tokens, width)."""
    torch.manual_seed(0)
    return STD * torch.randn(COUNT, 8, 16)


def gradients(model, tokenizer):
    """At the noisy embeddings, by autograd alone: (samples, tokens, width)."""
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    points = (model.get_input_embeddings()(ids).detach() + noise()).requires_grad_()
    return torch.autograd.grad(model(inputs_embeds=points).logits[:, 1].sum(), points)[0]


class Same(GradientExplainer):
    """Gradients at the same noisy embeddings."""

    def points(self, bound, reference):
        (value,) = bound.values
        for one in noise():
            yield Point([value.tensor + one])


class SameMean(Same):
    statistic = Mean


class SameMeanSquare(Same):
    statistic = MeanSquare


class SameVariance(Same):
    statistic = Variance


@pytest.mark.parametrize("how", ["mean", "max", "min", "sum", "signed_max"])
def test_gradients_are_the_same(tokenizer, bert, how):
    for method, by_input in ((pnpx.Gradient, False), (pnpx.GradientXInput, True)):
        made = interpreto.Saliency(
            bert, tokenizer, input_x_gradient=by_input,
            granularity_aggregation_strategy=getattr(GranularityAggregationStrategy, how.upper()),
        )
        (found,) = made([TEXT], [1])
        (ours,) = TextExplainer(method, bert, tokenizer, aggregation=how)(TEXT, 1)
        torch.testing.assert_close(ours.scores, found.attributions[0], rtol=1e-5, atol=1e-8)
        assert ours.words == TEXT.split() and len(found.elements) == 5


@pytest.mark.parametrize("ours, method, late, early", [
    (SameMean, "SmoothGrad", lambda g: g.abs().mean(2).mean(0), lambda g: g.mean(0).abs().mean(1)),
    (SameMeanSquare, "SquareGrad", lambda g: g.abs().mean(2).square().mean(0), lambda g: g.square().mean(0).mean(1)),
    (SameVariance, "VarGrad", lambda g: g.abs().mean(2).var(0), lambda g: g.var(0).mean(1)),
])
def test_they_pool_the_components_before_the_statistic(tokenizer, bert, ours, method, late, early):
    found = gradients(bert, tokenizer)
    options = {"n_perturbations": COUNT, "noise_std": STD, "input_x_gradient": False}
    other = theirs(getattr(interpreto, method), bert, tokenizer, **options)
    torch.testing.assert_close(other, late(found), rtol=1e-4, atol=1e-8)
    (own,) = TextExplainer(ours, bert, tokenizer, granularity="all_tokens")(TEXT, 1)
    torch.testing.assert_close(own.scores, early(found), rtol=1e-4, atol=1e-8)
    assert ((own.scores - other).abs() > 0.05 * other).any()


def test_their_integrated_gradients_are_magnitudes_and_do_not_add_up(tokenizer, bert):
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        table = bert.get_input_embeddings()(ids)
        rise = float((bert(input_ids=ids).logits - bert(inputs_embeds=torch.zeros_like(table)).logits)[0, 1])
    other = theirs(interpreto.IntegratedGradients, bert, tokenizer, n_perturbations=200)
    assert (other >= 0).all() and abs(float(other.sum()) - rise) > 0.2 * abs(rise)
    options = {"n_steps": 200, "replacement": "zero", "granularity": "all_tokens", "reduce": "sum"}
    (own,) = TextExplainer(pnpx.IntegratedGradients, bert, tokenizer, **options)(TEXT, 1)
    assert (own.scores < 0).any() and float(own.scores.sum()) == pytest.approx(rise, rel=1e-3)


def test_their_kernel_shap_draws_by_the_inverse_of_the_kernel():
    groups = 6
    torch.manual_seed(0)
    # Up to 2 to the number of groups at a time.
    sizes = torch.cat([ShapTokenPerturbator(n_perturbations=64).get_mask(groups).sum(1) for _ in range(200)])
    drawn = torch.stack([(sizes == size).float().mean() for size in range(1, groups)])
    kernel = torch.tensor([1.0 / (size * (groups - size)) for size in range(1, groups)])
    kernel, inverse = kernel / kernel.sum(), (1 / kernel) / (1 / kernel).sum()
    torch.testing.assert_close(drawn, inverse, atol=0.02, rtol=0)
    assert (drawn - kernel).abs().max() > 0.1


def test_ours_are_the_shapley_values_and_theirs_are_not(tokenizer, bert):
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]

    def worth(present):
        row = ids.clone()
        for index, places in enumerate([[1], [2], [3], [4], [5, 6]]):
            if index not in present:
                row[0, places] = 4
        with torch.no_grad():
            return float(bert(input_ids=row).logits[0, 1])

    wanted = torch.zeros(5)
    for player in range(5):
        rest = [index for index in range(5) if index != player]
        for size in range(5):
            share = math.factorial(size) * math.factorial(4 - size) / math.factorial(5)
            for some in itertools.combinations(rest, size):
                wanted[player] += share * (worth({*some, player}) - worth(set(some)))
    (own,) = TextExplainer(pnpx.KernelShap, bert, tokenizer, replacement="mask")(TEXT, 1)
    torch.testing.assert_close(own.scores.float(), wanted, rtol=1e-3, atol=1e-4)
    torch.manual_seed(0)
    (other,) = interpreto.KernelShap(bert, tokenizer, n_perturbations=32)([TEXT], [1])
    assert (other.attributions[0] - wanted).abs().max() > 0.05 * wanted.abs().max()


class Bent(nn.Module):
    """The number of features present; five times as much where more than one is absent."""

    def forward(self, x):
        present = (x > 0).sum(1, keepdim=True).float()
        return present * torch.where(present >= x.shape[1] - 1, 1.0, 5.0)


def test_their_lime_weighs_the_farthest_samples_most():
    groups = 6
    absent = torch.tensor(list(itertools.product([0.0, 1.0], repeat=groups)))
    fit = LinearRegressionAggregator(distance_function=DistancesFromMask.COSINE, kernel_width=0.1)
    found = fit(Bent()(1 - absent), absent)[0].abs()
    torch.testing.assert_close(found, torch.full((groups,), 5.0), rtol=0.1, atol=0)
    own = pnpx.Lime(Bent(), kernel_width=0.03, ridge=0.0, n_iter=2000).attribute(torch.ones(1, groups), 0)
    torch.testing.assert_close(own[0], torch.ones(groups), rtol=0.1, atol=0)
