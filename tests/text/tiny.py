"""Tiny tokenizers and models of transformers over a few words: weights drawn here, no file and no network."""

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="text models need transformers; pip install '.[text]'")
tokenizers = pytest.importorskip("tokenizers", reason="comes with transformers")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "a", "film", "of", "rare", "beauty", ".", "i", "left", "after", "ten", "minutes", "paris", "is",
         "beauti", "##ful", "[EOS]"]
SMALL = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 2,
         "max_position_embeddings": 24}


def ids_of(text, words=WORDS):
    """The ids of tokens that are written with spaces between them."""
    return [words.index(word) for word in text.split()]


def tokenizer_of(words, single="$A", pair=None, **options):
    """Splits at spaces and punctuation, in lower case, and into the pieces that ``words`` has.

    Args:
        words: the vocabulary, of which the second is for what is unknown.
        single: what surrounds a text, such as ``"[CLS] $A [SEP]"``.
        pair: what surrounds two.
        options: of ``PreTrainedTokenizerFast``.
    """
    pieces = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: index for index, word in enumerate(words)}, unk_token=words[1])
    )
    pieces.normalizer = tokenizers.normalizers.BertNormalizer()
    pieces.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = tokenizers.processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(word, words.index(word)) for word in single.split() if word in words]
    )
    pieces.decoder = tokenizers.decoders.WordPiece()
    names = ["input_ids", "attention_mask"]  # before transformers 5, token_type_ids as well if nothing is said
    standard = {"model_max_length": 24, "model_input_names": names}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=pieces, **{**standard, **options})


def bert_tokenizer(names=("unk", "pad", "cls", "sep", "mask"), words=WORDS, **options):
    """As BERT's; ``names`` are the special tokens that it knows to be special."""
    known = {f"{name}_token": f"[{name.upper()}]" for name in names}
    return tokenizer_of(words, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", **known, **options)


def made(family, head, **config):
    """The model of a family with a head, in float64 and eval mode, its weights the same whenever it is made."""
    torch.manual_seed(0)
    kind = getattr(transformers, f"{family}For{head}", None) or getattr(transformers, f"{family}{head}")
    return kind(getattr(transformers, f"{family}Config")(**config)).double().eval()


def bert(head="SequenceClassification", words=WORDS, **options):
    """Of the classes BAD, GOOD, and FAIR, where it does not look for the start and end of an answer."""
    labels = ["start", "end"] if head == "QuestionAnswering" else ["BAD", "GOOD", "FAIR"]
    own = {"vocab_size": len(words), "id2label": dict(enumerate(labels)), "initializer_range": 0.4}
    return made("Bert", head, **{**SMALL, **own, **options})


def gpt2(head="LMHeadModel", words=WORDS, **options):
    own = {"vocab_size": len(words), "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24, "bos_token_id": 2,
           "eos_token_id": 3, "initializer_range": 0.4}
    return made("GPT2", head, **{**own, **options})


def llama(head="CausalLM", words=WORDS, **options):
    own = {"vocab_size": len(words), "num_key_value_heads": 1, "bos_token_id": 2, "eos_token_id": 3,
           "pad_token_id": 0, "initializer_range": 0.4}
    return made("Llama", head, **{**SMALL, **own, **options})


def t5(head="ConditionalGeneration", words=WORDS, **options):
    own = {"vocab_size": len(words), "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2,
           "decoder_start_token_id": 0}
    return made("T5", head, **{**own, **options})


def bart(head="ConditionalGeneration", words=WORDS, **options):
    own = {"vocab_size": len(words), "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
           "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
           "max_position_embeddings": 24, "init_std": 0.4, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
           "decoder_start_token_id": 3, "forced_eos_token_id": None}
    return made("Bart", head, **{**own, **options})
