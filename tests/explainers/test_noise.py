"""Statistics of gradients under noise, against closed forms, and against captum fed with the very same noise."""

from dataclasses import replace

import captum.attr
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import pnpx
from pnpx import SmoothGrad, SquareGrad, VarGrad
from pnpx.sampling import SAMPLERS
from tests.errors import raises
from tests.explainers.probes import Quadratic, Spy

A = 3.0
STATISTICS = {
    SmoothGrad: lambda g: g.mean(0),
    SquareGrad: lambda g: g.square().mean(0),
    VarGrad: lambda g: g.var(0),
}
KINDS = list(STATISTICS)
of_each = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def normal(shape, count, sampler="independent", seed=0):
    sample = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
    return torch.stack(list(sample(shape, count, torch.Generator().manual_seed(seed))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 5), nn.GELU(), nn.Linear(5, 3)).double()


X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def gradients(function, points):
    """By hand: the gradient of the sum of ``function`` at each of ``points``."""
    found = []
    for point in points:
        point = point.detach().clone().requires_grad_()
        found.append(torch.autograd.grad(function(point).sum(), point)[0])
    return torch.stack(found)


# Closed forms


@of_each
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("layer", [None, "1:input"])
def test_quadratic(kind, sampler, layer):
    """SmoothGrad is a x, SquareGrad (a x)^2 + v, VarGrad v = (a level range)^2, each up to the error of its mean."""
    x = torch.tensor([[0.0, 1.0, 2.0, 5.0], [1.0, 1.0, -1.0, 0.0]], dtype=torch.float64)
    v = (A * 0.1 * torch.tensor([[5.0], [2.0]])).square().expand(2, 4)
    n = 800
    model = nn.Sequential(nn.Identity(), Quadratic(A))
    found = kind(model, layer=layer, noise_level=0.1, n_iter=n, sampler=sampler, batch_size=1000).attribute(x)
    truth, deviation = {
        SmoothGrad: (A * x, (v / n).sqrt()),
        SquareGrad: ((A * x).square() + v, ((2 * v.square() + 4 * v * (A * x).square()) / n * 2).sqrt()),
        VarGrad: (v, (2 * v.square() / n * 2).sqrt()),
    }[kind]
    assert ((found - truth).abs() < 4.5 * deviation).all()
    if kind is SmoothGrad and sampler in ("antithetic", "orthogonal"):
        torch.testing.assert_close(found, truth)  # mirrored noise cancels
    if kind is SmoothGrad and sampler in ("latin", "orthogonal_latin"):
        assert ((found - truth).abs() < deviation).all()  # nearly


@pytest.mark.parametrize("n", [2, 3, 10])
def test_vargrad_is_unbiased(n):
    """The mean over many seeds of the variance from few samples is the variance; the biased one is less."""
    x = torch.zeros(1, 400)
    found = torch.stack([VarGrad(Quadratic(A), n_iter=n, noise_std=0.5, seed=seed).attribute(x) for seed in range(25)])
    v = (A * 0.5) ** 2
    assert abs(found.mean() - v) < 4.5 * v * (2 / (n - 1) / found.numel()) ** 0.5


@pytest.mark.parametrize("layer", [None, "0", "1:input"])
@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_vargrad_of_a_linear_model_is_exactly_zero(layer, batch_size):
    """Weights of about 1000 in float32: captum's formula gives -0.0156 to 0.03 here, and NaN under a root."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e3)
    found = VarGrad(model[1] if layer is None else model, layer=layer, batch_size=batch_size).attribute(
        torch.randn(4, 30 if layer is None else 20), 2)
    assert not found.any()


@of_each
def test_no_noise_is_the_gradient(kind, net):
    found = kind(net, noise_level=0.0).attribute(X, 1)
    plain = pnpx.Gradient(net).attribute(X, 1)
    torch.testing.assert_close(found, {SmoothGrad: plain, SquareGrad: plain.square(), VarGrad: 0 * plain}[kind])


# The same noise by hand


@of_each
@pytest.mark.parametrize("layer", [None, "0", "2:input", "3"])
@pytest.mark.parametrize("sampler, n_iter, batch_size", [
    ("independent", 7, 6), ("antithetic", 8, 32), ("orthogonal", 5, 1), ("latin", 6, 4), ("orthogonal_latin", 7, 6),
    ("independent", 2, 3)])
def test_by_hand_at_any_place(kind, net, layer, sampler, n_iter, batch_size):
    first = {None: 0, "0": 1, "2:input": 2, "3": 4}[layer]
    at = net[:first](X).detach()
    noise = normal(at.shape[1:], n_iter, sampler, seed=5)
    span = (at.amax(1) - at.amin(1))[:, None]
    points = [at + 0.3 * span * one.double() for one in noise]
    expected = STATISTICS[kind](gradients(lambda value: net[first:](value)[:, 2], points))
    explainer = kind(net, layer=layer, n_iter=n_iter, noise_level=0.3, sampler=sampler, seed=5, batch_size=batch_size)
    torch.testing.assert_close(explainer.attribute(X, 2), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("width, n_iter, sampler", [
    (64, 16, "orthogonal_latin"), (65, 16, "latin"), (3, 15, "latin"), (3, 16, "orthogonal_latin")])
@pytest.mark.parametrize("kind", [SmoothGrad, SquareGrad, VarGrad])
def test_samplers_by_default(kind, width, n_iter, sampler):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(width, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(3, width)
    found = {name: kind(net, n_iter=n_iter, sampler=name).attribute(x, 0) for name in (None, *SAMPLERS)}
    expected = "independent" if kind is VarGrad else sampler
    assert [name for name in SAMPLERS if torch.equal(found[name], found[None])] == [expected]


as_captum = pytest.mark.parametrize("kind, nt_type", [
    (SmoothGrad, "smoothgrad"), (SquareGrad, "smoothgrad_sq"), (VarGrad, "vargrad")])


@as_captum
@pytest.mark.parametrize("n", [4, 9])
def test_captum_fed_with_the_same_noise(kind, nt_type, n, net, monkeypatch):
    """captum draws for each sample on its own, and divides the variance by n, not n - 1."""
    noise = 0.25 * normal((4,), n).double()

    def same(mean, std):
        assert mean == 0 and std.shape == (3 * n, 4)
        return noise.repeat(3, 1)  # captum puts the copies of one sample side by side

    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(net))
    monkeypatch.setattr(torch, "normal", same)
    expected = tunnel.attribute(X, nt_type=nt_type, nt_samples=n, stdevs=0.25, target=1, abs=False)
    monkeypatch.undo()
    if kind is VarGrad:
        expected = expected * n / (n - 1)
    found = kind(net, n_iter=n, noise_std=0.25, sampler="independent").attribute(X, 1)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-9, atol=1e-12)


@as_captum
def test_captum_on_a_convolution(kind, nt_type, monkeypatch):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(3 * 9, 4)).double()
    x, n = torch.randn(2, 2, 5, 5, dtype=torch.float64), 6
    noise = 0.4 * normal((2, 5, 5), n).double()
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(model))
    monkeypatch.setattr(torch, "normal", lambda *_: noise.repeat(2, 1, 1, 1))
    expected = tunnel.attribute(x, nt_type=nt_type, nt_samples=n, stdevs=0.4, target=3, abs=False).detach()
    monkeypatch.undo()
    expected = expected * n / (n - 1) if kind is VarGrad else expected
    found = kind(model, n_iter=n, noise_std=0.4, sampler="independent", batch_size=5).attribute(x, 3)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_zennit_smoothgrad_has_the_same_noise_level(monkeypatch):
    """zennit takes the same fraction of each sample's range; its last draw is free of noise, which ours is not."""
    import zennit.attribution

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    n = 5
    noise = normal((4,), n)
    supply = iter(noise[:-1])
    monkeypatch.setattr(torch, "randn_like", lambda like: next(supply).double().expand_as(like))
    attributor = zennit.attribution.SmoothGrad(model, noise_level=0.2, n_iter=n)
    _, theirs = attributor(X, torch.eye(3, dtype=torch.float64)[[1, 1, 1]])
    monkeypatch.undo()
    ours = SmoothGrad(model, noise_level=0.2, n_iter=n - 1, sampler="independent").attribute(X, 1)
    clean = pnpx.Gradient(model).attribute(X, 1)
    torch.testing.assert_close(theirs, (ours * (n - 1) + clean) / n)


# What reaches the model


def test_every_draw_reaches_the_model_once_in_order_and_none_is_free_of_noise():
    spy = Spy()
    x = torch.tensor([[0.0, 10.0, 4.0], [1.0, 1.0, 3.0]])
    VarGrad(nn.Sequential(spy, Quadratic(A)), n_iter=5, noise_level=0.1, batch_size=32).attribute(x)
    expected = x + 0.1 * torch.tensor([[10.0], [2.0]]) * normal((3,), 5)[:, None]
    chunk = next(seen for seen in spy.seen if len(seen) == 10)
    torch.testing.assert_close(chunk, expected.flatten(0, 1))
    noisy = [row for row in spy.rows if not torch.isclose(row, x).all(1).any()]
    # Beside them only what stands far from them, where it is checked that copies may share a pass.
    assert len(torch.unique(torch.stack(noisy), dim=0)) == 10 + 2


@pytest.mark.parametrize("n_iter, batch_size, sizes", [(10, 4, {2, 4}), (7, 4, {2, 4}), (3, 1, {1}), (4, 2, {2})])
def test_at_most_so_many_rows_in_a_pass(n_iter, batch_size, sizes):
    spy = Spy()
    SmoothGrad(nn.Sequential(spy, Quadratic(A)), n_iter=n_iter, batch_size=batch_size).attribute(X[:2])
    assert {len(seen) for seen in spy.seen} == sizes


def test_a_level_may_be_any_number():
    found = SmoothGrad(nn.Linear(2, 3).double(), noise_level=10**77).attribute(torch.arange(2.0)[None].double(), 1)
    assert bool(torch.isfinite(found).all())
    assert SmoothGrad(nn.Linear(2, 3), noise_std=10**20).attribute(torch.ones(1, 2), 1).shape == (1, 2)


def test_noise_std_is_absolute_and_noise_level_relative_to_each_sample():
    for level, scale in (({"noise_std": 0.7}, torch.tensor([[0.7], [0.7]])),
                         ({"noise_level": 0.5}, torch.tensor([[2.0], [0.5]])),
                         ({"noise_std": 0.0, "noise_level": 0.5}, torch.zeros(2, 1))):
        spy = Spy()
        x = torch.tensor([[1.0, -3.0], [2.0, 3.0]])
        VarGrad(nn.Sequential(spy, Quadratic(A)), n_iter=2, **level).attribute(x)
        torch.testing.assert_close(spy.seen[-1 if len(spy.seen[-1]) == 4 else 0][-4:] if spy.seen[-1].shape[0] == 4 else
                                   next(s for s in spy.seen if len(s) == 4),
                                   (x + scale * normal((2,), 2)[:, None]).flatten(0, 1))


def test_the_range_is_over_all_of_a_sample():
    """Over channels and pixels together, and of each sample by itself."""
    x = torch.stack([torch.tensor([[[0.0, 1.0]], [[-3.0, 2.0]]]), torch.zeros(2, 1, 2)])
    spy = Spy()
    VarGrad(nn.Sequential(spy, Quadratic(A)), n_iter=2, noise_level=1.0).attribute(x)
    chunk = next(seen for seen in spy.seen if len(seen) == 4)
    noise = normal((2, 1, 2), 2)
    torch.testing.assert_close(chunk[0], x[0] + 5 * noise[0])
    torch.testing.assert_close(chunk[2], x[0] + 5 * noise[1])
    assert not chunk[1].any() and not chunk[3].any()  # a constant sample has no range


@of_each
@pytest.mark.parametrize("shape", [(3,), (3, 1)], ids=str)
def test_one_number_a_sample(kind, shape):
    class Cube(nn.Module):
        def forward(self, x):
            return x**3

    x = torch.tensor([1.0, 2.0, -1.0]).reshape(shape)
    noise = 0.1 * normal(shape[1:], 5, kind.default_sampler)
    expected = STATISTICS[kind](torch.stack([3 * (x + one).square() for one in noise]))
    torch.testing.assert_close(kind(Cube(), n_iter=5, noise_std=0.1).attribute(x), expected)
    torch.testing.assert_close(  # the range of a single number is 0
        SmoothGrad(Cube()).attribute(x), 3 * x.square())


# One noise for the batch


@of_each
@pytest.mark.parametrize("layer, targets", [(None, [0, 2, 1]), (["0", "1"], None)], ids=str)
def test_a_sample_alone_and_in_a_batch_and_any_batch_size(kind, net, layer, targets):
    def leaves(value):
        return value if isinstance(value, tuple) else (value,)

    explainer = kind(net, layer=layer, n_iter=5)
    whole = leaves(explainer.attribute(X, targets))
    for batch_size in (1, 2, 4, 7, 100):
        for found, expected in zip(leaves(replace(explainer, batch_size=batch_size).attribute(X, targets)), whole,
                                   strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
    for row in range(3):
        alone = leaves(explainer.attribute(X[row : row + 1], None if targets is None else targets[row]))
        for found, expected in zip(alone, whole, strict=True):
            torch.testing.assert_close(found, expected[row : row + 1], rtol=1e-10, atol=1e-13)


@of_each
def test_the_first_layers_input_is_the_models_input(kind, net):
    assert torch.equal(kind(net, layer="0:input").attribute(X, 0), kind(net).attribute(X, 0))


@of_each
def test_seeds(kind, net):
    one = kind(net, seed=1).attribute(X, 0)
    assert torch.equal(kind(net, seed=1).attribute(X, 0), one)
    assert not torch.equal(kind(net, seed=2).attribute(X, 0), one)
    torch.manual_seed(5)
    assert torch.equal(kind(net, seed=1).attribute(X, 0), one)


@of_each
def test_noise_of_several_inputs_is_each_its_own(kind):
    class Product(nn.Module):
        def forward(self, a, b):
            return (a * b).sum(1, keepdim=True).square()

    a, b = X, X.flip(0) + 1
    n = 4
    noises = [normal((4,), n, seed=seed).double() for seed in (3, 3 + 1_000_003)]
    assert not torch.equal(*noises)
    points = []
    for one, other in zip(*noises, strict=True):
        points.append([v + 0.1 * (v.amax(1) - v.amin(1))[:, None] * e for v, e in ((a, one), (b, other))])
    expected = [[], []]
    for left, right in points:
        left, right = left.clone().requires_grad_(), right.clone().requires_grad_()
        both = torch.autograd.grad(Product()(left, right).sum(), (left, right))
        for part, gradient in zip(expected, both, strict=True):
            part.append(gradient)
    found = kind(Product(), n_iter=n, seed=3, sampler="independent").attribute((a, b))
    for one, part in zip(found, expected, strict=True):
        torch.testing.assert_close(one, STATISTICS[kind](torch.stack(part)))


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head((self.left(x) * self.right(x)).tanh())


@of_each
def test_independent_places_are_moved_together(kind):
    torch.manual_seed(0)
    model, n = Branches().double(), 4
    at = [model.left(X).detach(), model.right(X).detach()]
    noises = [0.3 * normal((5,), n, seed=seed).double() for seed in (0, 1_000_003)]
    expected = [[], []]
    for one, other in zip(*noises, strict=True):
        points = [(at[0] + one).requires_grad_(), (at[1] + other).requires_grad_()]
        score = model.head((points[0] * points[1]).tanh())[:, 1].sum()
        for part, gradient in zip(expected, torch.autograd.grad(score, points), strict=True):
            part.append(gradient)
    found = kind(model, layer=["left", "right"], n_iter=n, noise_std=0.3, sampler="independent").attribute(X, 1)
    for one, part in zip(found, expected, strict=True):
        torch.testing.assert_close(one, STATISTICS[kind](torch.stack(part)))


@of_each
def test_places_computed_from_each_other_are_each_explained_by_itself(kind, net):
    layers = ["2", "0", "3:input"]
    found = kind(net, layer=layers, n_iter=3).attribute(X, 1)
    for one, layer in zip(found, layers, strict=True):
        torch.testing.assert_close(one, kind(net, layer=layer, n_iter=3).attribute(X, 1))


# The input's factor


@of_each
@pytest.mark.parametrize("factor", ["clean", "noisy", True])
@pytest.mark.parametrize("layer", [None, "0"])
@pytest.mark.parametrize("batch_size", [7, 32])
def test_input_x_gradient(kind, factor, layer, batch_size, net):
    at, rest = (X, net) if layer is None else (net[0](X).detach(), net[1:])
    noise = 0.2 * normal(at.shape[1:], 6, kind.default_sampler).double()
    points = [at + one for one in noise]
    products = gradients(lambda value: rest(value)[:, 0], points) * (torch.stack(points) if factor == "noisy" else at)
    found = kind(net, layer=layer, n_iter=6, noise_std=0.2, input_x_gradient=factor, batch_size=batch_size)
    torch.testing.assert_close(found.attribute(X, 0), STATISTICS[kind](products))


# Precision


@of_each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_precisions(kind, dtype, net):
    found = kind(net.to(dtype), n_iter=16, noise_std=0.5).attribute(X.to(dtype), 1)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = kind(net.double(), n_iter=16, noise_std=0.5).attribute(X, 1)
    scale = expected.abs().max()
    tolerance = {torch.bfloat16: 0.05, torch.float16: 0.01, torch.float32: 1e-4, torch.float64: 1e-9}[dtype]
    assert ((found - expected).abs().max() / scale) < tolerance


@of_each
def test_the_mean_of_narrow_gradients_is_not_narrow(kind):
    """In bfloat16 a running sum of 300 ones would end at 256."""
    model = nn.Linear(2, 1, bias=False).bfloat16()
    found = kind(model, n_iter=300, noise_std=1.0).attribute(torch.ones(1, 2).bfloat16())
    weight = model.weight.detach().float()
    truth = {SmoothGrad: weight, SquareGrad: weight.square(), VarGrad: 0 * weight}[kind]
    torch.testing.assert_close(found, truth, rtol=1e-5, atol=0)


# Sequences


def test_padding_takes_no_part():
    """Of packed sequences: the range is over the valid steps, and padding has no gradient."""

    class Squares(nn.Module):
        def forward(self, sequences):
            squares = sequences.data.square().sum(1)
            lengths = sequences.batch_sizes
            rows = torch.cat([torch.arange(int(size)) for size in lengths])
            sums = torch.zeros(int(lengths[0]), dtype=squares.dtype).index_add(0, rows, squares)
            return sums[sequences.unsorted_indices][:, None]

    sequences = [torch.tensor([[5.0], [6.0]]), torch.tensor([[1.0], [2.0], [4.0]])]
    packed = pack_sequence(sequences, enforce_sorted=False)
    # Each step has its own generator: the draws do not depend on the longest sequence beside one.
    noise = 0.1 * torch.stack([normal((1,), 4, seed=7_919 * step) for step in range(3)], 1)
    found = VarGrad(Squares(), n_iter=4).attribute(packed)
    assert found.shape == (2, 3, 1)
    torch.testing.assert_close(found[0, :2], (2 * noise[:, :2] * 1.0).var(0))  # 6 - 5, and not 6 - 0
    torch.testing.assert_close(found[1], (2 * noise * 3.0).var(0))
    assert not found[0, 2].any()


# Errors

BAD = [
    ({"n_iter": 0}, ValueError, "`n_iter >= 1` must hold, but got n_iter=0"),
    ({"n_iter": 2.0}, TypeError, "n_iter must be an int, but got 2.0"),
    ({"n_iter": True}, TypeError, "n_iter must be an int, but got True"),
    ({"seed": -1}, ValueError, "`seed >= 0` must hold, but got seed=-1"),
    ({"batch_size": 0}, ValueError, "`batch_size >= 1` must hold, but got batch_size=0"),
    ({"noise_level": -0.1}, ValueError, "`0 <= noise_level < inf` must hold, but got noise_level=-0.1"),
    ({"noise_level": float("nan")}, ValueError, "`0 <= noise_level < inf` must hold, but got noise_level=nan"),
    ({"noise_level": None}, TypeError, "noise_level must be a number, but got None"),
    ({"noise_std": float("inf")}, ValueError, "`0 <= noise_std < inf` must hold, but got noise_std=inf"),
    ({"noise_std": "0.1"}, TypeError, "noise_std must be a number, but got '0.1'"),
    ({"sampler": "orthogonl"}, ValueError, "no sampler 'orthogonl'; the nearest: 'orthogonal'"),
    ({"input_x_gradient": "both"}, ValueError,
     "input_x_gradient must be a bool, 'clean' or 'noisy', but is 'both'"),
    ({"reducer": "avg"}, ValueError, "reducer must be 'mean', 'sum', 'max', 'min' or None, but is 'avg'"),
]


@pytest.mark.parametrize("options, kind, message", BAD, ids=lambda value: str(value)[:30])
def test_impossible_parameters(options, kind, message):
    with raises(kind, message):
        SmoothGrad(nn.Identity(), **options)
    with raises(kind, message):
        replace(SmoothGrad(nn.Identity()), **options)


@of_each
def test_misspelt_parameters(kind):
    with raises(TypeError, f"{kind.__name__} has no parameter 'noise_levle'; the nearest: 'noise_level'"):
        kind(nn.Identity(), noise_levle=0.1)
    with raises(TypeError, "the model must be a torch.nn.Module, but is a function"):
        kind(lambda x: x)


def test_vargrad_needs_two():
    with raises(ValueError, "`n_iter >= 2` must hold, but got n_iter=1"):
        VarGrad(nn.Identity(), n_iter=1)
    assert SmoothGrad(Quadratic(A), n_iter=1, noise_std=0.0).attribute(torch.ones(1, 2)).tolist() == [[3.0, 3.0]]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_range(value):
    x = torch.tensor([[1.0, value]])
    with raises(ValueError, "the noise is a fraction of the range of each sample, but the range of the values "
                            "at the inputs is not finite (a mask, or NaN); explain another place, or give noise_std"):
        SmoothGrad(Quadratic(A)).attribute(x)


def test_integers_cannot_be_moved():
    with raises(TypeError, "gradients need floating-point values, but the input is torch.int64; explain its "
                           "embedding, or what else is computed from it, instead: layer='path.to.embedding'"):
        SmoothGrad(nn.Embedding(3, 2)).attribute(torch.tensor([[1]]))


def test_constructing_reads_nothing_and_runs_nothing():
    class Untouchable(nn.Module):
        def forward(self, x):
            raise AssertionError

        def parameters(self, recurse=True):
            raise AssertionError

        def named_modules(self, *args, **kwargs):
            raise AssertionError

    explainer = VarGrad(Untouchable(), layer="no.such.layer", n_iter=3)
    assert replace(explainer, n_iter=7).n_iter == 7 and explainer.n_iter == 3


def test_a_retuned_parameter_changes_the_result(net):
    base = SmoothGrad(net, n_iter=5)
    before = base.attribute(X, 0)
    for change in ({"n_iter": 6}, {"noise_level": 0.2}, {"noise_std": 0.2}, {"seed": 1}, {"sampler": "independent"},
                   {"input_x_gradient": True}, {"layer": "0:output"}, {"inference_mode": "softmax"}):
        found = replace(base, **change).attribute(X, 0)
        assert found.shape != before.shape or not torch.allclose(found, before), change


def test_numpy_in_double_on_a_float_model():
    model = nn.Linear(4, 2)
    found = SmoothGrad(model).attribute(np.random.default_rng(0).normal(size=(3, 4)), np.int64(1))
    torch.testing.assert_close(found, model.weight[1].detach().expand(3, 4))
