"""Ways to break an explanation that a review found, each of which once went wrong without an error."""

import pytest
import torch
from torch import nn

import pnpx


def net(**methods):
    torch.manual_seed(0)
    kind = type("Net", (nn.Module,), methods)
    model = kind()
    model.a, model.b = nn.Linear(3, 3).double(), nn.Linear(3, 2).double()
    return model


X = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
KINDS = [pnpx.Gradient, pnpx.SmoothGrad, pnpx.VarGrad, pnpx.IntegratedGradients]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [None, "a"])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_a_model_that_changes_its_arguments_in_place(kind, layer, batch_size):
    def changing(self, x, y):
        x *= 2
        y += 1
        return self.b(torch.tanh(self.a(x)) * x * y)

    def careful(self, x, y):
        x, y = x * 2, y + 1
        return self.b(torch.tanh(self.a(x)) * x * y)

    x, y = X.clone(), X.clone().abs()
    options = {"forward_arg_extractor": 0, "additional_forward_arg_extractor": 1, "layer": layer}
    options["batch_size"] = batch_size
    found = kind(net(forward=changing), **options).attribute((x, y), 1)
    torch.testing.assert_close(found, kind(net(forward=careful), **options).attribute((x, y), 1))
    assert torch.equal(x, X) and torch.equal(y, X.abs())


@pytest.mark.parametrize("layer", [None, "a"])
def test_rows_that_depend_on_those_before_them_get_one_copy_a_pass(layer):
    model = net(forward=lambda self, x: self.b(torch.tanh(self.a(x))).cumsum(0))
    found = [
        pnpx.SmoothGrad(model, layer=layer, n_iter=5, batch_size=size).attribute(X, 1) for size in (4, 8, 12, 64)
    ]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_labels_of_a_tuple_do_not_reach_the_model():
    seen = []

    def forward(self, x, labels=None):
        seen.append(labels)
        return self.b(self.a(x))

    (found,) = pnpx.Gradient(net(forward=forward)).attribute((X, torch.tensor([0, 1, 0, 1])), 1)
    assert found.shape == X.shape and all(labels is None for labels in seen)


def test_lists_of_the_batch_are_cut_with_it_for_callable_targets():
    batch = {"x": X, "labels": [0, 0, 1, 1]}

    def score(output, batch):
        return torch.stack([row[label] for row, label in zip(output, batch["labels"], strict=True)])

    model = net(forward=lambda self, x: self.b(torch.tanh(self.a(x))))
    whole, parts = (
        pnpx.Gradient(model, forward_arg_extractor="x", batch_size=size).attribute(batch, score) for size in (4, 2)
    )
    torch.testing.assert_close(parts, whole)


def test_a_dropped_output_read_where_the_model_catches_errors():
    def forward(self, x):
        hidden = self.a(x)
        value = self.middle(hidden)
        if (value - self.clean).abs().max() > 0:
            try:
                value = value * hidden.sigmoid()
            except RuntimeError:
                value = value * 0
        return self.b(value)

    model = net(forward=forward)
    model.middle = nn.Linear(3, 3).double()
    model.clean = model.middle(model.a(X)).detach()
    found, expected = (
        pnpx.SmoothGrad(model, layer="middle", n_iter=4, replay=replay).attribute(X, 1) for replay in (True, False)
    )
    torch.testing.assert_close(found, expected)


CONFIG = """\
model: digits_rnn
data: {samples: 1}
explainers: [{name: Gradient}]
"""


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("output: .", r"output: would overwrite this configuration with the one as run, config.yaml"),
        ('output: "a\\0b"', r"output: must be the name of a folder, but holds a null character"),
        ('output: "${"', r"no valid YAML"),
        ("output: out\ntitle: ${oc.env:HOME}", r"\$\{oc.env:...\} calls a resolver; only references to keys"),
    ],
)
def test_configurations_that_would_do_harm(tmp_path, monkeypatch, more, problem):
    from pnpx.plan import plan
    from pnpx.source import ConfigError

    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(f"{CONFIG}{more}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=problem):
        plan(tmp_path / "config.yaml", [], None, False)
