"""At the input: how long pnpx takes, against the bare loop and against captum. ``python -m benchmarks.speed``."""

from collections.abc import Callable, Sequence
from functools import partial

from captum.attr import NoiseTunnel, Saliency
from torch import Tensor

import pnpx
from benchmarks.command import TIMED, Options, main
from benchmarks.floor import bare_loop, chunks, even, frozen
from benchmarks.subjects import Subject, subjects
from benchmarks.table import Table
from benchmarks.timing import Ratio, in_turns

KINDS: dict[str, Callable[..., pnpx.Explainer]] = {
    "SmoothGrad": pnpx.SmoothGrad,
    "SquareGrad": pnpx.SquareGrad,
    "VarGrad": pnpx.VarGrad,
}
NOISE_TUNNELS = {"SmoothGrad": "smoothgrad", "SquareGrad": "smoothgrad_sq", "VarGrad": "vargrad"}


def speed(options: Options) -> list[Table]:
    """The table, for each model, statistic and number of samples."""
    table = Table(
        "Time at the input",
        ["model", "explainer", "n_iter", "bare loop, s", "pnpx / bare loop", "captum / bare loop", "turns"],
        [
            "The bare loop is the floor: the same forward and backward passes, with the same rows in each (32), frozen "
            "weights, noise made beforehand and results thrown away. Ratios are medians over turns, with quartiles. "
            "Wanted: pnpx at most 1.05.",
        ],
    )
    for subject in subjects(options.models, options.size):
        for n_iter in options.n_iter:
            made = chunks(subject.inputs, even(n_iter, subject.copies))
            for kind in options.kinds:
                explainer = KINDS[kind](subject.model, n_iter=n_iter, batch_size=subject.rows)
                timed = in_turns(
                    {
                        "bare loop": partial(floor, subject, made),
                        "pnpx": partial(explainer.attribute, subject.batch, subject.targets),
                        "captum": noise_tunnel(subject, kind, n_iter),
                    },
                    options.pace,
                )
                base = timed["bare loop"]
                table.add(
                    subject.name,
                    kind,
                    n_iter,
                    f"{sorted(base)[len(base) // 2]:.2f}",
                    Ratio.of(timed["pnpx"], base),
                    Ratio.of(timed["captum"], base),
                    len(base),
                )
    return [table]


def floor(subject: Subject, made: Sequence[Tensor]) -> None:
    """The bare loop at the input."""
    with frozen(subject.model):
        bare_loop(subject.forward, made, subject.targets)


def noise_tunnel(subject: Subject, kind: str, n_iter: int) -> Callable[[], object]:
    """captum's NoiseTunnel with the same number of samples and rows in a pass."""
    tunnel = NoiseTunnel(Saliency(subject.forward))
    deviation = 0.1 * float(subject.inputs.max() - subject.inputs.min())

    def run() -> object:
        return tunnel.attribute(
            subject.inputs,
            nt_type=NOISE_TUNNELS[kind],
            nt_samples=n_iter,
            nt_samples_batch_size=subject.copies,
            stdevs=deviation,
            target=subject.targets,
            abs=False,
        )

    return run


if __name__ == "__main__":
    main(speed, __doc__, (*TIMED, "size", "n_iter", "models"))
