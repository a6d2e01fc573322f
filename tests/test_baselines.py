"""What "absent" means, against the definitions written out."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import pnpx
from pnpx.baselines import BASELINES, baseline_call, blur, mean, zeros
from pnpx.extractors import Call
from tests.errors import raises

X = torch.arange(24.0).reshape(2, 3, 4)


def one(value):
    return Call(value, (None,))


def two(left, right):
    return Call((left, right), (None, None))


error = partial(raises, (ValueError, TypeError))


def test_zeros():
    assert torch.equal(zeros(torch.tensor([[3, 4]])), torch.tensor([[0, 0]]))


@pytest.mark.parametrize("shape, axes", [
    ((2, 5), (1,)), ((2, 3, 4), (1, 2)), ((2, 3, 4, 5), (2, 3)), ((2, 3, 2, 2, 2), (2, 3, 4)), ((3,), ()),
], ids=str)
def test_mean_of_each_sample_and_channel(shape, axes):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = np.broadcast_to(x.numpy().mean(axis=axes, keepdims=True), shape)
    torch.testing.assert_close(mean(x), torch.from_numpy(expected.copy()))


def test_blur_keeps_colours_and_loses_detail():
    flat = torch.full((1, 2, 9, 12), 3.0)
    torch.testing.assert_close(blur(flat), flat)
    noisy = torch.randn(1, 1, 30, 30, generator=torch.Generator().manual_seed(0))
    assert blur(noisy).std() < noisy.std() / 5


def test_blur_is_a_gaussian_with_the_edge_repeated():
    """Against SciPy-like sums by hand, over rows and then over columns."""
    x = torch.randn(2, 2, 10, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).numpy()

    def rows(values, sigma):
        radius = int(3 * sigma) + 1
        offsets = np.arange(-radius, radius + 1)
        kernel = np.exp(-(offsets**2) / (2 * sigma**2))
        kernel /= kernel.sum()
        padded = np.pad(values, [(0, 0)] * 3 + [(radius, radius)], mode="edge")
        return sum(w * padded[..., o + radius : o + radius + values.shape[-1]] for o, w in zip(offsets, kernel,
                                                                                             strict=True))

    expected = rows(rows(x, 2.0).swapaxes(2, 3), 1.0).swapaxes(2, 3)
    torch.testing.assert_close(blur(torch.from_numpy(x)), torch.from_numpy(expected))


@pytest.mark.parametrize("baseline, expected", [
    (0.0, torch.zeros(2, 3, 4)),
    (2, torch.full((2, 3, 4), 2.0)),
    (torch.ones(2, 3, 4), torch.ones(2, 3, 4)),
    (torch.arange(4.0), torch.arange(4.0).expand(2, 3, 4)),
    (torch.arange(12.0).reshape(1, 3, 4), torch.arange(12.0).expand(2, 12).reshape(2, 3, 4)),
    (np.full((3, 4), 5.0), torch.full((2, 3, 4), 5.0)),
    ("zeros", torch.zeros(2, 3, 4)),
    ("mean", torch.tensor([5.5, 17.5]).reshape(2, 1, 1).expand(2, 3, 4)),
    (lambda x: x + 1, X + 1),
], ids=["0.0", "2", "tensor", "row", "sample", "array", "name", "mean", "callable"])
def test_forms(baseline, expected):
    found = baseline_call(one(X), baseline).forward
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64])
def test_the_inputs_dtype(dtype):
    assert baseline_call(one(torch.ones(2, 3).to(dtype)), torch.tensor(0.0)).forward.dtype == dtype


def test_one_for_each_input():
    found = baseline_call(two(X, X[:, 0]), ("mean", 7.0))
    assert torch.equal(found.forward[0], mean(X))
    assert torch.equal(found.forward[1], torch.full((2, 4), 7.0))
    both = baseline_call(two(X, X[:, 0]), 3.0)
    assert all(bool((part == 3).all()) for part in both.forward)


def test_by_name_and_what_is_not_named_is_zero():
    call = Call({"a": X, "b": X}, ("a", "b"), (), {"mask": torch.ones(2)})
    found = baseline_call(call, {"b": 1.0})
    assert list(found.forward) == ["a", "b"]
    assert not found.forward["a"].any() and bool((found.forward["b"] == 1).all())
    assert torch.equal(found.additional_kwargs["mask"], torch.ones(2))


def test_what_goes_along_stays_and_the_inputs_are_not_touched():
    call = Call(X.clone(), (None,), (X,), {"k": X})
    found = baseline_call(call, 0.0)
    assert found.args[1] is X and found.kwargs["k"] is X
    assert torch.equal(call.forward, X)


def test_one_input_in_a_tuple():
    found = baseline_call(Call((X,), (None,)), (1.0,))
    assert isinstance(found.forward, tuple) and bool((found.forward[0] == 1).all())


@pytest.mark.parametrize("call, baseline, message", [
    (one(X), "zero", "no baseline 'zero'; the nearest: 'zeros'"),
    (one(X), "black", "no baseline 'black'; there are: 'zeros', 'mean', 'blur'"),
    (one(X), torch.zeros(5),
     "a baseline must have the shape of the input, (2, 3, 4), or expand to it, but has (5,)"),
    (one(X), lambda x: x[:, 0],
     "a baseline function must return the shape of its input, (2, 3, 4), but returned (2, 4)"),
    (one(X), lambda x: 0.0, "a baseline function must return a tensor for its input, but returned 0.0"),
    (two(X, X), (0.0,), "there are 2 inputs, so as many baselines, but 1 were given"),
    (Call({"image": X}, ("image",)), {"imag": 0.0}, "there is no input 'imag' for a baseline; the nearest: 'image'"),
    (one(X), None, "a baseline is a number, a tensor, a name (zeros, mean, blur), a callable on the input, or one for "
                   "each input, but got None"),
    (one(X), [0.0, 1.0], "a baseline is a number, a tensor, a name (zeros, mean, blur), a callable on the input, or "
                         "one for each input, but got [0.0, 1.0]"),
    (one(X), torch.tensor(1j), "a baseline of torch.float32 must be real numbers, but is torch.complex64"),
    (one(X), "blur", "baseline='blur' is for images (batch, channels, height, width), but got (2, 3, 4)"),
    (one(X.long()), "mean", "baseline='mean' needs floating-point inputs, but got torch.int64"),
    (one(X.long()), "blur", "baseline='blur' needs floating-point inputs, but got torch.int64"),
])
def test_errors(call, baseline, message):
    with error(message):
        baseline_call(call, baseline)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("explainer", [pnpx.IntegratedGradients, pnpx.FeatureAblation, pnpx.Occlusion, pnpx.KernelShap,
                                       pnpx.Lime, pnpx.Shapley, pnpx.Sobol, pnpx.ExpectedGradients])
@pytest.mark.parametrize("given, shown", [
    (NAN, "nan"), (INF, "inf"), (-INF, "-inf"), (np.float32("nan"), "nan"), ((0.0, NAN), "nan"), ({"a": INF}, "inf"),
    (torch.tensor([0.0, NAN]), "nan"), (np.array([INF, 0.0]), "inf"), ([torch.zeros(1), torch.tensor(-INF)], "-inf"),
])
def test_explainers_refuse_what_is_not_finite(explainer, given, shown):
    name = "baselines" if explainer is pnpx.ExpectedGradients else "baseline"
    with error(f"{name} must be finite, but holds {shown}, where no score is; give numbers, such as 0.0"):
        explainer(nn.Identity(), **{name: given})


MASKED = np.ma.masked_array(np.full((2, 3), 5.0), mask=np.eye(2, 3))


@pytest.mark.parametrize("explainer, name", [
    (pnpx.IntegratedGradients, "baseline"), (pnpx.IntegratedGradients, "replacement"), (pnpx.Lime, "baseline"),
    (pnpx.FeatureAblation, "replacement"), (pnpx.ExpectedGradients, "baselines"),
])
def test_masked_arrays_are_refused(explainer, name):
    for given in (MASKED, (0.0, MASKED), {"a": [MASKED]}):
        with error(f"a masked array is among the values of {name}, but tensors have no masks; fill it first, by "
                   "array.filled(value)"):
            explainer(nn.Identity(), **{name: given})
    with error("a masked array is among the baselines, but tensors have no masks; fill it first, by "
               "array.filled(value)"):
        baseline_call(one(torch.ones(2, 3)), MASKED)


def test_values_at_a_layer_may_be_infinite_where_no_path_leads_there():
    """Scores of attention at minus infinity: what is attended to there is absent from the mean of the others."""
    model = nn.Sequential(nn.Identity(), nn.Softmax(1))
    x = torch.tensor([[1.0, 2.0, 3.0]])
    found = pnpx.FeatureAblation(model, layer="0", replacement=-INF).attribute(x, 0)
    without = torch.stack([x[:, [0, 2]].softmax(1), x[:, [0, 1]].softmax(1)])[:, 0, 0]
    expected = torch.cat([x.softmax(1)[0, :1], x.softmax(1)[0, 0] - without])
    torch.testing.assert_close(found[0], expected)
    with error("replacement must not hold nan, but holds nan, where no score is; give numbers, such as 0.0"):
        pnpx.FeatureAblation(model, layer="0", replacement=NAN)
    with error("replacement must be finite, but holds -inf, where no score is; give numbers, such as 0.0"):
        pnpx.IntegratedGradients(model, layer="0", replacement=-INF)


def test_every_name_is_tested_here():
    assert set(BASELINES) == {"zeros", "mean", "blur"}


def test_numbers_are_exact():
    model, x = nn.Linear(3, 2).double(), torch.rand(2, 3, dtype=torch.float64)
    found = pnpx.IntegratedGradients(model, baseline=0.1).attribute(x, 1)
    torch.testing.assert_close(found, model.weight[1] * (x - 0.1), rtol=1e-14, atol=1e-15)
    large, small = (pnpx.IntegratedGradients(model, baseline=one).attribute(x, 1) for one in (1e40, 0.0))
    torch.testing.assert_close(large, small - 1e40 * model.weight[1].expand(2, 3))
    call = one(torch.tensor([[2**24 + 2, 5]]))
    assert baseline_call(call, 2**24 + 1).forward.tolist() == [[2**24 + 1] * 2]
    with pytest.raises(ValueError, match=r"of torch.float32 must be within .*3\.4e\+38, but holds a larger"):
        pnpx.IntegratedGradients(model.float(), baseline=1e40).attribute(x.float(), 1)
