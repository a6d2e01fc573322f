"""Explainers in the order in which a metric has them."""

import math

import pytest

from pnpx.ranking import Value, rank

METRICS = {"AbPC": True, "Complexity": False}


def values(**by_explainer):
    """Values of AbPC by explainer: {sample: value}."""
    return [Value(name, "AbPC", sample, 0, value) for name, found in by_explainer.items()
            for sample, value in found.items()]


def order(ranking):
    return [(row.explainer, row.rank) for row in ranking.rows]


@pytest.mark.parametrize(("up", "expected"), [
    (True, [("b", 1), ("a", 2), ("c", 3)]),
    (False, [("c", 1), ("a", 2), ("b", 3)]),
])
def test_the_direction_is_that_of_the_metric(up, expected):
    found = values(a={0: 0.2, 1: 0.4}, b={0: 0.9, 1: 0.5}, c={0: -1.0, 1: 0.0})
    ranking = rank(["a", "b", "c"], found, {"AbPC": up}, "AbPC")
    assert order(ranking) == expected
    assert ranking.rows[1].means == {"AbPC": pytest.approx(0.3)}
    assert ranking.best("AbPC") == pytest.approx(0.7 if up else -0.5)


def test_means_are_over_what_all_have():
    """One that has no value for the hard sample would else win by that."""
    ranking = rank(["a", "b"], values(a={0: 0.9}, b={0: 1.0, 1: -5.0}), {"AbPC": True}, "AbPC")
    assert order(ranking) == [("b", 1), ("a", 2)]
    assert ranking.rows[0].means == {"AbPC": 1.0} and ranking.counts == {"AbPC": 1}


def test_targets_are_told_apart():
    found = [Value("a", "AbPC", 0, 0, 1.0), Value("a", "AbPC", 0, 1, 3.0), Value("b", "AbPC", 0, 1, 2.0)]
    ranking = rank(["a", "b"], found, {"AbPC": True}, "AbPC")
    assert [row.means["AbPC"] for row in ranking.rows] == [3.0, 2.0]


def test_what_says_nothing_ranks_nobody():
    found = [*values(a={0: math.nan}, b={0: 0.1}), Value("a", "Complexity", 0, 0, 2.0)]
    ranking = rank(["a", "b", "c"], found, METRICS, "AbPC")
    assert order(ranking) == [("b", 1), ("a", None), ("c", None)]
    assert ranking.rows[1].means == {"Complexity": 2.0} and ranking.rows[2].means == {}


def test_equal_means_share_a_rank_in_the_order_given():
    ranking = rank(["x", "y", "z"], values(x={0: 1.0}, y={0: 2.0}, z={0: 1.0}), {"AbPC": True}, "AbPC")
    assert order(ranking) == [("y", 1), ("x", 2), ("z", 2)]


def test_infinite_values_are_the_worst_or_the_best():
    found = [Value("a", "Sensitivity", 0, 0, math.inf), Value("b", "Sensitivity", 0, 0, 3.0)]
    assert order(rank(["a", "b"], found, {"Sensitivity": False}, "Sensitivity")) == [("b", 1), ("a", 2)]


def test_no_common_sample_ranks_nobody():
    ranking = rank(["a", "b"], values(a={0: 1.0}, b={1: 1.0}), {"AbPC": True}, "AbPC")
    assert order(ranking) == [("a", None), ("b", None)] and ranking.best("AbPC") is None


def test_by_another_metric_than_there_is():
    message = "ranked by one of the metrics, but there is none 'AbCP'; the nearest: 'AbPC'"
    with pytest.raises(LookupError, match=message):
        rank(["a"], [], METRICS, "AbCP")


def test_as_a_table_of_a_notebook_names_are_text():
    ranking = rank(["<b>"], values(**{"<b>": {0: 1.0}}), {"AbPC": True}, "AbPC")
    page = ranking._repr_html_()
    assert "&lt;b&gt;" in page and "AbPC ↑" in page and "<td>1</td>" in page  # alone it is not the best
    assert ranking.best("AbPC") is None and not ranking.is_best(ranking.rows[0], "AbPC")
    two = rank(["a", "<b>"], values(**{"a": {0: 3.0}, "<b>": {0: 1.0}}), {"AbPC": True}, "AbPC")
    assert "<b>3</b>" in two._repr_html_() and "<td>1</td>" in two._repr_html_()
