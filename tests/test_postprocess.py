"""Pooling and normalising against closed forms."""

import math

import pytest
import torch

from pnpx.postprocess import NORMALISATIONS, POOLINGS, normalise, pool

MAP = torch.tensor([[[[3.0, -1.0]], [[-4.0, -1.0]]]])  # (1, 2 channels, 1, 2)


@pytest.mark.parametrize("method, expected", [
    ("sum", [-1.0, -2.0]),
    ("abs_sum", [7.0, 2.0]),
    ("mean", [-0.5, -1.0]),
    ("max", [3.0, -1.0]),
    ("min", [-4.0, -1.0]),
    ("max_abs", [4.0, 1.0]),
    ("l2", [5.0, math.sqrt(2.0)]),
])
def test_pool(method, expected):
    torch.testing.assert_close(pool(MAP, method), torch.tensor([[expected]]))


def test_every_way_to_pool_has_a_closed_form_here():
    tested = test_pool.pytestmark[0].args[1]
    assert {method for method, _ in tested} == set(POOLINGS)


def test_pools_another_axis_when_there_is_a_target_axis():
    attributions = torch.arange(24.0).reshape(2, 3, 4, 1)
    torch.testing.assert_close(pool(attributions, "sum", 2), torch.tensor(
        [[[6.0], [22.0], [38.0]], [[54.0], [70.0], [86.0]]]))


def test_minmax_takes_each_sample_on_its_own():
    attributions = torch.tensor([[[-2.0, 0.0], [2.0, 1.0]], [[0.0, 10.0], [5.0, 0.0]]])
    expected = torch.tensor([[[0.0, 0.5], [1.0, 0.75]], [[0.0, 1.0], [0.5, 0.0]]])
    torch.testing.assert_close(normalise(attributions), expected)


def test_symmetric_keeps_signs_and_zeros():
    attributions = torch.tensor([[-4.0, 0.0, 2.0], [1.0, 0.0, 0.5]])
    torch.testing.assert_close(normalise(attributions, "symmetric"), torch.tensor([[-1.0, 0.0, 0.5], [1.0, 0.0, 0.5]]))


@pytest.mark.parametrize("keep, expected", [
    ((), [[0.0, 1 / 3], [2 / 3, 1.0]]),
    (0, [[0.0, 1.0], [0.0, 1.0]]),
    (-2, [[0.0, 1.0], [0.0, 1.0]]),
    (1, [[0.0, 0.0], [1.0, 1.0]]),
    ((0, 1), [[0.0, 0.0], [0.0, 0.0]]),
])
def test_keep_says_what_is_normalised_together(keep, expected):
    torch.testing.assert_close(normalise(torch.tensor([[0.0, 1.0], [2.0, 3.0]]), keep=keep), torch.tensor(expected))


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-42])
def test_a_constant_map_becomes_zeros_by_minmax(value):
    assert normalise(torch.full((2, 3, 3), value)).tolist() == torch.zeros(2, 3, 3).tolist()


@pytest.mark.parametrize("value, expected", [(0.0, 0.0), (3.0, 1.0), (-3.0, -1.0)])
def test_a_constant_map_keeps_its_sign_when_symmetric(value, expected):
    assert normalise(torch.full((2, 3), value), "symmetric").tolist() == [[expected] * 3] * 2


@pytest.mark.parametrize("method", NORMALISATIONS)
def test_nan_is_neither_made_nor_hidden(method):
    attributions = torch.tensor([[1.0, float("nan")], [1.0, 2.0]])
    result = normalise(attributions, method)
    assert result[0].isnan().all() and result[1].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_keeps_the_dtype_and_does_not_overflow_in_it(dtype):
    attributions = torch.tensor([[-60000.0, 60000.0, 0.0]], dtype=dtype)
    result = normalise(attributions)  # max - min is infinite in float16
    assert result.dtype == dtype and result.tolist() == [[0.0, 1.0, 0.5]]
    assert pool(attributions, "l2").dtype == dtype


def test_leaves_its_argument_alone():
    attributions = MAP.clone()
    normalise(attributions)
    pool(attributions)
    assert attributions.equal(MAP)


def test_no_samples():
    assert normalise(torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("call, kind, message", [
    (lambda: pool(MAP, "abssum"), ValueError, "no way to pool is called 'abssum'; the nearest: 'abs_sum'"),
    (lambda: normalise(MAP, "zscore"), ValueError,
     "no way to normalise is called 'zscore'; there are: 'minmax', 'symmetric'"),
    (lambda: normalise(MAP, keep=4), IndexError,
     "keep must name axes of the attributions, whose shape is (1, 2, 1, 2), but got 4"),
    (lambda: pool(MAP.long()), TypeError,
     "attributions must be floating-point, but got torch.int64; convert them, as by .float()"),
])
def test_says_what_is_wrong(call, kind, message):
    with pytest.raises(kind) as error:
        call()
    assert str(error.value) == message
