"""Scores of units against sums worked out by hand."""

import pytest
import torch

from pnpx.text import AGGREGATIONS, Unit, aggregate, causal_mask, reduce_embedding

NAN = float("nan")
UNITS = [Unit("a", (0, 1), (1, 2)), Unit("b", (2, 3), (4,)), Unit("c", (4, 5), (0, 3, 5))]
SCORES = torch.tensor([[1.0, -3.0, 2.0, -4.0, 7.0, 4.0], [0.5, 2.0, -2.0, -1.0, -6.0, -0.25]])
EXPECTED = {
    "mean": [[-0.5, 7.0, 1 / 3], [0.0, -6.0, -0.25]],
    "max": [[2.0, 7.0, 4.0], [2.0, -6.0, 0.5]],
    "min": [[-3.0, 7.0, -4.0], [-2.0, -6.0, -1.0]],
    "sum": [[-1.0, 7.0, 1.0], [0.0, -6.0, -0.75]],
    "signed_max": [[-3.0, 7.0, 4.0], [2.0, -6.0, -1.0]],
}


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_aggregations(how):
    assert aggregate(SCORES, UNITS, how).allclose(torch.tensor(EXPECTED[how]), atol=1e-7)
    assert aggregate(SCORES[1], UNITS, how).allclose(torch.tensor(EXPECTED[how][1]), atol=1e-7)
    cube = torch.stack([SCORES, -SCORES])
    assert aggregate(cube, UNITS, how).shape == (2, 2, 3)
    assert aggregate(cube, UNITS, how)[0].equal(aggregate(SCORES, UNITS, how))


CAUSAL = torch.tensor([True, True, False, False, False, True])


@pytest.mark.parametrize("how, expected", [
    ("mean", [-3.0, 0.0, 2.5]), ("max", [-3.0, 0.0, 4.0]), ("min", [-3.0, 0.0, 1.0]), ("sum", [-3.0, 0.0, 5.0]),
    ("signed_max", [-3.0, 0.0, 4.0])])
@pytest.mark.parametrize("after", [0.0, 9.0, NAN, float("-inf")])
def test_what_is_not_causal_counts_nothing(how, expected, after):
    scores = SCORES[0].where(CAUSAL, torch.tensor(after))
    assert aggregate(scores, UNITS, how, CAUSAL).tolist() == expected
    both = aggregate(torch.stack([scores, SCORES[0]]), UNITS, how, torch.stack([CAUSAL, torch.ones(6).bool()]))
    assert both[0].tolist() == expected and both[1].allclose(torch.tensor(EXPECTED[how][0]))


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_a_nan_that_counts_is_not_hidden(how):
    scores = SCORES[0].clone()
    scores[2] = NAN
    result = aggregate(scores, UNITS, how)
    assert result.isnan().tolist() == [True, False, False]
    assert aggregate(torch.tensor([float("inf"), 1.0]), [Unit("a", (0, 1), (0, 1))], how)[0] == (1 if how == "min" else
                                                                                              float("inf"))


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_nothing_to_aggregate(how):
    assert aggregate(SCORES, [], how).shape == (2, 0)
    assert aggregate(SCORES, [Unit("", (0, 0), ())], how).tolist() == [[0.0], [0.0]]


def test_causal_mask():
    assert causal_mask(3, 2).tolist() == [[True, True, True, False, False], [True, True, True, True, False]]
    assert causal_mask(0, 1).tolist() == [[False]] and causal_mask(2, 0).shape == (0, 2)


def test_half_precision_is_summed_in_single():
    scores = torch.full((4096,), 1.0, dtype=torch.bfloat16)
    assert aggregate(scores, [Unit("a", (0, 1), tuple(range(4096)))], "sum").item() == 4096.0
    assert reduce_embedding(scores[None], "sum").item() == 4096.0
    assert aggregate(SCORES.double(), UNITS).dtype == torch.float64


@pytest.mark.parametrize("how, expected", [("abs_mean", [3.5, 0.5]), ("l2", [5.0, 1.0]), ("sum", [-1.0, 1.0])])
def test_reductions(how, expected):
    attributions = torch.tensor([[3.0, -4.0], [0.0, 1.0]])
    assert reduce_embedding(attributions, how).tolist() == expected
    assert reduce_embedding(attributions.T[None], how, dim=1).tolist() == [expected]


def test_errors():
    with pytest.raises(ValueError) as error:
        aggregate(SCORES, UNITS, "maximum")
    assert str(error.value) == ("aggregation must be one of mean, max, min, sum, signed_max, but got 'maximum'; "
                                "the nearest: 'max'")
    with pytest.raises(ValueError) as error:
        aggregate(SCORES[:, :4], UNITS)
    assert str(error.value) == "the tokens of the units must be positions among the 4 scores, but reach from 0 to 5"
    with pytest.raises(ValueError) as error:
        reduce_embedding(SCORES, "l1")
    assert str(error.value).startswith("reduce must be one of abs_mean, l2, sum, but got 'l1'; there are: 'abs_mean'")
