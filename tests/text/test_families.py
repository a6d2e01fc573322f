"""Explanations of each family of text models are what autograd gives where its token ids become vectors."""

import copy
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import pnpx

transformers = pytest.importorskip("transformers", reason="text models need transformers; pip install pnpx[text]")
tokenizers = pytest.importorskip("tokenizers", reason="comes with transformers")

from pnpx.text.explainer import TextExplainer  # noqa: E402
from pnpx.text.reading import read  # noqa: E402
from pnpx.text.tasks import detect  # noqa: E402

WORDS = ["<pad>", "<unk>", "<s>", "</s>", "<mask>", *"a film of rare beauty . i left after ten minutes paris is".split()]
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
         "MaskedLM": "masked", "CausalLM": "causal", "LMHeadModel": "causal", "ConditionalGeneration": "encoder_decoder"}
CASES = [(family, head) for family, (_, _, heads) in FAMILIES.items() for head in heads]
EAGER_TOO = ("Bert", "Roberta", "DistilBert", "GPT2", "Llama", "Bart")


@pytest.fixture(scope="module")
def tokenizer():
    """Each text is <s> ... </s>: what BART's classifier reads is the last </s>."""
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=32, model_input_names=["input_ids", "attention_mask"], **names
    )


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
    modules = dict(model.named_modules())
    ends = (paths,) if isinstance(paths, str) else paths
    found = [next((module for path, module in modules.items() if path.endswith(end)), None) for end in ends]
    return [module for module in found if module is not None]


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
            (row,) = of(lambda output, at=len(ids) + step - 1, one=token: output.logits[0, at, one])
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
    for implementation in ("sdpa", "eager") if family in EAGER_TOO else (None,):
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
        for side in ("left", "right"):
            padded = tokenizer([SHORT, LONG], padding=True, padding_side=side, return_tensors="pt")
            for found, (_, product) in zip(products(padded, one_each), wanted, strict=True):
                close(found.scores, product)
    assert not any(module._forward_hooks for module in model.modules())
