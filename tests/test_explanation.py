"""The record: its batches of one, and that its file gives back exactly what was put in."""

import json
import os
from collections import namedtuple
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import pnpx
from pnpx.explanation import Explanation
from pnpx.plots.parts import parts, target_texts
from pnpx.structure import is_container, items
from tests.errors import raises


def same(one, other):
    """Whether two values are equal in structure, types, dtypes and every bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and bool(
            torch.equal(one.contiguous().view(torch.uint8) if one.ndim else one,
                        other.contiguous().view(torch.uint8) if one.ndim else other))
    if is_container(one):
        pairs, others = items(one), items(other)
        return len(pairs) == len(others) and all(
            a == b and same(x, y) for (a, x), (b, y) in zip(pairs, others, strict=True))
    return one == other or (one != one and other != other)


def images(n=3, **changes):
    torch.manual_seed(0)
    pixels = torch.rand(n, 1, 4, 4)
    explanation = Explanation(
        attributions=torch.randn(n, 1, 4, 4), explained=pixels, inputs=pixels, targets=torch.arange(n),
        prediction=torch.arange(n) + 1, probability=torch.linspace(0.1, 0.9, n), output=torch.randn(n, 10),
        explainer={"name": "SmoothGrad", "layer": None, "n_iter": 20}, seconds=0.25, batch_axes=(0,),
        diagnostics={"completeness_gap": torch.arange(n) / 10})
    return replace(explanation, **changes)


def nested(dtype=torch.float32, n=3):
    """What an LSTM gives, (out, (h, c)), beside a part that is None and an empty dict."""
    torch.manual_seed(1)

    def structure():
        out, h, c = torch.randn(n, 5, 2), torch.randn(1, n, 2), torch.randn(1, n, 2)
        return {"lstm": (out.to(dtype), (h.to(dtype), c.to(dtype))), "none": None, "empty": {}, "list": [out.double()]}

    return images(n, attributions=structure(), explained=structure(), batch_axes=(0, 1, 1, 0))


def test_length_and_batches_of_one():
    explanation = nested()
    assert len(explanation) == 3
    one = explanation[1]
    out, (h, c) = one.attributions["lstm"]
    whole, (_, cells) = explanation.attributions["lstm"]
    assert len(one) == 1
    assert out.equal(whole[1:2]) and c.equal(cells[:, 1:2]) and h.shape == (1, 1, 2)
    assert one.attributions["none"] is None and one.attributions["empty"] == {}
    assert isinstance(one.attributions["list"], list)
    assert one.inputs.equal(explanation.inputs[1:2])
    assert one.targets.tolist() == [1] and one.prediction.tolist() == [2] and one.output.shape == (1, 10)
    assert one.diagnostics["completeness_gap"].tolist() == pytest.approx([0.1])
    assert one.explainer == explanation.explainer


def test_iterates_over_every_sample_once():
    assert [one.targets.item() for one in images(4)] == [0, 1, 2, 3]


def test_negative_indices_count_from_the_end():
    explanation = images(3)
    assert same(explanation[-1].attributions, explanation[2].attributions)


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_out_of_range(index):
    with pytest.raises(IndexError) as error:
        images(3)[index]
    assert str(error.value) == f"sample {index} is out of range: the explanation holds 3"


@pytest.mark.parametrize("index", ["a", 1.0, slice(0, 2)])
def test_an_index_of_the_wrong_type(index):
    with pytest.raises(TypeError):
        images(3)[index]


def test_inputs_have_the_batch_axes_of_what_is_explained_when_they_are_it():
    steps = torch.randn(3, 3, 2)  # (time, batch, features): both axes are of size 3
    one = images(3, attributions=steps, explained=steps, inputs=steps, batch_axes=(1,))[2]
    assert one.inputs.equal(steps[:, 2:]) and one.attributions.equal(steps[:, 2:])


def test_what_the_batch_shares_stays_whole():
    shared, own = torch.randn(1, 6), torch.randn(3, 6)
    one = images(3, attributions=(own, shared), explained=(own, shared), batch_axes=(0, 0))[1]
    assert one.attributions[0].equal(own[1:2]) and one.attributions[1].equal(shared)


def test_tokens_of_a_sample_and_of_all():
    assert images(2, tokens=[["a", "b"], ["c"]])[1].words() == ["c"]
    assert images(2, tokens=["a", "b"])[1].words() == ["a", "b"]
    assert images(2).words() is None


def test_labels():
    explanation = images(class_names=["cat", "dog"])
    assert [explanation.label(index) for index in (0, 1, 2)] == ["cat", "dog", "2"]


@pytest.mark.parametrize("targets, expected", [
    (None, None), (torch.zeros(3, dtype=torch.long), None), (torch.zeros(3, 4, dtype=torch.long), 4),
    (torch.zeros(3, 4), None)])
def test_several_targets_are_two_axes_of_integers(targets, expected):
    assert images(targets=targets).n_targets() == expected


def test_batch_axes_must_be_as_many_as_the_tensors():
    with pytest.raises(ValueError) as error:
        images(explained=(torch.zeros(3), torch.zeros(3)))
    assert str(error.value) == "batch_axes must hold one axis for each of the 2 tensors explained, but got (0,)"


def test_repr_is_short():
    assert repr(images(explainer={"name": "VarGrad", "layer": "conv2"})) == (
        "Explanation(VarGrad at conv2, batch=3, attributions=(3, 1, 4, 4), seconds=0.25)")


@pytest.mark.parametrize("explanation", [
    images(),
    images(0),
    images(targets=None, prediction=None, probability=None, output=None, diagnostics={}),
    images(targets=torch.randn(3, 10)),
    images(kind="image", class_names=("cat", "dög"), feature_names=["a\n", '"'], tokens=[["[CLS]", "é"], [], ["x"]]),
    images(explainer={"name": "X", "layer": ("a", "b"), "noise": 0.1, "n": None, "on": True, "deep": {"x": [1, (2,)]}}),
    nested(), nested(torch.bfloat16), nested(torch.float16), nested(torch.float64),
    images(inputs={"ids": torch.arange(6).reshape(3, 2), "mask": torch.ones(3, 2, dtype=torch.bool), 3: (), "": []}),
    images(inputs={"a.b": torch.zeros(3), "a": {"b": torch.ones(3)}}),
    images(inputs=torch.tensor([float("nan"), float("-inf"), -0.0])),
    images(inputs=torch.tensor(3.5, dtype=torch.float64)),
    images(seconds=float("inf")),
    images(explainer={"name": "X", "layer": None, "levels": (float("-inf"), [float("nan")])}, seconds=float("nan")),
    images(inputs={("user", "rates", "film"): torch.ones(3), (1, ("a", None)): torch.zeros(3), 1.5: torch.ones(3, 2)}),
], ids=range(17))
def test_a_file_gives_back_what_was_saved(explanation, tmp_path):
    explanation.save(tmp_path / "x.safetensors")
    loaded = Explanation.load(tmp_path / "x.safetensors")
    for item in fields(Explanation):
        assert same(getattr(loaded, item.name), getattr(explanation, item.name)), item.name


def test_views_and_gradients_are_saved_as_values(tmp_path):
    base = torch.randn(6, 3, requires_grad=True)
    explanation = images(3, attributions=base.T * 1, explained=base.T, inputs=base[::2])
    explanation.save(tmp_path / "x")
    loaded = Explanation.load(tmp_path / "x")
    assert loaded.explained.equal(base.T) and loaded.inputs.equal(base[::2])
    assert not loaded.explained.requires_grad
    square = torch.randn(3, 3)
    images(attributions=square, explained=square.T).save(tmp_path / "x")
    assert Explanation.load(tmp_path / "x").explained.equal(square.T)


def test_a_tensor_held_twice_is_written_once(tmp_path):
    images().save(tmp_path / "x")
    with safe_open(tmp_path / "x", "pt") as file:
        assert sorted(file.keys()) == [
            "attributions", "diagnostics.completeness_gap", "explained", "output", "prediction", "probability",
            "targets"]


def test_named_tuples_and_arrays_become_plain(tmp_path):
    pair = namedtuple("pair", "a b")(torch.ones(3), torch.zeros(3))
    explanation = images(attributions=pair, explained=pair, batch_axes=(0, 0), class_names=np.array(["a", "b"]),
                         explainer={"name": "X", "n_iter": np.int64(3)})
    explanation.save(tmp_path / "x")
    loaded = Explanation.load(tmp_path / "x")
    assert type(loaded.attributions) is tuple and same(loaded.attributions, tuple(pair))
    assert loaded.class_names == ["a", "b"] and type(loaded.explainer["n_iter"]) is int


def test_what_cannot_be_saved_is_named(tmp_path):
    with pytest.raises(TypeError) as error:
        images(explainer={"name": "X", "score": {"by": len}}).save(tmp_path / "x")
    assert str(error.value) == (
        "to be saved, explainer.score.by must be made of tensors, numbers, strings, None, sequences and mappings, "
        "but got builtin_function_or_method; put its name there instead, by dataclasses.replace")
    assert not list(tmp_path.iterdir())


def test_bytes_are_no_list_of_numbers(tmp_path):
    with pytest.raises(TypeError, match=r"^to be saved, explainer.key must be made of .*, but got bytes; put its name"):
        images(explainer={"name": "X", "key": b"ab"}).save(tmp_path / "x")


def test_keys_and_tensors_that_cannot_be_saved_are_named(tmp_path):
    for explanation, said in (
        (images(inputs={torch.ones(1): torch.ones(3)}),
         "to be saved, the keys of inputs must be strings, numbers or tuples, but one is a Tensor"),
        (images(inputs={frozenset("a"): torch.ones(3)}),
         "to be saved, a key of inputs must be made of tensors, numbers, strings, None, sequences and mappings, but "
         "got frozenset; put its name there instead, by dataclasses.replace"),
        (images(output=torch.eye(3).to_sparse()),
         "to be saved, output must be a dense tensor with values, but is torch.sparse_coo on cpu; put it by to_dense() "
         "there instead, by dataclasses.replace"),
        (images(output=torch.ones(3, device="meta")),
         "to be saved, output must be a dense tensor with values, but is torch.strided on meta; put its values there "
         "instead, by dataclasses.replace"),
    ):
        with pytest.raises(TypeError) as error:
            explanation.save(tmp_path / "x")
        assert str(error.value) == said
    assert not list(tmp_path.iterdir())


def test_the_record_is_strict_json_and_older_files_that_are_not_are_read(tmp_path):
    explainer = {"name": "X", "level": float("inf"), "low": float("-inf"), "other": float("nan")}
    images(explainer=explainer, seconds=float("nan")).save(tmp_path / "x")
    with safe_open(tmp_path / "x", "pt") as file:
        metadata, leaves = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118

    def refused(constant):
        raise ValueError(constant)

    record = json.loads(metadata["record"], parse_constant=refused)
    older = {**record, "seconds": float("inf"), "explainer": {"dict": [["name", "X"], ["level", float("nan")]]}}
    save_file(leaves, tmp_path / "y", {**metadata, "record": json.dumps(older)})
    loaded = Explanation.load(tmp_path / "y")
    assert loaded.seconds == float("inf") and loaded.explainer["level"] != loaded.explainer["level"]


def test_what_structures_hold_beside_tensors_is_not_kept(tmp_path):
    images(inputs={"x": torch.ones(3), "n": 3, "how": "fast"}).save(tmp_path / "x")
    assert same(Explanation.load(tmp_path / "x").inputs, {"x": torch.ones(3), "n": None, "how": None})


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x"
    images().save(path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        nested().save(path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["x"]


def test_the_folder_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        images().save(tmp_path / "no" / "x")
    path = str(tmp_path / "no" / "x")
    assert str(error.value) == f"the folder of {path!r} does not exist; make it first, as by mkdir"


def test_loading_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        Explanation.load(tmp_path / "x")


@pytest.mark.parametrize("content", [b"", b"not tensors at all", b"\x80\x04\x95"])
def test_loading_what_is_no_safetensors_file(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError) as error:
        Explanation.load(tmp_path / "x")
    assert str(error.value).startswith(f"{str(tmp_path / 'x')!r} is no safetensors file, or a damaged one: ")


def test_loading_a_file_cut_short(tmp_path):
    images().save(tmp_path / "x")
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-10])
    with pytest.raises(ValueError, match="is no safetensors file, or a damaged one"):
        Explanation.load(tmp_path / "x")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_loading_the_tensors_of_others(tmp_path, metadata):
    save_file({"weight": torch.zeros(2)}, tmp_path / "x", metadata)
    with pytest.raises(ValueError) as error:
        Explanation.load(tmp_path / "x")
    assert str(error.value) == (
        f"{str(tmp_path / 'x')!r} holds no explanation, but tensors saved by something else than Explanation.save; "
        "read them with safetensors.torch.load_file")


def test_loading_another_version(tmp_path):
    save_file({}, tmp_path / "x", {"format": "pnpx.explanation", "version": "2", "record": "{}"})
    with pytest.raises(ValueError) as error:
        Explanation.load(tmp_path / "x")
    assert str(error.value) == (f"{str(tmp_path / 'x')!r} is of format version 2, and this pnpx reads version 1; "
                                "load it with the pnpx that saved it, or a later one")


@pytest.mark.parametrize("record", ["{", "[]", "{}", json.dumps({"inputs": {"tensor": "gone"}}),
                                    json.dumps({"inputs": {"set": []}}), json.dumps({"colour": 1})])
def test_loading_a_damaged_record(tmp_path, record):
    save_file({}, tmp_path / "x", {"format": "pnpx.explanation", "version": "1", "record": record})
    with pytest.raises(ValueError) as error:
        Explanation.load(tmp_path / "x")
    assert str(error.value).startswith(f"{str(tmp_path / 'x')!r} is a damaged explanation: ")


@pytest.mark.parametrize("name, value, problem", [
    ("seconds", "soon", "its 'seconds' is no such thing, but 'soon'"),
    ("explainer", "SmoothGrad", "its 'explainer' is no such thing, but 'SmoothGrad'"),
    ("explainer", {"list": []}, "its 'explainer' is no such thing, but []"),
    ("prediction", 3, "its 'prediction' is no such thing, but 3"),
    ("prediction", {"tensor": "attributions"}, None),
    ("probability", {"tensor": "diagnostics.completeness_gap"}, None),
    ("diagnostics", {"dict": [["gap", 1.0]]}, "its 'diagnostics' is no such thing, but {'gap': 1.0}"),
    ("diagnostics", None, "its 'diagnostics' is no such thing, but None"),
    ("batch_axes", {"tuple": ["0"]}, "its 'batch_axes' is no such thing, but ('0',)"),
    ("batch_axes", {"tuple": [7]}, "its tensors do not have the axes (7,)"),
    ("batch_axes", {"tuple": [-1]}, "its tensors do not have the axes (-1,)"),
    ("batch_axes", 0, "TypeError("),
    ("attributions", None, "it does not have an attribution for each tensor explained"),
    ("kind", 5, "its 'kind' is no such thing, but 5"),
    ("class_names", 10, "its 'class_names' is no such thing, but 10"),
    ("tokens", "all", "its 'tokens' is no such thing, but 'all'"),
    ("output", {"tensor": ["output"]}, "TypeError("),
    ("output", {"dict": [[["a"], 1]]}, "TypeError("),
    ("output", {"list": [{"tensor": "gone"}]}, "KeyError('gone')"),
])
def test_loading_a_part_of_the_wrong_kind(tmp_path, name, value, problem):
    """A whole file whose record says one thing wrong, as a faulty disk or another program may leave it."""
    path = tmp_path / "x"
    images(3, diagnostics={"completeness_gap": torch.zeros(3)}).save(path)
    with safe_open(path, "pt") as file:
        metadata, leaves = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    record = {**json.loads(metadata["record"]), name: value}
    save_file(leaves, path, {**metadata, "record": json.dumps(record)})
    if problem is None:  # of the right kind, and of as many samples: nothing to be seen
        assert len(Explanation.load(path)) == 3
        return
    with pytest.raises(ValueError) as error:
        Explanation.load(path)
    assert str(error.value).startswith(f"{str(path)!r} is a damaged explanation: {problem}")


@pytest.mark.parametrize("name, value", [
    ("prediction", torch.zeros(2)), ("probability", torch.zeros(())), ("diagnostics", {"gap": torch.zeros(0)}),
], ids=["prediction", "probability", "diagnostics"])
def test_parts_of_another_number_of_samples(tmp_path, name, value):
    path, leaf = tmp_path / "x", "diagnostics.gap" if name == "diagnostics" else name
    wrong = value["gap"] if name == "diagnostics" else value
    problem = f"its '{leaf.rpartition('.')[2]}' has shape {tuple(wrong.shape)}, but there are 3 samples"
    with raises(ValueError, f"to be saved, an explanation must be whole, but {problem}"):
        images(3, **{name: value}).save(path)
    assert not path.exists()
    images(3, diagnostics={"gap": torch.zeros(3)}).save(path)
    with safe_open(path, "pt") as file:
        metadata, leaves = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file({**leaves, leaf: wrong}, path, metadata)
    with raises(ValueError, f"{str(path)!r} is a damaged explanation: {problem}"):
        Explanation.load(path)


@pytest.mark.parametrize("name, value", [
    ("class_names", [None, "b"]), ("class_names", {"0": "b"}), ("feature_names", [("a", 1)]),
    ("seconds", torch.ones(())),
    ("diagnostics", {"gap": 1.5}), ("targets", [1, 2, 3]), ("explainer", {1: 2}), ("indices", 1), ("tokens", "ab"),
], ids=str)
def test_what_could_not_be_loaded_is_not_saved(tmp_path, name, value):
    with pytest.raises(ValueError) as error:
        images(3, **{name: value}).save(tmp_path / "x")
    assert str(error.value).startswith(
        f"to be saved, an explanation must be whole, but its {name!r} is no such thing, but "
    )
    assert not list(tmp_path.iterdir())


def test_names_and_axes_of_other_kinds_are_saved(tmp_path):
    explanation = images(3, class_names={0: "cat", 7: "dog"}, feature_names=np.array(["a", "b"]), batch_axes=[0])
    explanation.save(tmp_path / "x")
    loaded = Explanation.load(tmp_path / "x")
    assert [loaded.label(index) for index in (0, 1, 7)] == ["cat", "1", "dog"]
    assert loaded.feature_names == ["a", "b"] and loaded.batch_axes == explanation.batch_axes == (0,)


def test_a_tensor_and_its_conjugate_are_two(tmp_path):
    z = torch.randn(3, 2, dtype=torch.complex64)
    saved = images(inputs={"z": z, "conjugate": z.conj(), "imaginary": z.imag, "negative": z.conj().imag})
    saved.save(tmp_path / "x")
    found = Explanation.load(tmp_path / "x").inputs
    assert all(torch.equal(found[name], value) for name, value in saved.inputs.items())
    said = "to be saved, no tensor may be of torch.complex128, for which safetensors has no name"
    with raises(TypeError, said):
        images(inputs=z.to(torch.complex128)).save(tmp_path / "y")


def test_a_tuple_of_indices_is_one_target(tmp_path):
    torch.manual_seed(0)
    explanation = pnpx.Gradient(torch.nn.Conv2d(3, 4, 3, padding=1)).explain(torch.rand(2, 3, 6, 6), (1, 2, 3))
    explanation.save(tmp_path / "x")
    for one in (explanation, Explanation.load(tmp_path / "x"), explanation[1]):
        assert one.indices and one.n_targets() is None and one.targets[0].tolist() == [1, 2, 3]
        assert target_texts(one[0]) == ["target (1, 2, 3)"]
        assert len(parts(one[0])[0].maps) == 1
    steps = torch.nn.Sequential(torch.nn.Linear(5, 3))
    for targets in ((1, 2), [(1, 2), (0, 1)]):
        series = pnpx.Gradient(steps).explain(torch.randn(2, 2, 5), targets)
        assert series.n_targets() is None and len(parts(series[0])[0].maps) == 1
        series.plot()
        series._repr_html_()
    several = pnpx.Gradient(torch.nn.Linear(5, 3)).explain(torch.randn(2, 5), [[0, 1], [2, 1]])
    assert several.n_targets() == 2 and not several.indices


def test_loading_a_record_nested_beyond_measure(tmp_path):
    record = '{"inputs": ' + '{"list": [' * 5000 + "]}" * 5000 + "}"
    save_file({}, tmp_path / "x", {"format": "pnpx.explanation", "version": "1", "record": record})
    with pytest.raises(ValueError, match="is a damaged explanation: RecursionError"):
        Explanation.load(tmp_path / "x")


def test_no_flipped_bit_of_the_header_gives_anything_but_a_value_error(tmp_path):
    path = tmp_path / "x"
    images(2).save(path)
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    loaded = 0
    for position in range(0, end, 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << position % 7)]) + whole[position + 1 :])
        try:
            Explanation.load(path)[0].label(0)
            loaded += 1
        except ValueError as error:
            assert str(path) in str(error)
    assert loaded < end / 6


def test_html_is_self_contained_and_escaped():
    shown = images(explainer={"name": "<script>alert(1)</script>", "layer": '"><img src=x>'})._repr_html_()
    assert '<img src="data:image/png;base64,iVBORw0KGgo' in shown
    assert "<script" not in shown and "<img src=x" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt; at &quot;&gt;&lt;img src=x&gt;: sample 1 of 3" in shown


def test_html_of_no_samples():
    assert images(0)._repr_html_() == "<p>SmoothGrad (no samples)</p>"
