"""Train the sentiment model: ``python -m pnpx.zoo.train_sentiment --data FOLDER [--output FOLDER]``.

A small BERT with its own WordPiece vocabulary, for transformers' ``from_pretrained``. FOLDER holds VADER's rated
sentences, which ``pnpx.zoo.rated`` says how to get. A fifth of the documents is held out, and measured once. Dropout
and hiding were chosen on a fifth of the others. On one machine a run repeats itself exactly; it takes a minute or two.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.lr_scheduler import OneCycleLR

from pnpx.atomic import write_whole
from pnpx.zoo.datasets import SPLIT_SEED, WEIGHTS
from pnpx.zoo.examples import CLASS_NAMES
from pnpx.zoo.rated import (
    HELD_OUT,
    HOW_TO_GET,
    NEUTRAL,
    PACKAGE,
    RatedSentence,
    fingerprint,
    read_sentences,
    split_sentences,
)
from pnpx.zoo.registry import TEXT_RECORD, import_transformers

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL))
LONGEST = 128  # tokens; the longest sentence has about as many
WORD = r"\w+(?:'\w+)*|[^\w\s]+"  # "isn't" is one word, and so is "..."


@dataclass(frozen=True)
class SentimentRecipe:
    """The network and how it is trained: AdamW, the learning rate going up and down in one cycle.

    A sentence of rating r counts as positive with probability sigmoid(r), so that strong ratings weigh more than faint
    ones. Words are hidden behind [MASK], in each sentence a share drawn between 0 and twice ``masked``: it keeps the
    network from learning sentences by heart, and lets explainers that hide words ask what it was trained to answer. The
    weights kept are a running average.
    """

    vocabulary: int = 6000
    width: int = 64
    layers: int = 2
    heads: int = 4
    dropout: float = 0.3
    masked: float = 0.3
    epochs: int = 5
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    batch_size: int = 64
    averaging: float = 0.99
    seed: int = 0


def train_tokenizer(texts: Sequence[str], size: int) -> Any:
    """A ``tokenizers.Tokenizer``: WordPiece, lower-case, without accents, with [CLS] and [SEP] around a text.

    Its vocabulary, of at most ``size``, is learnt by byte pair encoding, as tokenizers' own training of WordPiece
    breaks ties by chance.
    """
    import_transformers()  # which brings tokenizers, and whose error says what to install
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    apostrophe = normalizers.Replace("\u2019", "'")  # as books print it
    plain = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=True, lowercase=True)
    pairs, tokenizer = Tokenizer(models.BPE()), Tokenizer(models.WordPiece(unk_token=SPECIAL[UNK]))
    for each in (pairs, tokenizer):
        each.normalizer = normalizers.Sequence([apostrophe, plain])
        each.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
    pairs.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    counts: Counter[str] = Counter()
    for one in pairs.encode_batch(list(texts)):
        inside = [before == word for before, word in pairwise([None, *one.word_ids])]
        counts.update(f"##{piece}" if follows else piece for follows, piece in zip(inside, one.tokens, strict=True))
    tokenizer.model = models.WordPiece(vocabulary(counts, size), unk_token=SPECIAL[UNK])
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(SPECIAL[CLS], CLS), (SPECIAL[SEP], SEP)],
    )
    return tokenizer


def vocabulary(counts: Counter[str], size: int) -> dict[str, int]:
    """The ids of special tokens, of every character at the start of a word or inside it, and of the frequent pieces."""
    characters = sorted({character for piece in counts for character in piece.removeprefix("##")})
    always = [*SPECIAL, *characters, *(f"##{character}" for character in characters)]
    others = sorted(counts.keys() - set(always), key=lambda piece: (-counts[piece], piece))
    return {piece: index for index, piece in enumerate([*always, *others][:size])}


def build(recipe: SentimentRecipe, vocabulary: int) -> nn.Module:
    """A fresh ``BertForSequenceClassification`` of ``recipe`` for ``vocabulary`` tokens."""
    transformers = import_transformers()
    config = transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=2 * recipe.width,
        hidden_dropout_prob=recipe.dropout,
        max_position_embeddings=LONGEST,
        pad_token_id=PAD,
        id2label=dict(enumerate(CLASS_NAMES)),
        label2id={name: index for index, name in enumerate(CLASS_NAMES)},
    )
    model: nn.Module = transformers.BertForSequenceClassification(config)
    return model


def train(recipe: SentimentRecipe, tokenizer: Any, sentences: Sequence[RatedSentence]) -> nn.Module:
    """A fresh model, trained on ``sentences`` and in eval mode; the global generator is left as it was."""
    from tqdm.auto import tqdm

    ids = encode(tokenizer, [one.text for one in sentences])
    wanted = torch.tensor([one.rating for one in sentences]).sigmoid()
    generator = torch.Generator().manual_seed(recipe.seed)
    steps = recipe.epochs * -(-len(ids) // recipe.batch_size)
    with torch.random.fork_rng(devices=[]):  # dropout and the first weights are drawn from the global generator
        torch.default_generator.manual_seed(recipe.seed)
        model = build(recipe, tokenizer.get_vocab_size()).train()
        parameters = list(model.parameters())
        groups = [
            {"params": [one for one in parameters if one.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [one for one in parameters if one.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
        schedule = OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps, pct_start=0.2)
        average = [one.detach().clone() for one in parameters]
        with tqdm(total=steps, desc="sentiment", unit="step", leave=False, disable=None) as progress:
            for _ in range(recipe.epochs):
                for batch in batches(ids, recipe.batch_size, generator):
                    tokens = hide(pad([ids[row] for row in batch]), recipe.masked, generator)
                    loss = binary_cross_entropy_with_logits(margin(model, tokens), wanted[batch])
                    optimizer.zero_grad()
                    torch.autograd.backward(loss)
                    nn.utils.clip_grad_norm_(parameters, 1.0)
                    optimizer.step()
                    schedule.step()
                    for kept, parameter in zip(average, parameters, strict=True):
                        kept.lerp_(parameter.detach(), 1 - recipe.averaging)
                    progress.update()
    with torch.no_grad():
        for kept, parameter in zip(average, parameters, strict=True):
            parameter.copy_(kept.half())  # as it will be stored, so that what is measured is what is shipped
    return model.eval()


def accuracy(model: nn.Module, tokenizer: Any, sentences: Sequence[RatedSentence]) -> float:
    """The share of ``sentences`` to which ``model``, in eval mode, gives the sign of their rating, in [0, 1]."""
    ids = encode(tokenizer, [one.text for one in sentences])
    positive = torch.tensor([one.rating > 0 for one in sentences])
    correct = 0
    with torch.no_grad():
        for start in range(0, len(ids), 128):
            predicted = margin(model, pad(ids[start : start + 128])) > 0
            correct += int((predicted == positive[start : start + 128]).sum())
    return correct / len(ids)


def margin(model: nn.Module, tokens: Tensor) -> Tensor:
    """The logit of POSITIVE less that of NEGATIVE (batch,), of ``tokens`` (batch, time), padding left out."""
    logits: Tensor = model(input_ids=tokens, attention_mask=(tokens != PAD).long()).logits
    return logits[:, 1] - logits[:, 0]


def encode(tokenizer: Any, texts: Sequence[str]) -> list[Tensor]:
    """The token ids (time,) of each text, [CLS] and [SEP] included, cut where the network's positions end."""
    return [torch.tensor([*one.ids[: LONGEST - 1], SEP][: len(one.ids)]) for one in tokenizer.encode_batch(texts)]


def pad(ids: Sequence[Tensor]) -> Tensor:
    """Token ids of several texts as one tensor (batch, time), padded at the end."""
    return nn.utils.rnn.pad_sequence(list(ids), batch_first=True, padding_value=PAD)


def hide(tokens: Tensor, masked: float, generator: torch.Generator) -> Tensor:
    """``tokens`` (batch, time) with a random share, up to 2 * ``masked``, of each row's words replaced by [MASK]."""
    share = 2 * masked * torch.rand(len(tokens), 1, generator=generator)
    drawn = torch.rand(tokens.shape, generator=generator) < share
    return tokens.masked_fill(drawn & (tokens >= len(SPECIAL)), MASK)


def batches(ids: Sequence[Tensor], size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """All rows in random batches of texts of like length, which saves padding."""
    order: list[int] = torch.randperm(len(ids), generator=generator).tolist()
    window = 50 * size
    found = []
    for start in range(0, len(order), window):
        rows = sorted(order[start : start + window], key=lambda row: len(ids[row]))
        found += [rows[first : first + size] for first in range(0, len(rows), size)]
    for chosen in torch.randperm(len(found), generator=generator).tolist():
        yield found[chosen]


def write_folder(folder: Path, model: Any, tokenizer: Any, record: dict[str, Any]) -> None:
    """Write what ``from_pretrained`` reads, weights in float16, and ``record`` beside it, each file whole."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in model.config.to_diff_dict().items() if key != "transformers_version"}
    # Both spellings: transformers of before 4.56 know only the second. The weights are read as float32.
    config |= {"architectures": [type(model).__name__], "dtype": "float32", "torch_dtype": "float32"}
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": LONGEST,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **{f"{token.strip('[]').lower()}_token": token for token in SPECIAL},
    }
    state = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    write_whole(folder / "model.safetensors", safetensors.torch.save(state, {"format": "pt"}))
    write_whole(folder / "tokenizer.json", f"{tokenizer.to_str(pretty=False)}\n".encode())
    for name, content in (("config.json", config), ("tokenizer_config.json", described), (TEXT_RECORD, record)):
        write_whole(folder / name, f"{json.dumps(content, indent=2, sort_keys=True)}\n".encode())


def train_and_write(data: Path, folder: Path, recipe: SentimentRecipe | None = None) -> float:
    """Train on the sentences in ``data``, write the model to ``folder``, and return its held-out accuracy."""
    transformers, recipe = import_transformers(), recipe or SentimentRecipe()
    sentences = read_sentences(data)
    training, held_out = split_sentences(sentences, "train"), split_sentences(sentences, "test")
    tokenizer = train_tokenizer([one.text for one in training], recipe.vocabulary)
    model = train(recipe, tokenizer, training)
    measured = accuracy(model, tokenizer, held_out)
    record = {
        "name": "sentiment",
        "data": f"rated sentences of {PACKAGE} (MIT), those whose mean rating is {NEUTRAL} or more from 0",
        "data_fingerprint": fingerprint(sentences),
        "split": f"by document, {HELD_OUT:.0%} held out, seed {SPLIT_SEED}",
        "trained_on": len(training),
        "held_out": len(held_out),
        "accuracy": round(measured, 6),
        **asdict(recipe),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    write_folder(folder, model, tokenizer, record)
    return measured


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the sentiment model on the sentences in the folder that ``arguments`` name, and print its accuracy."""
    parser = argparse.ArgumentParser(
        prog="python -m pnpx.zoo.train_sentiment", description="Train the sentiment model.", epilog=f"To {HOW_TO_GET}."
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder with VADER's rated sentences; see below")
    parser.add_argument(
        "--output", type=Path, default=WEIGHTS / "sentiment", help="the folder to write to; the zoo's own by default"
    )
    options = parser.parse_args(arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums do not depend on the number of cores then
    try:
        measured = train_and_write(options.data, options.output)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    finally:
        torch.set_num_threads(threads)
    print(f"sentiment: {measured:.2%} of the held-out sentences classified correctly")


if __name__ == "__main__":
    main()
