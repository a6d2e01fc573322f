"""Integrated gradients of texts: where the paths begin, and that what they miss is told."""

import warnings

import pytest
import torch

import pnpx
from pnpx.explainers.integrated import nodes
from pnpx.text import Contrast, TextExplainer
from pnpx.text.replacement import special_ids
from tests.text import tiny

WORDS = [*tiny.SPECIAL, *["a", "film", "of", "rare", "beauty", "i", "left", "paris", "is"]]
TEXTS = ["a film of rare beauty", "paris is", "i left a film"]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.bert_tokenizer(words=WORDS)


@pytest.fixture(scope="module")
def bert():
    return tiny.bert(words=WORDS, initializer_range=0.2)


def llama(layers):
    """Its table has no zero vector, not even for padding."""
    options = {"num_hidden_layers": layers, "initializer_range": 0.02}
    return tiny.llama("SequenceClassification", WORDS, **options).float()


def difference(model, ids, begin, target=1):
    """score(ids) - score(begin), of a token row each or, for ``begin``, of vectors."""
    with torch.no_grad():
        mask = torch.ones(1, ids.shape[1], dtype=torch.long)
        vectors = begin if begin.is_floating_point() else model.get_input_embeddings()(begin)
        end = model(input_ids=ids, attention_mask=mask).logits[0, target]
        return end - model(inputs_embeds=vectors, attention_mask=mask).logits[0, target]


@pytest.mark.parametrize("replacement, token", [(None, 4), ("mask", 4), ("unk", 1), ("pad", 0), (9, 9), ("left", 11)])
def test_the_path_begins_at_a_token_and_special_tokens_stay(tokenizer, bert, replacement, token):
    explain = TextExplainer(pnpx.IntegratedGradients, bert, tokenizer, granularity="all_tokens", reduce="sum",
                            n_steps=40, replacement=replacement)
    for text, found in zip(TEXTS, explain(TEXTS, targets=1), strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        begin = torch.tensor([[2, *[token] * (ids.shape[1] - 2), 3]])
        rise = difference(bert, ids, begin)
        torch.testing.assert_close(found.scores.sum(), rise, rtol=1e-6, atol=1e-8)
        assert found.scores[0] == found.scores[-1] == 0
        assert found.explainer["replacement"] == WORDS[token] and "baseline" not in found.explainer
        assert float(found.diagnostics["relative_gap"]) < 1e-4
        (alone,) = explain(text, targets=1)
        torch.testing.assert_close(alone.scores, found.scores)


def test_the_path_is_that_of_the_core(tokenizer, bert):
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    (found,) = TextExplainer(pnpx.IntegratedGradients, bert, tokenizer, granularity="all_tokens", reduce="l2")(
        TEXTS[0], targets=1
    )
    start = torch.tensor([[2, *[4] * (ids.shape[1] - 2), 3]])
    table = bert.get_input_embeddings().weight.detach()
    path, total = table[ids] - table[start], 0.0
    positions, weights = nodes("gausslegendre", 32)
    for position, weight in zip(positions, weights, strict=True):
        vectors = (table[start] + position * path).requires_grad_()
        score = bert(inputs_embeds=vectors).logits[0, 1]
        total = total + weight * torch.autograd.grad(score, vectors)[0]
    torch.testing.assert_close(found.scores, (total * path)[0].norm(dim=-1))


def test_a_tokenizer_without_such_tokens_begins_at_zero(bert):
    bare = tiny.bert_tokenizer(["cls", "sep"], WORDS)
    explain = TextExplainer(pnpx.IntegratedGradients, bert, bare, granularity="all_tokens", reduce="sum", n_steps=60)
    (found,) = explain("paris is", targets=1)
    ids = bare("paris is", return_tensors="pt")["input_ids"]
    rise = difference(bert, ids, torch.zeros(1, ids.shape[1], 16, dtype=torch.float64))
    torch.testing.assert_close(found.scores.sum(), rise, rtol=1e-4, atol=1e-6)
    assert found.explainer["replacement"] == "zero"


def test_ids_of_ones_own_as_baseline(tokenizer, bert):
    explain = TextExplainer(pnpx.IntegratedGradients, bert, tokenizer, granularity="all_tokens", reduce="sum",
                            baseline=pnpx.baselines.Token(5, keep=(2,)), n_steps=40)
    (found,) = explain("paris is", targets=1)
    rise = difference(bert, torch.tensor([[2, 12, 13, 3]]), torch.tensor([[2, 5, 5, 5]]))
    torch.testing.assert_close(found.scores.sum(), rise, rtol=1e-6, atol=1e-8)
    assert found.scores[0] == 0 and found.scores[-1] != 0


@pytest.mark.parametrize("options, kind, message", [
    ({"replacement": "mask", "baseline": 0}, TypeError, "replacement and baseline both say where the path begins"),
    ({"replacement": "delete"}, ValueError, "IntegratedGradients deletes nothing; choose a token as replacement"),
    ({"replacement": "eos"}, ValueError, "this tokenizer has no eos token"),
])
def test_impossible_beginnings(tokenizer, bert, options, kind, message):
    with pytest.raises(kind, match=message):
        TextExplainer(pnpx.IntegratedGradients, bert, tokenizer, **options)


def test_expected_gradients_need_texts_of_one_length(tokenizer, bert):
    with pytest.raises(TypeError, match=r"ExpectedGradients needs baselines of the length of each text.*Integrated"):
        TextExplainer(pnpx.ExpectedGradients, bert, tokenizer, baselines=torch.zeros(1, 4))


# Norms near zero


def exact(model, ids):
    """The attributions of tokens from zero, in float64, with so many nodes that it does not matter where they are."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):  # it computes in float32 whatever it is given
            module.forward = lambda x, norm=module: (
                norm.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.variance_epsilon)
            )
    model = model.double()
    vectors = model.get_input_embeddings()(ids).detach()
    # The middle rule in the logarithm of the position, from 1e-20.
    steps = torch.linspace(-46.0, 0.0, 8001, dtype=torch.float64)
    positions, width = ((steps[1:] + steps[:-1]) / 2).exp(), steps[1] - steps[0]
    total = torch.zeros_like(vectors[0])
    for some in positions.split(500):
        points = (some[:, None, None] * vectors).requires_grad_()
        mask = torch.ones(len(some), ids.shape[1], dtype=torch.long)
        score = model(inputs_embeds=points, attention_mask=mask).logits[:, 1].sum()
        (found,) = torch.autograd.grad(score, points)
        total += (found * (some * width)[:, None, None]).sum(0)
    return (total * vectors[0]).sum(-1)


@pytest.mark.parametrize("layers, n_steps, share", [(2, 50, 0.01), (4, 64, 0.01), (8, 100, 0.001)])
def test_llama_from_zero_with_graded_nodes(tokenizer, layers, n_steps, share):
    model = llama(layers)
    explain = TextExplainer(pnpx.IntegratedGradients, model, tokenizer, granularity="all_tokens", reduce="sum",
                            replacement="zero", rule="graded", n_steps=n_steps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = explain(TEXTS[0], targets=1)
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    rise = difference(model, ids, torch.zeros(1, ids.shape[1], 16))
    assert abs(float(found.scores.sum() - rise)) < share * abs(float(rise))
    assert float(found.diagnostics["relative_gap"]) < share
    wanted = exact(model, ids)
    assert (found.scores.double() - wanted).abs().max() < share * wanted.abs().max()


def test_llama_from_zero_without_them_is_warned_of_and_misses_it_all(tokenizer):
    explain = TextExplainer(pnpx.IntegratedGradients, llama(8), tokenizer, replacement="zero", n_steps=256)
    with pytest.warns(RuntimeWarning, match=r"what 256 steps miss of score\(input\)") as caught:
        (found,) = explain(TEXTS[0], targets=1)
    assert float(found.diagnostics["relative_gap"]) > 1 and caught[0].filename == __file__


def test_one_warning_for_all_texts_in_the_words_of_their_explainer(tokenizer):
    """A model that reads one text a pass; of the second, no word differs from the token where the path begins."""
    model, texts = llama(8), [TEXTS[0], "[MASK]", TEXTS[2]]
    model.config.pad_token_id = None
    explain = TextExplainer(pnpx.IntegratedGradients, model, tokenizer, n_steps=1, gap_tolerance=1e-6)
    with pytest.warns(RuntimeWarning) as caught:
        found = explain(texts, targets=1)
    (message,) = [str(one.message) for one in caught]
    assert caught[0].filename == __file__ and "for 2 of 3 texts (0, 2): " in message
    assert "choose more n_steps, as many as it takes by max_steps=; gap_tolerance=None" in message
    assert [float(one.diagnostics["relative_gap"]) > 1e-6 for one in found] == [True, False, True]
    explain = TextExplainer(pnpx.IntegratedGradients, model, tokenizer, replacement="zero")
    with pytest.warns(RuntimeWarning, match=r"rule='graded' where .*, or a token as replacement=; gap") as caught:
        explain(texts, targets=1)
    assert len(caught) == 1 and "baselines.Token" not in str(caught[0].message)
    explain = TextExplainer(pnpx.IntegratedGradients, model, tokenizer, n_steps=1, gap_tolerance=1e-6, max_steps=512)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(float(one.diagnostics["relative_gap"]) <= 1e-6 for one in explain(texts, targets=1))


@pytest.mark.parametrize("layers", [2, 8])
def test_llama_from_a_token_needs_neither(tokenizer, layers):
    explain = TextExplainer(pnpx.IntegratedGradients, llama(layers), tokenizer, reduce="sum")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for found in explain(TEXTS, targets=1):
            assert float(found.diagnostics["relative_gap"]) < 0.01


# Generation


def test_what_was_generated_counts_for_what_comes_after(tokenizer):
    model = tiny.gpt2(words=WORDS, initializer_range=0.3)
    explain = TextExplainer(pnpx.IntegratedGradients, model, tokenizer, granularity="all_tokens", reduce="sum",
                            n_steps=60)
    prompt = tokenizer("a film of", add_special_tokens=False, return_tensors="pt")
    (found,) = explain(prompt, targets="paris is")
    ids, begin = torch.tensor([[5, 6, 7, 12]]), torch.tensor([[4, 4, 4, 4]])
    with torch.no_grad():
        first = [model(input_ids=one[:, :3]).logits[0, -1, 12] for one in (ids, begin)]
        second = [model(input_ids=one).logits[0, -1, 13] for one in (ids, begin)]
    torch.testing.assert_close(found.scores[0].sum(), first[0] - first[1], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.scores[1].sum(), second[0] - second[1], rtol=1e-6, atol=1e-8)
    assert found.scores[1, 3] != 0 and found.scores[0, 3] == 0
    (rather,) = explain(prompt, targets=Contrast("paris", "is"))
    (other,) = explain(prompt, targets="is")
    torch.testing.assert_close(rather.scores[0], found.scores[0, :4] - other.scores[0])


def test_encoder_and_decoder_both_begin_at_the_token(tokenizer):
    model = tiny.bart(words=WORDS, encoder_layers=2, decoder_layers=2, init_std=0.2)
    explain = TextExplainer(pnpx.IntegratedGradients, model, tokenizer, granularity="all_tokens", reduce="sum",
                            n_steps=60)
    (found,) = explain("a film of", targets="paris is")
    sources = torch.tensor([[2, 5, 6, 7, 3]]), torch.tensor([[2, 4, 4, 4, 3]])
    reads = torch.tensor([[3, 12]]), torch.tensor([[3, 4]])
    with torch.no_grad():
        logits = [model(input_ids=source, decoder_input_ids=read).logits[0]
                  for source, read in zip(sources, reads, strict=True)]
    for step, token in enumerate((12, 13)):
        rise = logits[0][step, token] - logits[1][step, token]
        torch.testing.assert_close(found.scores[step].sum(), rise, rtol=1e-6, atol=1e-8)
    assert found.scores[1, 5] != 0 and (found.scores[:, [0, 4]] == 0).all()


@pytest.mark.parametrize(
    "names, special",
    [
        ({"unk_token": "[UNK]", "mask_token": "[MASK]", "eos_token": "[SEP]"}, {"[SEP]"}),
        ({"unk_token": "[SEP]", "mask_token": "[MASK]", "bos_token": "[SEP]", "eos_token": "[SEP]"}, {"[SEP]"}),
        ({"unk_token": "[SEP]", "eos_token": "[SEP]", "pad_token": "[PAD]"}, {"[SEP]", "[PAD]"}),
    ],
    ids=["each its own", "one for all ends, as GPT-2's", "an end, and padding"],
)
def test_what_is_unknown_or_masked_is_part_of_a_text_unless_it_is_an_end(names, special):
    assert special_ids(tiny.tokenizer_of(WORDS, **names)) == {WORDS.index(token) for token in special}


def test_an_end_that_is_the_token_for_what_is_unknown_as_well_stays_where_it_is():
    """GPT-2 has one token for all: in the text it is an end, and the path of the others alone begins elsewhere."""
    one = {name: "[SEP]" for name in ("unk_token", "bos_token", "eos_token")}
    tokenizer = tiny.tokenizer_of(WORDS, "$A [SEP]", pad_token="[PAD]", **one)
    model = tiny.gpt2("ForSequenceClassification", pad_token_id=0)
    explain = TextExplainer(pnpx.IntegratedGradients, model, tokenizer, granularity="all_tokens", n_steps=8,
                            replacement="pad", gap_tolerance=None)  # fmt: skip
    (found,) = explain("a film of beauty", 1)
    assert found.words[-1] == "[SEP]" and found.scores[-1] == 0 and (found.scores[:-1] != 0).all()
