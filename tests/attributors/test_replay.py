"""Leaving out what need not run again changes no result, in models of every odd kind."""

import warnings
from collections import Counter, OrderedDict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import pnpx
from pnpx import ExpectedGradients, IntegratedGradients, SmoothGrad, SquareGrad, VarGrad
from pnpx.attributors import intercept, left_as_found
from pnpx.extractors import extract

X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def leaves(value):
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value or ()
    return [leaf for part in parts for leaf in leaves(part)]


def counted(model):
    """How often each module runs, by its hooks, which a module that is left out does not reach."""
    counts = Counter()
    for name, module in model.named_modules():
        original = type(module).forward

        def forward(*args, original=original, module=module, name=name, **kwargs):
            counts[name] += 1
            return original(module, *args, **kwargs)

        module.forward = forward
    return counts


class Skips(nn.Module):
    """Skip connections from before the layer, an in-place follower, and a module called three times."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.relu, self.tanh, self.head = nn.ReLU(inplace=True), nn.Tanh(), nn.Linear(5, 3)

    def forward(self, x):
        x = self.tanh(self.stem(x))
        y = self.relu(self.one(x))
        y = y + x
        y.mul_(0.5)
        y = self.relu(self.two(y) + x)
        return self.head(self.relu(y - 0.1) + x)


class Direct(nn.Module):
    """Calls a module by its forward, past hooks."""

    def __init__(self):
        super().__init__()
        self.stem, self.mid, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.mid.forward(self.stem.forward(x).tanh()).tanh() + self.stem.forward(2 * x))


class Tuples(nn.Module):
    """Modules that return tuples, with None in them, and dicts."""

    class Split(nn.Module):
        def forward(self, x):
            return x[:, :2], (None, x[:, 2:].tanh())

    class Merge(nn.Module):
        def forward(self, parts):
            return {"all": torch.cat([parts[0], parts[1][1]], 1), "none": None}

    def __init__(self):
        super().__init__()
        self.stem, self.split, self.mid, self.merge = nn.Linear(4, 4), self.Split(), nn.Linear(4, 4), self.Merge()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        parts = self.split(self.stem(x))
        merged = self.merge(parts)
        return self.head(self.mid(merged["all"]).tanh() * merged["all"])


class SeqFirst(nn.Module):
    """A recurrent net that takes (length, batch, features), between transpositions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(1, 3)
        self.lstm = nn.LSTM(3, 4, num_layers=2)
        self.mid = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        steps = self.stem(x[:, :, None]).transpose(0, 1)
        out, (h, c) = self.lstm(steps)
        return self.head(self.mid(out).tanh()[-1] + h[-1] * c[0])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(1, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.3)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        steps = self.stem(x[:, :, None])
        steps = steps + self.attention(steps, steps, steps)[0]
        return self.head(self.encoder(steps).mean(1))


class Packs(nn.Module):
    """Packs its sequences inside."""

    def __init__(self):
        super().__init__()
        self.stem, self.gru, self.head = nn.Linear(1, 3), nn.GRU(3, 4, batch_first=True), nn.Linear(4, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        lengths = torch.arange(len(x)) % 3 + 2
        steps = self.drop(self.stem(x[:, :, None]))
        packed = nn.utils.rnn.pack_padded_sequence(steps, lengths, batch_first=True, enforce_sorted=False)
        out, h = self.gru(packed)
        out, _ = nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
        return self.head(h[-1] + out.sum(1))


class Windows(nn.Module):
    """Merges samples with windows of them: (batch * windows, size)."""

    def __init__(self):
        super().__init__()
        self.stem, self.mid, self.head = nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        inside = self.stem(x.unflatten(1, (2, 2)).flatten(0, 1)).tanh()
        whole = inside.unflatten(0, (len(x), 2)).sum(1)
        return self.head(self.mid(whole).tanh() + whole)


class Positions(nn.Module):
    """Adds a table of positions, (steps, features), and its sum, which no batch axis have."""

    def __init__(self, steps=4):
        super().__init__()
        self.steps = steps
        self.table, self.stem, self.mid = nn.Embedding(steps, 3), nn.Linear(1, 3), nn.Linear(3, 3)
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        table = self.table(torch.arange(self.steps))
        hidden = self.mid(self.stem(x[:, : self.steps, None]) + table)
        return self.head((hidden.tanh() + table).sum(1) * table.sum(0))


class Hooked(nn.Module):
    """Hands values from one module to another behind the scenes, as adapters and caches do."""

    class Writes(nn.Linear):
        def forward(self, x):
            self.kept = super().forward(x).sigmoid()
            return x

    class Reads(nn.Linear):
        source = None

        def forward(self, x):
            return super().forward(x * self.source[0].kept)

    def __init__(self):
        super().__init__()
        self.stem, self.writes, self.mid = nn.Linear(4, 5), self.Writes(5, 5), nn.Linear(5, 5)
        self.reads, self.head = self.Reads(5, 5), nn.Linear(5, 3)
        self.reads.source = [self.writes]

    def forward(self, x):
        return self.head(self.reads(self.mid(self.writes(self.stem(x))).tanh()))


class Branches(nn.Module):
    """Takes another way where the value at the layer says so; only there the stem's output is needed again."""

    def __init__(self):
        super().__init__()
        self.stem, self.mid, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.bar = None

    def forward(self, x):
        x = self.stem(x)
        y = self.mid(x)
        if y.abs().amax() > self.bar:
            y = y * x
        return self.head(y.tanh())


class Loops(nn.Module):
    """A cell in a loop, its inputs computed by a shared module each time."""

    def __init__(self):
        super().__init__()
        self.cell, self.lift, self.head = nn.GRUCell(3, 5), nn.Linear(1, 3), nn.Linear(5, 3)

    def forward(self, x):
        h = x.new_zeros(len(x), 5)
        for step in range(4):
            h = self.cell(self.lift(x[:, step : step + 1]), h)
        return self.head(h)


class Changes(nn.Module):
    """Changes outputs of earlier modules in place, before and after the layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.pick, self.mid, self.head = nn.Linear(4, 5), nn.Identity(), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = self.stem(x)
        kept = self.pick(x)
        x.add_(1)  # changes what pick returned, too
        y = self.mid(kept)
        x.sub_(y)
        y.clamp_(min=-0.5)
        return self.head(x + y + kept.tanh())


MODELS = {
    Skips: ["stem", "tanh", "one", "one:input", "relu#1", "two", "two:input", "relu#2", "relu#3", "relu#3:input",
            "head", "head:input", ["one", "relu#2"]],
    Direct: ["stem#1", "mid", "mid:input", "stem#2", "head:input"],
    Tuples: ["stem", "split", "merge:input", "merge", "mid", ["split", "mid"]],
    SeqFirst: ["stem", "lstm", "lstm:input", "mid", "head:input", "mid:input"],
    Attention: ["stem", "attention", "attention:input", "encoder", "encoder.linear1", "encoder.self_attn",
                "head:input"],
    Packs: ["stem", "gru", "gru:input", "drop"],
    Windows: ["mid", "mid:input", "head:input", "stem"],
    Positions: ["stem", "mid", "mid:input", "head:input"],
    Hooked: ["stem", "writes", "mid", "reads", "reads:input"],
    Loops: ["cell#1", "lift#2", "cell#3", "cell#3:input", "lift#4", "head:input"],
    Changes: ["stem", "mid", "mid:input", "head:input"],
}
CASES = [
    pytest.param(kind, layer, id=f"{kind.__name__}-{layer}") for kind, layers in MODELS.items() for layer in layers
]


def built(kind):
    torch.manual_seed(0)
    return kind().double()


@pytest.mark.parametrize("kind, layer", CASES)
@pytest.mark.parametrize("batch", [1, 3, 4], ids=["batch 1", "batch 3", "batch 4"])  # of 4 as there are steps
def test_equal_to_running_everything(kind, layer, batch):
    model, x = built(kind), torch.cat([X, X[:1] + 1])[:batch]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explainers = [VarGrad(model, layer=layer, n_iter=3, noise_level=0.3, batch_size=2 * batch)]
        if batch == 3:
            explainers.append(IntegratedGradients(model, layer=layer, n_steps=3, gap_tolerance=None))
        for explainer in explainers:
            fast = explainer.attribute(x, 1)
            slow = type(explainer)(**{**vars(explainer), "replay": False}).attribute(x, 1)
            assert len(leaves(fast)) == len(leaves(slow)) > 0
            for one, other in zip(leaves(fast), leaves(slow), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


# One place each; samples that lie along no axis of their own are explained one by one, and steps of packed sequences
# have each their own noise.
BY_HAND = [
    case for case in CASES if isinstance(case.values[1], str)
    and (case.values[0].__name__, case.values[1]) not in [("Windows", "stem"), ("Packs", "gru"), ("Packs", "gru:input")]
]


@pytest.mark.parametrize("kind, layer", BY_HAND)
def test_equal_to_gradients_taken_by_a_hand_made_hook(kind, layer):
    """The mean gradient under noise, where the noise is put in by nothing but a replaced forward."""
    model, n = built(kind).requires_grad_(False), 2
    path, _, side = layer.partition(":")
    path, _, number = path.partition("#")
    module, wanted = model.get_submodule(path), int(number or 1)
    found = SmoothGrad(model, layer=layer, n_iter=n, noise_std=0.2, batch_size=100, sampler="independent").explain(X, 2)
    explained = leaves(found.explained)
    draws = []
    for index, (value, axis) in enumerate(zip(explained, found.batch_axes, strict=True)):
        generator = torch.Generator().manual_seed(1_000_003 * index)
        shape = [size for position, size in enumerate(value.shape) if position != axis]
        draws.append([torch.randn(*shape, generator=generator).double().unsqueeze(axis) for _ in range(n)])
    total = [torch.zeros_like(value) for value in explained]
    original = type(module).forward
    for draw in range(n):
        points, calls = [], Counter()

        def place(value, draw=draw, points=points):
            if isinstance(value, torch.Tensor):
                # A tensor passed several times, as query, key and value, is several points.
                point = (value.detach() + 0.2 * draws[len(points)][draw]).requires_grad_()
                points.append(point)
                return point.clone()
            if isinstance(value, dict):
                return {key: place(part) for key, part in value.items()}
            return tuple(map(place, value)) if isinstance(value, tuple) else value

        def forward(*args, calls=calls, place=place, **kwargs):
            calls["n"] += 1
            if calls["n"] != wanted:
                return original(module, *args, **kwargs)
            if side == "input":
                return original(module, *place(args), **kwargs)
            return place(original(module, *args, **kwargs))

        module.forward = forward
        model.eval()
        fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        score = model(X)[:, 2].sum()
        torch.backends.mha.set_fastpath_enabled(fast_path)
        del module.forward
        gradients = torch.autograd.grad(score, points, allow_unused=True)
        for sum_, gradient in zip(total, gradients, strict=True):
            if gradient is not None:
                sum_ += gradient
    for one, sum_ in zip(leaves(found.attributions), total, strict=True):
        torch.testing.assert_close(one, sum_ / n, rtol=1e-8, atol=1e-11)


# What runs


@pytest.mark.parametrize("layer, again", [
    ("two", {"relu": 2, "head": 1}),
    ("two:input", {"two": 1, "relu": 2, "head": 1}),
    ("relu#2", {"relu": 1, "head": 1}),
    ("head:input", {"head": 1}),
])
def test_modules_before_the_layer_do_not_run_again(layer, again):
    """Eight passes more cost eight runs more of what follows the layer, and not one of what comes before."""
    costs = []
    for n_iter in (4, 12):
        model = built(Skips)
        counts = counted(model)
        SmoothGrad(model, layer=layer, n_iter=n_iter, batch_size=3).attribute(X, 0)
        costs.append(counts)
    more = costs[1] - costs[0]
    assert {name: count / 8 for name, count in more.items()} == {"": 1, **again}


def test_without_replay_they_do():
    costs = []
    for n_iter in (4, 12):
        model = built(Skips)
        counts = counted(model)
        SmoothGrad(model, layer="head", n_iter=n_iter, batch_size=3, replay=False).attribute(X, 0)
        costs.append(counts)
    assert (costs[1] - costs[0])["stem"] == 8


def test_calls_inside_a_layer_that_is_left_out_still_count():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.Tanh()
            self.stem, self.tail, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
            self.block = nn.Sequential(nn.Linear(5, 5), self.act, nn.Linear(5, 5), self.act)

        def forward(self, x):
            x = self.tail(self.act(self.block(self.act(self.stem(x)))))
            return self.head(self.act(x))

    model = built(Shared)
    at = model.block(model.act(model.stem(X))).detach()
    for tap, rest in (("act#4", lambda y: y.tanh()), ("act#5", lambda y: model.tail(y.tanh()).tanh())):
        point = at.clone().requires_grad_()
        (expected,) = torch.autograd.grad(rest(point)[:, 1].sum(), point)
        for replay in (True, False):
            found = SmoothGrad(model, layer="block", output_layer=tap, n_iter=3, noise_std=0.0, replay=replay)
            torch.testing.assert_close(found.attribute(X, 1), expected)


def test_a_nested_layer_leaves_out_its_elder_siblings():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
            self.body = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))

        def forward(self, x):
            return self.body(self.stem(x))

    costs = []
    for n_iter in (2, 6):
        model = built(Nested)
        counts = counted(model)
        VarGrad(model, layer="body.1", n_iter=n_iter, batch_size=3).attribute(X, 0)
        costs.append(counts)
    assert costs[1] - costs[0] == Counter({"": 4, "body": 4, "body.2": 4})


def test_expected_gradients_replay_as_well():
    model, bases = built(Skips), torch.randn(4, 4, dtype=torch.float64)
    fast = ExpectedGradients(model, layer="two", baselines=bases, n_iter=8).attribute(X, 1)
    slow = ExpectedGradients(model, layer="two", baselines=bases, n_iter=8, replay=False).attribute(X, 1)
    torch.testing.assert_close(fast, slow)


def test_the_record_survives_all_passes():
    """In-place changes by the model, in any pass, must not reach what later passes are given."""
    model = built(Changes)
    one = SmoothGrad(model, layer="mid", n_iter=1, noise_std=0.0).attribute(X, 0)
    for batch_size in (3, 6, 30):
        torch.testing.assert_close(
            SmoothGrad(model, layer="mid", n_iter=10, noise_std=0.0, batch_size=batch_size).attribute(X, 0), one)


@pytest.mark.parametrize("bar", [-1.0, 100.0, "between"])
def test_a_way_that_only_noise_takes(bar):
    """What no clean pass needs may be needed in a noisy one."""
    model = built(Branches)
    clean = model.mid(model.stem(X)).abs().amax().item()
    model.bar = clean * 1.01 if bar == "between" else bar
    options = {"layer": "mid", "n_iter": 8, "noise_level": 0.2, "batch_size": 3}
    fast = SmoothGrad(model, **options).attribute(X, 0)
    slow = SmoothGrad(model, replay=False, **options).attribute(X, 0)
    torch.testing.assert_close(fast, slow)
    assert fast.isfinite().all()


# Models that no replay suits


def test_values_handed_on_behind_the_scenes_that_a_copy_changes():
    """The kept value is of one copy of the batch, the noisy pass of several: it has to run whole."""
    model = built(Hooked)
    for batch_size in (3, 9):
        fast = VarGrad(model, layer="mid", n_iter=4, batch_size=batch_size).attribute(X, 0)
        slow = VarGrad(model, layer="mid", n_iter=4, batch_size=batch_size, replay=False).attribute(X, 0)
        torch.testing.assert_close(fast, slow)


class Stochastic(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.mid, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.head(nn.functional.dropout(self.mid(x).tanh(), 0.5, training=True))


def test_a_model_that_stays_random_in_eval_mode():
    message = (
        "^the model gives different outputs for the same input, although it is in eval mode; its explanation is that "
        "of its random outputs, and not repeatable$"
    )
    with pytest.warns(RuntimeWarning, match=message):
        found = SmoothGrad(built(Stochastic), layer="mid", n_iter=400, noise_std=0.0, batch_size=600).attribute(X, 0)
    model = built(Stochastic)
    at = model.mid(model.stem(X)).detach()
    expected = model.head.weight[0] * (1 - at.tanh().square())  # dropout leaves the mean as it is
    torch.testing.assert_close(found, expected.detach(), rtol=0.35, atol=0.05)


def test_randomness_before_the_layer_is_recorded():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.head(self.stem(x).tanh())

    model = built(Noisy)
    model.stem.register_forward_hook(lambda module, args, output: output + torch.rand_like(output))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = SmoothGrad(model, layer="head:input", n_iter=4, noise_std=0.0).attribute(X, 0)
    torch.testing.assert_close(found, model.head.weight[0].detach().expand(3, 5))


def test_a_model_that_takes_one_copy_at_a_time():
    class Fixed(Skips):
        def forward(self, x):
            if len(x) != 3:
                raise ValueError("three rows, no more and no fewer")
            return super().forward(x)

    for layer in (None, "two"):
        found = VarGrad(built(Fixed), layer=layer, n_iter=5).attribute(X, 0)
        torch.testing.assert_close(found, VarGrad(built(Skips), layer=layer, n_iter=5, batch_size=3).attribute(X, 0))


def test_a_model_whose_samples_depend_on_each_other():
    """As batch norm with batch statistics: several copies in a pass are not several passes."""

    class Centred(Skips):
        def forward(self, x):
            out = super().forward(x)
            return (out - out.mean(0)) / out.std(0)

    for layer in (None, "two"):
        # Of one class the scores of all samples add up to zero, whatever they are.
        found = VarGrad(built(Centred), layer=layer, n_iter=5, batch_size=32).attribute(X, [0, 2, 1])
        alone = VarGrad(built(Centred), layer=layer, n_iter=5, batch_size=3).attribute(X, [0, 2, 1])
        assert found.amax() > 0.01
        torch.testing.assert_close(found, alone)


@pytest.mark.parametrize("layer", [None, "two"])
def test_samples_that_depend_on_those_before_them_get_one_copy_a_pass(layer):
    class Running(Skips):
        def forward(self, x):
            return super().forward(x).cumsum(0)

    alone, *together = (
        SmoothGrad(built(Running), layer=layer, n_iter=5, batch_size=size).attribute(X, 1) for size in (3, 6, 9, 64)
    )
    for found in together:
        torch.testing.assert_close(found, alone)


def test_packed_sequences_as_inputs():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.mid, self.head = nn.GRU(2, 4, batch_first=True), nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, sequences):
            assert isinstance(sequences, PackedSequence)
            return self.head(self.mid(self.gru(sequences)[1][-1]).tanh())

    generator = torch.Generator().manual_seed(0)
    packed = pack_sequence([torch.randn(n, 2, dtype=torch.float64, generator=generator) for n in (3, 5, 4)],
                           enforce_sorted=False)
    model = built(Net)
    for layer in (None, "gru:input", "gru", "mid"):
        fast = VarGrad(model, layer=layer, n_iter=4).attribute(packed, 1)
        slow = VarGrad(model, layer=layer, n_iter=4, replay=False, batch_size=1).attribute(packed, 1)
        for one, other in zip(leaves(fast), leaves(slow), strict=True):
            torch.testing.assert_close(one, other)


# Memory


class Small(nn.Module):
    """Has memory for so many rows."""

    def __init__(self, rows):
        super().__init__()
        self.stem, self.mid, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.rows, self.refused, self.seen = rows, [], []

    def forward(self, x):
        if len(x) > self.rows:
            self.refused.append(len(x))
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (simulated)")
        self.seen.append(x.detach().clone())
        return self.head(self.mid(self.stem(x).tanh()).tanh())


@pytest.fixture
def emptied(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7, 16])
@pytest.mark.parametrize("layer", [None, "mid"])
@pytest.mark.parametrize("kind, options", [
    (VarGrad, {"n_iter": 11}), (SmoothGrad, {"n_iter": 11}), (IntegratedGradients, {"n_steps": 7}),
    (ExpectedGradients, {"n_iter": 11, "baselines": torch.zeros(2, 4, dtype=torch.float64)}), (pnpx.Gradient, {}),
], ids=["VarGrad", "SmoothGrad", "IntegratedGradients", "ExpectedGradients", "Gradient"])
def test_out_of_memory_goes_on_with_less(kind, options, layer, rows, emptied):
    model, targets = built(lambda: Small(rows)), torch.tensor([0, 2, 1])
    expected = kind(built(lambda: Small(1000)), layer=layer, batch_size=1000, **options).attribute(X, targets)
    found = kind(model, layer=layer, batch_size=1000, **options).attribute(X, targets)
    torch.testing.assert_close(found, expected)
    assert model.refused or rows >= (3 if kind is pnpx.Gradient else 33)


def test_out_of_memory_loses_no_draw_and_uses_none_twice(emptied):
    """The noisy rows that got through are those of the draws, each once, beside the clean pass and those that check."""
    model = built(lambda: Small(4))
    SmoothGrad(model, n_iter=10, batch_size=1000, sampler="independent", noise_std=1.0).attribute(X[:1], 0)
    noise = torch.stack([torch.randn(4, generator=g) for g in [torch.Generator().manual_seed(0)] for _ in range(10)])
    noisy = [row for row in torch.cat(model.seen) if not torch.allclose(row, X[0])]
    wanted = X[0] + noise.double()
    used = Counter(int((wanted - row).abs().sum(1).argmin()) for row in noisy)
    assert all((wanted - row).abs().sum(1).min() < 1e-6 for row in noisy)
    assert sorted(used) == list(range(10))
    # Two are met again by each check that as many copies in a pass give what each alone gives: of two, and of four.
    assert sum(used.values()) <= 10 + 4


def test_out_of_memory_for_one_row_is_the_users(emptied):
    with pytest.raises(torch.cuda.OutOfMemoryError, match="simulated"):
        SmoothGrad(built(lambda: Small(0))).attribute(X, 0)


def test_no_interception_is_left_over():
    model = built(Skips)
    SmoothGrad(model, layer="two").attribute(X, 0)
    assert intercept._wrapped == {} and getattr(intercept._thread, "stack", []) == []


class ReadsBefore(nn.Module):
    """Between two modules it reads what the second of them then changes in place; ``late`` reads it afterwards."""

    def __init__(self, late):
        super().__init__()
        self.stem, self.relu, self.body, self.head = nn.Linear(3, 3), nn.ReLU(True), nn.Linear(3, 3), nn.Linear(3, 2)
        self.late = late

    def forward(self, x):
        stem = self.stem(x)
        doubled = stem * 2
        hidden = self.relu(stem)
        return self.head(self.body(hidden) * (stem + 1 if self.late else doubled))


@pytest.mark.parametrize("late, replays", [(False, True), (True, False)])
def test_what_is_changed_in_place_after_it_was_read_is_noted_as_a_copy(late, replays):
    torch.manual_seed(0)
    model, x = ReadsBefore(late).double(), torch.randn(4, 3, dtype=torch.float64)
    explainer = pnpx.SmoothGrad(model, layer="body", n_iter=6, batch_size=8)
    full = replace(explainer, replay=False).attribute(x, 1)
    torch.testing.assert_close(explainer.attribute(x, 1), full)
    with left_as_found(model), explainer.attributor.at(extract(model, x)) as bound:
        aim = explainer.objective.aim(1, x, 4, lambda: bound.output)
        points = [[bound.values[0].tensor + shift] for shift in (0.1, 0.2)]
        bound.gradients(points, aim)
        assert bound._replay is replays and bound.several


class Maps(nn.Module):
    """Feature maps whose height and width are the number of samples."""

    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(1, 3, 3, padding=1), nn.Sequential(nn.ReLU(), nn.Conv2d(3, 2, 5))
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        return self.head(self.body(self.stem(nn.functional.avg_pool2d(x, 2))).sum((2, 3)))


def test_where_a_size_inside_the_model_is_that_of_the_batch_two_copies_prove_the_axis():
    torch.manual_seed(0)
    model, x = Maps().double(), torch.randn(6, 1, 12, 12, dtype=torch.float64)
    explainer = pnpx.SmoothGrad(model, layer="body", n_iter=4, noise_std=0.3, batch_size=12)
    sizes, run = [], model.stem.forward
    model.stem.forward = lambda value: sizes.append(len(value)) or run(value)
    found = explainer.attribute(x, 1)
    assert sizes == [6]  # no pass of another number of samples was needed
    torch.testing.assert_close(found, torch.cat([explainer.attribute(x[row : row + 1], 1) for row in range(6)]))
    torch.testing.assert_close(found, replace(explainer, replay=False).attribute(x, 1))


class StepsFirst(nn.Module):
    """As many steps as there are samples, in front of two features of each sample side by side."""

    def __init__(self):
        super().__init__()
        self.split, self.turn, self.back, self.head = nn.Unflatten(1, (4, 2)), Turn(), Back(), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.back(self.turn(self.split(x))).tanh())


class Turn(nn.Module):
    def forward(self, x):
        return x.transpose(0, 1).flatten(1)


class Back(nn.Module):
    def forward(self, x):
        return x.reshape(4, -1, 2).transpose(0, 1).flatten(1)


@pytest.mark.parametrize("n_iter, batch_size", [(4, 16), (1, 16), (3, 8)])
def test_where_the_axis_that_sizes_suggest_is_another_one_it_is_found_out(n_iter, batch_size):
    torch.manual_seed(0)
    model, x = StepsFirst().double(), torch.randn(4, 8, dtype=torch.float64)
    explainer = pnpx.SmoothGrad(model, layer="turn", n_iter=n_iter, noise_std=0.3, batch_size=batch_size)
    found = explainer.attribute(x, 1)
    assert found.shape == (4, 4, 2)
    alone = [explainer.attribute(x[row : row + 1], 1) for row in range(4)]
    torch.testing.assert_close(found, torch.stack(alone).reshape(4, 4, 2))


# Replays, and passes of several copies, that are wrong for some of the samples only, or for some of the copies.


class CleansInPlace(nn.Module):
    """What comes first changes the input in place, where a sample asks for it; the input is read again later."""

    def __init__(self):
        super().__init__()
        self.clean, self.a, self.b, self.c = Clean(), nn.Linear(3, 7), nn.Linear(7, 4), nn.Linear(3, 4)

    def forward(self, x):
        return torch.tanh(self.b(torch.tanh(self.a(self.clean(x)))) * self.c(x))


class Clean(nn.Module):
    def forward(self, x):
        return x.masked_fill_(x < -5, 0.0)


class MasksAndMixes(nn.Module):
    """Samples interact, but for one that is masked."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 7), nn.Linear(7, 4)

    def forward(self, x):
        mask = (x[:, :1] > -5).to(x)
        hidden = torch.tanh(self.a(x))
        mixed = (hidden * mask @ (hidden * mask).T).softmax(1) @ hidden
        return self.b(hidden + mixed) * mask


class SetsAMask(nn.Module):
    """A module before the layer sets what one behind it reads."""

    def __init__(self):
        super().__init__()
        self.encode, self.a, self.b = Encode(), nn.Linear(7, 6), nn.Linear(6, 4)

    def forward(self, x):
        hidden = torch.tanh(self.a(self.encode(x)))
        return torch.tanh(self.b(hidden) * self.encode.mask)


class Encode(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 7)

    def forward(self, x):
        self.mask = (x[:, :1] > -5).to(x) + 0.3
        return self.linear(x)


class ScalesData(nn.Module):
    """Changes some rows of an earlier output behind autograd's back."""

    def __init__(self):
        super().__init__()
        self.e, self.a, self.b = nn.Linear(3, 7), nn.Linear(7, 7), nn.Linear(7, 4)

    def forward(self, x):
        early = self.e(x)
        hidden = torch.tanh(self.a(early * 1.5))
        early.data[(x < -5).any(1)] *= 2
        return self.b(torch.tanh(hidden * early))


class Backwards(nn.Module):
    """A running sum over the batch, from its end."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 7), nn.Linear(7, 4)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)).flip(0).cumsum(0).flip(0).tanh())


class LaterAxis(nn.Module):
    """The batch is the second axis of what it returns, and samples interact."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 7), nn.Linear(7, 4)

    def forward(self, x):
        hidden = torch.tanh(self.a(x))
        out = self.b((hidden - hidden.mean(0)).tanh())
        return torch.stack([out, 2 * out, 3 * out])


class AnObject(LaterAxis):
    """Returns an object of no known kind."""

    def forward(self, x):
        return SimpleNamespace(logits=super().forward(x)[0])


class InSlots(LaterAxis):
    """Returns an object that nothing can be seen in but by who knows it."""

    def forward(self, x):
        return Slots(super().forward(x)[0])


class Slots:
    __slots__ = ("logits",)

    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize("layer", ["a", None])
@pytest.mark.parametrize("special", [1, -1])
@pytest.mark.parametrize(
    "kind, options",
    [(CleansInPlace, {}), (MasksAndMixes, {}), (SetsAMask, {}), (ScalesData, {}), (Backwards, {}),
     (LaterAxis, {"output_extractor": lambda out: out[-1]}), (AnObject, {}), (InSlots, {})],
)  # fmt: skip
def test_what_holds_for_some_samples_or_copies_is_not_taken_to_hold_for_all(kind, options, special, layer):
    torch.manual_seed(0)
    model, x = kind().double(), torch.randn(5, 3, dtype=torch.float64)
    x[special, 0] = -9
    explainer = SmoothGrad(model, layer=layer, n_iter=6, batch_size=100, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = replace(explainer, replay=False, batch_size=5).attribute(x, 0)
        found = explainer.attribute(x, 0)
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected)


MATTER_TO_ALL = {
    "the mean": lambda hidden: hidden - hidden.mean(0),
    "the first": lambda hidden: hidden - hidden[:1],
    "the last": lambda hidden: hidden - hidden[-1:],
    "the second": lambda hidden: hidden - hidden[1:2] if len(hidden) > 1 else hidden,
    "the largest": lambda hidden: hidden / hidden.abs().max(),
    "the smallest": lambda hidden: hidden - hidden.min(),
    "those beside it": lambda hidden: hidden - hidden.roll(1, 0),
}


@pytest.mark.parametrize("layer", ["a", "b", None])
@pytest.mark.parametrize("batch", [1, 2, 3, 4])
@pytest.mark.parametrize("what", MATTER_TO_ALL)
def test_samples_that_matter_to_others_get_one_copy_a_pass(what, batch, layer):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 5)

        def forward(self, x):
            # What is largest must not be hidden by being cut off before it is compared.
            bend = nn.functional.leaky_relu if what in ("the largest", "the smallest") else torch.tanh
            return self.c(MATTER_TO_ALL[what](bend(self.b(bend(self.a(x))))) ** 2)

    for seed in range(4):
        torch.manual_seed(seed)
        model, x = Net().double(), torch.randn(batch, 6, dtype=torch.float64)
        if batch == 1 and what in ("the mean", "the first", "the last", "those beside it"):
            continue  # one sample alone is nothing, and has no gradient
        for explainer in (SquareGrad(model, layer=layer, n_iter=8),
                          IntegratedGradients(model, layer=layer, n_steps=8, gap_tolerance=None)):  # fmt: skip
            expected = replace(explainer, replay=False, batch_size=batch).attribute(x, 1)
            for batch_size in (2 * batch, 3 * batch, 32):
                torch.testing.assert_close(replace(explainer, batch_size=batch_size).attribute(x, 1), expected)


@pytest.mark.parametrize(
    "batch, batch_size", [(1, 1), (1, 2), (1, 3), (1, 50), (2, 2), (2, 3), (2, 4), (2, 5), (3, 50)], ids=str
)
@pytest.mark.parametrize("layer", ["a", None])
def test_no_pass_takes_more_rows_than_it_may(batch, batch_size, layer):
    """Those that check what the others do are no exception."""
    torch.manual_seed(0)
    model, rows = nn.Sequential(OrderedDict(a=nn.Linear(4, 5), b=nn.Tanh(), c=nn.Linear(5, 3))), []
    model.c.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    SmoothGrad(model, layer=layer, n_iter=8, batch_size=batch_size).attribute(torch.randn(batch, 4), 0)
    assert max(rows) == min(batch_size // batch * batch, 8 * batch)


class CountsATable(nn.Module):
    """Reads the length of a table that is as long as the batch, and nothing else of it."""

    class Table(nn.Module):
        def forward(self, x):
            return torch.ones(3, 4)

    def __init__(self):
        super().__init__()
        self.table, self.a, self.b = self.Table(), nn.Linear(5, 7), nn.Linear(7, 4)

    def forward(self, x):
        table = self.table(x)
        return self.b(torch.tanh(self.a(x))) * len(table)


def test_what_stands_for_an_output_follows_the_axes_found_later():
    torch.manual_seed(0)
    model, x = CountsATable().double(), torch.randn(3, 5, dtype=torch.float64)
    rows = []
    model.b.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    explainer = SmoothGrad(model, layer="a", n_iter=8, batch_size=100)
    found = explainer.attribute(x, 0)
    assert rows[-3:] == [24, 3, 3]  # all copies in one pass, and the check of it
    torch.testing.assert_close(found, replace(explainer, replay=False, batch_size=3).attribute(x, 0))


def test_why_a_slower_way_is_taken_is_logged(caplog):
    class OneAtATime(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 7), nn.Linear(7, 4)

        def forward(self, x):
            return self.b(self.a(x).reshape(5, 7))

    model, x = OneAtATime().double(), torch.randn(5, 3, dtype=torch.float64)
    with caplog.at_level("DEBUG", logger="pnpx"):
        SmoothGrad(model, layer="a", n_iter=4, batch_size=20).attribute(x, 0)
    assert "a pass of several copies of the batch for 'a' did not work, so a slower way is taken" in caplog.messages
    assert any("shape '[5, 7]' is invalid" in str(record.exc_info[1]) for record in caplog.records)
