"""Every statistic agrees with its definition, however its samples arrive."""

import random

import pytest
import torch

from pnpx.statistics import Mean, MeanSquare, Sum, Variance
from tests.errors import raises

DEFINITIONS = [
    (Sum, lambda x: x.sum(0)),
    (Mean, lambda x: x.mean(0)),
    (MeanSquare, lambda x: x.square().mean(0)),
    (Variance, lambda x: x.var(0)),  # torch's default is the unbiased one
]
of_each = pytest.mark.parametrize("kind, definition", DEFINITIONS, ids=lambda p: getattr(p, "__name__", ""))


def feed(kind, samples, sizes):
    statistic = kind()
    for part in samples.split(sizes):
        statistic.update(part)
    return statistic


def chunkings(total, count, seed=0):
    """So many ways to cut ``total`` into parts, among them all at once and one by one."""
    yield [total]
    yield [1] * total
    draw = random.Random(seed)
    for _ in range(count):
        cuts = sorted(draw.sample(range(1, total), draw.randint(1, total - 2)))
        yield [end - start for start, end in zip([0, *cuts], [*cuts, total], strict=True)]


@of_each
@pytest.mark.parametrize("shape", [(), (3,), (3, 4)], ids=str)
def test_definition_however_chunked(kind, definition, shape):
    samples = torch.randn(13, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for sizes in chunkings(13, 40):
        statistic = feed(kind, samples, sizes)
        assert statistic.count == 13
        torch.testing.assert_close(statistic.value, definition(samples), rtol=1e-12, atol=1e-12)


@of_each
def test_numbers_by_hand(kind, definition):
    expected = {Sum: 9.0, Mean: 3.0, MeanSquare: 35 / 3, Variance: 4.0}[kind]
    assert feed(kind, torch.tensor([1.0, 3.0, 5.0]), [2, 1]).value.item() == pytest.approx(expected)


@of_each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_samples_are_accumulated_in_float32(kind, definition, dtype):
    """In bfloat16 itself a running sum of 0.01 stops growing at 4, in float16 at 32."""
    samples = (0.01 + 0.001 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))).to(dtype)
    value = feed(kind, samples, [50] * 80).value
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, definition(samples.double()).float(), rtol=2e-5, atol=0)


@of_each
def test_double_stays_double(kind, definition):
    assert feed(kind, torch.ones(3, 2, dtype=torch.float64), [2, 1]).value.dtype == torch.float64


@pytest.mark.parametrize("sizes", [[1] * 2000, [2000], [500] * 4, [32] * 62 + [16]], ids=["one by one", "at once",
                                                                                        "in parts", "in chunks"])
def test_variance_survives_a_large_mean(sizes):
    """E[g^2] - E[g]^2 in float32 gives -0.25 to 0.19 here, where the variance is 0.01."""
    samples = 1000 + 0.1 * torch.randn(2000, 10, generator=torch.Generator().manual_seed(0))
    value = feed(Variance, samples, sizes).value
    assert (value >= 0).all()
    torch.testing.assert_close(value, samples.double().var(0).float(), rtol=0.01, atol=0)


def test_variance_of_equal_samples_is_exactly_zero():
    """Also where their sum is rounded: a linear model's VarGrad is 0, not almost 0."""
    weights = 1e3 * torch.randn(50, generator=torch.Generator().manual_seed(0))
    for count in (2, 3, 7, 20, 33):
        for sizes in chunkings(count, 10) if count > 2 else ([2], [1, 1]):
            assert not feed(Variance, weights.expand(count, -1), sizes).value.any()


@of_each
def test_merging_is_seeing_both(kind, definition):
    samples = torch.randn(11, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for cut in range(12):
        one, other = feed(kind, samples[:cut], [cut]), feed(kind, samples[cut:], [11 - cut])
        before = other.value.clone() if 11 - cut > 1 else None
        one.merge(other)
        assert one.count == 11
        torch.testing.assert_close(one.value, definition(samples), rtol=1e-12, atol=1e-12)
        if before is not None:
            assert torch.equal(other.value, before)


@of_each
def test_a_value_read_halfway_changes_nothing(kind, definition):
    samples = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    statistic = kind()
    statistic.update(samples[:3])
    halfway = statistic.value
    torch.testing.assert_close(halfway, definition(samples[:3]))
    kept = halfway.clone()
    statistic.update(samples[3:])
    torch.testing.assert_close(statistic.value, definition(samples))
    assert torch.equal(halfway, kept)


@of_each
def test_leaves_the_samples_alone(kind, definition):
    samples = torch.randn(4, 3)
    kept = samples.clone()
    feed(kind, samples, [1, 3])
    assert torch.equal(samples, kept)


@pytest.mark.parametrize("kind, least", [(Sum, 1), (Mean, 1), (MeanSquare, 1), (Variance, 2)])
def test_too_few_samples(kind, least):
    for count in range(least):
        statistic = kind()
        if count:
            statistic.update(torch.ones(count, 2))
        message = f"{kind.__name__} needs {least} samples or more, but got {count}"
        with raises(ValueError, message):
            statistic.value  # noqa: B018


@of_each
def test_no_samples_at_all_are_no_harm(kind, definition):
    statistic = kind()
    statistic.update(torch.ones(0, 2))
    statistic.update(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    statistic.update(torch.ones(0, 2))
    torch.testing.assert_close(statistic.value, definition(torch.tensor([[1.0, 2.0], [3.0, 5.0]])))


@of_each
def test_one_that_took_in_another_goes_on_alone(kind, definition):
    samples = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    one, other = kind(), feed(kind, samples[:3], [3])
    one.merge(other)
    one.update(samples[3:])
    torch.testing.assert_close(one.value, definition(samples))
    torch.testing.assert_close(other.value, definition(samples[:3]))


@of_each
def test_wider_samples_widen(kind, definition):
    samples = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    samples[:3] = samples[:3].float().double()
    statistic = kind()
    statistic.update(samples[:3].float())
    statistic.update(samples[3:])
    assert statistic.value.dtype == torch.float64
    torch.testing.assert_close(statistic.value, definition(samples), rtol=1e-6, atol=1e-6)
    assert statistic.value.float().double().ne(statistic.value).any()  # digits that float32 has not


@of_each
def test_samples_of_inference_mode(kind, definition):
    samples = torch.randn(6, 3, generator=torch.Generator().manual_seed(5))
    statistic = kind()
    with torch.inference_mode():
        statistic.update(samples[:3].clone())
    statistic.update(samples[3:])
    torch.testing.assert_close(statistic.value, definition(samples))
