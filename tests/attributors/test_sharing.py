"""Copies of a batch share passes where that changes nothing, and only there."""

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pnpx import GradientExplainer, IntegratedGradients, Point, SmoothGrad, SquareGrad
from pnpx.statistics import Mean


class Net(nn.Module):
    """``change(model, hidden)`` comes after the layers a and b, and before c; ``offset`` is added to the scores."""

    def __init__(self, change, offset):
        super().__init__()
        self.a, self.b, self.c, self.more = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 5), nn.Linear(8, 8)
        self.change, self.offset, self.passes = change, offset, []

    def forward(self, x):
        self.passes.append(len(x))
        return self.offset + self.c(self.change(self, torch.tanh(self.b(torch.tanh(self.a(x))))) ** 2)


def explained(change, batch, layer, batch_size, dtype=torch.float64, replay=True, seed=0, offset=0.0):
    """What SquareGrad and IntegratedGradients give, and the rows of the passes that SquareGrad took."""
    torch.manual_seed(seed)
    model, x = Net(change, offset).to(dtype), torch.randn(batch, 6, dtype=dtype)
    options = {"layer": layer, "batch_size": batch_size, "replay": replay}
    squares = SquareGrad(model, n_iter=12, noise_level=0.5, **options).attribute(x, 1)
    passes, model.passes = model.passes, []
    path = IntegratedGradients(model, n_steps=12, gap_tolerance=None, **options).attribute(x, 1)
    return torch.stack([squares, path]), passes


def exits(read):
    def change(model, hidden):
        for _ in range(4):
            if read(hidden):
                break
            hidden = torch.tanh(model.more(hidden) * 1.5)
        return hidden

    return change


def halts_by_a_note(model, hidden):
    """What was computed is written into another tensor before it is looked at."""
    notes = torch.zeros(3, dtype=hidden.dtype)
    notes[1] = hidden.abs().max().detach()
    return hidden * 2 if notes.tolist()[1] > 0.7 else hidden


DECIDING = {
    "bool": exits(lambda hidden: (hidden.abs().mean() > 0.5)),
    "item": exits(lambda hidden: hidden.sum().item() > 0),
    "float": exits(lambda hidden: float(hidden.detach().norm()) > 1.4),
    "all close": exits(lambda hidden: torch.allclose(hidden, hidden.mean().expand_as(hidden), atol=0.9)),
    "numpy": exits(lambda hidden: hidden.detach().numpy().max() > 0.8),
    "a note": halts_by_a_note,
    "numpy's functions": exits(lambda hidden: np.linalg.norm(hidden.detach()) > 1.4),
    "as an array": exits(lambda hidden: np.asarray(hidden.detach()).max() > 0.8),
    "dlpack": exits(lambda hidden: np.from_dlpack(hidden.detach()).max() > 0.8),
    "how many are large": exits(lambda hidden: len((hidden.abs() > 0.7).nonzero()) > 3),
    "where they are": exits(lambda hidden: torch.where(hidden.abs() > 0.7)[0].shape[0] > 3),
    "those that are large": exits(lambda hidden: hidden[hidden.abs() > 0.7].square().numel() > 3),
    "rows that are large": exits(lambda hidden: hidden[hidden.sum(1) > 0].relu().size(0) > 0),
    "different ones": exits(lambda hidden: len((hidden.detach() * 2).round().unique()) > 4),
    "one by one": exits(lambda hidden: sum(1 for _ in hidden.masked_select(hidden.abs() > 0.7)) > 3),
    "as many zeros": exits(lambda hidden: torch.zeros((hidden > 0.7).sum()).shape[0] > 3),
    "as long a range": exits(lambda hidden: len(torch.arange((hidden > 0.7).sum())) > 3),
    "a part as long": exits(lambda hidden: hidden.flatten()[: (hidden > 0.7).sum()].numel() > 3),
    "repeated as often": exits(lambda hidden: len(torch.ones(1).repeat_interleave((hidden > 0.7).sum()[None])) > 3),
    "expanded as far": exits(lambda hidden: torch.ones(1).expand((hidden > 0.7).sum()).numel() > 3),
}


@pytest.mark.parametrize("layer", [None, "a", "b"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("what", DECIDING)
def test_a_model_that_decides_by_what_it_computes_gets_one_copy_a_pass(what, batch, layer):
    for seed in range(5):
        expected, _ = explained(DECIDING[what], batch, layer, batch, replay=False, seed=seed)
        for batch_size in (2 * batch, 32):
            found, _ = explained(DECIDING[what], batch, layer, batch_size, seed=seed)
            torch.testing.assert_close(found, expected)


def routes(model, hidden):
    """Rows go to the one or the other layer, and back to their places: no number of them is looked at."""
    out = torch.zeros_like(hidden)
    for number, layer in enumerate((model.b, model.more)):
        (chosen,) = torch.where((hidden.sum(1) > 0) == bool(number))
        out.index_add_(0, chosen, torch.tanh(layer(hidden[chosen])))
        chosen = (hidden.mean(1) > 0) == bool(number)
        out[chosen] = out[chosen] + layer(hidden[chosen])
    assert out.shape == hidden.shape and len(out) == out.size(0)
    return out


def packs(model, hidden):
    """Steps of sequences of given lengths go through a recurrent net, which asks how many there are of each."""
    lengths = torch.tensor([4, 2]).repeat(len(hidden) // 2 + 1)[: len(hidden)]
    packed = pack_padded_sequence(hidden.reshape(-1, 4, 2), lengths, batch_first=True, enforce_sorted=False)
    torch.manual_seed(1)
    padded, _ = pad_packed_sequence(nn.LSTM(2, 2, batch_first=True).to(hidden)(packed)[0], batch_first=True)
    return torch.reshape(input=padded, shape=(len(hidden), 8))


@pytest.mark.parametrize("layer", [None, "a"])
@pytest.mark.parametrize("change", [routes, packs])
def test_sizes_that_decide_nothing_leave_passes_shared(change, layer):
    expected, _ = explained(change, 2, layer, 2, replay=False)
    found, passes = explained(change, 2, layer, 32)
    torch.testing.assert_close(found, expected)
    assert 24 in passes


def asks(model, hidden):
    """Looks at numbers, but not at those that depend on what is explained."""
    mask = torch.ones(3, dtype=torch.bool)
    if mask.all() and float(model.c.weight.sum()) != 0 and len(hidden) and hidden.shape[0] > 0 and hidden.dim() == 2:
        hidden = hidden * 2
    return hidden


@pytest.mark.parametrize("layer", [None, "a", "b"])
def test_other_questions_do_not_matter(layer):
    expected, _ = explained(asks, 2, layer, 2, replay=False)
    found, passes = explained(asks, 2, layer, 32)
    torch.testing.assert_close(found, expected)
    assert 24 in passes and len(passes) <= 5  # all twelve copies in one


@pytest.mark.parametrize("layer", [None, "b"])
@pytest.mark.parametrize("offset", [0.0, 30.0, 100.0])
def test_a_large_constant_does_not_hide_that_samples_depend_on_each_other(offset, layer):
    def change(model, hidden):
        return hidden - hidden.mean(0)

    given = {"dtype": torch.float32, "offset": offset}
    expected, _ = explained(change, 3, layer, 3, replay=False, **given)
    for batch_size in (6, 32):
        found, _ = explained(change, 3, layer, batch_size, **given)
        assert (found - expected).abs().max() < 1e-3 * expected.abs().max()


def by_row(weigh):
    def change(model, hidden):
        return hidden * weigh(torch.arange(len(hidden)))[:, None]

    return change


@pytest.mark.parametrize("layer", [None, "b"])
@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("what", ["capacity", "alternating"])
def test_rows_that_differ_by_where_they_stand(what, batch, layer):
    """As experts have that take no more than so many rows."""
    change = by_row((lambda row: row < 7) if what == "capacity" else (lambda row: 1 + row % 2))
    expected, _ = explained(change, batch, layer, batch, replay=False)
    for batch_size in (3 * batch, 32):
        torch.testing.assert_close(explained(change, batch, layer, batch_size)[0], expected)


def changed(rows, change):
    def whole(model, hidden):
        hidden = hidden.clone()
        hidden[rows] = change(hidden)
        return hidden

    return whole


BY_PLACE = {
    "the first row": changed(0, lambda hidden: hidden[0] * 2),
    "the last row": changed(-1, lambda hidden: hidden[-1] * 2),
    "the third row": changed(2, lambda hidden: hidden[2] * 2),
    "the mean, into the first row": changed(0, lambda hidden: hidden[0] - hidden.mean(0)),
    "how many rows": lambda model, hidden: hidden * 2 if len(hidden) > 4 else hidden,
}


@pytest.mark.parametrize("layer", [None, "a", "b"])
@pytest.mark.parametrize("batch", [2, 4, 8])
@pytest.mark.parametrize("what", BY_PLACE)
def test_single_rows_that_are_special(what, batch, layer):
    """A batch alone is what counts, not a larger one that gives the same in another place."""
    if what == "the third row" and batch == 2:
        return  # a batch alone has none
    expected, _ = explained(BY_PLACE[what], batch, layer, batch, replay=False)
    for batch_size in (2 * batch, 3 * batch, 5 * batch, 100):
        torch.testing.assert_close(explained(BY_PLACE[what], batch, layer, batch_size)[0], expected)


@pytest.mark.parametrize("batch, batch_size", [(2, 4), (2, 20), (4, 8), (4, 40)])
def test_a_model_that_refuses_some_sizes_still_leaves_out_what_it_can(batch, batch_size):
    class Even(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Sequential(nn.Linear(6, 8)), nn.Linear(8, 8), nn.Linear(8, 5)
            self.rows = []

        def forward(self, x):
            hidden = self.b(self.a(x))
            self.rows.append(len(hidden))
            return self.c(hidden.reshape(-1, batch, 8).tanh()).flatten(0, 1)

    torch.manual_seed(0)
    model, x, prefix = Even().double(), torch.randn(batch, 6, dtype=torch.float64), []
    model.a[0].register_forward_pre_hook(lambda module, args: prefix.append(len(args[0])))
    explainer = SmoothGrad(model, layer="b", n_iter=20, batch_size=batch_size)
    found = explainer.attribute(x, 1)
    assert prefix == [batch] and model.rows.count(batch_size) >= 20 * batch // batch_size
    assert model.rows.count(batch) <= 4  # the first pass, and those that check
    torch.testing.assert_close(found, replace(explainer, batch_size=batch, replay=False).attribute(x, 1))


@pytest.mark.parametrize("batch, batch_size", [(2, 4), (4, 40)])
def test_a_model_that_fails_for_far_values_still_leaves_out_what_it_can(batch, batch_size):
    class LooksUp(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Sequential(nn.Linear(6, 8)), nn.Linear(8, 8), nn.Linear(8, 5)
            self.table = nn.Parameter(torch.randn(3, 8))

        def forward(self, x):
            hidden = self.b(self.a(x))
            return self.c(hidden * self.table[(hidden.mean(1) + 1.5).long()])  # an index far off is an error

    torch.manual_seed(0)
    model, x, prefix = LooksUp().double(), torch.randn(batch, 6, dtype=torch.float64), []
    model.a[0].register_forward_pre_hook(lambda module, args: prefix.append(len(args[0])))
    explainer = SmoothGrad(model, layer="b", n_iter=20, noise_level=0.01, batch_size=batch_size)
    found = explainer.attribute(x, 1)
    assert prefix == [batch]
    torch.testing.assert_close(found, replace(explainer, batch_size=batch, replay=False).attribute(x, 1))


@pytest.mark.parametrize("layer", [None, "a"])
@pytest.mark.parametrize("kind", [list, tuple])
def test_outputs_in_a_list_are_shared_and_replayed_as_those_in_a_tuple(kind, layer):
    rows = []
    model = nn.Sequential(OrderedDict(a=nn.Linear(6, 8), b=nn.Tanh(), c=nn.Linear(8, 5)))
    model.a.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    model.register_forward_hook(lambda module, args, output: kind([output, output.mean(1)]))
    SmoothGrad(model, layer=layer, n_iter=10, batch_size=40).attribute(torch.randn(4, 6), 1)
    # At the layer the pass that records it, a check, and one for all; at the inputs one for all, and two
    # checks of it. The check at the layer has the batch, three samples around it, and two of its samples once more.
    assert rows == ([4, 9, 40] if layer else [40, 4, 4])


@pytest.mark.parametrize("batch_size", [2, 32])
@pytest.mark.parametrize("layer", [None, "a"])
def test_points_made_in_inference_mode(layer, batch_size):
    class Halves(GradientExplainer):
        statistic = Mean

        def points(self, bound, reference):
            for _ in range(3):
                with torch.inference_mode():
                    halves = [value.tensor / 2 for value in bound.values]
                yield Point(halves)

    class Normal(Halves):
        def points(self, bound, reference):
            for point in super().points(bound, reference):
                yield Point([tensor.clone() for tensor in point.tensors])

    torch.manual_seed(0)
    model, x = Net(lambda model, hidden: hidden, 0.0).double(), torch.randn(2, 6).double()
    found, expected = (kind(model, layer=layer, batch_size=batch_size).attribute(x, 0) for kind in (Halves, Normal))
    torch.testing.assert_close(found, expected)
