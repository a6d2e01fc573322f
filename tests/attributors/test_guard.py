"""The model is left as it was found, whatever happens in between."""

import copy
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from torch import nn

import pnpx
from pnpx.attributors.attributes import Found, explaining
from pnpx.attributors.guard import left_as_found, uncompiled
from tests.errors import raises


class Net(nn.Module):
    """Modules in different modes, weights of which some are frozen, buffers that a forward pass changes."""

    def __init__(self, fail_at=None):
        super().__init__()
        self.conv = nn.Conv1d(1, 2, 3, padding=1)
        self.norm = nn.BatchNorm1d(2)
        self.inner = nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.5), nn.ReLU(inplace=True))
        self.head = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", None)
        self.register_buffer("replaced", torch.zeros(2))
        self.fail_at, self.ran = fail_at, []
        self.conv.weight.requires_grad_(False)
        self.inner.eval()
        self.inner[1].train()
        self.norm.train()

    def forward(self, x):
        self.ran.append(len(x))
        if len(self.ran) == self.fail_at:
            raise KeyError("half-way")
        self.calls += 1
        self.replaced = self.replaced + 1
        torch.rand(3)
        return self.head(self.inner(self.norm(self.conv(x[:, None])).mean(1)))


def fingerprint(model):
    """Everything an explainer must leave as it was."""
    return {
        "modes": [module.training for module in model.modules()],
        "weights": [(id(p), p.requires_grad, p._version, id(p.grad), p.sum().item()) for p in model.parameters()],
        "buffers": {name: (id(b), b.tolist()) for name, b in model.named_buffers()},
        "buffer names": [sorted(module._buffers) for module in model.modules()],
        "forwards": ["forward" in module.__dict__ for module in model.modules()],
        "hooks": [[len(h) for h in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks,
                                    m._backward_pre_hooks)] for m in model.modules()],
        "random state": torch.get_rng_state().tolist(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "cudnn": torch.backends.cudnn.enabled,
        "grad mode": torch.is_grad_enabled(),
        "state": {name: value.tolist() for name, value in model.state_dict().items()},
    }


KINDS = {
    "Gradient": (pnpx.Gradient, {}),
    "SmoothGrad": (pnpx.SmoothGrad, {"n_iter": 3}),
    "VarGrad": (pnpx.VarGrad, {"n_iter": 3}),
    "IntegratedGradients": (pnpx.IntegratedGradients, {"n_steps": 3}),
    "ExpectedGradients": (pnpx.ExpectedGradients, {"n_iter": 3, "baselines": torch.zeros(2, 8)}),
}


@pytest.mark.parametrize("kind, options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("layer", [None, "norm", "inner.0:input", ["conv", "head"]], ids=str)
@pytest.mark.parametrize("method", ["attribute", "explain"])
def test_left_as_found(kind, options, layer, method):
    torch.manual_seed(0)
    model = Net()
    model.head.weight.grad = torch.ones(3, 4)
    before = fingerprint(model)
    getattr(kind(model, layer=layer, **options), method)(torch.randn(2, 8, generator=torch.Generator().manual_seed(0)))
    assert model.ran
    assert fingerprint(model) == before
    assert torch.equal(model.head.weight.grad, torch.ones(3, 4)) and model.head.bias.grad is None


@pytest.mark.parametrize("layer", [None, "norm"])
@pytest.mark.parametrize("fail_at", [1, 2, 3, 4])
def test_left_as_found_after_an_exception(layer, fail_at):
    torch.manual_seed(0)
    model = Net(fail_at)
    before = fingerprint(model)
    with pytest.raises(KeyError, match="half-way"):
        for _ in range(3):  # an exception during a trial pass is met again in a later one
            pnpx.SmoothGrad(model, layer=layer, n_iter=5, batch_size=2).attribute(torch.randn(2, 8), 0)
            model.fail_at = len(model.ran) + 1
    torch.set_rng_state(torch.tensor(before["random state"], dtype=torch.uint8))
    assert fingerprint(model) == before


@pytest.mark.parametrize("where", ["targets", "score", "points", "layer"])
def test_left_as_found_after_the_users_own_exception(where):
    class Points(pnpx.SmoothGrad):
        def points(self, bound, reference):
            yield next(super().points(bound, reference))
            raise KeyError("mine")

    def mine(*_):
        raise KeyError("mine")

    model = Net()
    x = torch.randn(2, 8)
    before = fingerprint(model)
    with pytest.raises((KeyError, LookupError, RuntimeError)):
        if where == "targets":
            pnpx.SmoothGrad(model, layer="norm").attribute(x, mine)
        elif where == "score":
            pnpx.Gradient(model, score=mine).attribute(x)
        elif where == "points":
            Points(model, layer="norm", batch_size=2).attribute(x)
        else:
            pnpx.Gradient(model, layer="norm#4").attribute(x)
    assert fingerprint(model) == before


def test_while_explaining_it_is_in_eval_mode_and_its_weights_need_no_gradient():
    seen = []

    class Spy(Net):
        def forward(self, x):
            seen.append(([m.training for m in self.modules()], [p.requires_grad for p in self.parameters()]))
            return super().forward(x)

    pnpx.SmoothGrad(Spy(), n_iter=2).attribute(torch.randn(2, 8))
    assert seen and not any(any(modes) or any(weights) for modes, weights in seen)


def test_batch_norm_uses_what_it_has_learnt_and_learns_nothing():
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    model[0].running_var.fill_(4.0)
    found = pnpx.Gradient(model.train()).attribute(torch.randn(5, 3), 1)
    torch.testing.assert_close(found, (model[1].weight[1] / (4 + 1e-5) ** 0.5).expand(5, 3))
    assert model.training and bool((model[0].running_var == 4).all()) and model[0].num_batches_tracked == 0


def test_an_overridden_eval_or_train_is_not_called():
    class Merging(nn.Linear):
        def eval(self):
            raise AssertionError("merged weights")

        def train(self, mode=True):
            raise AssertionError("unmerged weights")

    model = nn.Sequential(Merging(3, 2))
    found = pnpx.SmoothGrad(model).attribute(torch.ones(1, 3), 0)
    torch.testing.assert_close(found, model[0].weight[:1])
    assert model[0].training


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_whatever_the_gradient_mode_around_the_call(context):
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(2, 3)
    expected = pnpx.SmoothGrad(model, layer="0").attribute(x, 0)
    with context():
        found = pnpx.SmoothGrad(model, layer="0").attribute(x, 0)
        outer = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    assert torch.equal(found, expected) and not found.requires_grad and not found.is_inference()
    with context():
        assert (torch.is_inference_mode_enabled(), torch.is_grad_enabled()) == outer


def test_a_model_made_in_inference_mode_is_refused_and_left_alone():
    with torch.inference_mode():
        model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    before = [module.training for module in model.modules()]
    message = (
        "the model's '0.weight' was made under torch.inference_mode, and no gradient can be taken through it; build or "
        "load the model outside of it"
    )
    with raises(RuntimeError, message):
        pnpx.Gradient(model).attribute(torch.ones(2, 3), 1)
    assert [module.training for module in model.modules()] == before


def test_a_buffer_on_the_way_can_be_changed_in_place_and_comes_back():
    class Cache(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, x):
            self.seen.add_(x.detach().sum(0))
            return x * 2

    model = Cache()
    alias = model.seen
    pnpx.SmoothGrad(model).attribute(torch.ones(2, 3), 0)
    assert not model.seen.any() and model.seen is alias


def test_nested_holders_restore_once_the_last_has_left():
    model = Net()
    before = fingerprint(model)
    with left_as_found(model):
        with left_as_found(model):
            assert not any(module.training for module in model.modules())
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        model.calls += 5
    assert fingerprint(model) == before


def test_threads_that_come_and_go_restore_what_the_first_found():
    model = Net()
    before = fingerprint(model)
    entered, leave = threading.Event(), threading.Event()
    states = []

    def first():
        with left_as_found(model):
            entered.set()
            leave.wait(10)
            states.append(any(module.training for module in model.modules()))

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(10)
    with left_as_found(model):
        leave.set()
        thread.join(10)
        assert not any(module.training for module in model.modules()), "the first left, the second is still here"
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert states == [False]
    assert fingerprint(model) == before


class Words(nn.Module):
    """Looks words up in tables whose rows a forward pass rescales, one of them tied to the head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(7, 4, max_norm=0.5)
        self.bag = nn.EmbeddingBag(7, 4, max_norm=1.0, mode="sum")
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids):
        return self.head((self.words(ids).mean(1) + self.bag(ids)).tanh())


@pytest.mark.parametrize("explainer", [
    lambda model: pnpx.SquareGrad(model, layer="words", n_iter=3),
    lambda model: pnpx.FeatureAblation(model),
], ids=["SquareGrad", "FeatureAblation"])
def test_tables_that_a_forward_pass_rescales(explainer):
    model, ids = Words(), torch.tensor([[1, 2, 2], [3, 0, 1]])
    weights = model.state_dict(keep_vars=True)
    before = {name: (value, value.data_ptr(), value.clone()) for name, value in weights.items()}
    found = explainer(model).attribute(ids, 1)
    for name, value in model.state_dict(keep_vars=True).items():
        same, address, copy = before[name]
        assert value is same and value.data_ptr() == address and torch.equal(value, copy), name
    assert torch.equal(explainer(model).attribute(ids, 1), found)
    with pytest.raises(IndexError):
        explainer(model).attribute(torch.tensor([[1, 9]]), 1)
    assert all(torch.equal(value, before[name][2]) for name, value in model.state_dict().items())


def test_tables_in_two_threads():
    model, ids = Words(), torch.tensor([[1, 2, 2], [3, 0, 1]])
    before = model.words.weight.detach().clone()
    with left_as_found(model):
        model(ids)
        rescaled = model.words.weight.detach().clone()
        with left_as_found(model):
            model(ids)
        assert torch.equal(model.words.weight, rescaled) and not torch.equal(rescaled, before)
    assert torch.equal(model.words.weight, before)


class MakesABuffer(nn.Module):
    def __init__(self, known):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        if known:
            self.register_buffer("position", None)

    def forward(self, x):
        if getattr(self, "position", None) is None:
            self.register_buffer("position", torch.zeros(len(x), 1), persistent=False)
        return self.linear(x) + self.position[: len(x)]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_buffers_that_a_pass_makes_do_not_stay(known, training):
    model = MakesABuffer(known).train(training)
    pnpx.SmoothGrad(model, n_iter=4).attribute(torch.randn(2, 3), 0)
    assert dict(model.named_buffers()) == {} and model._non_persistent_buffers_set == set()
    assert ("position" in model._buffers) is known and model.training is training


class Remembers(nn.Module):
    """A recurrent net that goes on from where the last call ended: its state is a plain attribute, or a buffer."""

    def __init__(self, kind):
        super().__init__()
        self.cell, self.head = nn.GRU(4, 6, batch_first=True), nn.Linear(6, 3)
        if kind == "buffer":
            self.register_buffer("state", None)
        elif kind == "attribute":
            self.state = None
        self.calls = 0

    def forward(self, x):
        state = getattr(self, "state", None)
        outputs, state = self.cell(x, state if state is None else state[0])
        self.calls += 1
        self.state = state[None]
        return self.head(outputs[:, -1])


@pytest.mark.parametrize("explainer", [pnpx.SquareGrad, pnpx.VarGrad])
@pytest.mark.parametrize("layer", [None, "cell", "head:input"])
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("kind", ["attribute", "buffer", "made by the first call"])
def test_what_a_model_keeps_between_calls_is_for_each_pass_what_was_found(kind, used, layer, explainer):
    torch.manual_seed(0)
    model, x = Remembers(kind).double(), torch.randn(3, 5, 4, dtype=torch.float64)
    if used:
        model(x)
    before = getattr(model, "state", "none")
    sizes = (3, 7, 32) if used else (1, 2, 3, 7, 32)  # a state from before is of three samples
    results = [explainer(model, layer=layer, n_iter=4, batch_size=size).attribute(x, 1) for size in sizes]
    for found in results[1:]:
        torch.testing.assert_close(found, results[0])
    assert getattr(model, "state", "none") is before and model.calls == used
    if layer is None:
        state = before[0] if used else None
        calm = explainer(model, noise_std=0.0, n_iter=2).attribute(x, 1)
        inputs = x.clone().requires_grad_()
        model.head(model.cell(inputs, state)[0][:, -1])[:, 1].sum().backward()
        torch.testing.assert_close(calm, inputs.grad.square() if explainer is pnpx.SquareGrad else 0 * inputs.grad)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_each_piece_of_a_batch_starts_from_what_was_found(size):
    torch.manual_seed(0)
    model, x = Remembers("attribute").double(), torch.randn(5, 4, 4, dtype=torch.float64)
    inputs = x.clone().requires_grad_()
    expected = model.head(model.cell(inputs)[0][:, -1])
    expected[:, 1].sum().backward()
    found = pnpx.Gradient(model, batch_size=size).explain(x, 1)
    torch.testing.assert_close(found.attributions, inputs.grad.float(), check_dtype=False)
    torch.testing.assert_close(found.output, expected.detach(), check_dtype=False)
    # Explained one after the other, as one is computed from the other.
    apart = [pnpx.SmoothGrad(model, layer=layer, n_iter=3).attribute(x, 1) for layer in ("cell:input", "head:input")]
    both = pnpx.SmoothGrad(model, layer=["cell:input", "head:input"], n_iter=3, batch_size=size).attribute(x, 1)
    torch.testing.assert_close(both, tuple(apart))
    for layer in (None, "cell:input"):
        wrapped = pnpx.SmoothGrad(nn.DataParallel(model), layer=layer, n_iter=3, batch_size=size).attribute(x, 1)
        torch.testing.assert_close(wrapped, apart[0])
    assert model.state is None and model.calls == 0


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("memory", ["replaced", "attribute in place", "buffer in place"])
def test_threads_each_start_from_what_was_found(memory, threads):
    class Drifts(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
            self.steps, kept = 0, torch.ones(6, dtype=torch.float64)
            if memory == "buffer in place":
                self.register_buffer("kept", kept)
            else:
                self.kept = kept

        def forward(self, x):
            self.steps += 1
            hidden = torch.tanh(self.linear(x) + self.steps)
            if memory == "replaced":
                self.kept = self.kept * 0.5
            else:
                self.kept.mul_(0.5)
            return self.head(hidden * self.kept)  # autograd keeps it until the backward pass

    torch.manual_seed(0)
    model, x = Drifts().double(), torch.randn(4, 4, dtype=torch.float64)
    inputs, alone = x.clone().requires_grad_(), copy.deepcopy(model)
    alone(inputs)[:, 1].sum().backward()
    kept = id(model.kept)  # what something else holds is not replaced, see below

    def explain(layer):
        return [
            pnpx.Gradient(model, layer=layer, batch_size=3).attribute(x, 1),
            pnpx.SmoothGrad(model, layer=layer, noise_std=0.0, n_iter=7, batch_size=4).attribute(x, 1),
        ]

    # One look at the model for all: a graph that another thread is about to let go would count as a second holder.
    with explaining(model), ThreadPoolExecutor(threads) as pool:
        for job in [pool.submit(explain, layer) for layer in (None, "linear:input", "x") * threads]:
            for found in job.result():
                torch.testing.assert_close(found, inputs.grad.float(), check_dtype=False)
    assert id(model.kept) == kept and model.kept.tolist() == [1.0] * 6 and model.steps == 0


@pytest.mark.parametrize("shared", ["tied", "a view", "in a list", "by position"])
def test_a_memory_with_two_names_is_one_for_each_pass(shared):
    class Writes(nn.Module):
        """Writes to its memory in place, at a position that it counts, and reads it where a part has it."""

        def __init__(self):
            super().__init__()
            memory = torch.zeros(40, dtype=torch.float64)
            self.position, self.head = 0, nn.Linear(4, 3)
            self.reads, self.held = nn.Module(), [memory] if shared == "in a list" else []
            if shared != "by position":
                self.register_buffer("memory", memory)
            if shared != "in a list":
                self.reads.register_buffer("memory", memory[:] if shared == "a view" else memory)

        def forward(self, x):
            read = self.held[0] if shared == "in a list" else self.reads.memory
            with torch.no_grad():
                (read if shared == "by position" else self.memory)[self.position] = x.detach().square().mean()
            y = x * read[: self.position + 1].sum()
            self.position += shared == "by position"
            return self.head(y)

    torch.manual_seed(0)
    model, x = Writes().double(), torch.randn(3, 4, dtype=torch.float64)
    expected = model.head.weight[1] * x.square().mean(1, keepdim=True)
    found = pnpx.Gradient(model, batch_size=1).attribute(x, 1)
    torch.testing.assert_close(found, expected.detach().float(), check_dtype=False)
    calm = pnpx.SmoothGrad(model, noise_std=0.0, n_iter=4, batch_size=1).attribute(x, 1)
    torch.testing.assert_close(calm, expected.detach().float(), check_dtype=False)
    assert all(memory.tolist() == [0.0] * 40 for memory in model.buffers()) and model.position == 0


def test_what_is_found_is_whole_while_other_threads_wrap_modules():
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(30)))
    done = threading.Event()

    def wrap():
        while not done.is_set():
            for module in model:
                module.__dict__["forward"] = module.forward
            for module in model:
                del module.__dict__["forward"]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    other = threading.Thread(target=wrap)
    other.start()
    try:
        for _ in range(100):
            found = Found(model)
            for home, (start, stop) in zip(found._homes, pairwise(found._starts), strict=True):
                pairs = dict(zip(found._names[start:stop], found._values[start:stop], strict=True))
                pairs.pop("forward", None)
                assert all(home[name] is value for name, value in pairs.items())
            assert found.changed() == []
    finally:
        done.set()
        other.join()
        sys.setswitchinterval(interval)


def test_a_lazy_model_is_to_run_first():
    model = nn.Sequential(nn.LazyLinear(3), nn.ReLU())
    for lazy, name in (model, "0.weight"), (nn.Sequential(nn.LazyBatchNorm1d(affine=False)), "0.running_mean"):
        remedy = "run the model once, on any batch, to make it"
        with raises(RuntimeError, f"the model's {name!r} has no shape yet; {remedy}"):
            pnpx.Gradient(lazy).attribute(torch.ones(2, 4), 0)
    with torch.no_grad():
        model(torch.ones(2, 4))
    assert pnpx.Gradient(model).attribute(torch.ones(2, 4), 0).shape == (2, 4)


def test_two_models_with_parts_in_common_are_explained_by_threads():
    backbone = nn.Sequential(*(nn.Linear(4, 4) for _ in range(20)))
    for number, layer in enumerate(backbone):
        layer.table = torch.full((2,), float(number))
    models = [nn.Sequential(backbone, nn.Linear(4, 2)) for _ in range(2)]
    before = [dict(module.__dict__) for model in models for module in model.modules()]

    def explain(model):
        for _ in range(40):
            pnpx.Gradient(model, layer="0.3").attribute(torch.ones(2, 4), 0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for job in [pool.submit(explain, model) for model in models * 2]:
                job.result()
    finally:
        sys.setswitchinterval(interval)
    after = [module.__dict__ for model in models for module in model.modules()]
    for one, other in zip(after, before, strict=True):
        assert one.keys() == other.keys() and all(one[name] is other[name] for name in one)


class Streams(nn.Module):
    """Goes on where the last call ended: its memory is changed in place, or grows beside a counter of steps."""

    def __init__(self, in_place):
        super().__init__()
        self.linear, self.in_place = nn.Linear(4, 3), in_place
        self.step, self.memory = 1, torch.ones(4, dtype=torch.float64) if in_place else None

    def forward(self, x):
        if self.in_place:
            self.memory.mul_(0.5).add_(x.detach().mean(0))
        else:
            now = x.detach().mean(0, keepdim=True) * self.step
            self.memory = now if self.memory is None else torch.cat([self.memory, now])
            self.step += 1
        return self.linear(x * self.memory.sum(0)) ** 2


@pytest.mark.parametrize("in_place", [False, True])
def test_memories_changed_in_place_or_with_a_counter_are_what_was_found(in_place):
    torch.manual_seed(0)
    model, x = Streams(in_place).double(), torch.randn(3, 4, dtype=torch.float64)
    fresh = copy.deepcopy(model)
    inputs = x.clone().requires_grad_()
    fresh(inputs)[:, 1].sum().backward()
    memory = model.memory
    for _ in range(2):
        torch.testing.assert_close(pnpx.Gradient(model).attribute(x, 1), inputs.grad)
        torch.testing.assert_close(pnpx.SmoothGrad(model, noise_std=0.0, n_iter=5).attribute(x, 1), inputs.grad)
    assert model.memory is memory and model.step == 1
    assert not in_place or torch.equal(memory, torch.ones(4, dtype=torch.float64))


def test_a_table_made_by_the_first_call_is_not_taken_from_other_threads():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.table = nn.ModuleList(nn.Linear(4, 4) for _ in range(4)), None

        def forward(self, x):
            if self.table is None:
                self.table = torch.linspace(0, 1, 4)
            for layer in self.layers:
                x = torch.tanh(layer(x)) + self.table[None]
            return x

    torch.manual_seed(0)
    x = torch.randn(2, 4)
    for _ in range(4):
        model = Table()
        expected = pnpx.SmoothGrad(model, n_iter=20, batch_size=2).attribute(x, 1)
        assert model.table is None
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(pnpx.SmoothGrad(model, n_iter=20, batch_size=2).attribute, x, 1) for _ in range(8)]
            for job in jobs:
                torch.testing.assert_close(job.result(), expected)
        assert model.table is None


def test_what_a_model_keeps_is_put_back_after_an_exception():
    class Fails(nn.Module):
        def forward(self, x):
            self.seen = x
            raise KeyError("half-way")

    model = Fails()
    with pytest.raises(KeyError):
        pnpx.Gradient(model).attribute(torch.ones(2, 2), 0)
    assert "seen" not in model.__dict__


def test_buffers_written_past_autograd_are_restored_in_their_own_memory():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4)
            self.register_buffer("count", torch.zeros(2))

        def forward(self, x):
            self.count.data += 1
            return self.linear(x)

    model = Counts()
    first = model.count[:1]
    pnpx.SmoothGrad(model, n_iter=4).attribute(torch.randn(2, 3), 0)
    assert model.count.tolist() == [0, 0] and first.tolist() == [0]
    model.count.add_(1)
    assert first.tolist() == [1]  # still the same memory


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="compiled code has no stance before PyTorch 2.6")
def test_two_threads_leave_compiling_on():
    import torch._dynamo

    before = torch._dynamo.eval_frame._stance.stance
    barrier = threading.Barrier(2, timeout=20)

    def explain(late):
        with uncompiled():
            barrier.wait()
            if late:
                time.sleep(0.2)

    threads = [threading.Thread(target=explain, args=(late,)) for late in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch._dynamo.eval_frame._stance.stance == before
