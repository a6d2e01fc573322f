"""Explaining texts: how long, against the bare passes and interpreto; and in how much memory. ``python -m
benchmarks.text``.

Each number of the memory table comes from a process of its own, as in `benchmarks.memory`.
"""

import importlib.util
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

import pnpx
from benchmarks.command import TIMED, Options, main
from benchmarks.floor import frozen
from benchmarks.memory import peak
from benchmarks.table import Table
from benchmarks.timing import Ratio, in_turns
from pnpx.text import TextExplainer

TEXTS, WORDS, N_ITER = 32, 2000, 50
COUNTS = (10, 200, 800)
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def tokenizer() -> Any:
    """A fast tokenizer as BERT's, of words that are numbered."""
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*_SPECIAL, *(f"w{number}" for number in range(WORDS))]
    vocabulary = {word: index for index, word in enumerate(words)}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "pad", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=128, **names)  # type: ignore[no-untyped-call]


def bert(layers: int = 4, width: int = 256, inner: int = 1024) -> Any:
    """A BERT (Devlin et al., 2018, arXiv:1810.04805) with random weights, that puts texts into two classes."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config: Any = BertConfig(
        vocab_size=WORDS + len(_SPECIAL),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=inner,
        max_position_embeddings=128,
        num_labels=2,
    )
    return BertForSequenceClassification(config).train(False)


def texts(lengths: Sequence[int]) -> list[str]:
    """A text of so many words each."""
    source = random.Random(0)
    return [" ".join(f"w{source.randrange(WORDS)}" for _ in range(length)) for length in lengths]


def text(options: Options) -> list[Table]:
    """The tables of time and memory."""
    table = Table(
        "Time of explaining texts",
        ["what", "floor, s", "pnpx / floor", "interpreto / floor", "turns"],
        [
            f"{TEXTS} texts in one call, by the word, a BERT of 4 layers, 256 wide, random weights, frozen for the "
            "floor. The floor of a gradient is one forward and backward pass of all texts, padded beforehand; that of "
            f"n_iter={N_ITER} so many such passes, of noisy embeddings made beforehand. Neither reads a text nor makes "
            "a record. Ratios are medians over turns, with quartiles. interpreto runs with its default batch size of 4"
            f"{'' if _interpreto() else '; it is not installed here'}. Wanted: a gradient at most 1.3, "
            f"n_iter={N_ITER} at most 1.1.",
        ],
    )
    model, own = bert(), tokenizer()
    alike, mixed = texts([14] * TEXTS), texts([2 + (7 * number) % 37 for number in range(TEXTS)])
    for name, inputs, method, n_iter in (
        ("Gradient, 16 tokens each", alike, pnpx.Gradient, 1),
        ("Gradient, 4 to 40 tokens", mixed, pnpx.Gradient, 1),
        (f"SquareGrad, n_iter={N_ITER}, 16 tokens each", alike, pnpx.SquareGrad, N_ITER),
    ):
        parameters = {} if n_iter == 1 else {"n_iter": n_iter, "noise_std": 0.1}
        explain = TextExplainer(method, model, own, **parameters)
        contestants: dict[str, Callable[[], object]] = {
            "floor": partial(floor, model, own, inputs, noisy(model, own, inputs, n_iter)),
            "pnpx": partial(explain, inputs, 1),
        }
        if _interpreto():
            contestants["interpreto"] = partial(_theirs(model, own, n_iter), inputs, [1] * TEXTS)
        timed = in_turns(contestants, options.pace)
        base = timed["floor"]
        theirs = Ratio.of(timed["interpreto"], base) if "interpreto" in timed else "-"
        table.add(name, f"{sorted(base)[len(base) // 2]:.3f}", Ratio.of(timed["pnpx"], base), theirs, len(base))
    return [table, *_memory()]


def noisy(model: Any, own: Any, inputs: Sequence[str], n_iter: int) -> list[Tensor]:
    """Embeddings of the texts, (texts, length, width), so many times; of one, without noise."""
    ids = own(list(inputs), padding=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        clean = model.get_input_embeddings()(ids)
    if n_iter == 1:
        return [clean]
    generator = torch.Generator().manual_seed(0)
    return [clean + 0.1 * torch.randn(clean.shape, generator=generator) for _ in range(n_iter)]


def floor(model: Any, own: Any, inputs: Sequence[str], made: Sequence[Tensor]) -> None:
    """The passes, forward and backward, and nothing else."""
    mask = own(list(inputs), padding=True, return_tensors="pt")["attention_mask"]
    with frozen(model):
        for values in made:
            values = values.detach().requires_grad_()
            scores = model(inputs_embeds=values, attention_mask=mask).logits[:, 1]
            torch.autograd.grad(scores.sum(), values)


def _interpreto() -> bool:
    return importlib.util.find_spec("interpreto") is not None


def _theirs(model: Any, own: Any, n_iter: int) -> Callable[..., object]:
    import interpreto  # type: ignore[import-not-found]

    if n_iter == 1:
        made: Callable[..., object] = interpreto.Saliency(model, own, input_x_gradient=False)
    else:
        made = interpreto.SquareGrad(model, own, n_perturbations=n_iter, input_x_gradient=False)
    return made


def _memory() -> list[Table]:
    table = Table(
        "Peak memory of explaining texts",
        ["what", "one chunk, MiB", *(f"n_iter={n_iter}: more, MiB" for n_iter in COUNTS)],
        [
            "SquareGrad of one text of 126 tokens, a BERT of 1 layer, 768 wide, in passes of 8 rows: one chunk is 8 "
            "noisy samples. Peak resident memory of a process, and by how much it is more than that of one chunk. "
            "Wanted: no growth with n_iter. (Up to 64 draws of noise are held.)",
        ],
    )
    for name in ("pnpx", "interpreto") if _interpreto() else ("pnpx",):
        chunk = _peak(name, 8)
        table.add(name, f"{chunk:.0f}", *(f"{_peak(name, n_iter) - chunk:+.1f}" for n_iter in COUNTS))
    return [table]


def _peak(name: str, n_iter: int) -> float:
    """The peak memory, in MiB, of a process that does this."""
    command = [sys.executable, "-m", "benchmarks.text", "--measure", name, str(n_iter), str(torch.get_num_threads())]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def measure(name: str, n_iter: int, threads: int) -> float:
    """The peak memory of this process, in MiB, after it has explained once."""
    torch.set_num_threads(threads)
    model, own, inputs = bert(1, 768, 768), tokenizer(), texts([124])
    if name == "pnpx":
        TextExplainer(pnpx.SquareGrad, model, own, n_iter=n_iter, noise_std=0.1, batch_size=8)(inputs, 1)
    else:
        import interpreto

        interpreto.SquareGrad(model, own, n_perturbations=n_iter, batch_size=8)(inputs, [1])
    return peak()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(measure(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    else:
        main(text, __doc__, TIMED)
