"""A fingerprint changes with all that an attribution depends on, and with nothing else."""

import dataclasses
import functools
import importlib.metadata
import importlib.resources
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import pnpx
from pnpx import usercode
from pnpx.fingerprint import digest, of_explainer, of_model


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 2)
        self.activation = nn.ReLU()
        self.register_buffer("scale", torch.ones(1, dtype=torch.bfloat16))

    def forward(self, x):
        return self.activation(self.linear(x)) * self.scale.float()


def test_a_model_is_known_by_weights_buffers_structure_and_code():
    model = Net()
    known = of_model(model)
    assert of_model(Net()) == known
    assert of_model(model.train()) == known
    with torch.no_grad():
        model.linear.weight[0, 0] += 1e-6
    assert of_model(model) != known
    model = Net()
    model.scale += 1
    assert of_model(model) != known
    model = Net()
    model.activation = nn.GELU()
    assert of_model(model) != known


def test_a_model_with_other_code_is_another(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def written(module, sign):
        code = f"from torch import nn\nclass Twin(nn.Module):\n    def forward(self, x):\n        return {sign}x\n"
        (tmp_path / f"{module}.py").write_text(code)
        return importlib.import_module(module).Twin()

    first, same, other = written("twin_a", ""), written("twin_b", ""), written("twin_c", "-")
    assert repr(first) == repr(same) == repr(other)
    assert of_model(first) == of_model(same) != of_model(other)


def test_an_explainer_is_known_by_its_parameters():
    explainer = pnpx.SmoothGrad(Net(), n_iter=5)
    known = of_explainer(explainer)
    assert of_explainer(dataclasses.replace(explainer, model=nn.Linear(3, 2))) == known
    for change in ({"batch_size": 1}, {"progress": True}):
        assert of_explainer(dataclasses.replace(explainer, **change)) == known
    for change in ({"n_iter": 6}, {"noise_level": 0.2}, {"seed": 1}, {"layer": "linear"}, {"replay": False}):
        assert of_explainer(dataclasses.replace(explainer, **change)) != known
    assert of_explainer(pnpx.SquareGrad(Net(), n_iter=5)) != known


def test_the_baselines_of_expected_gradients_count():
    one = of_explainer(pnpx.ExpectedGradients(Net(), baselines=torch.zeros(2, 3)))
    assert one == of_explainer(pnpx.ExpectedGradients(Net(), baselines=torch.zeros(2, 3)))
    assert one != of_explainer(pnpx.ExpectedGradients(Net(), baselines=torch.ones(2, 3)))


@pytest.mark.parametrize("one, other", [
    (torch.zeros(2), torch.zeros(2, 1)),
    (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
    (torch.zeros(2), torch.tensor([0.0, 1e-30])),
    (torch.tensor(1.0, dtype=torch.bfloat16), torch.tensor(1.0, dtype=torch.float16)),
    ([1, 2], [1, [2]]),
    ("ab", ["a", "b"]),
    ({"a": 1}, {"a": "1"}),
    (torch.relu, torch.tanh),
    (None, "None"),
])
def test_different_things_have_different_digests(one, other):
    assert digest(one) != digest(other)
    assert digest(one) == digest(one)


class Holder(nn.Module):
    def __init__(self, held):
        super().__init__()
        self.held = held

    def forward(self, x):
        return x


@dataclasses.dataclass
class Curve:
    power: float

    def __call__(self, x):
        return x**self.power


class Plain:
    def __init__(self, power):
        self._power = power


class Slotted:
    __slots__ = ("power",)

    def __init__(self, power):
        self.power = power


clamped = functools.partial(functools.partial, torch.clamp)


def powered(power):
    return lambda x: x**power


@pytest.mark.parametrize("one, same, other", [
    (torch.relu, torch.relu, torch.tanh),
    (nn.functional.relu, nn.functional.relu, nn.functional.gelu),
    ((1.0, 2.0), (1.0, 2.0), (1.0, 3.0)),
    ({"scale": [1, 2]}, {"scale": [1, 2]}, {"scale": [1, 3]}),
    ({1: torch.zeros(2)}, {1: torch.zeros(2)}, {1: torch.ones(2)}),
    (np.ones(2), np.ones(2), np.zeros(2)),
    ({"a", "b"}, {"b", "a"}, {"a", "c"}),
    (lambda x: x + 1, None, lambda x: x - 1),
    (powered(2), powered(2), powered(3)),
    (clamped(min=0), clamped(min=0), clamped(min=1)),
    (Curve(2), Curve(2), Curve(3)),
    (Plain(2), Plain(2), Plain(3)),
    (Slotted(2), Slotted(2), Slotted(3)),
    (Plain(2).__init__, Plain(2).__init__, Plain(3).__init__),
    (SimpleNamespace(depth=1), SimpleNamespace(depth=1), SimpleNamespace(depth=2)),
    ([nn.ReLU()], [nn.ReLU()], [nn.GELU()]),
    ([Net()], [Net()], [Net().double()]),
    (torch.float32, torch.float32, torch.float64),
    (slice(1, 2), slice(1, 2), slice(1, 3)),
], ids=lambda value: type(value).__name__)
def test_plain_attributes_of_a_model_count_however_deep(one, same, other):
    known = of_model(Holder(one))
    if same is not None:
        assert of_model(Holder(same)) == known
    assert of_model(Holder(other)) != known
    assert of_model(Holder([{"deep": other}])) != of_model(Holder([{"deep": one}]))


def test_private_attributes_hooks_and_other_forwards_count():
    known = of_model(Net())
    for change in (
        lambda model: setattr(model, "_scale", 2.0),
        lambda model: model.linear.register_forward_hook(lambda module, args, output: 2 * output),
        lambda model: model.linear.register_forward_pre_hook(lambda module, args: (2 * args[0],)),
        lambda model: setattr(model, "forward", lambda x: x),
        lambda model: setattr(model.linear, "forward", lambda x: x),
    ):
        model = Net()
        change(model)
        assert of_model(model) != known


class Curved(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(x).relu()


class Curbed(Curved):
    def forward(self, x):
        return self.linear(x).tanh()


Curbed.__name__ = Curbed.__qualname__ = "Curved"

@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("compiled", [torch.fx.symbolic_trace, lambda model: torch.jit.trace(model, torch.ones(1, 3))])
def test_the_code_of_compiled_models_counts(compiled):
    one, same, other = compiled(Curved()), compiled(Curved()), compiled(Curbed())
    assert repr(one) == repr(other)
    assert of_model(one) == of_model(same) != of_model(other)


def test_buffers_that_are_not_saved_count():
    def with_buffer(value):
        model = Net()
        model.register_buffer("mean", torch.tensor(value), persistent=False)
        return of_model(model)

    assert with_buffer(0.5) == with_buffer(0.5) != with_buffer(0.25)


def test_what_holds_itself_or_cannot_be_described_counts_by_its_class():
    def held(*things):
        ring = [*things]
        ring.append(ring)
        model = Holder(ring)
        model.parent = [model]
        return of_model(model)

    class Broken(dict):
        def items(self):
            raise RuntimeError("not now")

    known = held(torch.Generator(), Broken(), 1)
    assert held(torch.Generator(), Broken(), 1) == known != held(torch.Generator(), {}, 1)
    assert held(torch.Generator()) != held(torch.device("cpu"))
    deep = []
    for _ in range(5000):
        deep = [deep]
    assert of_model(Holder(deep)) == of_model(Holder(deep))


def test_weights_that_no_bytes_are_seen_of_count():
    sparse = torch.tensor([[0.0, 2.0], [0.0, 0.0]]).to_sparse()
    assert digest(sparse) == digest(sparse.clone()) != digest(2 * sparse)
    turned = torch.tensor([1 + 2j]).conj()
    assert digest(turned) == digest(turned.resolve_conj()) != digest(turned.conj())


MINE = """\
import dataclasses
import torch
from torch import nn
from layers import squash
SCALE = 2.0
def scaled(x):
    return SCALE * x
class Net(nn.Module):
    def forward(self, x):
        return squash(scaled(x))
def model():
    return Net()
@dataclasses.dataclass
class Own:
    model: object = None
    n_iter: int = 3
    def points(self):
        return scaled(self.n_iter)
"""
LAYERS = "from consts import LEAST\ndef squash(x):\n    return x.clamp(min=LEAST)\n"
CONSTS = "LEAST = 0.0\n"


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes the user's modules to a new folder and imports them from there."""
    names = ("mine", "layers", "consts")

    def imported(*texts):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, text in zip(names, texts, strict=True):
            (folder / f"{name}.py").write_text(text)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            return importlib.import_module("mine")

    yield imported
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("position, old, new", [
    (0, "SCALE = 2.0", "SCALE = 3.0"), (0, "SCALE * x", "SCALE + x"), (1, "min=", "max="), (2, "0.0", "0.5"),
], ids=["a constant", "a function", "an imported function", "an imported constant"])
def test_the_modules_behind_a_model_an_explainer_and_a_factory_count(mine, position, old, new):
    texts = [MINE, LAYERS, CONSTS]

    def known():
        found = mine(*texts)
        return of_model(found.Net()), of_explainer(found.Own()), of_model(nn.ReLU(), found.model)

    before, same = known(), known()
    assert same == before
    texts[position] = texts[position].replace(old, new)
    assert all(one != other for one, other in zip(before, known(), strict=True))


STABLE = """\
import functools, logging, pathlib, threading
import torch
from torch import nn
from pnpx.fingerprint import of_model
def model():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    torch.nn.init.ones_(net[0].weight), torch.nn.init.zeros_(net[0].bias)
    net.words, net.table = {"one", "two", "three"}, {word: 1 for word in {"four", "five", "six"}}
    net.nested, net.act = frozenset({("a", 1), ("b", 2)}), lambda x: x
    net.log, net.lock, net.generator = logging.getLogger(), threading.Lock(), torch.Generator()
    net.handle, net.object, net.path = net[0].register_forward_hook(print), object(), pathlib.Path(__file__)
    net.part, net.inside = functools.partial(max, default=object()), lambda x: x in {"p", "q"}
    net.parent = [net]
    return net
net = model()
print(of_model(net, model), net.words, net.table)
"""


def test_a_fingerprint_is_the_same_in_every_process_and_place(tmp_path):
    said = []
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
        (tmp_path / number / "stable.py").write_text(STABLE)
        root = str(importlib.resources.files(pnpx).parent)
        places = os.pathsep.join([root, str(tmp_path / number)])
        environment = {**os.environ, "PYTHONHASHSEED": number, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", "import stable"], env=environment, capture_output=True, text=True,
                              check=True, cwd=tmp_path / number)
        said.append(done.stdout)
    assert said[0] != said[1]  # the order of sets
    assert said[0].split()[0] == said[1].split()[0]


def test_where_a_model_of_transformers_lies_does_not_count(tmp_path):
    transformers = pytest.importorskip("transformers")
    from pnpx.fingerprint import of_text_model
    from pnpx.zoo.registry import text_folder

    shutil.copytree(text_folder("sentiment"), tmp_path / "copy")
    prints = []
    for folder in (text_folder("sentiment"), tmp_path / "copy"):
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
        prints.append(of_text_model(model, transformers.AutoTokenizer.from_pretrained(folder)))
    assert prints[0] == prints[1]


def test_what_transformers_keeps_of_a_process_does_not_count():
    transformers = pytest.importorskip("transformers")

    def known(number, **changes):
        torch.manual_seed(0)
        config = transformers.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=9, n_positions=5)
        model = transformers.GPT2LMHeadModel(config).eval()
        model.generation_config._original_object_hash = number  # by Python's hash, another in each process
        for name, value in changes.items():
            setattr(model.config, name, value)
        return of_model(model)

    assert known(1) == known(2) != known(1, layer_norm_epsilon=0.5)


def test_whose_a_module_is():
    names = {"torch.nn.modules": "package", "numpy": "package", "yaml": "package", "json": "python", "sys": "python",
             "pnpx.store": "pnpx", __name__: "user", "nowhere": "user"}
    for name in names:
        if name not in ("nowhere", __name__):
            importlib.import_module(name)
    assert {name: usercode.owner(name) for name in names} == names


@pytest.mark.parametrize("package", ["torch", "yaml"])
def test_installed_packages_count_by_their_version(package, monkeypatch):
    import yaml

    held = {"torch": nn.ReLU(), "yaml": Holder(yaml.safe_load)}[package]
    known = of_model(held)
    name = {"torch": "torch", "yaml": "PyYAML"}[package]
    monkeypatch.setattr(usercode, "_version", lambda one, real=usercode._version: "0" if one == package else real(one))
    assert of_model(held) != known
    monkeypatch.setattr(usercode, "_version", lambda one: importlib.metadata.version(name if one == package else one)
                        .partition("+")[0])
    assert of_model(held) == known
