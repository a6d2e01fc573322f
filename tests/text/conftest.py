"""Tokenizers of each family, built here from a few words: no file and no network."""

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@pytest.fixture(scope="session")
def wordpiece():
    """As BERT's: lower case, accents stripped, punctuation split off."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "##s", "was", "naive", "cafe", ",", ".", "'",
             "don", "t", "!", "?", "good", "bad", "a"]
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.add_special_tokens(words[:5])
    return tokenizer


def gpt2(trim):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  special_tokens=["<|end|>"], show_progress=False)
    tokenizer.train_from_iterator(["the film was the film was good don't"] * 3, trainer)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    return tokenizer


@pytest.fixture(scope="session")
def byte_level():
    """As GPT-2's and RoBERTa's: a span has no white space, and is empty where there is nothing else."""
    return gpt2(trim=True)


@pytest.fixture(scope="session")
def untrimmed():
    """As Llama 3's and Qwen's: the span of a token has the space before it, too."""
    return gpt2(trim=False)


@pytest.fixture(scope="session")
def metaspace():
    """As Llama's: a text is one word for it, unknown characters are bytes, each text begins with <s>."""
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("f", "i"), ("l", "m"), ("fi", "lm"), ("▁", "film")]
    tokens = ["<unk>", "<s>", *BYTES, *"▁thefilmwasgodn',.", *map("".join, merges)]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", 1)])
    return tokenizer


@pytest.fixture(scope="session")
def unigram():
    """As T5's and XLM-R's, with a token that spans two words."""
    pieces = [("<unk>", -9.0), ("▁", -3.0), ("▁film", -2.0), ("film", -2.5), (",", -2.0), ("▁of▁the", -1.0),
              (".", -2.0), ("日本", -3.0), ("▁good", -2.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    """As BERT's, over the words of the tiny models."""
    from tests.text.tiny import bert_tokenizer

    return bert_tokenizer()
