"""Explanations of each family of text models are what autograd gives where its token ids become vectors."""

import copy
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import pnpx

transformers = pytest.importorskip("transformers", reason="text models need transformers; pip install '.[text]'")

from pnpx.text.explainer import TextExplainer  # noqa: E402
from pnpx.text.reading import read  # noqa: E402
from pnpx.text.tasks import detect  # noqa: E402
from tests.text import tiny  # noqa: E402

WORDS = ["<pad>", "<unk>", "<s>", "</s>", "<mask>", "a", "film", "of", "rare", "beauty", ".", "i", "left", "after",
         "ten", "minutes", "paris", "is"]
LONG, SHORT = "a film of rare beauty .", "paris is rare"
PLAIN = {"vocab_size": len(WORDS), "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24,
         "num_hidden_layers": 2, "max_position_embeddings": 32}
IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}

# Of each family: the options of its configuration; where it has its tables of token vectors, by hand; its heads.
ENCODER = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MaskedLM")
FAMILIES = {
    "Bert": (PLAIN, "bert.embeddings.word_embeddings", ENCODER),
    "Roberta": ({**PLAIN, "pad_token_id": 0}, "roberta.embeddings.word_embeddings", (*ENCODER, "CausalLM")),
    "DistilBert": ({"vocab_size": len(WORDS), "dim": 16, "n_heads": 2, "hidden_dim": 24, "n_layers": 2,
                    "max_position_embeddings": 32}, "distilbert.embeddings.word_embeddings", ENCODER),
    "Electra": ({**PLAIN, "embedding_size": 8}, "electra.embeddings.word_embeddings", ENCODER),
    "Deberta": ({**PLAIN, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0},
                "deberta.embeddings.word_embeddings", ENCODER),
    "DebertaV2": ({**PLAIN, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8,
                   "type_vocab_size": 0}, "deberta.embeddings.word_embeddings", ENCODER),
    "GPT2": ({"vocab_size": len(WORDS), "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, **IDS},
             "transformer.wte", ("SequenceClassification", "TokenClassification", "QuestionAnswering", "LMHeadModel")),
    "Llama": ({**PLAIN, **IDS, "num_key_value_heads": 1}, "model.embed_tokens",
              ("SequenceClassification", "TokenClassification", "CausalLM")),
    "Mistral": ({**PLAIN, **IDS, "num_key_value_heads": 1, "sliding_window": 4}, "model.embed_tokens",
                ("SequenceClassification", "CausalLM")),
    "Gemma": ({**PLAIN, **IDS, "num_key_value_heads": 1, "head_dim": 8}, "model.embed_tokens",
              ("SequenceClassification", "CausalLM")),
    "T5": ({"vocab_size": len(WORDS), "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2,
            "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 3},
           ("encoder.embed_tokens", "decoder.embed_tokens"),
           ("SequenceClassification", "TokenClassification", "QuestionAnswering", "ConditionalGeneration")),
    "Bart": ({"vocab_size": len(WORDS), "d_model": 16, "encoder_layers": 2, "decoder_layers": 2,
              "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
              "max_position_embeddings": 32, **IDS, "decoder_start_token_id": 3, "forced_eos_token_id": None},
             ("encoder.embed_tokens", "decoder.embed_tokens"),
             ("SequenceClassification", "QuestionAnswering", "ConditionalGeneration", "CausalLM")),
}
KINDS = {"SequenceClassification": "sequence", "TokenClassification": "tokens", "QuestionAnswering": "span",
         "MaskedLM": "masked", "CausalLM": "causal", "LMHeadModel": "causal",
         "ConditionalGeneration": "encoder_decoder"}
CASES = [(family, head) for family, (_, _, heads) in FAMILIES.items() for head in heads]
EAGER_TOO = ("Bert", "Roberta", "DistilBert", "GPT2", "Llama", "Bart")


@pytest.fixture(scope="module")
def tokenizer():
    """Each text is <s> ... </s>: what BART's classifier reads is the last </s>."""
    names = {f"{name}_token": WORDS[index] for index, name in enumerate(("pad", "unk", "bos", "eos", "mask"))}
    return tiny.tokenizer_of(WORDS, "<s> $A </s>", "<s> $A </s> $B </s>", model_max_length=32,
                             model_input_names=["input_ids", "attention_mask"], **names)


_built = {}


def build(family, head, implementation=None, dtype=torch.float64):
    """A model with random weights, the same for each call; large ones, so that attention matters."""
    key = family, head, implementation, dtype
    if key not in _built:
        options, _, _ = FAMILIES[family]
        more = {"is_decoder": True} if (family, head) == ("Roberta", "CausalLM") else {}
        config = getattr(transformers, f"{family}Config")(**options, **more)
        if implementation is not None:
            config._attn_implementation = implementation
        name = f"{family}{head}" if head == "LMHeadModel" else f"{family}For{head}"
        torch.manual_seed(0)
        model = getattr(transformers, name)(config).eval()
        with torch.no_grad():
            for weight in dict.fromkeys(model.parameters()):
                if weight.ndim > 1:
                    weight.normal_(0, 0.3)
        _built[key] = model.to(dtype)
    return _built[key]


def tables(model, family):
    """The modules that turn ids into vectors, named by hand."""
    paths = FAMILIES[family][1]
    modules = dict(model.named_modules(remove_duplicate=False))
    ends = (paths,) if isinstance(paths, str) else paths
    found = [next((module for path, module in modules.items() if path.endswith(end)), None) for end in ends]
    return list({id(module): module for module in found if module is not None}.values())


@contextmanager
def followed(modules):
    """Lets autograd follow what these modules give: a list of leaves, in the order in which they run."""
    leaves = []

    def replace(module, args, output):
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    handles = [module.register_forward_hook(replace) for module in modules]
    try:
        yield leaves
    finally:
        for handle in handles:
            handle.remove()


def gradients(model, family, arguments, score):
    """d score / d vectors: of each token the squared norm, and the product with the vector, (length, 2) for each table.

    Not the sum over the width: where a norm comes after the table, that is zero.
    """
    with followed(tables(model, family)) as leaves:
        value = score(model(**arguments))
    found = torch.autograd.grad(value, leaves)
    pairs = zip(found, leaves, strict=True)
    return [torch.stack([one[0].square().sum(-1), (one * leaf.detach())[0].sum(-1)], -1) for one, leaf in pairs]


def both(found):
    """Of a token that encoder and decoder read: what both give; the decoder reads it one step later."""
    if len(found) == 1:
        return found[0]
    return found[0] + torch.cat([found[1][1:], torch.zeros_like(found[1][:1])])


def expected(model, family, head, tokenizer, text, target, answer="is a film"):
    """By autograd alone, of all tokens: the norms of the gradients, and their products with the vectors."""
    found = sums(model, family, head, tokenizer, text, target, answer)
    return found[..., 0].sqrt(), found[..., 1]


def sums(model, family, head, tokenizer, text, target, answer):
    arguments = dict(tokenizer(text, return_tensors="pt"))
    ids = arguments["input_ids"][0]

    def of(score):
        return gradients(model, family, arguments, score)

    if head == "SequenceClassification":
        return both(of(lambda output: output.logits[0, target]))
    if head == "QuestionAnswering":
        start, end = target
        return torch.stack([both(of(lambda output: output.start_logits[0, start])),
                            both(of(lambda output: output.end_logits[0, end]))])
    if head in ("TokenClassification", "MaskedLM"):
        return torch.stack([both(of(lambda output, at=at, one=one: output.logits[0, at, one])) for at, one in target])
    following = torch.tensor([WORDS.index(word) for word in answer.split()])
    rows = []
    for step, token in enumerate(following):
        if head == "ConditionalGeneration":
            start = torch.tensor([model.config.decoder_start_token_id])
            arguments["decoder_input_ids"] = torch.cat([start, following[:-1]])[None]
            encoder, decoder = of(lambda output, at=step, one=token: output.logits[0, at, one])
            rows.append(torch.cat([encoder, decoder[1:], torch.zeros_like(decoder[:1])]))
        else:
            together = torch.cat([ids, following])[None]
            arguments = {"input_ids": together, "attention_mask": torch.ones_like(together)}
            before = len(ids) + step - 1
            (row,) = of(lambda output, at=before, one=token: output.logits[0, at, one])
            rows.append(row)
    return torch.stack(rows)


def target_of(head):
    """What is explained, for a text of any length, as the explainer and as `expected` take it."""
    return {"SequenceClassification": 1, "QuestionAnswering": (1, 2), "TokenClassification": [(1, 0), (3, 1)],
            "MaskedLM": [(2, 7), (1, 9)]}.get(head, "is a film")


def close(found, wanted, share=1e-5):
    assert float(wanted.abs().max()) > 1e-8  # or else there is nothing to compare
    # Norms compute in float32, whatever the precision of the model is.
    torch.testing.assert_close(found.double(), wanted.double(), rtol=share, atol=share * float(wanted.abs().max()))


@pytest.mark.parametrize(("family", "head"), CASES)
def test_a_family_is_explained_as_autograd_does(tokenizer, family, head):
    target = target_of(head)
    for implementation, side in (("sdpa", "left"), ("eager", "right")) if family in EAGER_TOO else ((None, "left"),):
        model = build(family, head, implementation)
        (reading,) = read(tokenizer, SHORT)
        first = {"input_ids": reading.ids[None], "attention_mask": torch.ones_like(reading.ids)[None]}
        assert detect(model, first).kind == KINDS[head]
        norms = TextExplainer(pnpx.Gradient, model, tokenizer, granularity="all_tokens", reduce="l2")
        products = TextExplainer(pnpx.GradientXInput, model, tokenizer, granularity="all_tokens", reduce="sum")
        wanted = [expected(model, family, head, tokenizer, text, target) for text in (SHORT, LONG)]
        one_each = [target, target] if head in ("QuestionAnswering", "TokenClassification", "MaskedLM") else target
        close(norms(SHORT, target)[0].scores, wanted[0][0])
        close(products(SHORT, target)[0].scores, wanted[0][1])
        for found, (norm, _) in zip(norms([SHORT, LONG], one_each), wanted, strict=True):
            close(found.scores, norm)
        padded = tokenizer([SHORT, LONG], padding=True, padding_side=side, return_tensors="pt")
        for found, (_, product) in zip(products(padded, one_each), wanted, strict=True):
            close(found.scores, product)
    assert not any(module._forward_hooks for module in model.modules())


# Precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["Bert", "DistilBert", "Deberta", "Llama", "T5"])
def test_narrower_floats_give_what_float64_gives_to_their_precision(tokenizer, family, dtype):
    head = "SequenceClassification"
    model = copy.deepcopy(build(family, head)).to(dtype)
    # The same weights, rounded; before transformers 5 a T5 of random weights rounds away more than `share` by itself.
    itself = family == "T5" and dtype != torch.float32 and transformers.__version__ < "5"
    exact = model if itself else copy.deepcopy(model).double()
    (norm, product) = expected(exact, family, head, tokenizer, LONG, 1)
    share = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]
    for method, reduce, wanted in ((pnpx.Gradient, "l2", norm), (pnpx.GradientXInput, "sum", product)):
        explain = TextExplainer(method, model, tokenizer, granularity="all_tokens", reduce=reduce)
        alone, beside = explain(LONG, 1)[0].scores, explain([SHORT, LONG], 1)[1].scores
        assert alone.dtype == torch.float32
        close(alone, wanted, share)
        close(beside, wanted, share)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("family", "head"), [("Bert", "MaskedLM"), ("Roberta", "CausalLM"), ("GPT2", "LMHeadModel"),
                                              ("Llama", "CausalLM"), ("Bart", "CausalLM")])
def test_what_a_model_of_half_precision_does_is_found(tokenizer, family, head, dtype):
    model = copy.deepcopy(build(family, head)).to(dtype)
    with torch.no_grad():  # so small that what one token means to another is less than rounding is
        for weight in dict.fromkeys(model.parameters()):
            weight.mul_(0.3 if weight.ndim > 1 else 1.0)
    ids = torch.tensor([[2, *range(5, 18), 3]])
    assert detect(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}).kind == KINDS[head]


# Subclasses, and models inside other modules


def test_a_compiled_model_is_explained_as_it_was_written(tokenizer):
    model = build("Bert", "SequenceClassification")
    compiled = torch.compile(model, backend="eager")
    for method, more in ((pnpx.Gradient, {}), (pnpx.SquareGrad, {"n_iter": 2})):
        one, other = (TextExplainer(method, any_of, tokenizer, **more)([SHORT, LONG], "LABEL_1")
                      for any_of in (model, compiled))
        for found, wanted in zip(other, one, strict=True):
            torch.testing.assert_close(found.scores, wanted.scores)


class Judge(transformers.BertForSequenceClassification):
    """A class of the user's own, whose name tells nothing."""

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        output = super().forward(input_ids, attention_mask, **kwargs)
        output.logits = output.logits * 2
        return output


class Holder(nn.Module):
    """Holds a model, and returns what ``pick`` makes of its output."""

    def __init__(self, model, pick):
        super().__init__()
        self.inside, self.pick = model, pick

    def forward(self, input_ids, attention_mask):
        return self.pick(self.inside(input_ids=input_ids, attention_mask=attention_mask))


PICKS = {
    "logits": lambda output: output.logits,
    "a tuple": lambda output: output.to_tuple(),
    "a dict": dict,
    "a list with more": lambda output: [output.logits, {"more": output.logits.sum()}],
}


def test_a_subclass_is_explained_by_what_it_returns(tokenizer):
    plain = build("Bert", "SequenceClassification")
    model = Judge(plain.config).double().eval()
    model.load_state_dict(plain.state_dict())
    (once,), (twice,) = (TextExplainer(pnpx.Gradient, one, tokenizer, reduce="l2")(LONG, 1) for one in (plain, model))
    torch.testing.assert_close(twice.scores, 2 * once.scores)


@pytest.mark.parametrize("pick", PICKS.values(), ids=PICKS)
@pytest.mark.parametrize(("family", "head"), [
    ("Bert", "SequenceClassification"), ("GPT2", "SequenceClassification"), ("Bart", "SequenceClassification"),
    ("Bert", "TokenClassification"), ("Bert", "MaskedLM"), ("GPT2", "LMHeadModel"), ("Llama", "CausalLM"),
])
def test_a_model_inside_another_is_explained_as_alone(tokenizer, family, head, pick):
    model, target = build(family, head), target_of(head)
    one_each = [target, target] if head in ("TokenClassification", "MaskedLM") else target
    alone, held = (
        TextExplainer(pnpx.SquareGrad, one, tokenizer, n_iter=2, reduce="l2")([SHORT, LONG], one_each)
        for one in (model, Holder(model, pick))
    )
    for one, other in zip(alone, held, strict=True):
        torch.testing.assert_close(other.scores, one.scores)
        assert other.target_names == one.target_names and other.words == one.words


@pytest.mark.parametrize("pick", [lambda output: (output.start_logits, output.end_logits), dict], ids=["tuple", "dict"])
def test_a_model_that_finds_answers_inside_another(tokenizer, pick):
    model = build("Bert", "QuestionAnswering")
    alone, held = (TextExplainer(pnpx.Gradient, one, tokenizer, reduce="l2")([(SHORT, LONG)])[0]
                   for one in (model, Holder(model, pick)))
    torch.testing.assert_close(held.scores, alone.scores)
    assert held.target_names == alone.target_names


class Bag(nn.Module):
    """No model of transformers at all: the mean of the words' vectors, and a linear layer."""

    def __init__(self, told):
        super().__init__()
        self.table, self.head = nn.Embedding(len(WORDS), 4), nn.Linear(4, 2)
        if told:
            self.get_input_embeddings = lambda: self.table

    def forward(self, input_ids, attention_mask):
        present = attention_mask[..., None].to(self.table.weight)
        return self.head((self.table(input_ids) * present).sum(1) / present.sum(1))


@pytest.mark.parametrize("told", [True, False])
def test_a_module_of_ones_own_is_explained_at_its_embedding(tokenizer, told):
    torch.manual_seed(0)
    model = Bag(told).double()
    (found,) = TextExplainer(pnpx.Gradient, model, tokenizer, granularity="all_tokens", reduce="l2")(SHORT, 1)
    # The gradient of the mean is the same for each of the five tokens.
    torch.testing.assert_close(found.scores, (model.head.weight[1].norm() / 5).expand(5).detach())


class Hashed(nn.Module):
    """Its vectors come from no table."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(1, 4), nn.Linear(4, 2)

    def forward(self, input_ids, attention_mask):
        return self.head(self.first(input_ids[..., None].double() % 5).tanh().mean(1))


def test_a_model_without_a_table_needs_a_layer(tokenizer):
    model = Hashed().double()
    with pytest.raises(LookupError, match=r"the model does not tell where token ids become vectors.*layer="):
        TextExplainer(pnpx.Gradient, model, tokenizer)(SHORT, 1)
    (found,) = TextExplainer(pnpx.Gradient, model, tokenizer, layer="first", reduce="l2")(SHORT, 1)
    assert (found.scores > 0).all()
    with pytest.raises(ValueError, match=r"which has a vector for each token, but layer=.* has 2 tensors"):
        TextExplainer(pnpx.Gradient, model, tokenizer, layer=["first:input", "first"])(SHORT, 1)


# Models that are where they are: quantised, compiled, spread over devices


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per", "ignore:quantized::linear")
@pytest.mark.parametrize("which", ["all", "all but the head"])
def test_a_quantised_model_has_no_gradients_but_can_be_perturbed(tokenizer, which):
    plain = build("Bert", "SequenceClassification", dtype=torch.float32)
    chosen = {nn.Linear}
    if which == "all but the head":  # gradients pass by the rest on the residuals, and must not be taken for right
        chosen = {f"bert.encoder.layer.{layer}.{path}" for layer in (0, 1)
                  for path in ("attention.self.query", "intermediate.dense", "output.dense")}
    quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(plain), chosen, dtype=torch.qint8)
    before = {name: type(module) for name, module in quantised.named_modules()}
    for method in (pnpx.Gradient, pnpx.SmoothGrad, pnpx.IntegratedGradients):
        with pytest.raises(TypeError, match="gradients must pass from the score to 'bert.embeddings.word_embeddings', "
                                            r"but quantised modules, such as 'bert\.encoder\.layer\.0\."):
            TextExplainer(method, quantised, tokenizer)(SHORT, 1)
    if which == "all but the head":
        after = {"granularity": "all_tokens", "reduce": "l2", "layer": "bert.encoder.layer.1"}
        (found,) = TextExplainer(pnpx.Gradient, quantised, tokenizer, **after)(SHORT, 1)
        assert (found.scores > 0).any()
    ids = tokenizer(SHORT, return_tensors="pt")
    occlusion = pnpx.Occlusion(quantised, forward_arg_extractor="input_ids", baseline=4,
                               additional_forward_arg_extractor="attention_mask")
    (scores,) = occlusion.attribute(ids, 1)
    masked = ids["input_ids"].clone()
    masked[0, 2] = 4
    with torch.no_grad():
        drop = [quantised(input_ids=one, attention_mask=ids["attention_mask"]).logits[0, 1]
                for one in (ids["input_ids"], masked)]
    # The scale of the activations is that of the rows in the pass, so that it is no number for number.
    torch.testing.assert_close(scores[2], drop[0] - drop[1], rtol=0.3, atol=0.1)
    assert {name: type(module) for name, module in quantised.named_modules()} == before


@contextmanager
def never_moved(monkeypatch):
    def refuse(self, *args, **kwargs):
        raise AssertionError("the model was moved")

    with monkeypatch.context() as patch:
        for name in ("to", "cpu", "cuda", "float", "double", "half", "_apply", "train", "eval", "requires_grad_"):
            patch.setattr(nn.Module, name, refuse)
        yield


@pytest.mark.parametrize(("family", "head"), [("Bert", "SequenceClassification"), ("Llama", "CausalLM"),
                                              ("T5", "ConditionalGeneration")])
def test_a_model_spread_over_devices_stays_where_it_is(tokenizer, monkeypatch, family, head):
    model = copy.deepcopy(build(family, head))
    plain = TextExplainer(pnpx.SmoothGrad, model, tokenizer, n_iter=2)(SHORT, target_of(head))[0]
    model.hf_device_map = {"": "cpu"}
    with never_moved(monkeypatch):
        spread = TextExplainer(pnpx.SmoothGrad, model, tokenizer, n_iter=2)(SHORT, target_of(head))[0]
    assert torch.equal(spread.scores, plain.scores)
    assert model.hf_device_map == {"": "cpu"}


def test_neither_model_nor_tokenizer_is_changed(tokenizer):
    model = copy.deepcopy(build("GPT2", "SequenceClassification"))
    model.train()
    weights = {name: (weight.clone(), weight.requires_grad) for name, weight in model.named_parameters()}
    config, table = model.config.to_dict(), tokenizer.get_vocab()
    for method, more in ((pnpx.SquareGrad, {"n_iter": 2}), (pnpx.IntegratedGradients, {"n_steps": 2})):
        TextExplainer(method, model, tokenizer, **more)([SHORT, LONG])
    assert model.training and model.config.to_dict() == config and tokenizer.get_vocab() == table
    for name, weight in model.named_parameters():
        assert torch.equal(weight, weights[name][0]) and weight.requires_grad == weights[name][1]
        assert weight.grad is None
