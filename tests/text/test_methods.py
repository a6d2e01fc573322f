"""Statistics of gradients at embeddings against their definition, and methods of the user's own, through texts."""

import pytest
import torch

import pnpx
from pnpx.explainers import GradientExplainer, Point
from pnpx.explainers.games import Design
from pnpx.explainers.perturbation import PerturbationExplainer
from pnpx.statistics import Mean, MeanSquare
from pnpx.text import TextExplainer
from tests.text.tiny import WORDS, bert, gpt2, ids_of

TEXTS = ["A film of rare beauty", "paris is", "ten film"]


@pytest.fixture(scope="module")
def model():
    return bert()


def noise_of(model, tokenizer, text, **parameters):
    """The noise that an explainer adds to the embeddings of a text, (n_iter, length, width), by the points it gives."""
    found = []

    class Watched(pnpx.VarGrad):
        def points(self, bound, reference):
            for point in super().points(bound, reference):
                found.append((point.tensors[0] - bound.values[0].tensor)[0])
                yield point

    TextExplainer(Watched, model, tokenizer, **parameters)(text, targets=1)
    return torch.stack(found)


def by_hand(model, tokenizer, text, noise, factor):
    """The gradient of class 1 at each noisy embedding, times its clean or noisy value, by autograd alone."""
    vectors = model.get_input_embeddings()(torch.tensor([tokenizer(text)["input_ids"]])).detach()
    samples = []
    for one in noise:
        noisy = (vectors + one).requires_grad_()
        (gradient,) = torch.autograd.grad(model(inputs_embeds=noisy).logits[0, 1], noisy)
        samples.append((gradient * {"clean": vectors, "noisy": noisy.detach(), None: 1.0}[factor])[0])
    return torch.stack(samples)


STATISTICS = {
    pnpx.SmoothGrad: lambda samples: samples.mean(0),
    pnpx.SquareGrad: lambda samples: samples.square().mean(0),
    pnpx.VarGrad: lambda samples: samples.var(0),
}
REDUCED = {
    "abs_mean": lambda values: values.abs().mean(-1),
    "l2": lambda values: values.square().sum(-1).sqrt(),
    "sum": lambda values: values.sum(-1),
}


@pytest.mark.parametrize("factor, asked", [(None, False), ("clean", True), ("clean", "clean"), ("noisy", "noisy")])
@pytest.mark.parametrize("reduce", REDUCED)
@pytest.mark.parametrize("method", STATISTICS)
def test_statistics_are_element_wise_and_reduced_last(tokenizer, model, method, reduce, factor, asked):
    """Each sample is multiplied before the statistic, and squares are taken before the width is summed over."""
    noise = dict(n_iter=6, noise_std=0.3, sampler="independent", seed=7)
    explain = TextExplainer(
        method, model, tokenizer, granularity="token", reduce=reduce, input_x_gradient=asked, **noise
    )
    for text, found in zip(TEXTS, explain(TEXTS, targets=1), strict=True):
        samples = by_hand(model, tokenizer, text, noise_of(model, tokenizer, text, **noise), factor)
        expected = REDUCED[reduce](STATISTICS[method](samples))[1:-1]
        torch.testing.assert_close(found.scores, expected, rtol=1e-7, atol=1e-10)


def test_the_order_matters():
    """On one token of two components the wrong orders give other numbers, so that the test above can tell."""
    samples = torch.tensor([[[1.0, -2.0]], [[3.0, 0.0]]])
    right = REDUCED["sum"](STATISTICS[pnpx.SquareGrad](samples))
    assert right.tolist() == [(1 + 9) / 2 + (4 + 0) / 2]
    assert samples.sum(-1).square().mean(0).tolist() != right.tolist()


def test_aggregation_comes_after_the_reduction(tokenizer, model):
    noise = dict(n_iter=5, noise_std=0.3, sampler="independent")
    span = [(0, 6)]  # "A film"
    for how, total in (("sum", torch.sum), ("mean", torch.mean), ("max", torch.amax), ("min", torch.amin)):
        explain = TextExplainer(
            pnpx.SquareGrad, model, tokenizer, granularity=span, aggregation=how, reduce="abs_mean", **noise
        )
        (found,) = explain(TEXTS[0], targets=1)
        samples = by_hand(model, tokenizer, TEXTS[0], noise_of(model, tokenizer, TEXTS[0], **noise), None)
        expected = total(samples.square().mean(0).mean(-1)[1:3], dim=0)
        torch.testing.assert_close(found.scores, expected[None], rtol=1e-7, atol=1e-10)


def test_variance_without_noise_and_of_a_linear_model_is_nothing(tokenizer, model):
    (still,) = TextExplainer(pnpx.VarGrad, model, tokenizer, n_iter=3, noise_std=0.0)(TEXTS[0], targets=1)
    assert (still.scores < 1e-25).all()

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table = torch.nn.Embedding(len(WORDS), 4, dtype=torch.float64)
            self.head = torch.nn.Linear(4, 2, dtype=torch.float64)

        def get_input_embeddings(self):
            return self.table

        def forward(self, input_ids, attention_mask):
            return self.head((self.table(input_ids) * attention_mask[..., None]).sum(1))

    linear = Linear()
    (found,) = TextExplainer(pnpx.VarGrad, linear, tokenizer, n_iter=5)(TEXTS[0], targets=1)
    assert (found.scores < 1e-25).all()
    (square,) = TextExplainer(pnpx.SquareGrad, linear, tokenizer, n_iter=5)(TEXTS[0], targets=1)
    expected = linear.head.weight[1].detach().square().mean()
    torch.testing.assert_close(square.scores, expected.expand(5))
    (product,) = TextExplainer(pnpx.GradientXInput, linear, tokenizer, reduce="sum")(TEXTS[0], targets=1)
    ids = torch.tensor(tokenizer(TEXTS[0])["input_ids"])
    torch.testing.assert_close(product.scores, (linear.table(ids).detach() @ linear.head.weight[1].detach())[1:-1])


# Methods of the user's own


class UniformSquare(GradientExplainer):
    """The mean square of gradients at points drawn evenly from a box around the value."""

    statistic = MeanSquare

    def points(self, bound, reference):
        generator = torch.Generator().manual_seed(3)
        for _ in range(8):
            yield Point([v.tensor + v.for_all(torch.rand(v.sample_shape, generator=generator)) for v in bound.values])


class Scaled(GradientExplainer):
    """The mean of gradients on the way from zero, times the value."""

    statistic = Mean

    def points(self, bound, reference):
        clean = [value.tensor for value in bound.values]
        for step in range(1, 5):
            yield Point([tensor * step / 4 for tensor in clean], factor=clean)


def test_own_points_with_any_statistic_work_for_texts_at_once(tokenizer, model):
    (found,) = TextExplainer(Scaled, model, tokenizer, granularity="token", reduce="l2")(TEXTS[0], targets=1)
    vectors = model.get_input_embeddings()(torch.tensor([tokenizer(TEXTS[0])["input_ids"]])).detach()
    samples = []
    for step in range(1, 5):
        point = (vectors * step / 4).requires_grad_()
        samples.append(torch.autograd.grad(model(inputs_embeds=point).logits[0, 1], point)[0] * vectors)
    expected = torch.cat(samples).mean(0).norm(dim=-1)[1:-1]
    torch.testing.assert_close(found.scores, expected, rtol=1e-7, atol=1e-10)
    assert found.explainer["name"] == "Scaled"


def test_own_methods_take_batches_targets_and_generation(tokenizer, model):
    explain = TextExplainer(UniformSquare, model, tokenizer, aggregation="max")
    several = explain(TEXTS, targets=[[0, 1], [1, 2], [2, 0]])
    for text, one, classes in zip(TEXTS, several, ([0, 1], [1, 2], [2, 0]), strict=True):
        for row, index in enumerate(classes):
            if text == TEXTS[0]:  # drawn for the longest text, so that of the others depends on it: its own doing
                torch.testing.assert_close(one.scores[row], explain(text, targets=index)[0].scores)
        assert (one.scores > 0).all()
    (generated,) = TextExplainer(Scaled, gpt2(n_layer=1), tokenizer)("a film", targets="is of")
    assert generated.scores.shape == (2, 4) and (generated.scores[0, 2:] == 0).all() and generated.scores[1, 2] > 0


def test_own_designs_work_for_texts_at_once(tokenizer, model):
    class Alone(Design):
        def __init__(self, groups):
            self.rows = groups

        def kept(self, start, stop):
            return torch.eye(self.rows, dtype=torch.bool)[start:stop]

        def worth(self, scores, clean):
            return scores

    class OnlyOne(PerturbationExplainer):
        """The score where a group alone is kept."""

        def design(self, groups):
            return Alone(groups)

    (found,) = TextExplainer(OnlyOne, model, tokenizer)("paris is rare", targets=2)
    for number, kept in enumerate(("paris [MASK] [MASK]", "[MASK] is [MASK]", "[MASK] [MASK] rare")):
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([ids_of(f"[CLS] {kept} [SEP]")])).logits[0, 2]
        torch.testing.assert_close(found.scores[number], expected)
