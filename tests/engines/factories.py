"""A run for engines: a model from a file beside the configuration, which files beside it make die, fail, or be slow."""

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from pnpx.engines import jobs
from pnpx.plan import plan

NETS = """\
import os
import signal
import time
import warnings
from pathlib import Path

import torch
from torch import nn

torch.manual_seed(0)


HERE = Path(__file__).parent


def here(name):
    return (HERE / name).exists()


def in_worker():
    return os.getpid() != int((HERE / "main").read_text())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        fourth = (x[:, 0] - 400).abs().lt(20).any()
        if fourth and here("failing"):
            raise ValueError("the fourth is too much")
        if fourth and here("warning"):
            warnings.warn("the fourth is near", RuntimeWarning, stacklevel=2)
        if in_worker():
            if fourth and here("deadly"):
                os._exit(9)
            if fourth and here("slow"):
                (HERE / "begun").touch()
                time.sleep(float((HERE / "slow").read_text()))
        return self.last(self.first(x).tanh())


def net():
    if in_worker() and here("fatal"):
        os._exit(7)
    if in_worker() and here("mask"):
        (HERE / "mask").write_text(str(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    torch.manual_seed(0)
    return Net()


def data(split):
    rows = torch.arange(6.0)[:, None] * 100
    return torch.cat([rows, rows * 0 + 1, rows * 0 + 2], 1), torch.zeros(6, dtype=torch.long)
"""

CONFIG = """\
model: {factory: "NAME:net"}
data: {factory: "NAME:data"}
explainers:
  - Gradient
  - name: SmoothGrad
    n_iter: 3
    noise_level: 0.001
    layers: [null, first]
batch_size: 2
output: OUTPUT
"""


@dataclass(frozen=True)
class Shop:
    """A configuration with what it names, and the folder of the results."""

    config: Path
    output: Path

    def set(self, name, text=""):
        (self.config.parent / name).write_text(text)

    def plan(self, *overrides):
        return plan(self.config, overrides, allow_code=True)

    def jobs(self, *overrides, force=False):
        return jobs(self.plan(*overrides), self.config, overrides, allow_code=True, force=force)

    def files(self, pattern="**/*.safetensors"):
        return sorted(str(path.relative_to(self.output)) for path in self.output.glob(pattern))


def shop_fixture():
    """A fixture: a run of its own for each test."""

    @pytest.fixture
    def shop(tmp_path):
        name = f"nets_{uuid.uuid4().hex}"  # a module is imported once, by its name
        (tmp_path / f"{name}.py").write_text(NETS)
        path, output = tmp_path / "run.yaml", tmp_path / "out"
        (tmp_path / "main").write_text(str(os.getpid()))
        path.write_text(CONFIG.replace("NAME", name).replace("OUTPUT", str(output)))
        return Shop(path, output)

    return shop
