"""Metrics of explanations of texts: units are taken away as the machinery of texts does."""

import pytest
import torch

import pnpx
from pnpx.metrics import AbPC, Complexity, LeRF, MoRF, MuFidelity, Randomisation, Sensitivity, Sparseness
from pnpx.metrics.randomisation import likeness, shuffle
from pnpx.testing.conduct import fingerprint, require_untouched
from pnpx.text.explainer import TextExplainer
from pnpx.text.generation import Contrast
from tests.errors import raises
from tests.text.tiny import WORDS, bert, bert_tokenizer, gpt2, ids_of, t5, tokenizer_of

TEXTS = ["a film of rare beauty .", "i left after ten minutes"]
FAITHFUL = [MoRF(), LeRF(), AbPC(n_steps=3), MuFidelity(n_iter=8)]


def named(metric):
    return type(metric).__name__


def explainer(method=pnpx.GradientXInput, model=None, **parameters):
    return TextExplainer(method, model or bert(), bert_tokenizer(), **{"reduce": "sum", **parameters})


def curve(model, ids, units, scores, absent, label):
    """The softmax while units, which are lists of positions, go in the order of their scores: a plain loop."""
    order = sorted(range(len(units)), key=lambda unit: -float(scores[unit]))
    found = []
    for count in range(len(units) + 1):
        gone = {place for unit in order[:count] for place in units[unit]}
        if absent is None:
            left = [token for place, token in enumerate(ids) if place not in gone]
        else:
            left = [absent if place in gone else token for place, token in enumerate(ids)]
        with torch.no_grad():
            found.append(float(model(torch.tensor([left])).logits.softmax(1)[0, label]))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("replacement", [None, "pad", "delete"])
@pytest.mark.parametrize("method", [pnpx.GradientXInput, pnpx.Occlusion])
def test_units_go_as_in_a_plain_loop(method, replacement):
    given = explainer(method)
    found = given(TEXTS, [1, 0])
    curves = MoRF(replacement=replacement).curve(given, TEXTS, [1, 0], found)
    absent = {None: WORDS.index("[MASK]"), "pad": WORDS.index("[PAD]"), "delete": None}[replacement]
    for text, one, label, own in zip(TEXTS, found, [1, 0], curves, strict=True):
        ids = ids_of(f"[CLS] {text} [SEP]")
        expected = curve(given.model, ids, [unit.tokens for unit in one.units], one.scores, absent, label)
        torch.testing.assert_close(own, expected)
    value = MoRF(replacement=replacement).evaluate(given, TEXTS, [1, 0])[0]
    torch.testing.assert_close(value, torch.trapezoid(curves[0]) / (len(curves[0]) - 1))


def test_what_never_goes_away_has_no_step():
    """Special tokens have scores among all tokens, but stay."""
    given = explainer(granularity="all_tokens")
    assert len(given(TEXTS)[1]) == 7
    assert MoRF().curve(given, TEXTS)[1].shape == (6,)
    assert MoRF().curve(explainer(granularity="sentence"), TEXTS)[1].shape == (2,)


@pytest.mark.parametrize("metric", [*FAITHFUL, Complexity(), Sparseness(), Randomisation()], ids=named)
def test_forms_of_texts_and_targets(metric):
    given, tokenizer = explainer(), bert_tokenizer()
    expected = metric.evaluate(given, TEXTS)
    assert [value.shape for value in expected] == [(), ()] and all(value.isfinite() for value in expected)
    torch.testing.assert_close(metric.evaluate(given, TEXTS, None, given(TEXTS)), expected)
    torch.testing.assert_close(metric.evaluate(given, TEXTS[0]), expected[:1])
    ids = tokenizer(TEXTS, padding=True, return_tensors="pt")
    torch.testing.assert_close(metric.evaluate(given, ids), expected)
    predicted = [one.prediction for one in given(TEXTS)]
    torch.testing.assert_close(metric.evaluate(given, TEXTS, predicted), expected)
    several = metric.evaluate(given, TEXTS, [[0, 1, 2], [2, 1, 0]])
    assert [value.shape for value in several] == [(3,), (3,)]
    torch.testing.assert_close(several[1][0], metric.evaluate(given, TEXTS[1], 2)[0])
    assert metric.evaluate(given, []) == []


def test_deleting_alone_is_what_occlusion_found():
    given = explainer(pnpx.Occlusion, replacement="delete")
    for value in MuFidelity(subset_size=0.01, replacement="delete").evaluate(given, TEXTS):
        assert float(value) == pytest.approx(1)  # single units, gone as for the explainer
    # Explainers are compared by the same game: what the explainer put there does not count.
    masked, told = (MuFidelity(subset_size=0.01, replacement=one).evaluate(given, TEXTS)[0] for one in (None, "mask"))
    assert torch.equal(masked, told) and float(masked) < 0.99


def test_shares_are_those_of_units():
    given = explainer()
    for one, value in zip(given(TEXTS), Complexity().evaluate(given, TEXTS), strict=True):
        torch.testing.assert_close(value, torch.distributions.Categorical(one.scores.abs().double()).entropy())


def test_another_model_explains_the_same_texts():
    import copy

    given = explainer()
    other = copy.deepcopy(given.model)
    shuffle(other, 5)
    before = fingerprint(given.model)
    labels = [int(one.targets[0]) for one in given(TEXTS)]
    expected = [
        likeness(one.scores.double(), two.scores.double())
        for one, two in zip(given(TEXTS), explainer(model=other)(TEXTS, labels), strict=True)
    ]
    torch.testing.assert_close(Randomisation(seed=5).evaluate(given, TEXTS), expected)
    require_untouched(before, fingerprint(given.model), "the model")


@pytest.mark.parametrize("metric", FAITHFUL, ids=named)
def test_generation_and_positions(metric):
    endings = tokenizer_of(WORDS, "$A", unk_token="[UNK]", pad_token="[PAD]", eos_token="[EOS]")
    for model in (gpt2(), t5()):
        given = TextExplainer(pnpx.Occlusion, model, endings)
        found = metric.evaluate(given, TEXTS, ["rare beauty .", "paris"])
        assert [value.shape for value in found] == [(3,), (1,)] and all(value.isfinite().all() for value in found)
        assert metric.evaluate(given, TEXTS[0], Contrast("rare", "paris"))[0].shape == (1,)
    labels = explainer(model=bert("TokenClassification"))
    assert [value.shape for value in metric.evaluate(labels, TEXTS)] == [(6,), (5,)]
    assert metric.evaluate(labels, TEXTS[0], [(1, 2), (3, 0)])[0].shape == (2,)
    masked = explainer(model=bert("MaskedLM"))
    assert metric.evaluate(masked, ["a film of [MASK] beauty", "[MASK] ten"], "rare")[1].shape == (1,)
    spans = explainer(model=bert("QuestionAnswering"))
    assert metric.evaluate(spans, [("a film", "i left after")], [(3, 4)])[0].shape == (2,)


def test_generated_tokens_are_scored_by_their_probability():
    endings = tokenizer_of(WORDS, "$A", unk_token="[UNK]", pad_token="[PAD]", eos_token="[EOS]")
    given = TextExplainer(pnpx.Occlusion, gpt2(), endings)
    (one,) = given(TEXTS[0], "rare paris")
    (found,) = MoRF().curve(given, TEXTS[0], "rare paris", [one])
    torch.testing.assert_close(found[:, 0], torch.tensor(one.probabilities).double())


def test_noise_is_for_numbers():
    with raises(
        TypeError,
        "Sensitivity does not judge explanations of texts; choose another metric, or judge an explainer of the model "
        "at its embeddings",
    ):
        Sensitivity().evaluate(explainer(), TEXTS)


def test_explanations_of_other_texts():
    given = explainer()
    with raises(ValueError, "there must be an explanation for each of the 2 texts, but got 1"):
        AbPC().evaluate(given, TEXTS, None, given(TEXTS)[:1])
    with pytest.raises(ValueError, match=r"^the explanations must be what the text explainer gives for these text"):
        AbPC().evaluate(given, TEXTS, None, given(TEXTS)[::-1])


def test_a_single_output_is_a_score_and_no_probability():
    given = explainer(model=bert(id2label={0: "STARS"}))
    (one,) = given(TEXTS[0])
    (found,) = MoRF().curve(given, TEXTS[0], None, [one])
    with torch.no_grad():
        expected = given.model(torch.tensor([ids_of(f"[CLS] {TEXTS[0]} [SEP]")])).logits[0, 0]
    torch.testing.assert_close(found[0], expected)
    assert Randomisation().evaluate(given, TEXTS)[0].shape == ()
