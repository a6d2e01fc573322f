"""Explanations of what a model generates, against autograd and the model's own generate."""

import copy
import re
import warnings

import pytest
import torch

import pnpx

transformers = pytest.importorskip("transformers", reason="text models need transformers; pip install '.[text]'")
tokenizers = pytest.importorskip("tokenizers", reason="comes with transformers")

from pnpx.text import Contrast, TextExplainer  # noqa: E402
from tests.text import tiny  # noqa: E402

WORDS = [
    "[PAD]", "[UNK]", "<s>", "</s>", "<|user|>", "<|bot|>", "a", "film", "of", "rare", "beauty", "paris", "is",
    "left", "ten", "minutes", "\n", "."
]  # fmt: skip
BOS, EOS, USER, BOT = 2, 3, 4, 5
CLOSE = {"rtol": 1e-4, "atol": 1e-6}  # Llama's and T5's norms compute in float32 whatever the model's precision is


@pytest.fixture(scope="module")
def tokenizer():
    """Begins each text with <s>, as Llama's does, and has a chat template."""
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "bos_token": "<s>", "eos_token": "</s>"}
    made = tiny.tokenizer_of(WORDS, "<s> $A", model_input_names=["input_ids", "attention_mask"], **names)
    made.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|bot|>"]})
    made.chat_template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}<|bot|>"
    return made


def gpt2(**options):
    return tiny.gpt2(words=WORDS, pad_token_id=0, **options)


def llama(**options):
    return tiny.llama(words=WORDS, **options)


def t5():
    return tiny.t5(words=WORDS)


def bart():
    return tiny.bart(words=WORDS)


def ids_of(text):
    return tiny.ids_of(text, WORDS)


def rows(model, prompt, target, score=lambda logits, token: logits[token]):
    """The norm of d score / d embedding, for each token generated, by a backward pass for each.

    Not its sum: where a layer norm follows, as in GPT2, that is zero.
    """
    vectors = model.get_input_embeddings()(torch.tensor([prompt + target])).detach().requires_grad_()
    logits = model(inputs_embeds=vectors).logits[0]
    found = [
        torch.autograd.grad(score(logits[len(prompt) - 1 + step], token), vectors, retain_graph=True)[0][0].norm(dim=-1)
        for step, token in enumerate(target)
    ]
    return torch.stack(found)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("build", [gpt2, llama])
@pytest.mark.parametrize("mode", ["logits", "log_softmax"])
def test_many_tokens_from_one_forward_pass(tokenizer, build, implementation, mode):
    model, prompt = build(attn_implementation=implementation), ids_of("<s> a film of rare")
    target = ids_of("beauty is ten minutes of paris . left")
    passes = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    explain = TextExplainer(pnpx.Gradient, model, tokenizer, granularity="all_tokens", reduce="l2", inference_mode=mode)
    (found,) = explain({"input_ids": prompt}, targets=target)
    handle.remove()
    assert len(passes) == 4  # two tell what the model does, one is explained, one tells the probabilities

    def score(logits, token):
        return (logits if mode == "logits" else logits.log_softmax(0))[token]

    torch.testing.assert_close(found.scores, rows(model, prompt, target, score), **CLOSE)
    assert found.scores.shape == (8, 13)
    for step in range(8):
        assert (found.scores[step, 5 + step :] == 0).all() and (found.scores[step, 1 : 5 + step] != 0).all()


@pytest.mark.parametrize("build", [t5, bart])
def test_both_sides_of_an_encoder_decoder(tokenizer, build):
    model, prompt, target = build(), ids_of("<s> a film of"), ids_of("beauty is rare ten .")
    explain = TextExplainer(pnpx.Gradient, model, tokenizer, granularity="all_tokens", reduce="l2")
    (found,) = explain("a film of", targets=target)
    start = model.config.decoder_start_token_id
    scale = getattr(model.get_input_embeddings(), "embed_scale", 1.0)
    table = model.get_input_embeddings().weight.detach() * scale
    encoder = table[torch.tensor([prompt])].clone().requires_grad_()
    decoder = table[torch.tensor([[start, *target[:-1]]])].clone().requires_grad_()
    logits = model(inputs_embeds=encoder, decoder_inputs_embeds=decoder).logits[0]
    for step, token in enumerate(target):
        left, right = torch.autograd.grad(logits[step, token], (encoder, decoder), retain_graph=True)
        torch.testing.assert_close(found.scores[step, :4], left[0].norm(dim=-1), **CLOSE)
        torch.testing.assert_close(found.scores[step, 4 : 4 + step], right[0, 1 : step + 1].norm(dim=-1), **CLOSE)
        assert (found.scores[step, 4 + step :] == 0).all()
    assert found.generated == ("beauty", "is", "rare", "ten", ".")


def test_ids_are_used_as_they_are_and_no_bos_is_added(tokenizer):
    model = llama()
    explain = TextExplainer(pnpx.Gradient, model, tokenizer, granularity="all_tokens")
    (found,) = explain("a film", targets="of rare")
    assert found.targets == tuple(ids_of("of rare")) and found.units[0].text == "<s>"
    for target in (
        ids_of("of </s>"), torch.tensor(ids_of("of </s>")), torch.tensor([ids_of("of </s>")]),
        torch.tensor(ids_of("of </s>")).numpy(), {"input_ids": [ids_of("of </s>")]}, {"input_ids": ids_of("of </s>")},
    ):  # fmt: skip
        (given,) = explain("a film", targets=target)
        assert given.targets == (8, EOS)
        torch.testing.assert_close(
            given.scores[0],
            explain("a film", targets="of")[0]
            .scores[0]
            .new_tensor([*explain("a film", targets="of")[0].scores[0].tolist(), 0.0]),
        )
    (one,) = explain("a film", targets=torch.tensor([EOS]))
    assert one.targets == (EOS,) and one.scores.shape == (1, 4)


def test_a_chat_template_stays_as_given(tokenizer):
    model = llama()
    batch = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a film"}], return_dict=True, return_tensors="pt", tokenize=True
    )
    ids = [USER, *ids_of("a film </s>"), BOT]
    assert batch["input_ids"].tolist() == [ids]
    (found,) = TextExplainer(pnpx.Gradient, model, tokenizer, granularity="all_tokens", reduce="l2")(
        batch, targets="is rare"
    )
    torch.testing.assert_close(found.scores, rows(model, ids, ids_of("is rare")), **CLOSE)
    (words,) = TextExplainer(pnpx.Gradient, model, tokenizer)(batch, targets="is rare")
    assert words.words == ["a", "film", "is", "rare"]
    (taken,) = TextExplainer(pnpx.Occlusion, model, tokenizer, granularity="all_tokens")(batch, targets="is")
    assert (taken.scores[0] != 0).tolist() == [False, True, True, False, False, False]


def test_contrasts(tokenizer):
    model, prompt = gpt2(), ids_of("<s> a film of")
    explain = TextExplainer(pnpx.Gradient, model, tokenizer, granularity="all_tokens", reduce="l2")
    this, other = ids_of("beauty is"), ids_of("ten minutes")
    vectors = model.get_input_embeddings()(torch.tensor([prompt + this])).detach().requires_grad_()
    logits = model(inputs_embeds=vectors).logits[0]
    expected = torch.stack([
        torch.autograd.grad(logits[3 + step, this[step]] - logits[3 + step, other[step]], vectors, retain_graph=True)[0]
        for step in range(2)
    ])[:, 0].norm(dim=-1)  # fmt: skip
    for contrast in (
        Contrast("beauty is", "ten minutes"), Contrast(this, other), Contrast(torch.tensor(this), torch.tensor(other)),
        Contrast("beauty is", other), Contrast("beauty is .", "ten minutes"),
    ):  # fmt: skip
        for targets in (contrast, [contrast]):
            (found,) = explain({"input_ids": [prompt]}, targets=targets)
            torch.testing.assert_close(found.scores, expected, rtol=1e-6, atol=1e-9)
    both = explain(["a film of", "paris"], targets=[contrast, Contrast("is", "of")])
    assert both[0].generated == ("beauty", "is") and both[1].generated == ("is",)
    torch.testing.assert_close(both[0].scores, expected, rtol=1e-6, atol=1e-9)
    same = explain(["a film of", "paris"], targets=contrast)
    assert [one.generated for one in same] == [("beauty", "is")] * 2


@pytest.mark.parametrize("build", [gpt2, llama, t5, bart])
def test_what_the_model_generates_is_explained(tokenizer, build):
    model = build()
    batch = tokenizer("a film of", return_tensors="pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = model.generate(**batch, max_new_tokens=4, do_sample=False)[0]
        new = expected[1:] if model.config.is_encoder_decoder else expected[4:]
        explain = TextExplainer(pnpx.Gradient, model, tokenizer)
        (found,) = explain("a film of", max_new_tokens=4, do_sample=False)
        (given,) = explain("a film of", targets=new)
    assert found.targets == tuple(new.tolist())
    assert torch.equal(found.scores, given.scores)


def test_sampling_does_not_disturb_the_global_generator(tokenizer):
    model = gpt2().train()
    explain = TextExplainer(pnpx.Gradient, model, tokenizer)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = explain(["a film", "paris"], max_new_tokens=6, do_sample=True, eos_token_id=None)
    assert torch.equal(torch.get_rng_state(), state) and model.training
    again = explain(["a film", "paris"], max_new_tokens=6, do_sample=True, eos_token_id=None)
    assert [one.targets for one in first] == [one.targets for one in again]
    torch.manual_seed(6)
    other = explain(["a film", "paris"], max_new_tokens=6, do_sample=True, eos_token_id=None)
    assert [one.targets for one in first] != [one.targets for one in other]


def test_one_continuation_or_one_for_each_prompt(tokenizer):
    explain = TextExplainer(pnpx.Gradient, llama(), tokenizer)
    prompts = ["a film", "paris is rare", "ten"]
    for target in (" of", ids_of("of"), torch.tensor(ids_of("of"))):
        assert [one.targets for one in explain(prompts, targets=target)] == [(8,)] * 3
    several = explain(prompts, targets=["of", torch.tensor([9, EOS]), Contrast("is", "of")])
    assert [one.targets for one in several] == [(8,), (9, EOS), (12,)]
    rows_of_ids = explain(prompts, targets=torch.tensor([[8, 9], [9, 8], [12, 3]]))
    assert [one.targets for one in rows_of_ids] == [(8, 9), (9, 8), (12, 3)]
    batch = tokenizer(["of", "rare", "is ten"], add_special_tokens=False, padding=True, return_tensors="pt")
    assert [one.targets for one in explain(prompts, targets=batch)] == [(8,), (9,), (12, 14)]
    for one, alone in zip(several, (explain(prompts[0], targets="of")[0], None, None), strict=True):
        if alone is not None:
            assert torch.equal(one.scores, alone.scores)


@pytest.mark.parametrize("targets, error, message", [
    ("", ValueError, "a target of generation must have at least one token, but '' has none"),
    ([], ValueError, "one text has one continuation, but 0 targets were given"),
    (["of", "is"], ValueError, "one text has one continuation, but 2 targets were given"),
    ([0.5], TypeError, "a target of generation is a text or token ids (length,), but got torch.float"),
    (torch.tensor([True]), TypeError, "a target of generation is a text or token ids (length,), but got"),
    ([99], ValueError, "a target must be of token ids from 0 to 17, which the model knows, but has 99"),
    ([-100, 3], ValueError, "a target must be of token ids from 0 to 17, which the model knows, but has -100"),
    ([8] * 23, ValueError, "the prompt has 3 tokens and what follows 23, but the model reads 24 together; shorten one"),
    ({"ids": [3]}, ValueError, "a mapping as input must have 'input_ids', but has 'ids'"),
])  # fmt: skip
def test_wrong_targets(tokenizer, targets, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        TextExplainer(pnpx.Gradient, gpt2(), tokenizer)("a film", targets=targets)


def test_wrong_calls(tokenizer):
    explain = TextExplainer(pnpx.Gradient, gpt2(), tokenizer)
    with pytest.raises(TypeError, match="'max_new_tokens' is for generating, but targets were given; leave one out"):
        explain("a film", targets="of", max_new_tokens=3)
    with pytest.raises(ValueError, match="there must be a target for each of the 2 texts, but there are 3"):
        explain(["a film", "of"], targets=["of", "is", "ten"])

    class Silent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            whole = gpt2()
            self.inner, self.head = whole.transformer, whole.lm_head

        def forward(self, input_ids, attention_mask=None):
            return self.head(self.inner(input_ids, attention_mask=attention_mask).last_hidden_state)

        def get_output_embeddings(self):
            return self.head

    wrapped = TextExplainer(pnpx.Gradient, Silent(), tokenizer)
    with pytest.raises(TypeError, match="targets=None needs a model that can generate, but this one has no `generate`"):
        wrapped("a film")
    torch.testing.assert_close(
        wrapped("a film", targets="of rare")[0].scores, explain("a film", targets="of rare")[0].scores
    )


@pytest.mark.parametrize("build", [gpt2, llama])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_prompt_is_cut_to_leave_room_for_what_follows(tokenizer, build, side):
    words = ["of"] * 10 + ["film"] * 20 + ["paris"] * 10
    text, model, tokenizer = " ".join(words), build(), copy.deepcopy(tokenizer)
    tokenizer.truncation_side = side
    explain = TextExplainer(pnpx.Gradient, model, tokenizer, granularity="all_tokens", reduce="l2")

    def kept(room):
        inside = words[: room - 1] if side == "right" else words[len(words) - room + 1 :]
        return ids_of(" ".join(["<s>", *inside]))

    def check(found, room):
        prompt, target = kept(room), list(found.targets)
        assert [unit.text for unit in found.units[:room]] == [WORDS[token] for token in prompt]
        torch.testing.assert_close(found.scores, rows(model, prompt, target), **CLOSE)

    for target, count in (("rare beauty is", 3), (torch.tensor([8]), 1)):
        said = rf"^input 1 has 41 tokens, but the model reads 24 with the {count} that follow: {17 + count} of them are"
        with pytest.warns(UserWarning, match=said) as warned:
            _, found = explain(["a film", text], targets=target)
        assert len(warned) == 1 and warned[0].filename == __file__
        assert list(found.targets) == (ids_of(target) if isinstance(target, str) else target.tolist())
        check(found, 24 - count)
    contrast = Contrast("rare beauty is", "ten minutes")
    with pytest.warns(UserWarning, match="with the 2 that follow: 19 of them are left out$"):
        (found,) = explain(text, targets=contrast)
    assert len(found.units) == 24
    with pytest.warns(UserWarning, match="with the 5 that follow: 22 of them are left out$"):
        (found,) = explain(text, max_new_tokens=5, do_sample=False, eos_token_id=None)
    expected = model.generate(torch.tensor([kept(19)]), max_new_tokens=5, do_sample=False, eos_token_id=None)
    assert list(found.targets) == expected[0, 19:].tolist()
    check(found, 19)
    with pytest.warns(UserWarning, match="with the 1 that follow: 18 of them are left out$"):
        (found,) = explain(text, do_sample=False)
    assert len(found.targets) == 1
    check(found, 23)
    with pytest.raises(ValueError, match=r"^the prompt has 41 tokens and what follows 23, but the model reads 24"):
        explain(text, max_new_tokens=23)
    with pytest.raises(ValueError, match=r"^the prompt has 24 tokens and what follows 1, but the model reads 24"):
        explain({"input_ids": [8] * 24}, targets=[9])


def test_what_generates_inside_of_others(tokenizer):
    class Holder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = gpt2()

        def forward(self, input_ids, attention_mask=None):
            return self.inner(input_ids, attention_mask=attention_mask)

    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    expected = gpt2().generate(**tokenizer("a film of", return_tensors="pt"), **options)[0, 4:].tolist()
    alone = TextExplainer(pnpx.Gradient, gpt2(), tokenizer)("a film of", targets=expected)[0]
    for model in (torch.nn.DataParallel(gpt2()), Holder(), torch.nn.DataParallel(Holder())):
        (found,) = TextExplainer(pnpx.Gradient, model, tokenizer)("a film of", **options)
        assert list(found.targets) == expected
        torch.testing.assert_close(found.scores, alone.scores)


def test_arguments_of_generate(tokenizer):
    model = gpt2()
    explain, options = TextExplainer(pnpx.Gradient, model, tokenizer), {"do_sample": False, "eos_token_id": None}
    prompt = tokenizer("a film of", return_tensors="pt")
    new = model.generate(**prompt, max_new_tokens=5, **options)[0, 4:].tolist()
    (found,) = explain("a film of", max_new_tokens=5, return_dict_in_generate=True, output_scores=True, **options)
    assert list(found.targets) == new
    several = {"num_return_sequences": 3, "num_beams": 3}
    for given in (several, {"generation_config": transformers.GenerationConfig(max_new_tokens=2, **several)}):
        with pytest.raises(ValueError, match=r"^a prompt has one continuation, but num_return_sequences=3 asks for"):
            explain("a film of", **given)


def test_strings_to_stop_at():
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = tokenizers.Tokenizer(tokenizers.models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    words.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = tokenizers.decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=24)
    words = tokenizer.backend_tokenizer
    words.enable_truncation(20)
    model = tiny.gpt2(words=letters, n_layer=1, pad_token_id=0)
    with torch.no_grad():  # it says but "b"
        model.lm_head.weight.copy_(torch.zeros(256, 16))
        model.lm_head.weight[letters.index("b")] = 1.0
        model.transformer.ln_f.bias.fill_(1.0)
    explain = TextExplainer(pnpx.Gradient, model, tokenizer)
    before, options = words.to_str(), {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    assert explain("a", **options)[0].generated == ("b",) * 5
    for more in ({}, {"tokenizer": tokenizer}):
        assert explain("a", stop_strings=["bb"], **more, **options)[0].generated == ("b",) * 2
    own = transformers.GenerationConfig(stop_strings=["bb"], **options)
    assert explain("a", generation_config=own)[0].generated == ("b",) * 2
    assert words.to_str() == before
