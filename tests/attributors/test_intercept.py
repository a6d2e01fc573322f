"""Interception is seen by its own thread alone, and gone afterwards."""

import threading

import pytest
import torch
from torch import nn

import pnpx
from pnpx.attributors.attributes import explaining
from pnpx.attributors.intercept import intercepting, wrapped


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3)).double()


class Log:
    def __init__(self):
        self.seen = []

    def __call__(self, module, run, args, kwargs):
        self.seen.append((type(module).__name__, len(args), sorted(kwargs)))
        return run(*args, **kwargs)


def test_calls_are_seen_in_order_and_by_direct_forward_too(model):
    class Direct(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Bilinear(2, 2, 2)

        def forward(self, x):
            return self.inner.forward(x, input2=x)

    net, log = Direct(), Log()
    with wrapped(net.modules()) as modules, intercepting(log, modules):
        net(torch.ones(1, 2))
    assert log.seen == [("Direct", 1, []), ("Bilinear", 1, ["input2"])]
    assert not any("forward" in module.__dict__ for module in net.modules())


def test_without_an_interceptor_a_wrapped_module_runs_as_ever(model):
    x = torch.randn(2, 4, dtype=torch.float64)
    expected = model(x)
    with wrapped(model.modules()):
        assert torch.equal(model(x), expected)


def test_only_the_innermost_interceptor_and_only_its_modules(model):
    outer, inner = Log(), Log()
    with wrapped(model.modules()) as everything, wrapped([model[0]]) as one, intercepting(outer, everything):
        with intercepting(inner, one):
            model(torch.ones(1, 4, dtype=torch.float64))
        assert [name for name, *_ in inner.seen] == ["Linear"] and outer.seen == []
        model(torch.ones(1, 4, dtype=torch.float64))
        assert len(outer.seen) == 6
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_unwrapped_after_an_exception(model):
    with pytest.raises(KeyError), wrapped(model.modules()) as modules, intercepting(Log(), modules):
        raise KeyError
    log = Log()
    assert not any("forward" in module.__dict__ for module in model.modules())
    with wrapped(model.modules()) as modules, intercepting(log, modules):
        model(torch.ones(1, 4, dtype=torch.float64))
    assert len(log.seen) == 6


def test_wrapping_keeps_the_signature(model):
    import inspect

    before = inspect.signature(model[0].forward)
    with wrapped(model.modules()):
        assert inspect.signature(model[0].forward) == before


@pytest.mark.parametrize("layer", ["0", "1:input"])
def test_an_instance_may_carry_a_forward_of_its_own(model, layer):
    own = model[2].forward

    def twice(x):
        return 2 * own(x)

    model[2].forward = twice
    x = torch.randn(3, 4, dtype=torch.float64)
    found = pnpx.SmoothGrad(model, layer=layer, noise_std=0.0, n_iter=3).attribute(x, 1)
    at = model[0](x).detach().requires_grad_()
    (expected,) = torch.autograd.grad(model[1:](at)[:, 1].sum(), at)
    torch.testing.assert_close(found, expected)
    assert model[2].__dict__["forward"] is twice


def test_hooks_of_the_user_still_run(model):
    seen = []
    handle = model[1].register_forward_hook(lambda module, args, output: seen.append(output.shape) or output * 2)
    x = torch.randn(3, 4, dtype=torch.float64)
    found = pnpx.Gradient(model).attribute(x, 0)
    handle.remove()
    assert seen == [torch.Size([3, 6])]
    at = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model[2:](2 * model[1](model[0](at)))[:, 0].sum(), at)
    torch.testing.assert_close(found, expected)


class Meeting(nn.Module):
    """Lets the forward passes of two threads go on only together, so that they really overlap."""

    def __init__(self, barrier):
        super().__init__()
        self.barrier, self.met = barrier, []

    def forward(self, x):
        if self.barrier is not None:
            try:
                self.barrier.wait(5)
                self.met.append(x)
            except threading.BrokenBarrierError:
                pass  # the other thread is through
        return x * 1.0


@pytest.mark.parametrize("layers", [("0", "3"), (None, "2"), ("1:input", "1:output"), ("2", "2"), (None, None)])
def test_two_threads_with_different_layers_at_once(layers):
    torch.manual_seed(0)
    meeting = Meeting(None)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Sigmoid(), meeting, nn.Linear(5, 3)).double()
    model.train()
    x = torch.randn(3, 4, dtype=torch.float64)
    explainers = [pnpx.SmoothGrad(model, layer=layer, n_iter=6, batch_size=6, seed=seed)
                  for seed, layer in enumerate(layers)]
    together, errors = [None, None], []

    def explain(index):
        try:
            together[index] = explainers[index].attribute(x, 1)
        except BaseException as error:
            errors.append(error)
        finally:
            meeting.barrier.abort()

    # No passes overlap before it is known whether one leaves something to the next: it is, once explained alone.
    with explaining(model):
        alone = [explainer.attribute(x, 1) for explainer in explainers]
        meeting.barrier = threading.Barrier(2)
        threads = [threading.Thread(target=explain, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    meeting.barrier = None
    assert not errors and len(meeting.met) >= 4, "they did overlap"
    for found, expected in zip(together, alone, strict=True):
        assert torch.equal(found, expected)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_a_thread_that_only_predicts_is_not_disturbed():
    """While one thread explains with a replay, another runs the same wrapped model."""
    torch.manual_seed(0)
    meeting = Meeting(None)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), meeting, nn.Linear(6, 3)).double().eval()
    x = torch.randn(3, 4, dtype=torch.float64)
    expected, outputs = model(x).detach(), []
    meeting.barrier = threading.Barrier(2)

    def predict():
        with torch.no_grad():
            for _ in range(3):
                outputs.append(model(x))
        meeting.barrier.abort()

    thread = threading.Thread(target=predict)
    thread.start()
    found = pnpx.SmoothGrad(model, layer="1", noise_std=0.0, n_iter=6, batch_size=3).attribute(x, 0)
    thread.join(60)
    meeting.barrier = None
    assert len(outputs) == 3 and all(torch.equal(output, expected) for output in outputs)
    torch.testing.assert_close(found, model[3].weight[0].expand(3, 6))
