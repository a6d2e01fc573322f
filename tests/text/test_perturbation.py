"""Units of texts taken away, against direct calls of the model: replaced by a token, by zeros, or deleted."""

from itertools import permutations

import pytest
import torch
import transformers

import pnpx
from pnpx.text import Contrast, TextExplainer, units
from pnpx.text.encoded import Encoded
from tests.errors import raises
from tests.text.tiny import WORDS, bert, bert_tokenizer, gpt2, ids_of, t5

PAD, UNK, CLS, SEP, MASK = range(5)
TEXTS = ["A film of rare beauty.", "I left after ten minutes", "Paris is beautiful"]
PERTURBING = [pnpx.Occlusion, pnpx.FeatureAblation, pnpx.KernelShap, pnpx.Shapley, pnpx.Lime, pnpx.Sobol]


@pytest.fixture(scope="module")
def typed():
    """Tells the model which text of a pair each token is of, as BERT's does."""
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return bert_tokenizer(model_input_names=names)


@torch.no_grad()
def logits(model, ids, **more):
    return model(input_ids=torch.tensor([ids]), **more).logits[0]


def shapley(value, count):
    """The mean over all orders of what each player adds to the value of those before it."""
    worth = torch.zeros(count, dtype=torch.float64)
    table = {}
    for order in permutations(range(count)):
        there = frozenset()
        for player in order:
            for kept in (there, there | {player}):
                if kept not in table:
                    table[kept] = value(kept)
            worth[player] += table[there | {player}] - table[there]
            there = there | {player}
    return worth / len(list(permutations(range(count))))


IDS = [CLS, 16, 17, 18, 19, SEP]  # paris is beauti ##ful
OF_WORDS = [(1,), (2,), (3, 4)]


def edited(ids, spots, kept, replacement):
    """``ids`` with the words that are not kept replaced, or, for None, deleted."""
    gone = {place for number, places in enumerate(spots) if number not in kept for place in places}
    if replacement is None:
        return [token for place, token in enumerate(ids) if place not in gone]
    return [replacement if place in gone else token for place, token in enumerate(ids)]


REPLACEMENTS = [(None, MASK), ("mask", MASK), ("pad", PAD), ("unk", UNK), ("rare", 8), (9, 9), ("delete", None)]


@pytest.mark.parametrize("replacement, token", REPLACEMENTS)
@pytest.mark.parametrize("kind", [pnpx.Occlusion, pnpx.FeatureAblation])
def test_occlusion_is_what_the_score_loses(tokenizer, kind, replacement, token):
    model = bert()
    explain = TextExplainer(kind, model, tokenizer, replacement=replacement)
    (found,) = explain(TEXTS[2], targets="GOOD")
    whole = logits(model, IDS)[1]
    expected = [whole - logits(model, edited(IDS, OF_WORDS, {0, 1, 2} - {gone}, token))[1] for gone in range(3)]
    torch.testing.assert_close(found.scores, torch.stack(expected))
    assert found.words == ["Paris", "is", "beautiful"] and found.aggregation is None
    assert found.scores.abs().min() > 1e-4


@pytest.mark.parametrize("replacement, token", [("mask", MASK), ("delete", None)])
@pytest.mark.parametrize("kind", [pnpx.KernelShap, pnpx.Shapley])
@pytest.mark.parametrize("mode", ["logits", "softmax"])
def test_shapley_values_are_those_of_the_definition(tokenizer, kind, replacement, token, mode):
    model, text = bert(), "I left after ten minutes ."
    ids = [CLS, *ids_of("i left after ten minutes ."), SEP]
    spots = [(place,) for place in range(1, 7)]

    def value(kept):
        said = logits(model, edited(ids, spots, kept, token))
        return said[2] if mode == "logits" else said.softmax(0)[2]

    explain = TextExplainer(kind, model, tokenizer, replacement=replacement, inference_mode=mode)
    (found,) = explain(text, targets=2)
    torch.testing.assert_close(found.scores, shapley(value, 6), rtol=1e-6, atol=1e-9)


def test_kernel_shap_sums_to_the_difference_however_few_coalitions(tokenizer):
    model, text = bert(), "a film of rare beauty . i left after ten minutes ."
    ids = [CLS, *ids_of(text), SEP]
    gap = logits(model, ids)[1] - logits(model, [CLS, *[MASK] * 12, SEP])[1]
    for kind, n_iter in ((pnpx.KernelShap, 30), (pnpx.KernelShap, 300), (pnpx.Shapley, 2)):
        (found,) = TextExplainer(kind, model, tokenizer, n_iter=n_iter)(text, targets=1)
        assert found.scores.sum().item() == pytest.approx(gap.item(), abs=1e-12)


@pytest.mark.parametrize("kind", [pnpx.FeatureAblation, pnpx.Shapley])
def test_as_captum_with_units_as_its_masks(tokenizer, kind):
    import captum.attr

    model = bert()
    reference = {pnpx.FeatureAblation: captum.attr.FeatureAblation, pnpx.Shapley: captum.attr.ShapleyValues}[kind]
    ids, groups = torch.tensor([IDS]), torch.tensor([[3, 0, 1, 2, 2, 3]])
    baselines = torch.tensor([[CLS, MASK, MASK, MASK, MASK, SEP]])
    expected = reference(lambda given: model(input_ids=given).logits).attribute(
        ids, baselines=baselines, target=1, feature_mask=groups
    )
    (found,) = TextExplainer(kind, model, tokenizer)(TEXTS[2], targets=1)
    torch.testing.assert_close(found.scores, expected[0, 1:4].double(), rtol=1e-5, atol=1e-6)


def test_zeros_in_place_of_embeddings(tokenizer):
    model = bert()
    table = model.get_input_embeddings().weight.detach()
    (found,) = TextExplainer(pnpx.Occlusion, model, tokenizer, replacement="zero")(TEXTS[2], targets=0)
    whole = logits(model, IDS)[0]
    for number, places in enumerate(OF_WORDS):
        vectors = table[torch.tensor([IDS])].clone()
        vectors[0, list(places)] = 0
        with torch.no_grad():
            without = model(inputs_embeds=vectors).logits[0, 0]
        torch.testing.assert_close(found.scores[number], whole - without)


def test_zeros_on_both_sides_where_the_decoder_reads_the_text_too():
    model = t5("SequenceClassification", pad_token_id=0, eos_token_id=SEP, num_labels=3)
    own = bert_tokenizer(["unk", "pad"])
    (found,) = TextExplainer(pnpx.Occlusion, model, own, replacement="zero")(TEXTS[2], targets=0)
    whole = logits(model, IDS)[0]
    for number, places in enumerate(OF_WORDS):
        left = []

        def clear(module, given, output, places=places, left=left):
            left.append(1)
            output = output.clone()
            output[:, [place + len(left) - 1 for place in places]] = 0  # the decoder reads a step later
            return output

        handle = model.transformer.shared.register_forward_hook(clear)
        encoder, decoder = (side.embed_tokens for side in (model.transformer.encoder, model.transformer.decoder))
        handles = [side.register_forward_hook(clear) for side in {encoder, decoder} - {model.transformer.shared}]
        expected = whole - logits(model, IDS)[0]
        for one in (handle, *handles):
            one.remove()
        assert len(left) == 2
        torch.testing.assert_close(found.scores[number], expected, rtol=1e-4, atol=1e-6)


def test_a_unit_is_worth_what_it_is_worth_however_many_tokens_it_has(tokenizer):
    """No mean or sum over tokens, whatever aggregation says; a whole text as one unit is worth all of the change."""
    model = bert()
    found = [
        TextExplainer(pnpx.Occlusion, model, tokenizer, granularity=granularity, aggregation=how)(TEXTS[2], targets=1)[
            0
        ]
        for granularity, how in (("sentence", "sum"), ("sentence", "mean"), ([(0, 18)], "max"))
    ]
    gap = logits(model, IDS)[1] - logits(model, [CLS, MASK, MASK, MASK, MASK, SEP])[1]
    for one in found:
        torch.testing.assert_close(one.scores, gap[None])
    (tokens,) = TextExplainer(pnpx.Occlusion, model, tokenizer, granularity="token")(TEXTS[2], targets=1)
    expected = logits(model, IDS)[1] - logits(model, [*IDS[:4], MASK, SEP])[1]
    torch.testing.assert_close(tokens.scores[3], expected)


@pytest.mark.parametrize("kind", PERTURBING)
def test_as_the_explainer_itself_by_group(tokenizer, kind):
    model, ids = bert(), torch.tensor([IDS])
    itself = kind(model, forward_arg_extractor="input_ids", groups=torch.tensor([[-1, 0, 1, 2, 2, -1]]), baseline=MASK)
    (found,) = TextExplainer(kind, model, tokenizer)(TEXTS[2], targets=[0, 2])
    torch.testing.assert_close(found.scores, itself.by_group({"input_ids": ids}, torch.tensor([[0, 2]]))[0])
    assert found.scores.shape == (2, 3) and (found.scores != 0).all()


@pytest.mark.filterwarnings("ignore:.* coalitions do not determine")
@pytest.mark.parametrize("replacement", ["mask", "delete", "zero"])
@pytest.mark.parametrize("kind", PERTURBING)
def test_alone_in_a_list_and_padded_on_either_side(tokenizer, kind, replacement):
    model = bert()
    texts = [*TEXTS, "a film", "paris is rare", "of"]
    few = {} if kind in (pnpx.Occlusion, pnpx.FeatureAblation) else {"n_iter": 4 if kind is not pnpx.Lime else 20}
    explain = TextExplainer(kind, model, tokenizer, replacement=replacement, **few)
    expected = [explain(text, targets=1)[0].scores for text in texts]
    assert all((scores != 0).any() for scores in expected)
    ways = [
        (explain, texts),
        (TextExplainer(kind, model, tokenizer, replacement=replacement, batch_size=3, **few), texts),
    ]
    for side in ("left", "right"):
        ways.append((explain, tokenizer(texts, padding=True, padding_side=side, return_tensors="pt")))
    for other, given in ways:
        for one, alone in zip(other(given, targets=1), expected, strict=True):
            torch.testing.assert_close(one.scores, alone, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("replacement", ["mask", "delete"])
def test_the_predicted_class_and_its_probability(tokenizer, replacement):
    model = bert()
    explain = TextExplainer(pnpx.Occlusion, model, tokenizer, replacement=replacement, inference_mode="softmax")
    for text, found in zip(TEXTS, explain(TEXTS), strict=True):
        said = logits(model, tokenizer(text)["input_ids"]).softmax(0)
        assert found.target_names == (found.prediction,) == (("BAD", "GOOD", "FAIR")[int(said.argmax())],)
        assert found.probability == pytest.approx(float(said.max()), rel=1e-5)
        assert found.probabilities == pytest.approx((float(said.max()),), rel=1e-5)


def test_special_tokens_stay(tokenizer):
    """Those that the tokenizer adds, those in the text, and those of a template in ids."""
    model = bert()
    (found,) = TextExplainer(pnpx.Occlusion, model, tokenizer, granularity="all_tokens")(TEXTS[2], targets=1)
    assert found.scores[0] == found.scores[-1] == 0 and (found.scores[1:-1] != 0).all()
    for replacement, gone in (("mask", [CLS, MASK, SEP, MASK, SEP]), ("delete", [CLS, SEP, SEP])):
        (found,) = TextExplainer(pnpx.Occlusion, model, tokenizer, granularity=[(0, 14)], replacement=replacement)(
            "paris [SEP] is", targets=1
        )
        expected = logits(model, [CLS, 16, SEP, 17, SEP])[1] - logits(model, gone)[1]
        torch.testing.assert_close(found.scores, expected[None])
    (found,) = TextExplainer(pnpx.Occlusion, model, tokenizer, granularity="all_tokens")(
        {"input_ids": [[CLS, 16, SEP, UNK, SEP]]}, targets=1
    )
    assert (found.scores != 0).tolist() == [False, True, False, True, False]
    expected = logits(model, [CLS, 16, SEP, UNK, SEP])[1] - logits(model, [CLS, 16, SEP, MASK, SEP])[1]
    torch.testing.assert_close(found.scores[3], expected)


def test_pairs(typed):
    model = bert()
    (found,) = TextExplainer(pnpx.Occlusion, model, typed, replacement="delete")(("a film", "of rare"), targets=1)
    ids, types = [CLS, 5, 6, SEP, 7, 8, SEP], [0, 0, 0, 0, 1, 1, 1]
    whole = logits(model, ids, token_type_ids=torch.tensor([types]))[1]
    for number, place in enumerate((1, 2, 4, 5)):
        rest = [index for index in range(7) if index != place]
        said = logits(model, [ids[i] for i in rest], token_type_ids=torch.tensor([[types[i] for i in rest]]))
        torch.testing.assert_close(found.scores[number], whole - said[1])


# Outputs at positions


@pytest.mark.parametrize("build", [gpt2])
@pytest.mark.parametrize("replacement, token", [("unk", UNK), ("delete", None)])
def test_generation_takes_prompt_units_alone(tokenizer, build, replacement, token):
    model, prompt, target = build(), ids_of("[CLS] a film of"), ids_of("beauty is rare")
    explain = TextExplainer(pnpx.Occlusion, model, tokenizer, replacement=replacement)
    (found,) = explain({"input_ids": prompt}, targets=target)
    assert found.scores.shape == (3, 6) and (found.scores[:, 3:] == 0).all()

    def said(ids):
        rows = logits(model, ids)
        return torch.stack([rows[step - 4, token] for step, token in enumerate(target)])  # from the end

    for number in range(3):
        gone = edited([*prompt, *target], [(1,), (2,), (3,)], {0, 1, 2} - {number}, token)
        torch.testing.assert_close(found.scores[:, number], said([*prompt, *target]) - said(gone))


@pytest.mark.parametrize("replacement, token", [("unk", UNK), ("delete", None)])
def test_generation_by_encoder_and_decoder(tokenizer, replacement, token):
    model, prompt, target = t5(), [CLS, *ids_of("a film of"), SEP], ids_of("beauty is")
    (found,) = TextExplainer(pnpx.KernelShap, model, tokenizer, replacement=replacement)(
        "a film of", targets="beauty is"
    )
    decoder = torch.tensor([[0, target[0]]])

    def value(step):
        def of(kept):
            ids = edited(prompt, [(1,), (2,), (3,)], kept, token)
            return logits(model, ids, decoder_input_ids=decoder)[step, target[step]]

        return of

    expected = torch.stack([shapley(value(step), 3) for step in range(2)])
    torch.testing.assert_close(found.scores[:, :3], expected, rtol=1e-6, atol=1e-8)
    assert found.scores.shape == (2, 5) and (found.scores[:, 3:] == 0).all()


def test_contrast(tokenizer):
    explain = TextExplainer(pnpx.Shapley, gpt2(), tokenizer)
    prompt = {"input_ids": ids_of("[CLS] a film of")}
    (rather,) = explain(prompt, targets=Contrast("beauty", "minutes"))
    this, other = (explain(prompt, targets=word)[0].scores for word in ("beauty", "minutes"))
    torch.testing.assert_close(rather.scores, this - other)


@pytest.mark.parametrize("replacement, token", [("mask", MASK), ("unk", UNK), ("delete", None)])
def test_the_mask_that_is_asked_about_stays(tokenizer, replacement, token):
    model, ids = bert("MaskedLM"), [CLS, *ids_of("a film of [MASK] beauty"), SEP]
    explain = TextExplainer(pnpx.Occlusion, model, tokenizer, replacement=replacement)
    (found,) = explain("a film of [MASK] beauty", targets="rare")
    assert found.words == ["a", "film", "of", "[MASK]", "beauty"]
    assert found.scores.shape == (1, 5) and found.scores[0, 3] == 0
    for number in (0, 1, 2, 4):
        gone = edited(ids, [(place,) for place in range(1, 6)], set(range(5)) - {number}, token)
        expected = logits(model, ids)[4, 8] - logits(model, gone)[gone.index(MASK, 4 if token == MASK else 0), 8]
        torch.testing.assert_close(found.scores[0, number], expected)
    (sentence,) = TextExplainer(pnpx.Occlusion, model, tokenizer, replacement=replacement, granularity="sentence")(
        "a film of [MASK] beauty", targets="rare"
    )
    gone = edited(ids, [(1, 2, 3, 5)], set(), token)
    expected = logits(model, ids)[4, 8] - logits(model, gone)[1 if token is None else 4, 8]
    torch.testing.assert_close(sentence.scores, expected[None, None])


@pytest.mark.parametrize("replacement, token", [("mask", MASK), ("delete", None)])
@pytest.mark.parametrize("mode", ["logits", "log_softmax"])
def test_answers_to_questions(typed, replacement, token, mode):
    model = bert("QuestionAnswering")
    explain = TextExplainer(pnpx.Occlusion, model, typed, replacement=replacement, inference_mode=mode)
    (found,) = explain(("a film", "of rare beauty"), targets=(5, 6))
    ids, types = [CLS, 5, 6, SEP, 7, 8, 9, SEP], torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])

    @torch.no_grad()
    def said(left, ids=ids):
        rest = [place for place in range(8) if place in left]
        output = model(input_ids=torch.tensor([[ids[p] for p in rest]]), token_type_ids=types[:, rest])
        start, end = output.start_logits[0], output.end_logits[0]
        if mode == "log_softmax":
            start, end = start.log_softmax(0), end.log_softmax(0)
        return torch.stack([start[rest.index(5)], end[rest.index(6)]])

    for number, place in enumerate((1, 2, 4, 5, 6)):
        if token is None:
            expected = said(range(8)) - said(set(range(8)) - {place}) if place < 5 else torch.zeros(2).double()
        else:
            expected = said(range(8)) - said(range(8), [token if at == place else one for at, one in enumerate(ids)])
        torch.testing.assert_close(found.scores[:, number], expected)


def test_answers_do_not_lie_in_the_padding_of_copies(typed):
    """Copies that lost more tokens are shorter: shares are taken over the tokens that are left, whatever the batch."""
    model = bert("QuestionAnswering")
    explain = TextExplainer(
        pnpx.Shapley, model, typed, replacement="delete", inference_mode="log_softmax", granularity="word"
    )
    (found,) = explain(("a film", "of rare beauty"), targets=(5, 5))
    ids, types = [CLS, 5, 6, SEP, 7, 8, 9, SEP], torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])

    @torch.no_grad()
    def value(kept):
        rest = [0, *(place for number, place in enumerate((1, 2, 4, 6)) if number in kept), 3, 5, 7]
        rest.sort()
        output = model(input_ids=torch.tensor([[ids[p] for p in rest]]), token_type_ids=types[:, rest])
        return output.start_logits[0].log_softmax(0)[rest.index(5)]

    torch.testing.assert_close(found.scores[0, [0, 1, 2, 4]], shapley(value, 4), rtol=1e-6, atol=1e-9)
    assert found.scores[0, 3] == 0


def test_labels_of_tokens(tokenizer):
    model, ids = bert("TokenClassification"), [CLS, *ids_of("a film of"), SEP]
    (found,) = TextExplainer(pnpx.Occlusion, model, tokenizer)("a film of", targets=[(2, "GOOD"), (1, 0)])
    for number in range(3):
        gone = edited(ids, [(1,), (2,), (3,)], {0, 1, 2} - {number}, MASK)
        change = logits(model, ids) - logits(model, gone)
        torch.testing.assert_close(found.scores[:, number], torch.stack([change[2, 1], change[1, 0]]))
    (left,) = TextExplainer(pnpx.Occlusion, model, tokenizer, replacement="delete")("a film of", targets=[(2, "GOOD")])
    gone = logits(model, [CLS, *ids_of("film of"), SEP])
    torch.testing.assert_close(left.scores[0, 0], logits(model, ids)[2, 1] - gone[1, 1])
    assert left.scores[0, 1] == 0
    message = "the tokens that are asked about stay, and here these are all; say which are: targets="
    with pytest.raises(ValueError, match=message):
        TextExplainer(pnpx.Occlusion, model, tokenizer, replacement="delete")("a film of")


# Models without padding, and what tokenizers have


def test_a_model_without_a_pad_token_reads_a_text_at_a_time():
    model, plain = gpt2("SequenceClassification"), bert_tokenizer(["unk"])
    for replacement, token in (("unk", UNK), ("delete", None), (8, 8)):
        explain = TextExplainer(pnpx.Occlusion, model, plain, replacement=replacement)
        for text, found in zip(TEXTS, explain(TEXTS, targets=1), strict=True):
            ids = plain(text)["input_ids"]
            spots = [unit.tokens for unit in found.units]
            for number in range(len(spots)):
                gone = edited(ids, spots, set(range(len(spots))) - {number}, token)
                expected = logits(model, ids)[1] - logits(model, gone)[1]
                torch.testing.assert_close(found.scores[number], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "names, token",
    [(("pad", "unk", "mask"), MASK), (("unk", "pad"), PAD), (("unk",), UNK), (("eos",), 20), ((), "zero")],
)
def test_the_first_token_that_the_tokenizer_has_for_it(names, token):
    model, own = bert(), bert_tokenizer(names)
    (found,) = TextExplainer(pnpx.Occlusion, model, own)(TEXTS[2], targets=1)
    (expected,) = TextExplainer(pnpx.Occlusion, model, own, replacement=token)(TEXTS[2], targets=1)
    assert torch.equal(found.scores, expected.scores)
    assert found.explainer["replacement"] == (token if token == "zero" else WORDS[token])


def test_tokens_that_the_model_does_not_know_are_not_taken():
    """A tokenizer may have been given tokens that the model was not made for."""
    own = bert_tokenizer(["unk"])
    own.add_special_tokens({"pad_token": "<late>"})
    assert own.pad_token_id == len(WORDS)
    (found,) = TextExplainer(pnpx.Occlusion, bert(), own)(TEXTS[2], targets=1)
    assert found.explainer["replacement"] == "[UNK]"
    with pytest.raises(ValueError, match="this tokenizer has no pad token that the model knows"):
        TextExplainer(pnpx.Occlusion, bert(), own, replacement="pad")


@pytest.mark.parametrize("method, parameters, error, message", [
    (pnpx.Occlusion, {"replacement": "mask"}, ValueError,
     "this tokenizer has no mask token that the model knows; choose replacement='unk', 'zero', 'delete', or another "
     "token of it"),
    (pnpx.Occlusion, {"replacement": "delet"}, ValueError,
     "replacement must be 'unk', 'zero', 'delete', a token or its id, but is 'delet'; the nearest: 'delete'"),
    (pnpx.Occlusion, {"replacement": 21}, ValueError, "replacement must be a token id from 0 to 20, but is 21"),
    (pnpx.Occlusion, {"replacement": True}, TypeError,
     "replacement must be 'unk', 'zero', 'delete', a token or its id, but is True"),
    (pnpx.Gradient, {"replacement": "zero"}, TypeError,
     "replacement says what takes the place of a unit, but Gradient replaces none; leave it out"),
    (pnpx.Occlusion, {"groups": 2}, TypeError,
     "'groups' is no parameter of explanations of texts: the units are the groups; choose them by granularity="),
    (pnpx.Occlusion, {"window": 2}, TypeError,
     "'window' is no parameter of explanations of texts: the units are what is hidden; choose them by granularity="),
    (pnpx.Lime, {"baseline": 0}, TypeError,
     "'baseline' is no parameter of explanations of texts: say what takes the place of a unit by replacement="),
    (pnpx.Lime, {"replacement": "delete", "layer": "bert"}, ValueError,
     "units are deleted from the text, not at layer='bert'; leave layer out, or choose another replacement"),
    (pnpx.KernelShap, {"n_iter": 1}, ValueError, "`n_iter >= 2` must hold, but got n_iter=1"),
])  # fmt: skip
def test_wrong_parameters(method, parameters, error, message):
    with raises(error, message):
        TextExplainer(method, bert(), bert_tokenizer(["unk"]), **parameters)


def test_nothing_left_to_read(tokenizer):
    explain = TextExplainer(pnpx.Shapley, gpt2(), tokenizer, replacement="delete")
    with pytest.raises(ValueError, match="nothing is left of a text once all its units are taken away"):
        explain({"input_ids": ids_of("a film of")}, targets="rare")


def test_layers(tokenizer):
    """At a layer, what it gives for the replaced text takes the place of a unit."""
    model = bert()
    (found,) = TextExplainer(pnpx.Occlusion, model, tokenizer, layer="bert.embeddings")(TEXTS[2], targets=1)
    (at_ids,) = TextExplainer(pnpx.Occlusion, model, tokenizer)(TEXTS[2], targets=1)
    torch.testing.assert_close(found.scores, at_ids.scores)  # embeddings are made token by token


@pytest.mark.parametrize("layer", ["bert.encoder.layer.0", "bert.encoder.layer.0.output"])
def test_inside_the_model_special_tokens_are_those_of_the_replaced_text(tokenizer, layer):
    if transformers.__version__ < "5" and not layer.endswith("output"):
        pytest.skip("before transformers 5 a block of BERT gives its attention weights as well, which are no tokens")
    model = bert()
    (found,) = TextExplainer(pnpx.Occlusion, model, tokenizer, layer=layer)(TEXTS[2], targets=1)
    block = model.bert.encoder.layer[0]
    seen = []
    handle = block.register_forward_hook(lambda module, given, output: seen.append(output))
    whole = logits(model, IDS)[1]
    logits(model, [CLS, MASK, MASK, MASK, MASK, SEP])
    handle.remove()
    clean, gone = (one if isinstance(one, torch.Tensor) else one[0] for one in seen)
    for number, places in enumerate(OF_WORDS):
        mixed = clean.clone()
        mixed[:, list(places)] = gone[:, list(places)]
        handle = block.register_forward_hook(
            lambda module, given, output, mixed=mixed: (
                mixed if isinstance(output, torch.Tensor) else (mixed, *output[1:])
            )
        )
        expected = whole - logits(model, IDS)[1]
        handle.remove()
        torch.testing.assert_close(found.scores[number], expected)


@pytest.mark.parametrize("replacement", ["mask", "zero", "delete"])
def test_copies_fill_the_passes(tokenizer, replacement):
    model, rows = bert(), []
    handle = model.register_forward_pre_hook(
        lambda module, given, named: rows.append(len(named["input_ids"])), with_kwargs=True
    )
    TextExplainer(pnpx.KernelShap, model, tokenizer, replacement=replacement)(
        "a film of rare beauty . i left", targets=1
    )
    handle.remove()
    assert sum(rows) < 1.2 * 256 + 20 and len(rows) < 16  # 8 words: 254 coalitions, none, and all, 32 a pass


def test_model_and_tokenizer_are_left_as_they_were(tokenizer):
    model = bert().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before = (
        len(tokenizer),
        tokenizer.special_tokens_map,
        model.config.to_dict(),
        model.get_input_embeddings().weight.shape,
    )
    torch.manual_seed(3)
    random = torch.get_rng_state()
    for kind in (pnpx.Occlusion, pnpx.Shapley):
        for replacement in (None, "delete", "zero"):
            TextExplainer(kind, model, tokenizer, replacement=replacement)(TEXTS[2], targets=0)
    assert torch.equal(torch.get_rng_state(), random) and all(module.training for module in model.modules())
    assert before == (
        len(tokenizer), tokenizer.special_tokens_map, model.config.to_dict(), model.get_input_embeddings().weight.shape
    )  # fmt: skip
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_units_of_a_text_are_the_groups(tokenizer):
    """The same units as gradients are summed over."""
    text = "A film of rare beauty. I left, after ten minutes"
    encoding = tokenizer(text).encodings[0]
    for granularity in ("word", "token", "sentence", "all_tokens"):
        (found,) = TextExplainer(pnpx.Occlusion, bert(), tokenizer, granularity=granularity)(text, targets=0)
        assert list(found.units) == units(Encoded.of(encoding, [text]), granularity)
