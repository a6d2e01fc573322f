"""What it takes to look whether a model has changed."""

import torch
from torch import nn

from pnpx.attributors import left_as_found
from pnpx.attributors.attributes import Attributes, explaining
from pnpx.attributors.copied import Copied
from pnpx.attributors.found import Found
from pnpx.attributors.intercept import wrapped


def net():
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU())


def test_wrapped_modules_are_no_change():
    model = net()
    found = Found(model)
    with wrapped(model.modules()):
        assert [*found._differing()] == []
        inside = Found(model)
        assert [*inside._differing()] == []
        model[2].inplace = True
        assert [home for home, _ in found._differing()] == [model[2].__dict__]
    assert [home for home, _ in inside._differing()] == [model[2].__dict__]


def test_a_number_set_anew_to_what_it_was_is_no_change():
    class Scales(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = 1 / 3

        def forward(self, x):
            self.scale = 1 / len(x)
            return x * self.scale

    model = Scales()
    for rows, kept in ((3, False), (2, True)):
        with explaining(model):
            attributes = Attributes(model)
            with attributes.as_found():
                model(torch.ones(rows, 2))
            assert attributes.kept is kept
        assert model.scale == 1 / 3


def test_each_buffer_is_copied_once(monkeypatch):
    copied, make = [], Copied.__init__

    def init(self, tensor):
        copied.append(tensor)
        make(self, tensor)

    monkeypatch.setattr(Copied, "__init__", init)
    model = net()
    with left_as_found(model):
        pass
    assert sorted(map(id, copied)) == sorted(map(id, model.buffers()))


def test_a_model_that_keeps_nothing_shares_one_context():
    model = net()
    with explaining(model):
        attributes = Attributes(model)
        with attributes.as_found():
            pass
        assert attributes.as_found() is attributes.as_found() is attributes.alone()
