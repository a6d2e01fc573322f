"""Each form of texts and targets, against the same given in the plainest form; and what is said of those not right."""

import copy
import warnings
from functools import partial

import numpy as np
import pytest
import torch

import pnpx
from pnpx.text import TextExplainer
from tests.errors import raises
from tests.text import tiny

WORDS = tiny.WORDS[:17]  # whose numbers are in what is said of wrong ids
TEXTS = ["A film of rare beauty.", "I left after ten minutes", "Paris"]
CLOSE = {"rtol": 1e-6, "atol": 1e-10}

bert, tokenizer_with = partial(tiny.bert, words=WORDS), partial(tiny.bert_tokenizer, words=WORDS)


@pytest.fixture(scope="module")
def tokenizer():
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return tokenizer_with(model_input_names=names)


@pytest.fixture(scope="module")
def explain(tokenizer):
    return TextExplainer(pnpx.Gradient, bert(), tokenizer, reduce="l2")


def same(found, expected, **close):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.scores, other.scores, **(close or CLOSE))


# Texts


def test_a_text_a_list_and_a_tuple_in_a_list(explain):
    expected = [explain(text, targets=1)[0] for text in TEXTS]
    same(explain(TEXTS, targets=1), expected)
    assert [one.texts for one in expected] == [(text,) for text in TEXTS]
    pair = explain(("a film", "of rare beauty"), targets=1)
    assert pair[0].texts == ("a film", "of rare beauty") and pair[0].words == ["a", "film", "of", "rare", "beauty"]
    same(explain([TEXTS[0], ("a film", "of rare beauty")], targets=1), [expected[0], pair[0]])


def test_words(explain):
    (split,) = explain([["A", "film", "of", "rare", "beauty."]], targets=1)
    (whole,) = explain(TEXTS[0], targets=1)
    assert split.words == ["A", "film", "of", "rare", "beauty."]
    torch.testing.assert_close(split.scores[:4], whole.scores[:4])
    torch.testing.assert_close(split.scores[4], whole.scores[4:].mean())
    (pair,) = explain([(["a", "film"], ["of", "rare", "beauty"])], targets=1)
    same([pair], explain(("a film", "of rare beauty"), targets=1))
    assert pair.words == ["a", "film", "of", "rare", "beauty"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_of_ids_in_every_container(tokenizer, explain, side):
    expected = explain(TEXTS, targets=[0, 1, 2])
    batch = tokenizer(TEXTS, padding=True, padding_side=side, return_tensors="pt")
    as_lists = {name: value.tolist() for name, value in batch.items()}
    as_arrays = {name: value.numpy() for name, value in batch.items()}
    for given in (
        batch,
        dict(batch),
        as_lists,
        as_arrays,
        tokenizer(TEXTS),
        dict(tokenizer(TEXTS)),
        tokenizer(TEXTS, return_special_tokens_mask=True, return_offsets_mapping=True, return_length=True),
        [tokenizer(text) for text in TEXTS],
        [tokenizer(text, return_tensors="pt") for text in TEXTS],
        {**batch, "labels": torch.tensor([1, 0, 1])},
        {**batch, "label_ids": batch["input_ids"]},
    ):
        found = explain(given, targets=[0, 1, 2])
        same(found, expected)
        assert [len(one.units) for one in found] == [6, 5, 1]


def test_one_text_in_ids(tokenizer, explain):
    expected = explain(TEXTS[0], targets=[1])
    for given in (
        tokenizer(TEXTS[0]),
        tokenizer(TEXTS[0], return_tensors="pt"),
        dict(tokenizer(TEXTS[0])),
        {"input_ids": tokenizer(TEXTS[0])["input_ids"]},
        {"input_ids": np.array(tokenizer(TEXTS[0])["input_ids"])},
        {"input_ids": torch.tensor(tokenizer(TEXTS[0])["input_ids"])},
    ):
        found = explain(given, targets=1)
        torch.testing.assert_close(found[0].scores, expected[0].scores[0], **CLOSE)


def test_pairs_in_ids_do_not_mix(tokenizer, explain):
    pairs = [("a film", "of rare beauty"), ("i left", "paris")]
    for given in (tokenizer(pairs, padding=True, return_tensors="pt"), [tokenizer(*pair) for pair in pairs]):
        found = explain(given, targets=1)
        same(found, explain(pairs, targets=1))
        assert [text.strip() for text in found[0].texts] == ["a film", "of rare beauty"]
        assert [unit.sequence for unit in found[0].units] == [0, 0, 1, 1, 1]


def test_position_ids_and_types_go_along(tokenizer):
    model = bert()
    explain = TextExplainer(pnpx.Gradient, model, tokenizer, granularity="all_tokens", reduce="l2")
    batch = {
        "input_ids": torch.tensor([[0, 2, 5, 6, 3]]),
        "attention_mask": torch.tensor([[0, 1, 1, 1, 1]]),
        "token_type_ids": torch.tensor([[0, 0, 1, 0, 1]]),
        "position_ids": torch.tensor([[0, 0, 4, 2, 9]]),
    }
    (found,) = explain(batch, targets=1)
    vectors = model.get_input_embeddings()(batch["input_ids"][:, 1:]).detach().requires_grad_()
    logits = model(
        inputs_embeds=vectors, token_type_ids=batch["token_type_ids"][:, 1:], position_ids=batch["position_ids"][:, 1:]
    ).logits
    (gradient,) = torch.autograd.grad(logits[0, 1], vectors)
    torch.testing.assert_close(found.scores, gradient[0].norm(dim=-1))


def test_what_the_model_does_not_take_does_not_go_along(tokenizer):
    model = tiny.made(
        "DistilBert", "SequenceClassification", vocab_size=len(WORDS), dim=16, n_heads=2, hidden_dim=32, n_layers=1
    )

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, input_ids, attention_mask):
            return self.inner(input_ids, attention_mask).logits

    assert "token_type_ids" in tokenizer(TEXTS[0])
    expected = TextExplainer(pnpx.Gradient, model, tokenizer_with(["unk", "pad"]))(TEXTS, targets=1)
    same(TextExplainer(pnpx.Gradient, Plain(), tokenizer)(TEXTS, targets=1), expected, rtol=1e-5, atol=1e-6)


def test_too_long_is_truncated_and_said_once(tokenizer, explain):
    text = " ".join(["film"] * 40)
    with pytest.warns(
        UserWarning, match="^input 1 has 42 tokens, but the model reads 24: 18 of them are left out$"
    ) as all_:
        found = explain([TEXTS[0], text], targets=1)
    assert len(all_) == 1 and found[1].words == ["film"] * 22
    same(found[:1], explain(TEXTS[0], targets=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(found[1:], explain(" ".join(["film"] * 22), targets=1))
    with pytest.raises(ValueError, match="row 1 of the batch has 42 tokens, but the model reads 24"):
        explain(tokenizer([TEXTS[0], text]), targets=1)


@pytest.mark.parametrize("own", [None, {"max_length": 5, "stride": 1, "strategy": "only_first", "direction": "left"}])
@pytest.mark.parametrize("padding", [None, {"length": 30, "pad_id": 0, "pad_token": "[PAD]", "direction": "left"}])
def test_truncation_and_padding_of_the_tokenizer_stay(own, padding):
    tokenizer = tokenizer_with()
    backend = tokenizer.backend_tokenizer
    if own is not None:
        backend.enable_truncation(**own)
    if padding is not None:
        backend.enable_padding(**padding)
    before = backend.to_str()
    expected = TextExplainer(pnpx.Gradient, bert(), tokenizer_with())(TEXTS)
    explain = TextExplainer(pnpx.Gradient, bert(), tokenizer)
    same(explain(TEXTS), expected)  # the whole texts, whatever the tokenizer's own truncation is
    assert backend.to_str() == before
    with pytest.warns(UserWarning, match="42 tokens"):
        explain(["paris", " ".join(["film"] * 40)])
    assert backend.to_str() == before
    TextExplainer(pnpx.Gradient, bert("MaskedLM"), tokenizer)("a [MASK] of", targets="Film")
    assert backend.to_str() == before
    assert backend.truncation == own


def test_nothing(explain):
    assert explain([]) == [] == explain({"input_ids": []})
    assert explain([], targets=[]) == []


@pytest.mark.parametrize(
    "texts, error, message",
    [
        ("", ValueError, "input 0 is empty, so there is nothing to explain; leave it out"),
        (["a", " \n"], ValueError, "input 1 is empty, so there is nothing to explain; leave it out"),
        (("", " "), ValueError, "input 0 is empty, so there is nothing to explain; leave it out"),
        ([["", ""]], ValueError, "input 0 is empty, so there is nothing to explain; leave it out"),
        ([[]], ValueError, "input 0 is empty, so there is nothing to explain; leave it out"),
        (["a", "\u200b"], ValueError, "the tokenizer finds no token in input 1, '\\u200b'; leave it out"),
        (
            ["a", "b \ud83d"],
            ValueError,
            "input 1 must be of whole characters, but has '\\ud83d', a lone surrogate, at 2; decode the text with "
            "errors='replace', or leave it out",
        ),
        (
            [("a", "\udc00a")],
            ValueError,
            "input 0 must be of whole characters, but has '\\udc00', a lone surrogate, at 0; decode the text with "
            "errors='replace', or leave it out",
        ),
        (
            5,
            TypeError,
            "texts are a str, a pair (str, str), a list of them, a list of lists of words, or a mapping with "
            "'input_ids', such as the tokenizer returns, but got a int",
        ),
        (
            np.array(["a"]),
            TypeError,
            "texts are a str, a pair (str, str), a list of them, a list of lists of words, or a "
            "mapping with 'input_ids', such as the tokenizer returns, but got a ndarray",
        ),
        (["a", None], TypeError, "input 1 must be a str, a pair of them (a tuple), or a list of words, but is None"),
        (
            ("a", "b", "c"),
            TypeError,
            "input 0 must be a str, a pair of them (a tuple), or a list of words, but is ('a', 'b', 'c')",
        ),
        ([["a", 3]], TypeError, "input 0 must be a str, a pair of them (a tuple), or a list of words, but is ['a', 3]"),
        ({"ids": [1]}, ValueError, "a mapping as input must have 'input_ids', but has 'ids'"),
        (
            {"input_ids": [[2, 5, 3]], "attention_mask": [[0, 0, 0]]},
            ValueError,
            "row 0 of the batch is empty, or all padding: its attention_mask is 0 everywhere",
        ),
        (
            {"input_ids": [[2, 5, 3]], "attention_mask": [[1, 1]]},
            ValueError,
            "the attention_mask must have the shape of input_ids, but it has not",
        ),
        (
            {"input_ids": [[0.5, 1.0]]},
            ValueError,
            "input_ids must be integers (batch, length), but a row is torch.float64 of shape (2,)",
        ),
        (
            {"input_ids": [[2, 17, 3]]},
            ValueError,
            "row 0 of the batch must be of token ids from 0 to 16, which the model knows, but has 17",
        ),
        (
            [{"input_ids": [[2, 5, 3], [2, 6, 3]]}],
            ValueError,
            "in a list each mapping must hold one text, but that of input 0 holds 2; give it by itself",
        ),
    ],
)
def test_what_is_no_text(explain, texts, error, message):
    with raises(error, message):
        explain(texts)


# Classes


def test_classes_in_every_form(explain):
    expected = [explain(text, targets=index)[0] for text, index in zip(TEXTS, (0, 1, 2), strict=True)]
    for targets in (
        [0, 1, 2],
        (0, 1, 2),
        ["BAD", "GOOD", "FAIR"],
        ["bad", 1, "Fair"],
        np.array([0, 1, 2]),
        torch.tensor([0, 1, 2]),
        [np.int64(0), torch.tensor(1), np.array(2)],
        np.array(["BAD", "GOOD", "FAIR"]),
    ):
        found = explain(TEXTS, targets=targets)
        same(found, expected)
        assert [one.targets for one in found] == [(0,), (1,), (2,)]
        assert [one.target_names for one in found] == [("BAD",), ("GOOD",), ("FAIR",)]


def test_one_class_for_all(explain):
    expected = [explain(text, targets=2)[0] for text in TEXTS]
    for targets in (2, "FAIR", np.int64(2), torch.tensor(2), np.array(2)):
        same(explain(TEXTS, targets=targets), expected)


def test_several_classes_a_text(explain):
    for targets in (
        [[0, 2], [1, 1], [2, 0]],
        torch.tensor([[0, 2], [1, 1], [2, 0]]),
        np.array([[0, 2], [1, 1], [2, 0]]),
    ):
        found = explain(TEXTS, targets=targets)
        assert [one.scores.shape[0] for one in found] == [2] * 3
        for text, one, classes in zip(TEXTS, found, ([0, 2], [1, 1], [2, 0]), strict=True):
            for row, index in enumerate(classes):
                torch.testing.assert_close(one.scores[row], explain(text, targets=index)[0].scores, **CLOSE)
    ragged = explain(TEXTS, targets=[["BAD", "GOOD", "FAIR"], 1, None])
    assert [tuple(one.scores.shape) for one in ragged] == [(3, 6), (5,), (1,)]
    assert ragged[2].target_names == (ragged[2].prediction,)
    (alone,) = explain(TEXTS[0], targets=["BAD", 2])
    torch.testing.assert_close(alone.scores, ragged[0].scores[[0, 2]], **CLOSE)
    (nested,) = explain(TEXTS[0], targets=[["BAD", 2]])
    assert torch.equal(nested.scores, alone.scores)


@pytest.mark.parametrize(
    "targets, error, message",
    [
        (3, ValueError, "a target must be a class from 0 to 2, but is 3"),
        (-1, ValueError, "a target must be a class from 0 to 2, but is -1"),
        ([0, 1, 7], ValueError, "a target must be a class from 0 to 2, but is 7"),
        ("GOD", ValueError, "the model has no class 'GOD'; the nearest: 'GOOD'"),
        (["BAD", "x", 1], ValueError, "the model has no class 'x'; there are: 'BAD', 'GOOD', 'FAIR'"),
        ([0, 1], ValueError, "there must be a target for each of the 3 texts, but there are 2"),
        (torch.tensor([0, 1, 1, 1]), ValueError, "there must be a target for each of the 3 texts, but there are 4"),
        ([], ValueError, "there must be a target for each of the 3 texts, but there are 0"),
        ([[], 0, 1], ValueError, "a target is an index, a label, or several of them, but a list of none was given"),
        (0.0, TypeError, "a target is the index or the label of a class, but got 0.0"),
        (torch.tensor([0.0, 1.0, 1.0]), TypeError, "a target is the index or the label of a class, but got 0.0"),
        (np.array([0.5, 1, 1]), TypeError, "a target is the index or the label of a class, but got 0.5"),
        (True, TypeError, "a target is the index or the label of a class, but got True"),
        ([torch.tensor(True), 0, 0], TypeError, "a target is the index or the label of a class, but got True"),
        ({"a": 1}, TypeError, "a target is the index or the label of a class, but got {'a': 1}"),
    ],
)
def test_wrong_classes(explain, targets, error, message):
    with raises(error, message):
        explain(TEXTS, targets=targets)


def test_generating_is_for_models_that_generate(explain):
    with pytest.raises(TypeError, match="'max_new_tokens' is for models that generate, but this one does not"):
        explain(TEXTS, max_new_tokens=3)


# Tokens, masks, spans


def test_labels_of_tokens_in_every_form(tokenizer):
    explain = TextExplainer(pnpx.Gradient, bert("TokenClassification"), tokenizer, reduce="l2")
    (expected,) = explain("a film of", targets=[(2, 1), (1, 0)])
    for targets in (
        [[(2, 1), (1, 0)]],
        [(2, "GOOD"), (1, "BAD")],
        torch.tensor([[2, 1], [1, 0]]),
        [[2, 1], [1, 0]],
        np.array([[2, 1], [1, 0]]),
    ):
        assert torch.equal(explain("a film of", targets=targets)[0].scores, expected.scores)
    for targets in (1, "GOOD", [(1, 1), (2, 1), (3, 1)]):
        (found,) = explain("a film of", targets=targets)
        assert found.target_names == ("a: GOOD", "film: GOOD", "of: GOOD")
        torch.testing.assert_close(found.scores[1], expected.scores[0])
    each = explain(["a film of", "paris"], targets=[[(2, 1), (1, 0)], None])
    assert torch.equal(each[0].scores, expected.scores) and each[1].scores.shape == (1, 1)


def test_masks_in_every_form(tokenizer):
    model = bert("MaskedLM")
    explain = TextExplainer(pnpx.Gradient, model, tokenizer, reduce="l2", granularity="all_tokens")
    (expected,) = explain("a [MASK] of [MASK]", targets="rare")
    ids = torch.tensor([tokenizer("a [MASK] of [MASK]")["input_ids"]])
    vectors = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=vectors).logits[0]
    for row, place in enumerate((2, 4)):
        (gradient,) = torch.autograd.grad(logits[place, 8], vectors, retain_graph=True)
        torch.testing.assert_close(expected.scores[row], gradient[0].norm(dim=-1))
    for targets in (8, np.int64(8), [(2, "rare"), (4, 8)], "Rare"):
        assert torch.equal(explain("a [MASK] of [MASK]", targets=targets)[0].scores, expected.scores)
    (predicted,) = explain("a [MASK] of [MASK]")
    assert predicted.targets == tuple(logits[[2, 4]].argmax(-1).tolist())
    (unmasked,) = explain("a film", targets=[(1, "rare")])
    assert unmasked.target_names == ("rare",)


@pytest.mark.parametrize(
    "head, targets, error, message",
    [
        (
            "TokenClassification",
            [(9, 1)],
            ValueError,
            "a position must be that of one of the 4 tokens, from 0, but is 9",
        ),
        (
            "TokenClassification",
            [(-1, 1)],
            ValueError,
            "a position must be that of one of the 4 tokens, from 0, but is -1",
        ),
        ("TokenClassification", [(1, 5)], ValueError, "a target must be a class from 0 to 2, but is 5"),
        ("TokenClassification", "GOO", ValueError, "the model has no class 'GOO'; the nearest: 'GOOD'"),
        (
            "TokenClassification",
            [1],
            TypeError,
            "targets of tokens are (position, class) pairs, at least one, but got [1]",
        ),
        (
            "TokenClassification",
            [],
            TypeError,
            "targets of tokens are (position, class) pairs, at least one, but got []",
        ),
        (
            "MaskedLM",
            "rare",
            ValueError,
            "there is no [MASK] in the text; say what is explained by targets=, as (position, token) pairs",
        ),
        (
            "MaskedLM",
            [(1, "rar")],
            ValueError,
            "what stands for a mask must be one token of the vocabulary, but 'rar' is not; the nearest: 'rare'",
        ),
        ("MaskedLM", [(1, 17)], ValueError, "what stands for a mask must be a token id from 0 to 16, but is 17"),
        ("MaskedLM", [(1, True)], TypeError, "what stands for a mask is a token or its id, but got True"),
        ("QuestionAnswering", (1, 4), ValueError, "a position must be that of one of the 4 tokens, from 0, but is 4"),
        ("QuestionAnswering", 1, TypeError, "the target of a span is (start, end), positions of tokens, but got 1"),
        (
            "QuestionAnswering",
            (1, 2, 3),
            TypeError,
            "the target of a span is (start, end), positions of tokens, but got [1, 2, 3]",
        ),
    ],
)
def test_wrong_outputs(tokenizer, head, targets, error, message):
    with raises(error, message):
        TextExplainer(pnpx.Gradient, bert(head), tokenizer)("a film", targets=targets)


# The company of other texts


@pytest.mark.parametrize("method", [pnpx.SmoothGrad, pnpx.SquareGrad, pnpx.VarGrad])
def test_noise_does_not_depend_on_the_company(tokenizer, method):
    explain = TextExplainer(method, bert(), tokenizer, n_iter=4, noise_level=0.5, reduce="l2")
    expected = [explain(text, targets=1)[0] for text in TEXTS]
    assert all((one.scores > 1e-4).all() for one in expected)
    long = " ".join(["film"] * 20)
    too_long = " ".join(["film"] * 60)
    same(explain(TEXTS[::-1], targets=1)[::-1], expected)
    same(explain([long, *TEXTS, long, "of"], targets=1)[1:4], expected)
    with pytest.warns(UserWarning, match="input 3 has 62 tokens"):
        same(explain([*TEXTS, too_long], targets=1)[:3], expected)
    small = TextExplainer(method, bert(), tokenizer, n_iter=4, noise_level=0.5, reduce="l2", batch_size=2)
    same(small(TEXTS, targets=1), expected)
    for side in ("left", "right"):
        same(explain(tokenizer(TEXTS, padding="max_length", padding_side=side, max_length=20), targets=1), expected)


def test_noise_on_a_text_is_that_of_its_own_steps(tokenizer):
    """The draws of a token do not depend on how many come after it: those of a longer text begin alike."""
    seen = []

    class Watched(pnpx.SmoothGrad):
        def points(self, bound, reference):
            for point in super().points(bound, reference):
                seen.append(point.tensors[0] - bound.values[0].tensor)
                yield point

    explain = TextExplainer(Watched, bert(), tokenizer, n_iter=1, noise_std=1.0)
    explain("paris", targets=1)
    explain("paris of rare beauty", targets=1)
    explain([("a film of rare beauty"), "paris"], targets=1)
    assert torch.equal(seen[0][0], seen[1][0, :3])
    assert torch.allclose(seen[2][0, :3], seen[0][0]) and torch.equal(seen[2][0, 3:], torch.zeros(4, 16).double())


# What is not to be changed


def test_a_model_without_padding_and_its_tokenizer_stay_as_they_are():
    model = tiny.gpt2("SequenceClassification", WORDS, n_layer=1, num_labels=3).train()
    model.transformer.h[0].eval()
    own = tokenizer_with(["unk"])
    assert own.pad_token is None and model.config.pad_token_id is None
    before = copy.deepcopy(
        (
            model.state_dict(),
            model.config.to_dict(),
            own.special_tokens_map,
            len(own),
            own.get_vocab(),
            [module.training for module in model.modules()],
        )
    )
    found = TextExplainer(pnpx.Gradient, model, own, reduce="l2")(TEXTS, targets=1)
    for text, one in zip(TEXTS, found, strict=True):
        frozen = copy.deepcopy(model).eval()
        vectors = frozen.get_input_embeddings()(torch.tensor([own(text)["input_ids"]])).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(frozen(inputs_embeds=vectors).logits[0, 1], vectors)
        torch.testing.assert_close(one.scores, gradient[0, 1:-1].norm(dim=-1))
    after = (
        model.state_dict(),
        model.config.to_dict(),
        own.special_tokens_map,
        len(own),
        own.get_vocab(),
        [module.training for module in model.modules()],
    )
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items())
    assert before[1:] == after[1:] and own.pad_token is None
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
