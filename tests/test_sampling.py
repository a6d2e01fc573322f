"""Each draw by itself is standard normal, whatever its relation to the others."""

import pytest
import torch

from pnpx import sampling
from pnpx.sampling import SAMPLERS, antithetic, independent, latin, orthogonal, orthogonal_latin, spread

of_each = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@of_each
@pytest.mark.parametrize("count", [0, 1, 3, 32, 33])
@pytest.mark.parametrize("shape", [(2, 3), (1,), (40,), (5, 0)], ids=str)
def test_so_many_draws_of_that_shape(sampler, shape, count):
    draws = list(sampler(shape, count, generator()))
    assert [draw.shape for draw in draws] == [torch.Size(shape)] * count
    assert all(draw.dtype == torch.float32 and draw.isfinite().all() for draw in draws)


@of_each
def test_draws_of_single_numbers(sampler):
    draws = torch.stack(list(sampler((), 4000, generator())))
    assert draws.shape == (4000,)
    assert abs(draws.mean()) < 4 / 4000**0.5
    assert abs(draws.var() - 1) < 4 * (2 / 2000) ** 0.5  # mirrored: 2000 of them are free


@of_each
@pytest.mark.parametrize("size, count", [(3, 10), (8, 10)], ids=["more directions than axes", "fewer"])
def test_each_draw_is_standard_normal_by_itself(sampler, size, count):
    """Moments over many seeds, of the draws at the head, in the middle and at the end of a block alike."""
    runs = 400
    draws = torch.stack([torch.stack(list(sampler((size,), count, generator(seed)))) for seed in range(runs)]).double()
    error = 4.5 * runs**-0.5
    assert (draws.mean(0).abs() < error).all()
    assert ((draws.square().mean(0) - 1).abs() < 2**0.5 * error).all()
    assert ((draws.pow(3).mean(0)).abs() < 15**0.5 * error).all()
    assert ((draws.pow(4).mean(0) - 3).abs() < 96**0.5 * error).all()
    products = (draws[..., :1] * draws[..., 1:]).mean(0)  # the axes of a draw know nothing of one another
    assert (products.abs() < error).all()
    squares = draws.square().sum(2)  # chi-squared
    assert ((squares.mean(0) - size).abs() < (2 * size) ** 0.5 * error).all()
    assert ((squares.var(0) - 2 * size).abs() < (12 * size * (size + 4)) ** 0.5 * error).all()


@of_each
def test_same_seed_same_draws_and_the_global_state_untouched(sampler):
    before = torch.get_rng_state()
    one, two = list(sampler((4,), 9, generator(3))), list(sampler((4,), 9, generator(3)))
    other = list(sampler((4,), 9, generator(4)))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


@of_each
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_draws_do_not_depend_on_the_default_precision(sampler, dtype):
    expected = list(sampler((300,), 9, generator()))
    torch.set_default_dtype(dtype)
    try:
        found = list(sampler((300,), 9, generator()))
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found, expected, strict=True))


@of_each
def test_draws_differ(sampler):
    draws = torch.stack(list(sampler((6,), 70, generator())))
    assert torch.unique(draws, dim=0).shape == draws.shape


def test_independent_draws_do_not_depend_on_how_many_there_are():
    few, many = list(independent((3,), 5, generator())), list(independent((3,), 50, generator()))
    assert all(torch.equal(a, b) for a, b in zip(few, many, strict=False))


def test_independent_draws_are_uncorrelated():
    runs = 1000
    draws = torch.stack([torch.stack(list(independent((1,), 4, generator(seed)))) for seed in range(runs)])[..., 0]
    off = (draws.T @ draws / runs - torch.eye(4)).fill_diagonal_(0)
    assert (off.abs() < 4.5 * runs**-0.5).all()


@pytest.mark.parametrize("sampler", [antithetic, orthogonal])
@pytest.mark.parametrize("count", [2, 7, 40])
def test_mirrored_pairs(sampler, count):
    draws = list(sampler((3, 2), count, generator()))
    pairs = list(zip(draws[::2], draws[1::2], strict=False))
    assert len(pairs) == count // 2
    assert all(torch.equal(one, -other) for one, other in pairs)
    # Only the last one of an odd count has no partner.
    assert bool(sum(draws).any()) == bool(count % 2)


def test_antithetic_directions_are_those_of_independent_draws():
    assert all(
        torch.equal(a, b)
        for a, b in zip(list(antithetic((3,), 8, generator()))[::2], independent((3,), 4, generator()), strict=True)
    )


@pytest.mark.parametrize(
    "size, count", [(100, 6), (100, 32), (100, 31), (100, 180), (5, 30), (64, 128), (1, 6)], ids=str
)
def test_orthogonal_directions_within_a_block(size, count):
    directions = torch.stack(list(orthogonal((size,), count, generator()))[::2]).double()
    block = min(64, size)
    for part in directions.split(block):
        unit = part / part.norm(dim=1, keepdim=True)
        torch.testing.assert_close(unit @ unit.T, torch.eye(len(part), dtype=torch.float64), rtol=0, atol=1e-5)
    if len(directions) > block > 1:  # across blocks they are not
        assert (directions[:block] @ directions[block:].T).abs().max() > 1e-2


def test_long_directions_are_made_orthogonal_a_few_at_a_time():
    """A block holds at most 2**20 numbers, which bounds the memory."""
    directions = torch.stack(list(orthogonal((2**9, 2**9), 12, generator()))[::2]).flatten(1).double()
    unit = directions / directions.norm(dim=1, keepdim=True)
    products = (unit @ unit.T - torch.eye(6, dtype=torch.float64)).abs()
    assert products[:4, :4].max() < 1e-6 and products[4:, 4:].max() < 1e-6
    assert products[:4, 4:].min() > 1e-6


def test_orthogonal_draws_keep_the_lengths_of_normal_ones():
    draws = torch.stack(list(orthogonal((50,), 32, generator()))[::2])
    plain = torch.stack(list(independent((50,), 16, generator())))
    torch.testing.assert_close(draws.norm(dim=1).sort().values, plain.norm(dim=1).sort().values)


@pytest.mark.parametrize("apart", [0.0, 1e-12, 1e-5])
def test_parallel_draws_are_made_orthogonal_all_the_same(monkeypatch, apart):
    """Two draws may (nearly) coincide; the directions made of them may neither coincide nor be NaN."""
    first = torch.tensor([3.0, 4.0, 0.0, 0.0])
    monkeypatch.setattr(sampling, "independent", lambda *_: iter([first, first + apart]))
    one, _, two, _ = orthogonal((4,), 4, generator())
    torch.testing.assert_close(torch.stack([one.norm(), two.norm()]), torch.tensor([5.0, 5.0]), rtol=1e-4, atol=0)
    assert abs(one @ two) < 1e-4


@pytest.mark.parametrize("sampler", [latin, orthogonal_latin])
@pytest.mark.parametrize("count, blocks", [(1, [1]), (10, [10]), (64, [64]), (65, [32, 33]), (200, [50] * 4)], ids=str)
def test_latin_draws_take_each_interval_once(sampler, count, blocks):
    draws = torch.stack(list(sampler((7, 5), count, generator()))).flatten(1).double()
    for part in draws.split(blocks):
        interval = (torch.special.ndtr(part) * len(part)).floor()  # the intervals have equal probability
        assert torch.equal(interval.sort(0).values, torch.arange(len(part)).double()[:, None].expand_as(part))


def test_few_long_latin_draws_are_arranged_together():
    """A block holds at most 2**20 numbers, which bounds the memory."""
    draws = torch.stack(list(latin((2**9, 2**9), 7, generator()))).flatten(1)
    for part in draws.split([3, 4]):
        interval = (torch.special.ndtr(part.double()) * len(part)).floor()
        assert (interval.sum(0) == sum(range(len(part)))).all()


def test_the_order_of_the_intervals_is_random():
    """Each order of three is as likely, and that of one number tells nothing of that of another."""
    draws = torch.stack(list(latin((6000,), 3, generator())))
    order = draws.argsort(0)
    orders, counts = torch.unique(order, dim=1, return_counts=True)
    assert orders.shape == (3, 6) and (counts - 1000).abs().max() < 4.5 * 1000**0.5
    assert torch.corrcoef(order[0].reshape(2, 3000).double())[0, 1].abs() < 4.5 / 3000**0.5


def test_what_numbers_contribute_alone_nearly_cancels():
    """The error of the mean of a sum of functions of single numbers, against that of independent draws, over seeds."""

    def error(sampler):
        means = [torch.stack(list(sampler((40,), 20, generator(seed)))).relu().mean() for seed in range(50)]
        return (torch.stack(means) - (2 * torch.pi) ** -0.5).square().mean()

    assert error(latin) < error(independent) / 20


def ranks(size, count, seed=0):
    return torch.stack(list(orthogonal_latin((size,), count, generator(seed)))).argsort(0).argsort(0).double()


def test_orthogonal_latin_numbers_are_nearly_uncorrelated():
    """Over the draws, within parts of about as many numbers as draws; those of other parts know nothing of them."""
    for size, parts in ((10, [10]), (31, [31]), (60, [30, 30]), (93, [31, 31, 31])):
        off = torch.corrcoef(ranks(size, 32).T) - torch.eye(size)
        within = torch.block_diag(*(torch.ones(part, part) for part in parts)).bool()
        assert off[within].square().mean() < 0.15 / 31  # independent orders have 1 / 31
        assert not (~within).any() or 0.7 / 31 < off[~within].square().mean() < 1.4 / 31


def test_orders_of_a_simplex_are_random():
    """Each order of three, of two numbers, whichever part they are of: as likely for each, and no two parts alike."""
    order = ranks(6000, 3).T.reshape(3000, 2, 3)
    for number in range(2):
        orders, counts = torch.unique(order[:, number], dim=0, return_counts=True)
        assert orders.shape == (6, 3) and (counts - 500).abs().max() < 4.5 * 500**0.5
    alike = (order[1:] == order[:-1]).double().mean((0, 2))  # a third by chance
    assert ((alike - 1 / 3).abs() < 4.5 * (2 / 9 / 3000) ** 0.5).all()


@pytest.mark.parametrize("count, width, off, share", [
    (16, 15, 0.005, 0.02), (20, 19, 0.005, 0.02), (20, 10, 0.005, 0.02), (20, 28, 0.005, 0.04), (20, 2, 0.03, 0.04),
    (50, 49, 0.005, 0.02), (64, 63, 0.005, 0.02), (4, 3, 0.07, 0.07)])
def test_numbers_of_an_orthogonal_latin_draw_are_nearly_independent(monkeypatch, count, width, off, share):
    """As its page says, of one part: pairs of their squares, and lengths; of two parts they are."""
    parts = 800_000 // (count * width)
    monkeypatch.setattr(sampling, "_NUMBERS", 2**24)  # all draws are arranged together
    draws = torch.stack(list(orthogonal_latin((width * parts,), count, generator()))).double()
    assert (draws.gt(0).sum(0) == count // 2).all()
    draws = draws.reshape(count, parts, width)
    total = draws.square().sum(2)
    error = 4 * (8 / draws.numel()) ** 0.5
    pairs = (total.square() - draws.pow(4).sum(2)).mean() / (width * (width - 1))
    assert abs(pairs - 1) < off + error / width**0.5
    assert abs(total.var() / (2 * width) - 1) < share + 4 * (2 / total.numel()) ** 0.5
    apart = (total[:, 1:] * total[:, :-1]).mean() / width**2
    assert abs(apart - 1) < error
    assert abs((draws[..., 0] * draws[..., 1]).mean()) < 4 / total.numel() ** 0.5


def test_a_simplex_has_corners_of_one_length_in_all_directions():
    for count in (2, 3, 10, 64):
        corners = sampling._simplex(count)
        angles = torch.full((count, count), -1 / (count - 1), dtype=torch.float64).fill_diagonal_(1)
        torch.testing.assert_close(corners @ corners.T * count / (count - 1), angles)


@pytest.mark.parametrize("size", [1, 3, 5, 8])
def test_orders_do_not_hang_on_how_a_matrix_is_taken_apart(monkeypatch, size):
    """LAPACK is free to choose signs: whatever they are, the frame is the same, and so are the draws."""
    found = torch.stack(list(orthogonal_latin((size,), 6, generator())))
    qr = torch.linalg.qr

    def other(matrix):
        frame, triangle = qr(matrix)
        signs = torch.tensor([-1.0, 1.0] * frame.shape[-1], dtype=frame.dtype)[: frame.shape[-1]]
        return frame * signs, triangle * signs[:, None]

    monkeypatch.setattr(torch.linalg, "qr", other)
    assert torch.equal(torch.stack(list(orthogonal_latin((size,), 6, generator()))), found)


@pytest.mark.parametrize("size, least", [(8, 5), (19, 4), (30, 1.3)], ids=["fewer numbers", "as many", "more"])
def test_what_pairs_of_numbers_contribute_cancels_mostly(size, least):
    """The error of the mean of a quadratic form, against that of independent draws, over seeds."""
    form = torch.randn(size, size, generator=generator(9)).fill_diagonal_(0)

    def error(sampler):
        draws = [torch.stack(list(sampler((size,), 20, generator(seed)))) for seed in range(200)]
        return torch.stack([((some @ form) * some).sum(1).mean() for some in draws]).square().mean()

    assert error(orthogonal_latin) < error(independent) / least
    assert error(latin) > error(independent) / 1.5  # which a Latin hypercube alone does not touch


@pytest.mark.parametrize("size, count, sampler", [
    (64, 16, orthogonal_latin), (65, 16, latin), (1, 15, latin), (256, 64, orthogonal_latin), (257, 64, latin),
    (132, 67, orthogonal_latin), (133, 67, latin), (1, 200, orthogonal_latin), (1, 1, latin)])
def test_spread_draws_are_orthogonal_where_numbers_are_few_and_draws_are_not(size, count, sampler):
    """Of 67 draws 33 and 34 are arranged together."""
    assert not list(spread((size,), 0, generator()))
    found, expected = (torch.stack(list(some((size,), count, generator()))) for some in (spread, sampler))
    assert torch.equal(found, expected)


def test_the_ends_are_finite(monkeypatch):
    """Where a share of one comes out by rounding."""
    monkeypatch.setattr(torch, "rand", lambda size, generator, dtype: torch.ones(size, dtype=dtype))
    assert torch.stack(list(latin((50,), 64, generator()))).abs().max() < 5.5
