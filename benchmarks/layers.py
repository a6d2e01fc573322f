"""At layers: pnpx against running the whole model for every noisy sample, and against the least that anyone could do.

``python -m benchmarks.layers``
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import pnpx
from benchmarks.command import TIMED, Options, main
from benchmarks.floor import bare_loop, chunks, even, frozen
from benchmarks.subjects import Cut, Subject, subjects
from benchmarks.table import Table
from benchmarks.timing import Ratio, in_turns


def layers(options: Options) -> list[Table]:
    """The table, for each model, layer and number of samples."""
    table = Table(
        "Time at layers",
        [
            *("model", "layer", "n_iter", "rows", "floor, s"),
            *("pnpx / floor", "pnpx / n suffixes", "full passes / floor", "full passes / pnpx", "turns"),
        ],
        [
            "SmoothGrad. The floor, written by hand for each model, runs what comes before the layer once, then n "
            "times forward and backward what comes after it, with as many rows in a pass as pnpx takes (32, and more "
            "where little is left to run), noise made beforehand and results thrown away. n suffixes: the same with "
            "one noisy copy of the batch in a pass. Full passes: the whole model runs for every noisy sample, 32 rows "
            "in a pass, and a hook puts the noise at the layer, likewise made beforehand. Ratios are medians over "
            "turns, with quartiles. Wanted: pnpx not over 1.1 of either.",
        ],
    )
    known: list[str] = []
    for subject in subjects(options.models, options.size):
        known += [cut.layer for cut in subject.cuts]
        for cut in subject.cuts:
            if options.layers is not None and cut.layer not in options.layers:
                continue
            _check(subject, cut)
            with torch.no_grad():
                value = cut.prefix()
            for n_iter in options.n_iter:
                explainer = pnpx.SmoothGrad(subject.model, layer=cut.layer, n_iter=n_iter)
                made = chunks(value, copies_taken(subject, explainer))
                one_by_one = chunks(value, [1] * n_iter)
                for_full_passes = chunks(value, even(n_iter, subject.copies))
                timed = in_turns(
                    {
                        "floor": partial(floor, subject, cut, made),
                        "pnpx": partial(explainer.attribute, subject.layer_batch, subject.targets),
                        "n suffixes": partial(floor, subject, cut, one_by_one),
                        "full passes": partial(full_passes, subject, cut, for_full_passes),
                    },
                    options.pace,
                )
                base = timed["floor"]
                table.add(
                    subject.name,
                    cut.layer,
                    n_iter,
                    max(map(len, made)),
                    f"{sorted(base)[len(base) // 2]:.3f}",
                    Ratio.of(timed["pnpx"], base),
                    Ratio.of(timed["pnpx"], timed["n suffixes"]),
                    Ratio.of(timed["full passes"], base),
                    Ratio.of(timed["full passes"], timed["pnpx"]),
                    len(base),
                )
    unknown = set(options.layers or ()) - set(known)
    if unknown:
        raise ValueError(f"none of the models is cut at {', '.join(sorted(unknown))}, but only at {', '.join(known)}")
    return [table]


def copies_taken(subject: Subject, explainer: pnpx.Explainer) -> list[int]:
    """How many noisy copies of the batch the passes have that ``explainer`` differentiates."""
    found: list[int] = []

    def note(module: nn.Module, args: object, output: Any) -> None:
        scores = output if isinstance(output, Tensor) else output.logits
        if scores.requires_grad:
            found.append(len(scores) // len(subject.targets))

    handle = subject.model.register_forward_hook(note)
    try:
        explainer.attribute(subject.layer_batch, subject.targets)
    finally:
        handle.remove()
    return found


def floor(subject: Subject, cut: Cut, made: Sequence[Tensor]) -> None:
    """What comes before the layer once, and what comes after it for every noisy sample."""
    with frozen(subject.model):
        with torch.no_grad():
            cut.prefix()
        bare_loop(cut.suffix, made, subject.targets)


def full_passes(subject: Subject, cut: Cut, made: Sequence[Tensor]) -> None:
    """The whole model for every noisy sample; a hook replaces the value at the layer."""
    supply = iter(made)

    def edit(value: object) -> object:
        edited.append(next(supply).detach().requires_grad_())
        return edited[-1] if isinstance(value, Tensor) else (edited[-1], *value[1:])  # type: ignore[index]

    path, _, side = cut.layer.partition(":")
    module = subject.model.get_submodule(path)
    with frozen(subject.model):
        if side == "input":
            handle = module.register_forward_pre_hook(lambda module, args: edit(args))
        else:
            handle = module.register_forward_hook(lambda module, args, output: edit(output))
        try:
            for chunk in made:
                edited: list[Tensor] = []
                copies = len(chunk) // len(subject.targets)
                output = subject.run(copies)
                scores = output[torch.arange(len(output)), subject.targets.repeat(copies)]
                torch.autograd.grad(scores.sum(), edited)
        finally:
            handle.remove()


def _check(subject: Subject, cut: Cut) -> None:
    """Require that the model cut by hand computes what the model does."""
    with torch.no_grad():
        torch.testing.assert_close(cut.suffix(cut.prefix()), subject.run(1), rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    main(layers, __doc__, (*TIMED, "size", "n_iter", "models", "layers"))
