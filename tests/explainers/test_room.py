"""How many rows passes have: as many as was asked for, or more where they take little memory."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import pnpx
from pnpx.attributors.held import weight_bytes
from pnpx.explainers import room
from tests.explainers.probes import Spy

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ones(1, requires_grad=True).exp().grad_fn, "_input_metadata"),
    reason="before PyTorch 2.6 the operations in a graph do not tell what they give out",
)


class Wide(Spy):
    """Holds ``extent`` numbers for each row."""

    def __init__(self, extent):
        super().__init__()
        self.extent = extent

    def forward(self, x):
        return super().forward(x) + x[:, :1].expand(-1, self.extent).sin().mean(1, keepdim=True)


def rows(model, explainer, batch, features=3):
    """How many rows the passes that are differentiated have."""
    found = []

    def note(module, args, output):
        if output.requires_grad:
            found.append(len(output))

    handle = model.register_forward_hook(note)
    explainer.attribute(torch.randn(batch, features), 0)
    handle.remove()
    return found


@pytest.mark.parametrize("kind", [pnpx.SmoothGrad, pnpx.SquareGrad, pnpx.VarGrad])
def test_small_models_get_more_rows_in_a_pass(kind):
    model = Spy()
    assert rows(model, kind(model, n_iter=50), 16) == [32, 48 * 16]
    assert rows(model, kind(model, n_iter=50), 32) == [32, 25 * 32, 24 * 32]  # not over 1024, and as even as can be
    assert rows(model, kind(model, n_iter=500), 1)[:2] == [32, 468]


def test_batch_size_is_the_most():
    model = Spy()
    assert rows(model, pnpx.SmoothGrad(model, n_iter=50, batch_size=32), 16) == [32] * 25
    assert rows(model, pnpx.SmoothGrad(model, n_iter=4, batch_size=1), 1) == [1] * 4


def test_what_a_pass_holds_decides():
    heavy, medium = Wide(300_000), Wide(10_000)
    assert rows(heavy, pnpx.SmoothGrad(heavy, n_iter=6), 16) == [32] * 3
    # A copy holds 16 x 40 000 bytes, so that 13 take 8 MiB, and 48 copies are 4 times 12.
    assert rows(medium, pnpx.SmoothGrad(medium, n_iter=50), 16) == [32] + [12 * 16] * 4


def weighty(mebibytes, kind=nn.Linear, dtype=torch.float32):
    """A part with so many MiB of weights, which nothing touches: they take no memory before they are read."""
    part = kind(1, 1)
    part.weight = nn.Parameter(torch.empty(mebibytes * 2**20 // dtype.itemsize, dtype=dtype))
    return part


@pytest.mark.parametrize("held, mebibytes, kind, copies", [
    (10_000, 4, nn.Linear, 12), (10_000, 20, nn.Linear, 24), (50_000, 64, nn.Linear, 16), (50_000, 99, nn.Linear, 16),
    (10_000, 20, nn.Embedding, 12), (10_000, 20, nn.EmbeddingBag, 12)],
    ids=["less than 8 MiB", "more", "64 MiB", "more than that", "embeddings: few rows are read", "bags of them"])
def test_passes_with_many_weights_have_more_rows(held, mebibytes, kind, copies):
    """What a pass holds, 0.64 or 3.2 MB for each copy, may be as much as the weights that it reads, up to 64 MiB."""
    model = Wide(held)
    model.part = weighty(mebibytes, kind)
    assert max(rows(model, pnpx.SmoothGrad(model, n_iter=50), 16)) == copies * 16


def test_weights_of_several_names_are_read_once_and_those_of_half_precision_are_half():
    model = nn.ModuleList([weighty(20), weighty(6, dtype=torch.bfloat16)])
    model.append(nn.Linear(1, 1, bias=False))
    model[2].weight = model[0].weight
    biases = 2 * 4  # one number each
    assert weight_bytes(model) == 26 * 2**20 + biases
    assert weight_bytes(model, [model[0], model[2]]) == 6 * 2**20 + 4


@pytest.mark.parametrize("place, layer, replay, copies", [
    ("first", "middle", True, 12), ("middle", "middle", True, 12), ("middle", "middle:input", True, 24),
    ("last", "middle", True, 24), ("first", "middle", False, 24), ("middle", "middle", False, 24)])
def test_the_weights_are_those_that_passes_read(place, layer, replay, copies):
    class Staged(Wide):
        def __init__(self):
            super().__init__(10_000)
            self.first, self.middle, self.last = (nn.Sequential(nn.Identity()) for _ in range(3))

        def forward(self, x):
            return super().forward(self.last(self.middle(self.first(x))))

    model = Staged()
    part = weighty(20)
    part.forward = lambda x: x
    setattr(model, place, nn.Sequential(part))
    assert max(rows(model, pnpx.SmoothGrad(model, layer=layer, replay=replay, n_iter=50), 16)) == copies * 16


def test_what_is_explained_counts_as_well():
    class First(nn.Module):
        """Holds next to nothing of what it is given."""

        def forward(self, x):
            return x[:, :1] * 2

    model = First()
    assert rows(model, pnpx.SmoothGrad(model, n_iter=10), 16, features=30_000) == [32] * 5


def test_parts_that_do_not_depend_on_what_is_explained_count_as_well():
    class Two(nn.Module):
        """Sees an image, of which no gradient is taken, and a few numbers."""

        def __init__(self):
            super().__init__()
            self.passes = []
            self.conv = nn.Conv2d(3, 16, 3)

        def forward(self, image, numbers):
            self.passes.append(len(image))
            return numbers * self.conv(image).relu().mean((1, 2, 3))[:, None]

    batch = {"image": torch.randn(2, 3, 64, 64), "numbers": torch.randn(2, 3)}
    apart = {"forward_arg_extractor": "numbers", "additional_forward_arg_extractor": "image"}
    for where in ({"layer": "numbers"}, apart):
        model = Two()
        pnpx.SmoothGrad(model, n_iter=100, **where).attribute(batch, 0)
        assert max(model.passes) == 32


def test_a_few_points_more_are_not_worth_a_check():
    model = Spy()
    assert rows(model, pnpx.SmoothGrad(model, n_iter=8), 16) == [32] * 4
    assert rows(model, pnpx.SmoothGrad(model, n_iter=10), 16) == [32, 128]


def test_the_last_rows_are_not_too_many_where_the_number_of_points_is_unknown():
    class Endless(pnpx.GradientExplainer):
        statistic = pnpx.statistics.Mean

        def points(self, bound, reference):
            for number in range(99):
                yield pnpx.Point([value.tensor + number for value in bound.values])

    model = Spy()
    assert rows(model, Endless(model), 16) == [32, 1024, 33 * 16]


@pytest.mark.parametrize("layer", [None, "0"])
@pytest.mark.parametrize("batch", [1, 7, 32, 40])
def test_the_explanation_is_the_same(layer, batch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(4 * 36, 5)).double()
    images, targets = torch.randn(batch, 1, 8, 8).double(), torch.arange(batch) % 5
    for kind in (pnpx.SquareGrad, pnpx.VarGrad, pnpx.IntegratedGradients):
        steps = {"n_steps": 60} if kind is pnpx.IntegratedGradients else {"n_iter": 60}
        free, strict = (
            kind(model, layer=layer, batch_size=size, **steps).attribute(images, targets) for size in (None, 32)
        )
        torch.testing.assert_close(free, strict, rtol=1e-9, atol=1e-12)


def test_samples_that_depend_on_how_many_rows_there_are_get_passes_of_their_own():
    class Counts(nn.Module):
        """As a model may that was written for the rows it has seen: with over 100 it gives something else."""

        def forward(self, x):
            return (x * x * (1 if len(x) <= 100 else 2)).sum(1, keepdim=True)

    x = torch.randn(16, 3)
    found = pnpx.SmoothGrad(Counts(), n_iter=50, noise_std=0.0).attribute(x, 0)
    torch.testing.assert_close(found, 2 * x)


def test_what_was_proven_stays_where_more_rows_fail():
    class Limited(nn.Module):
        def __init__(self):
            super().__init__()
            self.passes = []

        def forward(self, x):
            self.passes.append(len(x))
            if len(x) > 64:
                raise ValueError("at most 64 rows")
            return x.square().sum(1, keepdim=True)

    model, x = Limited(), torch.randn(1, 3)
    found = pnpx.SmoothGrad(model, n_iter=3000, noise_std=0.0).attribute(x, 0)
    torch.testing.assert_close(found, 2 * x)
    assert sum(count > 64 for count in model.passes) == 1 and model.passes.count(32) > 90


def test_out_of_memory_ends_the_growth(monkeypatch):
    class Small(nn.Module):
        """Of an accelerator that holds 200 rows."""

        def __init__(self):
            super().__init__()
            self.passes, self.refused = [], []

        def forward(self, x):
            if len(x) > 200:
                self.refused.append(len(x))
                raise torch.cuda.OutOfMemoryError("simulated")
            self.passes.append(len(x))
            return x.sum(1, keepdim=True)

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    model = Small()
    found = pnpx.SmoothGrad(model, n_iter=302).attribute(torch.randn(16, 3), 0)
    torch.testing.assert_close(found, torch.ones(16, 3))
    # 60 copies are halved to 7 and 8; the next passes have 7 at once.
    assert len(model.refused) == 1 + 2 + 4 and model.passes.count(7 * 16) > 30


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "32"])
def test_batch_size_is_a_count_or_none(size):
    with pytest.raises((TypeError, ValueError), match="batch_size"):
        pnpx.SmoothGrad(nn.Linear(2, 2), batch_size=size)


def test_texts_and_pieces_of_a_batch_begin_with_the_default():
    assert pnpx.SmoothGrad(nn.Linear(2, 2)).rows == room.DEFAULT_ROWS == 32
    assert pnpx.SmoothGrad(nn.Linear(2, 2), batch_size=5).rows == 5


class Inside(nn.Module):
    """Notes of each pass how many rows it has, and whether it is differentiated."""

    def __init__(self):
        super().__init__()
        self.beside, self.first, self.last, self.passes = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3), []

    def forward(self, x):
        beside = self.beside(x)  # which a replay needs of the very samples that a check has
        scores = self.last(torch.tanh(self.first(x)) * beside)
        self.passes.append((len(scores), scores.requires_grad))
        return scores


@pytest.mark.parametrize("size", range(2, 17))
def test_larger_passes_at_layers_are_checked_with_a_few_rows(size):
    model = Inside().double()
    explainer = pnpx.SmoothGrad(model, layer="first", n_iter=200)
    images = torch.randn(size, 6).double()
    found = explainer.attribute(images, 0)
    sizes = [rows for rows, differentiated in model.passes if differentiated]
    assert sizes[0] == 32 // size * size and len(sizes) <= 5 and sum(sizes) == 200 * size
    checks = [rows for rows, differentiated in model.passes[2:] if not differentiated]
    # Of five samples the few would be as many as the batch: they are all checked once more.
    assert checks == ([10] if size == 5 else [2 + max(3, size // 4)])
    torch.testing.assert_close(found, replace(explainer, batch_size=size).attribute(images, 0))


def test_sequences_padded_to_the_longest_still_get_larger_passes():
    """The few samples that are met in the larger pass are padded to less than all: the whole batch is asked then."""

    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.last = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)
            self.passes = []

        def forward(self, packed):
            padded, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
            scores = self.last(padded).sum(1)
            self.passes.append((len(scores), scores.requires_grad))
            return scores

    torch.manual_seed(0)
    model, lengths = Padded().double(), [2, 2, 2, 7, 7, 2, 2, 2]
    sequences = [torch.randn(length, 3).double() for length in lengths]
    packed = nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False)
    explainer = pnpx.SmoothGrad(model, layer="lstm", n_iter=200)
    found = explainer.attribute(packed, 0)
    assert sum(differentiated for _, differentiated in model.passes) < 8
    expected = pnpx.SmoothGrad(model, layer="lstm", n_iter=200, batch_size=8).attribute(packed, 0)
    torch.testing.assert_close(found[0].data, expected[0].data)


def test_a_model_that_refuses_few_rows_still_gets_larger_passes():
    class Picky(Inside):
        def forward(self, x):
            if len(x) < 6:
                self.passes.append((len(x), False))
                raise ValueError("at least 6 rows")
            return super().forward(x)

    model = Picky().double()
    pnpx.SmoothGrad(model, layer="first", n_iter=200).attribute(torch.randn(9, 6).double(), 0)
    # The first pass, the whole batch in a frame, the first chunk, a few, the whole in a frame again, all that is left.
    assert model.passes == [(9, False), (14, False), (27, True), (5, False), (14, False), *model.passes[5:]]
    assert [differentiated for _, differentiated in model.passes[5:]] == [True] * len(model.passes[5:])


def test_scores_that_want_the_whole_batch_still_get_larger_passes():
    def different(output, targets):
        if len(output[:, 0].unique()) < len(output):
            raise ValueError("these are not the samples of a batch")
        return output[:, 0]

    model = Inside().double()
    pnpx.SmoothGrad(model, layer="first", n_iter=200, score=different).attribute(torch.randn(9, 6).double())
    # As above: a few samples do not make a batch, so that the whole one is framed again.
    assert model.passes == [(9, False), (14, False), (27, True), (5, False), (14, False), *model.passes[5:]]
    assert [differentiated for _, differentiated in model.passes[5:]] == [True] * len(model.passes[5:])
