"""A run makes what the configuration says, once, and loses nothing that it finished."""

import base64
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import pnpx
from pnpx import zoo
from pnpx.explanation import Explanation
from pnpx.pipeline import run
from pnpx.plan import plan
from tests.space import changed, space_fixture

CONFIG = """\
title: Two of them
model: breast_cancer_mlp
data: {indices: [3, 1]}
explainers:
  - Gradient
  - name: SmoothGrad
    n_iter: 3
    layers: [null, hidden1]
output: {folder}
"""

FILES = [
    "breast_cancer_mlp/Gradient/inputs",
    "breast_cancer_mlp/SmoothGrad/hidden1",
    "breast_cancer_mlp/SmoothGrad/inputs",
]
space = space_fixture(CONFIG, ".safetensors")


def test_writes_attributions_pictures_and_a_report(space):
    outcome = space.run()
    assert (outcome.made, outcome.found, outcome.failures) == (6, 0, [])
    assert outcome.report == space.folder / "report.html"
    names = [f"{name}/{index}" for name in FILES for index in ("0001", "0003")]
    assert sorted(space.stamps()) == [f"{name}.safetensors" for name in names]
    names += [f"breast_cancer_mlp/samples/{index}" for index in ("0001", "0003")]
    pictures = [f"{name}.png" for name in names]
    assert sorted(space.stamps("**/*.png")) == sorted(pictures)
    assert all((space.folder / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert {path.name for path in space.folder.iterdir()} == {"breast_cancer_mlp", "config.yaml", "report.html"}
    page = outcome.report.read_text()
    for part in ("Two of them", "breast_cancer_mlp", "SmoothGrad", "hidden1", "2026-01-02 03:04"):
        assert part in page
    assert page.count("data:image/png") >= 8


def test_attributions_are_those_of_the_explainer(space):
    space.run("explainers.1.noise_level=0.3", "seed=5")
    data = zoo.data("breast_cancer")
    explainer = pnpx.SmoothGrad(zoo.load("breast_cancer_mlp"), layer="hidden1", n_iter=3, noise_level=0.3, seed=5)
    for index in (1, 3):
        stored = Explanation.load(space.folder / f"{FILES[1]}/{index:04d}.safetensors")
        expected = explainer.explain(data.inputs[index : index + 1])
        torch.testing.assert_close(stored.attributions, expected.attributions)
        assert torch.equal(stored.targets, expected.targets)
        assert (stored.kind, stored.class_names) == ("tabular", data.class_names)


def test_the_time_of_a_batch_is_shared_among_its_samples(space, monkeypatch):
    explain = pnpx.Gradient.explain
    monkeypatch.setattr(pnpx.Gradient, "explain", lambda self, inputs: replace(explain(self, inputs), seconds=6.0))
    space.run()
    stored = [Explanation.load(path) for path in (space.folder / FILES[0]).glob("*.safetensors")]
    assert [explanation.seconds for explanation in stored] == [3, 3]


def test_a_second_run_makes_nothing(space):
    space.run()
    before, pictures = space.stamps(), space.stamps("**/*.png")
    outcome = space.run()
    assert (outcome.made, outcome.found) == (0, 6)
    assert space.stamps() == before and space.stamps("**/*.png") == pictures


def spoiled(path, **changes):
    """Write the explanation at ``path`` again, its fingerprint kept, with other parts in its record."""
    with safe_open(path, "pt") as file:
        metadata, leaves = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    record = {**json.loads(metadata["record"]), **changes}
    save_file(leaves, path, {**metadata, "record": json.dumps(record)})


@pytest.mark.parametrize("spoil", [
    lambda path: spoiled(path, seconds="soon"),
    lambda path: spoiled(path, prediction=3),
    lambda path: spoiled(path, diagnostics={"list": []}),
    lambda path: spoiled(path, class_names="ab", attributions=None),
    lambda path: save_file({}, path, {"format": "pnpx.explanation", "version": "1"}),
    lambda path: save_file({}, path, {"format": "pnpx.explanation", "version": "1", "record": "[" * 100_000}),
    lambda path: path.write_bytes(path.read_bytes()[:-3]),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_text("not tensors"),
], ids=["seconds", "prediction", "diagnostics", "names", "no record", "nested", "short", "empty", "text"])
def test_a_damaged_file_is_made_again_and_ends_nothing(space, spoil):
    space.run()
    path, before = space.folder / FILES[1] / "0003.safetensors", space.stamps()
    whole = Explanation.load(path).attributions.clone()  # what was loaded may be mapped from the file
    spoil(path)
    outcome = space.run()
    assert (outcome.made, outcome.found, outcome.failures) == (1, 5, [])
    assert changed(before, space.stamps()) == [f"{FILES[1]}/0003.safetensors"]
    torch.testing.assert_close(Explanation.load(path).attributions, whole)


def test_force_makes_all_again(space):
    space.run()
    before, pictures = space.stamps(), space.stamps("**/*.png")
    outcome = space.run(force=True)
    assert (outcome.made, outcome.found) == (6, 0)
    assert len(changed(before, space.stamps())) == 6 and len(changed(pictures, space.stamps("**/*.png"))) == 8


def test_a_changed_parameter_makes_that_explainer_again_and_no_other(space):
    space.run()
    before, pictures = space.stamps(), space.stamps("*/*rad*/*/*.png")
    outcome = space.run("explainers.1.n_iter=4")
    assert (outcome.made, outcome.found) == (4, 2)
    assert {Path(name).parts[1] for name in changed(before, space.stamps())} == {"SmoothGrad"}
    assert {Path(name).parts[1] for name in changed(pictures, space.stamps("*/*rad*/*/*.png"))} == {"SmoothGrad"}


def test_an_explainer_whose_replay_is_turned_off_is_made_again(space):
    space.run()
    before = space.stamps()
    outcome = space.run("explainers.1.replay=false")
    assert (outcome.made, outcome.found) == (4, 2)
    assert {Path(name).parts[1] for name in changed(before, space.stamps())} == {"SmoothGrad"}


def test_another_sample_or_layer_is_added(space):
    space.run()
    before = space.stamps()
    outcome = space.run("data.indices=[1,3,7]", "explainers.0.layers=[null,head]", "batch_size=1")
    assert (outcome.made, outcome.found) == (6, 6)
    assert changed(before, space.stamps()) == sorted(
        [f"{name}/0007.safetensors" for name in FILES]
        + [f"breast_cancer_mlp/Gradient/head/{index}.safetensors" for index in ("0001", "0003", "0007")]
    )


def test_other_samples_under_the_same_indices_are_made_again(space):
    space.run()
    assert space.run("data.split=train").made == 6


def test_the_pictures_of_samples_are_those_of_the_samples_that_are_explained(space):
    """Also where what is found first, of another run before, is an explanation of another sample than the picture."""
    config = space.config.read_text().replace("breast_cancer_mlp", "digits_cnn").replace("hidden1", "conv1")
    space.config.write_text(config)

    def shown():
        """The rows of the page's picture of sample 3, as the eight by eight pixels they are drawn from."""
        path = space.folder / "digits_cnn/samples/0003.png"
        page = (space.folder / "report.html").read_text()
        assert base64.b64encode(path.read_bytes()).decode() in page
        image = matplotlib.image.imread(path)[..., 0]
        rows, columns = [np.linspace(0, size, 17)[1::2].astype(int) for size in image.shape]
        return image[np.ix_(rows, columns)]

    def sample(split):
        return zoo.data("digits", split=split).inputs[3, 0].numpy()

    def nearness(split):
        return np.corrcoef(shown().ravel(), sample(split).ravel())[0, 1]

    assert not np.array_equal(sample("test"), sample("train"))
    space.run()
    assert abs(nearness("test")) > 0.99 > 0.9 > abs(nearness("train"))
    assert space.run("explainers=[{name: SmoothGrad, n_iter: 3}]", "data.split=train").made == 2
    assert abs(nearness("train")) > 0.99
    outcome = space.run()
    assert (outcome.made, outcome.found) == (2, 4)
    assert abs(nearness("test")) > 0.99


def test_the_picture_of_another_sample_is_left_out_where_it_cannot_be_drawn_again(space, monkeypatch):
    def fail(explanation):
        raise ValueError("no colours")

    space.run()
    monkeypatch.setattr("pnpx.plots.plot_input", fail)
    assert space.run().report.read_text().count("data:image/png") == 8
    assert space.run("data.split=train").report.read_text().count("data:image/png") == 6


def test_changed_weights_make_all_again(space, monkeypatch):
    space.run()
    model = zoo.load("breast_cancer_mlp")
    with torch.no_grad():
        model.head.bias += 1e-3
    monkeypatch.setattr(zoo, "load", lambda name: model)
    assert space.run().made == 6


def test_a_removed_picture_is_drawn_again(space):
    space.run()
    picture = space.folder / FILES[0] / "0001.png"
    picture.unlink()
    assert space.run().made == 0
    assert picture.is_file()


@pytest.mark.parametrize("spoil", [
    lambda whole: b"", lambda whole: b"hi", lambda whole: whole[: len(whole) // 2], lambda whole: whole[:-1],
], ids=["empty", "garbage", "half", "the last byte"])
@pytest.mark.parametrize("name", [FILES[0], "breast_cancer_mlp/samples"])
def test_a_damaged_picture_is_drawn_again_and_ends_nothing(space, name, spoil):
    space.run()
    picture, others = space.folder / name / "0001.png", space.stamps("**/*.png")
    whole = picture.read_bytes()
    picture.write_bytes(spoil(whole))
    outcome = space.run()
    assert (outcome.made, outcome.found, outcome.failures) == (0, 6, [])
    assert picture.read_bytes() == whole
    assert changed(others, space.stamps("**/*.png")) == [str(picture.relative_to(space.folder))]
    assert base64.b64encode(whole).decode() in outcome.report.read_text()


def test_a_damaged_input_that_cannot_be_drawn_again_is_left_out_of_the_page(space, monkeypatch):
    def fail(explanation):
        raise ValueError("no colours")

    space.run()
    (space.folder / "breast_cancer_mlp/samples/0001.png").write_bytes(b"hi")
    monkeypatch.setattr("pnpx.plots.plot_input", fail)
    assert space.run().report.read_text().count("data:image/png") == 7


def test_a_failing_explainer_is_reported_and_the_others_go_on(space, monkeypatch):
    explain = pnpx.SmoothGrad.explain

    def fail_at_layer(self, inputs, targets=None):
        if self.layer == "hidden1":
            raise RuntimeError("no <gradient> today\nand more")
        return explain(self, inputs, targets)

    monkeypatch.setattr(pnpx.SmoothGrad, "explain", fail_at_layer)
    outcome = space.run()
    assert outcome.made == 4
    (failure,) = outcome.failures
    assert (failure.model, failure.explainer, failure.layer) == ("breast_cancer_mlp", "SmoothGrad", "hidden1")
    assert failure.message == "2 of 2 samples: RuntimeError: no <gradient> today"
    assert "no &lt;gradient&gt; today" in outcome.report.read_text()
    text = (space.folder / "failures.txt").read_text()
    assert text.startswith("SmoothGrad at hidden1 of breast_cancer_mlp, 2 of 2 samples\nTraceback")
    assert "fail_at_layer" in text
    monkeypatch.undo()
    outcome = space.run()
    assert (outcome.made, outcome.found, outcome.failures) == (2, 4, [])
    assert not (space.folder / "failures.txt").exists()


BAD = "RuntimeError: a <bad> sample"


@pytest.fixture
def calls(monkeypatch):
    """Makes Gradient fail for batches with samples of these indices, or where ``error`` says; notes their sizes."""
    explain, inputs, sizes = pnpx.Gradient.explain, zoo.data("breast_cancer").inputs, []

    def fail_for(*indices, error=lambda inputs: RuntimeError("a <bad> sample")):
        def explained(self, batch, targets=None):
            sizes.append(len(batch))
            if any((batch == inputs[index]).all(1).any() for index in indices):
                raise error(batch)
            return explain(self, batch, targets)

        monkeypatch.setattr(pnpx.Gradient, "explain", explained)
        return sizes

    return fail_for


@pytest.mark.parametrize("batch_size, sizes", [(8, [6, 1, 1, 1, 1, 1, 1]), (2, [2, 2, 1, 1, 2, 1, 1]), (1, [1] * 6)])
def test_one_failing_sample_does_not_take_the_others_along(space, calls, batch_size, sizes):
    found = calls(7, 9)
    explainers = "explainers=[Gradient,{name: SmoothGrad, n_iter: 2}]"
    outcome = space.run(explainers, "data.indices=[3,1,5,7,9,2]", f"batch_size={batch_size}")
    assert (found, outcome.made) == (sizes, 10)
    assert [failure.message for failure in outcome.failures] == [f"2 of 6 samples, numbers 7, 9: {BAD}"]
    stored = [f"breast_cancer_mlp/Gradient/inputs/{index:04d}.safetensors" for index in (1, 2, 3, 5)]
    assert [name for name in sorted(space.stamps()) if "/Gradient/" in name] == stored
    page = outcome.report.read_text()
    words = "<strong>Gradient</strong> at input failed: <code>RuntimeError: a &lt;bad&gt; sample</code>"
    assert page.count(words) == 2
    assert [page.index(part) for part in ('">Sample 7<', words, '">Sample 9<', '">Sample 2<')] == sorted(
        page.index(part) for part in ('">Sample 7<', words, '">Sample 9<', '">Sample 2<'))
    text = (space.folder / "failures.txt").read_text()
    assert text.startswith("Gradient at the inputs of breast_cancer_mlp, 2 of 6 samples, numbers 7, 9\nTraceback")


def test_samples_that_fail_each_in_its_way_are_told_apart(space, calls):
    calls(3, 5, error=lambda batch: ValueError(f"a sum of {batch.sum():.0f}"))
    outcome = space.run("explainers=[Gradient]", "data.indices=[3,1,5]")
    sums = {index: zoo.data("breast_cancer").inputs[index].sum() for index in (3, 5)}
    assert outcome.made == 1 and [failure.message for failure in outcome.failures] == [
        f"1 of 3 samples, number {index}: ValueError: a sum of {total:.0f}" for index, total in sums.items()]


def test_what_fails_for_every_sample_costs_little_more_than_one_try(space, calls):
    sizes = calls(*range(20))
    outcome = space.run("explainers=[Gradient]", f"data.indices={[*range(20)]}", "batch_size=20")
    assert sizes == [20, 1, 1, 1]
    assert [failure.message for failure in outcome.failures] == [f"20 of 20 samples: {BAD}"]
    page = outcome.report.read_text()
    assert page.count("<strong>Gradient</strong> at input failed") == 20
    assert "mistake" not in page.partition("</style>\n</head>")[2] and "✓ right" not in page


@pytest.mark.parametrize("bad", [(3, 1), (3, 2), (2, 1, 5), (3, 1, 2), (3, 1, 5, 7, 9)], ids=str)
def test_bad_samples_at_the_ends_take_no_others_along(space, calls, bad):
    calls(*bad)
    assert space.run("explainers=[Gradient]", "data.indices=[3,1,5,7,9,2]").made == 6 - len(bad)


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("no room"), MemoryError("no room")], ids=str)
def test_what_does_not_fit_into_memory_is_not_tried_again(space, calls, error):
    sizes = calls(3, error=lambda batch: error)
    outcome = space.run("explainers=[Gradient]", "data.indices=[1,3,5]")
    assert (sizes, outcome.made) == ([3], 0)
    assert outcome.failures[0].message == f"3 of 3 samples: {type(error).__name__}: no room"


def test_an_interrupt_is_no_failing_sample(space, calls):
    sizes = calls(3, error=lambda batch: KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        space.run("explainers=[Gradient]")
    assert sizes == [2]


def test_a_picture_that_cannot_be_drawn_is_reported(space, monkeypatch):
    def fail_at_layer(self):
        if self.explainer["layer"] == "hidden1":
            raise ValueError("no colours")

    monkeypatch.setattr(Explanation, "plot", fail_at_layer)
    outcome = space.run()
    assert outcome.made == 6
    assert [failure.message for failure in outcome.failures] == ["pictures: ValueError: no colours"]


def test_a_full_disk_ends_the_run(space, monkeypatch):
    def full(self, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Explanation, "save", full)
    with pytest.raises(OSError, match="No space left on device"):
        space.run()


@pytest.mark.parametrize("before", [True, False], ids=["while a sample is saved", "between two samples"])
def test_a_killed_run_loses_no_finished_sample(space, before):
    space.run_killed(4, before)
    finished = space.stamps()
    assert len(finished) == (3 if before else 4)
    assert len(list(space.folder.glob("**/.*.part"))) == (1 if before else 0)
    for name in finished:
        Explanation.load(space.folder / name)
    outcome = space.run()
    assert (outcome.made, outcome.found) == (6 - len(finished), len(finished))
    assert {name: stamp for name, stamp in space.stamps().items() if name in finished} == finished
    assert len(space.stamps()) == 6 and len(space.stamps("**/*.png")) == 8
    assert not list(space.folder.glob("**/.*.part"))


OWN = """\
model: {factory: "kept_nets:net"}
data: {factory: "kept_nets:data"}
explainers: [Gradient]
output: {folder}
"""

KEEPS = """\
import torch
from torch import nn
class Keeps(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.seen, self.act = nn.Linear(4, 3), [], torch.ACT
    def forward(self, x):
        self.seen.append(x)
        self.last = self.linear(x)
        return self.act(self.last)
def net():
    return Keeps()
def data(split):
    return torch.arange(12.0).reshape(3, 4) / 12, torch.tensor([0, 1, 2])
"""


def test_a_function_held_by_a_model_counts_and_what_it_keeps_of_its_passes_does_not(space, monkeypatch):
    def explained(act, *overrides):
        (space.config.parent / "kept_nets.py").write_text(KEEPS.replace("ACT", act))
        monkeypatch.delitem(sys.modules, "kept_nets", raising=False)
        importlib.invalidate_caches()
        outcome = run(plan(space.config, overrides, allow_code=True), quiet=True)
        sys.modules.pop("kept_nets")
        return outcome.made, outcome.found

    space.config.write_text(OWN.replace("{folder}", str(space.folder)))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # of two texts of one second and size the first would count
    assert explained("tanh") == (3, 0)
    assert explained("tanh", "explainers=[Gradient,SquareGrad]") == (3, 3)
    assert explained("sigmoid", "explainers=[Gradient,SquareGrad]") == (6, 0)
    stored = Explanation.load(space.folder / "net/Gradient/inputs/0001.safetensors")
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(4, 3), torch.arange(4.0, 8.0)[None].div(12).requires_grad_()
    (expected,) = torch.autograd.grad(linear(x).sigmoid().max(), x)
    torch.testing.assert_close(stored.attributions, expected)


SAID = """\
import torch
from types import SimpleNamespace
def data(split):
    said = dict(class_names=["a", "b", "c"], feature_names=["f", "g", "h", "i"], kind="tabular")
    said.update(CHANGED)
    return SimpleNamespace(inputs=torch.arange(12.0).reshape(3, 4) / 12, targets=torch.tensor([0, 1, 2]), **said)
"""


@pytest.mark.parametrize("name, value", [
    ("class_names", ["x", "y", "z"]),
    ("class_names", ["b", "a", "c"]),
    ("feature_names", ["age", "height", "weight", "x"]),
    ("feature_names", None),
    ("kind", "series"),
    ("kind", None),
])
def test_what_is_said_of_the_data_is_in_explanations_and_pictures(space, monkeypatch, name, value):
    def explained(**said):
        (space.config.parent / "said_data.py").write_text(SAID.replace("CHANGED", repr(said)))
        importlib.invalidate_caches()
        outcome = run(plan(space.config, ["data.indices=[1]"], allow_code=True), quiet=True)
        sys.modules.pop("said_data")
        pictures = [(space.folder / f"net/{where}/0001.png").read_bytes() for where in ("Gradient/inputs", "samples")]
        stored = Explanation.load(space.folder / "net/Gradient/inputs/0001.safetensors")
        return (outcome.made, outcome.found), getattr(stored, name), pictures

    # The model in a module of its own: its code, and that of what stands beside it, counts by itself.
    code = "import torch\ndef net():\n    torch.manual_seed(0)\n    return torch.nn.Linear(4, 3)\n"
    (space.config.parent / "said_nets.py").write_text(code)
    config = OWN.replace("kept_nets:net", "said_nets:net").replace("kept_nets:data", "said_data:data")
    space.config.write_text(config.replace("{folder}", str(space.folder)))
    monkeypatch.delitem(sys.modules, "said_nets", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    counts, first, before = explained()
    assert counts == (1, 0)
    counts, second, after = explained(**{name: value})
    assert counts == (1, 0) and first != second == value
    assert before[0] != after[0] or value is None  # a guess may draw the same
    counts, third, again = explained(**{name: value})
    assert counts == (0, 1) and third == value and again == after
