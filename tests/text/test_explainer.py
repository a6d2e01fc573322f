"""Explanations of text models are those that autograd gives, for each family of models."""

import pytest
import torch

import pnpx
from pnpx.text.explainer import TextExplainer
from tests.text.tiny import bert, gpt2, ids_of, llama, t5


def gradient(model, ids, score):
    """The norm of d score(logits) / d embedding, by autograd alone.

    Not its sum: where a layer norm follows, as in BERT and GPT2, that is zero.
    """
    vectors = model.get_input_embeddings()(ids).detach().requires_grad_()
    (found,) = torch.autograd.grad(score(model(inputs_embeds=vectors).logits), vectors)
    return found[0].norm(dim=-1)


TEXTS = ["A film of rare beauty.", "I left after ten minutes", "Paris is beautiful"]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_classification_equals_autograd_alone_and_in_a_list(tokenizer, implementation):
    model = bert(attn_implementation=implementation)
    explain = TextExplainer(pnpx.Gradient, model, tokenizer, granularity="all_tokens", reduce="l2")
    for text, explanation in zip(TEXTS, explain(TEXTS, targets="GOOD"), strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        torch.testing.assert_close(explanation.scores, gradient(model, ids, lambda logits: logits[0, 1]))
        (alone,) = explain(text, targets=1)
        torch.testing.assert_close(alone.scores, explanation.scores)
        assert explanation.target_names == ("GOOD",)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_of_given_ids(tokenizer, side):
    explain = TextExplainer(pnpx.SquareGrad, bert(), tokenizer, n_iter=4, granularity="all_tokens")
    expected = explain(TEXTS, targets=[0, 1, 1])
    batch = tokenizer(TEXTS, padding=True, padding_side=side, return_tensors="pt")
    for one, other in zip(explain(batch, targets=[0, 1, 1]), expected, strict=True):
        torch.testing.assert_close(one.scores, other.scores)


def test_noise_does_not_depend_on_the_neighbours_in_the_list(tokenizer):
    explain = TextExplainer(pnpx.VarGrad, bert(), tokenizer, n_iter=5)
    (alone,) = explain(["Paris is beautiful"], targets=1)
    last = explain([TEXTS[0], "Paris is beautiful"], targets=1)[1]
    torch.testing.assert_close(alone.scores, last.scores)
    assert alone.words == ["Paris", "is", "beautiful"]


def test_targets_of_several_forms(tokenizer):
    explain = TextExplainer(pnpx.Gradient, bert(), tokenizer)
    several = explain(TEXTS[:2], targets=[["BAD", "GOOD"], 1])
    assert several[0].scores.shape == (2, 6) and several[1].scores.shape == (5,)
    torch.testing.assert_close(several[0].scores[1], explain(TEXTS[0], targets=1)[0].scores)
    predicted = explain(TEXTS[0])[0]
    assert predicted.target_names == (predicted.prediction,)
    assert explain([]) == []
    with pytest.raises(ValueError, match="the model has no class 'GOD'; the nearest: 'GOOD'"):
        explain(TEXTS[0], targets="GOD")
    with pytest.raises(ValueError, match="input 1 is empty"):
        explain([TEXTS[0], " "])


@pytest.mark.parametrize("build", [gpt2, llama])
def test_generation_equals_autograd_and_looks_back_only(tokenizer, build):
    model, prompt = build(), tokenizer("a film of rare", add_special_tokens=False, return_tensors="pt")
    explain = TextExplainer(pnpx.Gradient, model, tokenizer, granularity="all_tokens", reduce="l2")
    (explanation,) = explain(prompt, targets="beauty is rare")
    ids = torch.cat([prompt["input_ids"], torch.tensor([ids_of("beauty is rare")])], 1)
    assert explanation.scores.shape == (3, 7) and explanation.generated == ("beauty", "is", "rare")
    for step in range(3):
        found = gradient(model, ids, lambda logits, at=3 + step: logits[0, at, ids[0, at + 1]])
        torch.testing.assert_close(explanation.scores[step], found, rtol=1e-4, atol=1e-6)
        assert (explanation.scores[step, 4 + step :] == 0).all()
    (by_ids,) = explain(prompt, targets=ids[0, 4:])
    assert torch.equal(by_ids.scores, explanation.scores)
    (free,) = explain(prompt, max_new_tokens=2, do_sample=False)
    assert len(free.generated) <= 2 and model.training is False


def test_masks_tokens_and_spans(tokenizer):
    (filled,) = TextExplainer(pnpx.Gradient, bert("MaskedLM"), tokenizer)("a film of [MASK] beauty")
    assert filled.rows.shape == (1, 5)
    (labelled,) = TextExplainer(pnpx.Gradient, bert("TokenClassification"), tokenizer)("a film of beauty")
    assert labelled.rows.shape == (4, 4)
    (answered,) = TextExplainer(pnpx.Gradient, bert("QuestionAnswering"), tokenizer)([("a film", "of rare beauty")])
    assert answered.rows.shape == (2, 5) and answered.target_names[0].startswith("start: ")


def test_encoder_and_decoder_are_both_explained(tokenizer):
    model = t5().train()
    (explanation,) = TextExplainer(pnpx.SmoothGrad, model, tokenizer, n_iter=3)("a film", targets="paris is")
    assert explanation.scores.shape == (2, 4)
    assert (explanation.scores[:, :2] != 0).all() and explanation.scores[1, 2] != 0
    assert (explanation.scores[0, 2:] == 0).all() and explanation.scores[1, 3] == 0
