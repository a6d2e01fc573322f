"""Peak memory for few and for many noisy samples. ``python -m benchmarks.memory``.

Each number comes from a process of its own: its peak memory less that of a process which does all the same but explains
with one chunk of samples only.
"""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.command import Options, main
from benchmarks.subjects import Subject, resnet18
from benchmarks.table import Table

FEW, MANY = 10, 200
SAMPLES, ROWS = 2, 16
COPIES = ROWS // SAMPLES


def peak() -> float:
    """The peak resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # What resource gives on Linux is never less than the memory of the process that started this one.
        (line,) = [line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) / 2**10
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes on macOS, else kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def memory(options: Options) -> list[Table]:
    """The table."""
    table = Table(
        "Peak memory",
        ["what", "one chunk, MiB", f"n_iter={FEW}: more, MiB", f"n_iter={MANY}: more, MiB"],
        [
            f"ResNet-18, {SAMPLES} x 3x64x64, in passes of {ROWS} rows: one chunk is {COPIES} noisy samples. Peak "
            f"resident memory of a process; for {FEW} and {MANY} samples by how much it exceeds that of one chunk, "
            "which is the process that imports, builds and runs all the same. captum holds all samples at once unless "
            f"nt_samples_batch_size is given. Wanted: as much for {MANY} as for {FEW}.",
        ],
    )
    for name in RUNS:
        chunk = _peak(name, COPIES)
        table.add(name, f"{chunk:.0f}", *(f"{_peak(name, n_iter) - chunk:+.1f}" for n_iter in (FEW, MANY)))
    return [table]


def _peak(name: str, n_iter: int) -> float:
    """The peak memory, in MiB, of a process that does this."""
    command = [sys.executable, "-m", "benchmarks.memory", "--measure", name, str(n_iter), str(torch.get_num_threads())]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _pnpx(layer: str | None, kind: str) -> Callable[[Subject, int], object]:
    def run(subject: Subject, n_iter: int) -> object:
        import pnpx

        explainer = getattr(pnpx, kind)(subject.model, layer=layer, n_iter=n_iter, batch_size=ROWS)
        return explainer.attribute(subject.inputs[:SAMPLES], subject.targets[:SAMPLES])

    return run


def _captum(bounded: bool) -> Callable[[Subject, int], object]:
    def run(subject: Subject, n_iter: int) -> object:
        from captum.attr import NoiseTunnel, Saliency

        return NoiseTunnel(Saliency(subject.model)).attribute(
            subject.inputs[:SAMPLES],
            nt_samples=n_iter,
            nt_samples_batch_size=COPIES if bounded else None,
            stdevs=0.1,
            target=subject.targets[:SAMPLES],
            abs=False,
        )

    return run


RUNS = {
    "pnpx SmoothGrad at the input": _pnpx(None, "SmoothGrad"),
    "pnpx VarGrad at the input": _pnpx(None, "VarGrad"),
    "pnpx SmoothGrad at layer2": _pnpx("layer2", "SmoothGrad"),
    "captum SmoothGrad at the input, nt_samples_batch_size given": _captum(bounded=True),
    "captum SmoothGrad at the input": _captum(bounded=False),
}


def measure(name: str, n_iter: int, threads: int) -> float:
    """The peak memory of this process, in MiB, after it has explained once."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    RUNS[name](resnet18("small"), n_iter)
    return peak()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(measure(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    else:
        main(memory, __doc__, ("threads",))
