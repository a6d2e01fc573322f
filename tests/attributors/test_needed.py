"""Outputs that a replay does not use are neither kept nor copied; those that it uses are, however they are used."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pnpx import SmoothGrad
from pnpx.attributors.layer import LayerAttributor, LayerBound
from pnpx.attributors.needed import Watch, hollow
from pnpx.attributors.places import resolve_all
from pnpx.extractors import extract


class Skips(nn.Module):
    """Uses what ran before ``middle`` after it, in the way that ``how`` says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.early, self.between, self.middle, self.late = (nn.Linear(4, 4) for _ in range(4))
        self.scripted = torch.jit.trace(nn.Tanh(), torch.zeros(2, 4))

    def forward(self, inputs: Tensor) -> Tensor:
        early = self.early(inputs)
        if self.how == "in place":
            early.relu_()
        kept = torch.sin(early) if self.how == "derived" else early
        middle = self.middle(self.between(early))
        if self.how in ("in place", "later", "derived"):
            middle = middle + kept
        elif self.how == "listed":
            middle = torch.cat([middle, kept], dim=1)[:, ::2]
        elif self.how == "scripted":
            middle = middle * self.scripted(kept)
        elif self.how == "numpy":
            middle = middle * float(kept.detach().numpy().sum())
        elif self.how == "shape":
            middle = middle * kept.shape[1]
        return torch.tanh(self.late(middle))


def bound_after_a_pass(how: str) -> LayerBound:
    torch.manual_seed(0)
    model = Skips(how).eval()
    call = extract(model, torch.randn(3, 4), None, None)
    with torch.no_grad(), LayerAttributor(model, resolve_all(model, "middle")).at(call) as bound:
        bound.run(lambda: [value.tensor.clone() for value in bound.values], 1)
    return bound


@pytest.mark.parametrize("how", ["not", "in place", "later", "derived", "listed", "scripted", "numpy", "shape"])
def test_the_result_is_that_of_full_passes(how: str) -> None:
    torch.manual_seed(0)
    model, inputs = Skips(how), torch.randn(3, 4)
    explainer = SmoothGrad(model, layer="middle", n_iter=8, batch_size=9)
    if how == "numpy":  # one number for the whole batch: copies cannot share a pass
        assert torch.isfinite(explainer.attribute(inputs, 0)).all()
    replayed = explainer.attribute(inputs, 0)
    full = SmoothGrad(model, layer="middle", n_iter=8, batch_size=9, replay=False).attribute(inputs, 0)
    torch.testing.assert_close(replayed, full)


@pytest.mark.parametrize(
    ("how", "dropped"), [("not", 2), ("shape", 2), ("later", 1), ("derived", 1), ("in place", 1), ("listed", 1)]
)
def test_only_what_is_used_is_kept(how: str, dropped: int) -> None:
    recording = bound_after_a_pass(how)._recording
    events = [event for event in recording.prefix or [] if event.finished]
    assert [len(event.unused) for event in events].count(1) == dropped
    for event in events:
        assert bool(torch.isnan(event.output).all()) == bool(event.unused)
        assert event.output.untyped_storage().nbytes() == (4 if event.unused else 48)


def test_a_watch_notes_what_is_read_and_hands_it_out() -> None:
    watch, numbers = Watch(), torch.arange(3.0)
    with watch:
        stand_in = watch.stand_in((0, 1), hollow(numbers, numbers.shape), numbers.clone)
        assert stand_in.shape == (3,) and stand_in.dtype == torch.float32 and len(stand_in) == 3
        assert not watch.used
        assert torch.stack([stand_in, stand_in]).tolist() == [[0.0, 1.0, 2.0]] * 2
        stand_in.add_(1)  # in place: what is read later has changed
        assert (stand_in * 2).tolist() == [2.0, 4.0, 6.0]
    assert watch.used == {(0, 1)}


def test_a_hollow_tensor_takes_no_memory_and_is_nan() -> None:
    found = hollow(torch.zeros(2, dtype=torch.bfloat16), (1000, 1000))
    assert found.shape == (1000, 1000) and found.dtype == torch.bfloat16
    assert found.untyped_storage().nbytes() == 2 and bool(torch.isnan(found).all())


def test_a_way_taken_only_under_noise_that_compares_a_dropped_output_runs_whole():
    """NaN > 0 is False: were a dropped output merely NaN, this would go wrong without a sign of it."""

    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third, self.head = (nn.Linear(3, 3).double() for _ in range(4))

        def forward(self, x):
            hidden = self.first(x)
            value = self.third(self.second(hidden))
            if (value - self.clean).abs().max() > 0 and (hidden > hidden.min()).any():
                value = value * 3
            return self.head(value)

    torch.manual_seed(0)
    model, x = Branching(), torch.randn(2, 3, dtype=torch.float64)
    model.clean = model.third(model.second(model.first(x))).detach()
    for batch_size in (2, 64):
        explainer = SmoothGrad(model, layer="third", n_iter=4, batch_size=batch_size)
        expected = replace(explainer, replay=False).attribute(x, 0)
        torch.testing.assert_close(explainer.attribute(x, 0), expected)
        torch.testing.assert_close(expected, 3 * model.head.weight[0].expand(2, 3))


def caught(hidden: Tensor) -> Tensor:
    try:
        return hidden.sigmoid()
    except RuntimeError:
        return torch.zeros(())


# What it is given does not see what it calls, and is NaN to it.
unseen = torch.vmap(torch.sigmoid)


def test_what_a_failed_replay_has_changed_in_place_is_made_anew():
    class Changes(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.third, self.head = (nn.Linear(3, 3) for _ in range(3))
            self.clean = None

        def forward(self, x):
            early = self.first(x)
            value = self.third(early)
            noisy = self.clean is not None and bool((value.detach() - self.clean).abs().max() > 0)
            value.mul_(value.detach().cos() + 2)
            if noisy and bool((early > early.min()).any()):  # reads what was dropped
                value = value * 3
            return self.head(value.sin())

    torch.manual_seed(0)
    model, x = Changes().double().eval(), torch.randn(4, 3).double()
    clean = model.third(model.first(x)).detach()
    explainer = SmoothGrad(model, layer="third", n_iter=4, batch_size=4)
    model.clean = clean
    torch.testing.assert_close(explainer.attribute(x, 0), replace(explainer, replay=False).attribute(x, 0))


@pytest.mark.parametrize("read", [caught, unseen], ids=["an error is caught", "by numbers alone"])
@pytest.mark.parametrize("batch_size", [4, 64])
def test_a_dropped_output_that_is_read_without_an_error_coming_out(read, batch_size):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.middle, self.head = (nn.Linear(3, 3).double() for _ in range(3))

        def forward(self, x):
            hidden = self.first(x)
            value = self.middle(hidden)
            if (value - self.clean.repeat(len(value) // 4, 1)).abs().max() > 0:
                value = value * read(hidden)
            return self.head(value)

    torch.manual_seed(0)
    model, x = Branching(), torch.randn(4, 3, dtype=torch.float64)
    model.clean = model.middle(model.first(x)).detach()
    found, expected = (
        SmoothGrad(model, layer="middle", n_iter=4, replay=replay, batch_size=batch_size).attribute(x, 1)
        for replay in (True, False)
    )
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected)
