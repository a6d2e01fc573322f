"""Where captum's NoiseTunnel cannot run at all, and what it says. ``python -m benchmarks.refusals``."""

from collections.abc import Callable

import torch
from captum.attr import LayerGradientXActivation, NoiseTunnel, Saliency

import pnpx
from benchmarks.command import Options, main
from benchmarks.subjects import Subject, bert, lstm
from benchmarks.table import Table


def refusals(options: Options) -> list[Table]:
    """The table: the same tasks for both libraries, and how each ends."""
    table = Table(
        "What runs at all",
        ["task", "captum", "pnpx"],
        ["captum's NoiseTunnel puts the noise on the inputs, also around methods that explain a layer."],
    )
    torch.manual_seed(0)
    words, series = bert("small"), lstm("small")
    embeddings, first = words.model.get_submodule("bert.embeddings"), series.model.get_submodule("first")
    ids = words.layer_batch["input_ids"]

    def logits(given: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = words.model(input_ids=given).logits
        return scores

    table.add(
        "BERT, from token ids, noise at its embeddings",
        _ending(lambda: _tunnel(LayerGradientXActivation(logits, embeddings), ids, words)),
        _ending(lambda: _pnpx(words, "bert.embeddings")),
    )
    table.add(
        "BERT, token ids as the input",
        _ending(lambda: _tunnel(Saliency(logits), ids, words, abs=False)),
        _ending(lambda: pnpx.SmoothGrad(words.model, n_iter=2).attribute({"input_ids": ids}, words.targets)),
    )
    table.add(
        "LSTM, noise at what its first layer gives, (outputs, (hidden, cell))",
        _ending(lambda: _tunnel(LayerGradientXActivation(series.model, first), series.inputs, series)),
        _ending(lambda: _pnpx(series, "first")),
    )
    return [table]


def _tunnel(method: object, inputs: torch.Tensor, subject: Subject, **options: object) -> object:
    return NoiseTunnel(method).attribute(inputs, nt_samples=2, target=subject.targets, **options)


def _pnpx(subject: Subject, layer: str) -> object:
    return pnpx.SmoothGrad(subject.model, layer=layer, n_iter=2).attribute(subject.layer_batch, subject.targets)


def _ending(run: Callable[[], object]) -> str:
    try:
        run()
    except Exception as problem:
        said = str(problem).strip().split("\n")[0]
        return f"{type(problem).__name__}: {said[:160]}"
    return "runs"


if __name__ == "__main__":
    main(refusals, __doc__, ("threads",))
