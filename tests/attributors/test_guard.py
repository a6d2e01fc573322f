"""The model is left as it was found, whatever happens in between."""

import threading
import time

import pytest
import torch
from torch import nn

import pnpx
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


def test_a_lazy_model_is_to_run_first():
    model = nn.Sequential(nn.LazyLinear(3), nn.ReLU())
    for lazy, name in (model, "0.weight"), (nn.Sequential(nn.LazyBatchNorm1d(affine=False)), "0.running_mean"):
        remedy = "run the model once, on any batch, to make it"
        with raises(RuntimeError, f"the model's {name!r} has no shape yet; {remedy}"):
            pnpx.Gradient(lazy).attribute(torch.ones(2, 4), 0)
    with torch.no_grad():
        model(torch.ones(2, 4))
    assert pnpx.Gradient(model).attribute(torch.ones(2, 4), 0).shape == (2, 4)


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
