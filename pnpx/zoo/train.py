"""Train the zoo's models: ``python -m pnpx.zoo.train [names...] [--output FOLDER]``.

Each model is trained on the training split alone, for a fixed number of epochs, and measured once on the held-out
split. The recipes were chosen by four-fold cross-validation within the training split. On one machine a run repeats
itself exactly; elsewhere rounding may move the accuracy by a few samples.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR

from pnpx.atomic import write_whole
from pnpx.zoo.datasets import SPLIT_SEED, TEST_SHARE, WEIGHTS, ZooData, data, scaling_of, training_scaling
from pnpx.zoo.registry import METADATA_KEY, ZooEntry, entry, names


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: AdamW on smoothed cross-entropy, the learning rate going up and down in one cycle.

    ``learning_rate`` is the highest one. The gradient's norm is clipped to 1, which recurrent networks need.
    """

    epochs: int
    learning_rate: float
    batch_size: int
    weight_decay: float = 0.1
    label_smoothing: float = 0.1
    seed: int = 0


RECIPES = {
    "digits_cnn": Recipe(epochs=15, learning_rate=1e-2, batch_size=64),
    "digits_lstm": Recipe(epochs=50, learning_rate=1e-2, batch_size=64),
    "digits_rnn": Recipe(epochs=60, learning_rate=5e-3, batch_size=64),
    "digits_attention": Recipe(epochs=40, learning_rate=2e-3, batch_size=32),
    "breast_cancer_mlp": Recipe(epochs=20, learning_rate=5e-3, batch_size=32),
}


def train(chosen: ZooEntry, recipe: Recipe, samples: ZooData) -> nn.Module:
    """A fresh model of ``chosen``, trained on ``samples`` and in eval mode; the global generator is left as it was."""
    from tqdm.auto import tqdm

    shuffling = torch.Generator().manual_seed(recipe.seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        model = chosen.build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    starts = range(0, len(samples), recipe.batch_size)
    schedule = OneCycleLR(optimizer, recipe.learning_rate, total_steps=recipe.epochs * len(starts))
    for _ in tqdm(range(recipe.epochs), desc=chosen.name, unit="epoch", leave=False, disable=None):
        order = torch.randperm(len(samples), generator=shuffling)
        for start in starts:
            batch = order[start : start + recipe.batch_size]
            logits = model(samples.inputs[batch])
            loss = cross_entropy(logits, samples.targets[batch], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


def accuracy(model: nn.Module, samples: ZooData) -> float:
    """The share of ``samples`` that ``model``, in eval mode, classifies correctly, in [0, 1]."""
    with torch.no_grad():
        predicted: Tensor = model(samples.inputs).argmax(1)
    return int((predicted == samples.targets).sum()) / len(samples)


def train_and_write(name: str, folder: Path = WEIGHTS) -> float:
    """Train the model called ``name``, write it to ``folder``, and return its accuracy on the held-out split."""
    chosen, recipe = entry(name), RECIPES[name]
    if (scaling := scaling_of(chosen.data)) is not None:
        write(folder / scaling.name, training_scaling(chosen.data), {"data": chosen.data, "split": "train"})
    training, held_out = data(chosen.data, "train"), data(chosen.data, "test")
    model = train(chosen, recipe, training)
    measured = accuracy(model, held_out)
    record = {
        "name": name,
        "data": chosen.data,
        "split": f"stratified, {TEST_SHARE:.0%} held out, seed {SPLIT_SEED}",
        "trained_on": len(training),
        "held_out": len(held_out),
        "accuracy": round(measured, 6),
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "torch": torch.__version__,
    }
    write(folder / chosen.weights.name, model.state_dict(), record)
    return measured


def write(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write ``tensors`` and, as JSON metadata, ``record`` to a safetensors file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, safetensors.torch.save(dict(tensors), {METADATA_KEY: json.dumps(record)}))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the models named in ``arguments``, or all, and print their held-out accuracy."""
    parser = argparse.ArgumentParser(prog="python -m pnpx.zoo.train", description="Train the zoo's models.")
    parser.add_argument("names", nargs="*", default=names(), help=f"which ones; all of them by default: {names()}")
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="the folder to write to; the zoo's own by default")
    options = parser.parse_args(arguments)
    try:
        chosen = [entry(name).name for name in options.names]
    except LookupError as error:
        parser.error(str(error))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small are fastest so, and sums do not depend on the number of cores
    try:
        for name in chosen:
            print(f"{name}: {train_and_write(name, options.output):.2%} of the held-out samples correct", flush=True)
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
