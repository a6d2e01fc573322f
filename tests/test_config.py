"""Each problem of a configuration is one line: its place, its key path, what is wrong, and the nearest name."""

import os
import re
import sys
from threading import Thread

import pytest
import torch

from pnpx import zoo
from pnpx.config import ConfigError, ModelChoice, read
from pnpx.pipeline import run
from pnpx.plan import plan
from pnpx.shipped import configs, find
from pnpx.source import load

GOOD = """\
model: digits_cnn
data:
  samples: 2
explainers:
  - Gradient
  - name: SmoothGrad
    n_iter: 4
    layers: [null, conv2]
output: {folder}
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "run.yaml"
        path.write_text(text.replace("{folder}", str(tmp_path / "out")))
        return path

    return write


def problems(path, *overrides, **options):
    """The problems found, with the path of the file shortened to its name."""
    with pytest.raises(ConfigError) as error:
        plan(path, overrides, **options)
    assert str(error.value) == "\n".join(error.value.problems)
    return [line.replace(f"{path.parent}/", "") for line in error.value.problems]


def test_reads_short_and_long_forms(write):
    settings, source = read(write(GOOD))
    assert settings.model == [ModelChoice(name="digits_cnn")]
    assert [choice.name for choice in settings.explainers] == ["Gradient", "SmoothGrad"]
    assert settings.explainers[1].parameters == {"n_iter": 4}
    assert settings.explainers[0].layers_of("digits_cnn") == [None]
    assert settings.explainers[1].layers_of("digits_cnn") == [None, "conv2"]
    assert (settings.data.split, settings.seed, settings.batch_size) == ("test", 0, 16)
    assert source.lines["explainers", 1, "n_iter"] == 7


def test_layers_by_model(write):
    settings, _ = read(write(GOOD.replace("[null, conv2]", "{digits_cnn: [0, 'conv2:input']}")))
    assert settings.explainers[1].layers_of("digits_cnn") == ["0", "conv2:input"]
    assert settings.explainers[1].layers_of("digits_lstm") == [None]


def test_overrides_reach_into_lists_and_short_forms(write):
    settings, source = read(
        write(GOOD), ["explainers.0.n_iter=10", "explainers.1.noise_level=1e-2", "model=[a,b]", "seed=${batch_size}",
                      "batch_size=3"]
    )
    assert settings.explainers[0].name == "Gradient" and settings.explainers[0].parameters == {"n_iter": 10}
    assert settings.explainers[1].parameters == {"n_iter": 4, "noise_level": 0.01}
    assert [model.name for model in settings.model] == ["a", "b"]
    assert settings.seed == settings.batch_size == 3
    assert "noise_level: 0.01" in source.yaml


@pytest.mark.parametrize("old, new, problem", [
    ("model:", "modle:", "run.yaml: the key 'model' is missing"),
    ("model: digits_cnn", "model: digits_cn",
     "run.yaml:1: model: there is no model 'digits_cn'; the nearest: 'digits_cnn'"),
    ("model: digits_cnn", "model: [digits_lstm, digits_cn]",
     "run.yaml:1: model.1: there is no model 'digits_cn'; the nearest: 'digits_cnn'"),
    ("model: digits_cnn", "model: [digits_cnn, digits_cnn]",
     "run.yaml:1: model.1: the model 'digits_cnn' is listed twice; leave one out, or give it another 'name'"),
    ("model: digits_cnn", "model: {weights: a.safetensors}",
     "run.yaml:1: model: must have a 'name' from the zoo or a 'factory', 'package.module:function'"),
    ("model: digits_cnn", "model: {name: digits_cnn, weights: a.safetensors}",
     "run.yaml:1: model: has 'weights' but no 'factory' to load them into; models of the zoo bring their own"),
    ("model: digits_cnn", "model: []", "run.yaml:1: model: must have at least one item, but is empty"),
    ("samples: 2", "sampels: 2", "run.yaml:3: data.sampels: there is no such key; the nearest: 'samples'"),
    ("samples: 2", "samples: two", "run.yaml:3: data.samples: must be a whole number, but is 'two'"),
    ("samples: 2", "samples: true", "run.yaml:3: data.samples: must be a whole number, but is true"),
    ("samples: 2", "samples: 0", "run.yaml:3: data.samples: must be at least 1, but is 0"),
    ("samples: 2", "samples: 451",
     "run.yaml:3: data.samples: samples must be at most 450, as many as 'digits' has, but is 451"),
    ("samples: 2", "indices: [0, 450]",
     "run.yaml:3: data.indices: indices must be from 0 to 449, the samples of 'digits', but 450 is one"),
    ("samples: 2", "indices: [-1]", "run.yaml:3: data.indices.0: must be at least 0, but is -1"),
    ("samples: 2", "samples: 2\n  indices: [3]",
     "run.yaml:2: data: has both 'samples' and 'indices'; give the number of samples or their indices"),
    ("samples: 2", "name: digit", "run.yaml:3: data.name: there is no data set 'digit'; the nearest: 'digits'"),
    ("samples: 2", "split: tset", "run.yaml:3: data.split: there is no split 'tset'; the nearest: 'test'"),
    ("- Gradient", "- Gradeint",
     "run.yaml:5: explainers.0.name: there is no explainer 'Gradeint'; the nearest: 'Gradient'"),
    ("name: SmoothGrad", "nmae: SmoothGrad", "run.yaml:6: explainers.1: the key 'name' is missing"),
    ("name: SmoothGrad", "name: ExpectedGradients",
     "run.yaml:6: explainers.1: ExpectedGradients needs the parameter 'baselines', such as baselines: 20 for that many "
     "samples of the training split"),
    ("n_iter: 4", "n_itre: 4",
     "run.yaml:7: explainers.1.n_itre: SmoothGrad has no parameter 'n_itre' here; the nearest: 'n_iter'"),
    ("n_iter: 4", "layer: conv2",
     "run.yaml:7: explainers.1.layer: SmoothGrad has no parameter 'layer' here; write layers: [...]"),
    ("conv2", "convv2", "run.yaml:8: explainers.1.layers.1: no module 'convv2' in the model; the nearest: 'conv2'"),
    ("[null, conv2]", "conv2",
     "run.yaml:8: explainers.1.layers: must be a list of layers, in which null means the inputs, but is 'conv2'"),
    ("[null, conv2]", "[1.5]",
     "run.yaml:8: explainers.1.layers.0: must be the path of a module in quotes, or null for the inputs, but is 1.5"),
    ("[null, conv2]", "[conv2, conv2]", "run.yaml:8: explainers.1.layers.1: the layer 'conv2' is listed twice"),
    ("[null, conv2]", "{digits_cn: [null]}",
     "run.yaml:8: explainers.1.layers.digits_cn: there is no model 'digits_cn' in this run or the zoo; the nearest: "
     "'digits_cnn'"),
    ("[null, conv2]", "\n      digits_cnn: [\n        covn2]",
     "run.yaml:10: explainers.1.layers.digits_cnn.0: no module 'covn2' in the model; the nearest: 'conv2'"),
    ("output: {folder}", "output: ''", "run.yaml:9: output: must not be empty"),
    ("output: {folder}", "output:", "run.yaml:9: output: must be text, but is empty (null)"),
    ("output: {folder}", "outptu: x", "run.yaml: the key 'output' is missing"),
    ("output:", "seed: x\noutput:", "run.yaml:9: seed: must be a whole number, but is 'x'"),
    ("- Gradient", "- GRADIENT",
     "run.yaml:5: explainers.0.name: there is no explainer 'GRADIENT'; the nearest: 'Gradient'"),
])
def test_one_line_for_a_problem(write, old, new, problem):
    assert old in GOOD
    assert problems(write(GOOD.replace(old, new)))[0] == problem


@pytest.mark.parametrize("value, problem", [
    ("0", "`n_iter >= 1` must hold, but got n_iter=0"),
    ("ten", "n_iter must be an int, but got 'ten'"),
])
def test_parameters_are_checked_by_the_explainer(write, value, problem):
    (line,) = problems(write(GOOD.replace("n_iter: 4", f"n_iter: {value}")))
    assert line == f"run.yaml:7: explainers.1.n_iter: {problem}"


def test_several_problems_are_all_told_at_once(write):
    text = GOOD.replace("Gradient", "Gradeint", 1).replace("conv2", "convv2").replace("output:", "titel: x\noutput:")
    assert problems(write(text.replace("samples: 2", "split: tset\n  samples: 2"))) == [
        "run.yaml:10: titel: there is no such key; the nearest: 'title'",
        "run.yaml:3: data.split: there is no split 'tset'; the nearest: 'test'",
        "run.yaml:6: explainers.0.name: there is no explainer 'Gradeint'; the nearest: 'Gradient'",
    ]
    assert problems(write(text)) == [
        "run.yaml:9: titel: there is no such key; the nearest: 'title'",
        "run.yaml:5: explainers.0.name: there is no explainer 'Gradeint'; the nearest: 'Gradient'",
        "run.yaml:8: explainers.1.layers.1: no module 'convv2' in the model; the nearest: 'conv2'",
    ]


@pytest.mark.parametrize("wrong, hint", [
    ("digits_cn", "the nearest: 'digits_cnn'"), ("transfomers:a/b", "the nearest: 'transformers:a/b'"),
])
def test_a_misspelt_model_is_one_problem_also_where_layers_are_by_model(write, wrong, hint):
    path = write(GOOD.replace("[null, conv2]", "{digits_cnn: [conv2], digits_rnn: [rnn]}"))
    (line,) = problems(path, f"model={wrong}")
    assert line == f"model={wrong}: model: there is no model {wrong!r}; {hint}"


def test_a_layer_that_some_models_lack_names_the_model(write):
    path = write(GOOD.replace("model: digits_cnn", "model: [digits_cnn, digits_rnn]"))
    (line,) = problems(path)
    place = "run.yaml:8: explainers.1.layers.1: digits_rnn: "
    assert line == place + "no module 'conv2' in the model; there are: 'rnn', 'head', 'rows'"


@pytest.mark.parametrize("override, problem", [
    ("explainers.1.n_itr=3", "explainers.1.n_itr: SmoothGrad has no parameter 'n_itr' here; the nearest: 'n_iter'"),
    ("explainers.1.layers=[head,x]", "explainers.1.layers.1: no module 'x' in the model; "),
    ("explainers.5.n_iter=3", "the list has 2 items, numbered from 0, but no item '5'"),
    ("explainers.last.n_iter=3", "the list has 2 items, numbered from 0, but no item 'last'"),
    ("explainers.-1.n_iter=0", "explainers.1.n_iter: `n_iter >= 1` must hold, but got n_iter=0"),
    ("explainers[-1].n_itr=3", "explainers.1.n_itr: SmoothGrad has no parameter 'n_itr' here; the nearest: 'n_iter'"),
    ("explainers.-3.n_iter=3", "the list has 2 items, numbered from 0, but no item '-3'"),
    ("explainers.-1={a", "the value is no valid YAML: "),
    ("data.columns.txt=a", "data.columns.txt: there is no such key; the nearest: 'text'"),
    ("a.b.c=1", "a: there is no such key; there are: "),
    ("text.generation.max_new_tokens=3", "text: is for models that read texts, and the model of this run is none"),
    ("model={a", "the value is no valid YAML: "),
    ("model=!!bool maybe", "'maybe' is to be read as bool, but is none; write another value, or text in quotes and "),
    ("model=!!timestamp x", "a value of the kind 'tag:yaml.org,2002:timestamp' has no place here; "),
    ("model=!!int ''", "'' is to be read as int, but is none; "),
    ("model=!own 3", "a value of the kind '!own' has no place here; write text, numbers, lists and mappings"),
    ("model=&x [*x]", "an alias (*name) stands inside of what it names; write out what is meant"),
    ("seed=", "seed: must be a whole number, but is "),
    ("seed", "an override is written key=value, as in explainers.0.n_iter=10"),
    ("=3", "an override is written key=value, as in explainers.0.n_iter=10"),
    ("seed=${sede}", "seed: interpolation key 'sede' not found"),
    ("data.samples=0", "data.samples: must be at least 1, but is 0"),
    ("model.0=digits_cnn", "model.0: there is no such key; there are: 'name', 'factory', 'weights'"),
    ("data.samples.x=3", "data.samples: must be a whole number, but is {'x': 3}"),
    ("output.0=5", "output: must be text, but is {'0': 5}"),
    ("explainers.0.layers.0=conv1", "explainers.0.layers.0: must be a list of layers, in which null means the inputs"),
    ("0=5", "0: there is no such key; there are: "),
    ("seed=99999999999999999999", "seed: must be less than 4611686018427387904, but is 99999999999999999999"),
])
def test_a_problem_of_an_override_names_the_override(write, override, problem):
    (line,) = problems(write(GOOD), override)
    assert line.startswith(f"{override}: {problem}")


def test_the_override_that_goes_furthest_is_named(write):
    overrides = ["explainers.1={name: SmoothGrad, n_iter: 2}", "explainers.1.n_itr=3"]
    (line,) = problems(write(GOOD), *overrides)
    assert line.startswith("explainers.1.n_itr=3: explainers.1.n_itr: ")
    (line,) = problems(write(GOOD), overrides[0].replace("n_iter", "n_itr"))
    assert line.startswith("explainers.1={name: SmoothGrad, n_itr: 2}: explainers.1.n_itr: ")


def test_reading_alone_raises_as_well(write):
    with pytest.raises(ConfigError) as error:
        read(write(GOOD.replace("output:", "titel: x\noutput:")))
    assert error.value.problems[0].endswith("run.yaml:9: titel: there is no such key; the nearest: 'title'")


def test_baselines_are_drawn_from_the_training_split_by_the_seed(write):
    text = GOOD.replace("name: SmoothGrad", "name: ExpectedGradients\n    baselines: 5")
    train = zoo.data("digits", "train").inputs
    first, other = (plan(write(text), [f"seed={seed}"]).tasks[-1].explainer.baselines for seed in (1, 2))
    assert first.shape == (5, 1, 8, 8) and not torch.equal(first, other)
    assert all((train == sample).flatten(1).all(1).any() for sample in first)
    (line,) = problems(write(text), "explainers.1.baselines=1348")
    assert line.endswith(": baselines must be from 1 to 1347, the samples to draw from, but is 1348")


@pytest.mark.parametrize("text, problem", [
    ("", "run.yaml: must hold a mapping with the keys of a run (key: value), but it is empty"),
    ("# nothing\n", "run.yaml: must hold a mapping with the keys of a run (key: value), but it is empty"),
    ("- a\n- b\n", "run.yaml: must hold a mapping with the keys of a run (key: value), but it holds a list"),
    ("digits", "run.yaml: must hold a mapping with the keys of a run (key: value), but it holds a text"),
    ("a: 1\nb: [1, 2\nc: 3\n", "run.yaml:3: no valid YAML: "),
    ("a: 1\n\tb: 2\n", "run.yaml:2: no valid YAML: found character '\\t' that cannot start any token"),
    ("seed: 1\nseed: 2\n", "run.yaml:2: no valid YAML: found duplicate key seed"),
    ("a: &x [*x]\n", "run.yaml:1: an alias (*name) stands inside of what it names; write out what is meant"),
    ("b: 1\na: &x\n  c: [1, {d: *x}]\n", "run.yaml:2: an alias (*name) stands inside of what it names"),
    ("&x {a: 1, b: *x}\n", "run.yaml:1: an alias (*name) stands inside of what it names"),
    ("a: !!python/object/apply:os.getcwd []\n",
     "run.yaml:1: a value of the kind 'tag:yaml.org,2002:python/object/apply:os.getcwd' has no place here; write text, "
     "numbers, lists and mappings"),
    ("a: 1\nb: !!set {c, d}\n", "run.yaml:2: a value of the kind 'tag:yaml.org,2002:set' has no place here"),
    ("a: 1\nb: [{c: !own 3}]\n", "run.yaml:2: a value of the kind '!own' has no place here"),
    ("a: 1\nmodel: !!bool maybe\n", "run.yaml:2: 'maybe' is to be read as bool, but is none; write another value, or "
                                    "text in quotes and without a tag"),
    ("a: 1\nb: [{c: !!int x}]\n", "run.yaml:2: 'x' is to be read as int, but is none; "),
    ("a: !!float '1:x'\n", "run.yaml:1: '1:x' is to be read as float, but is none; "),
    ("a: 1\nb: !!int\n", "run.yaml:2: '' is to be read as int, but is none; "),
    ("a: !!timestamp x\n", "run.yaml:1: a value of the kind 'tag:yaml.org,2002:timestamp' has no place here; "),
    ("a: !!timestamp 2020-01-01\n", "run.yaml:1: a value of the kind 'tag:yaml.org,2002:timestamp' has no place here"),
    ("a: !!bool [1]\n", "run.yaml:1: no valid YAML: expected a scalar node, but found sequence"),
    ("a: 1\n? !!str [b]\n: 2\n", "run.yaml:2: a key must be text, but is 'sequence'; quote it"),
    ("a: 1\n2: b\n", "run.yaml:2: a key must be text, but is '2'; quote it"),
    ("a: 1\nb: [{null: 1}]\n", "run.yaml:2: a key must be text, but is 'null'; quote it"),
    ("a: 1\n? [b, c]\n: 2\n", "run.yaml:2: a key must be text, but is 'sequence'; quote it"),
    ("a: 1\nb: " + 4301 * "1", "run.yaml:2: a number has 4301 digits; 4300 are the most"),
    ("a: 1\nb: \"c\x01\"\n", "run.yaml:2: no valid YAML: the character '\\x01' has no place in YAML as it is; write it "
                               "as an escape, in quotes"),
    ("model: ???\n", "run.yaml:1: model: missing mandatory value: model"),
])
def test_files_that_are_no_mapping_in_yaml(write, text, problem):
    (line,) = problems(write(text))
    assert line.startswith(problem)


def test_a_date_is_text(write):
    """Of an impossible month as well."""
    assert [load(write(f"a: {date}\n")).data for date in ("2020-01-31", "2020-13-45")] == [
        {"a": "2020-01-31"}, {"a": "2020-13-45"}]


def test_aliases_that_grow_beyond_measure(write):
    """Nine lines that stand for 10 ** 9 values (the "billion laughs")."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (line,) = problems(write("\n".join(lines)))
    assert line == ("run.yaml: its aliases (*name) repeat 1234567880 values, more than 10000; write out what is meant")


def test_aliases_in_measure(write):
    text = GOOD.replace("[null, conv2]", "&where [null, conv2]")
    text = text.replace("output:", "  - {name: VarGrad, layers: *where}\noutput:")
    settings, _ = read(write(text))
    assert settings.explainers[2].layers == settings.explainers[1].layers == {"*": [None, "conv2"]}
    listed = ", ".join(map(str, range(5_000)))
    settings, _ = read(write(GOOD.replace("samples: 2", f"indices: [{listed}]")))
    assert len(settings.data.indices) == 5_000


def test_files_that_cannot_be_read(tmp_path):
    assert problems(tmp_path / "no.yaml") == ["no.yaml: there is no such file"]
    (tmp_path / "folder.yaml").mkdir()
    assert problems(tmp_path / "folder.yaml") == ["folder.yaml: must be a YAML file, but it is a folder"]
    (tmp_path / "binary.yaml").write_bytes(b"a: \xff\n")
    assert problems(tmp_path / "binary.yaml") == ["binary.yaml: must be UTF-8 text, but byte 3 is none"]


def test_layers_of_models_of_the_zoo_that_are_not_in_this_run_wait_for_another(write):
    path = write(GOOD.replace("[null, conv2]", "{digits_cnn: [conv2], digits_lstm: [lstm], sentiment: [bert]}"))
    assert [(task.title, task.layer) for task in plan(path).tasks] == [("Gradient", None), ("SmoothGrad", "conv2")]
    (line,) = problems(path, "explainers.1.layers.digits_lsm=[lstm]")
    assert line.endswith("there is no model 'digits_lsm' in this run or the zoo; the nearest: 'digits_lstm'")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_configuration_may_come_through_a_pipe(tmp_path, monkeypatch):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setattr(sys, "path", list(sys.path))
    writer = Thread(target=pipe.write_text, args=(GOOD.replace("{folder}", str(tmp_path / "out")),), daemon=True)
    writer.start()
    assert [(task.title, task.layer) for task in plan(find(str(pipe))).tasks] == [
        ("Gradient", None), ("SmoothGrad", None), ("SmoothGrad", "conv2")]
    writer.join(10)


def test_an_output_of_too_long_a_name(write, tmp_path):
    (line,) = problems(write(GOOD), f"output={'a' * 5000}")
    assert line.endswith(": output: must be a folder to write to, but cannot be looked into: File name too long")
    (line,) = problems(write(GOOD), output=tmp_path / ("a" * 5000))
    assert line.endswith(": must be a folder to write to, but cannot be looked into: File name too long")


def test_output_must_be_a_folder(write, tmp_path):
    (tmp_path / "taken").write_text("")
    (line,) = problems(write(GOOD), f"output={tmp_path}/taken/deep")
    assert line.endswith(f"output: must be a folder to write to, but '{tmp_path}/taken' is a file; "
                         "name another, or move it away".replace(f"{tmp_path}/", ""))
    (tmp_path / "nothing").symlink_to(tmp_path / "gone")
    (line,) = problems(write(GOOD), f"output={tmp_path}/nothing/deep")
    assert line.endswith(f"but '{tmp_path}/nothing' is a link to nothing; name another, or mend it".replace(
        f"{tmp_path}/", ""))
    (line,) = problems(write(GOOD), output=tmp_path / "taken")
    assert line.startswith("--output taken: must be a folder to write to, but ")


def test_data_of_the_wrong_shape_is_found_before_explaining(write):
    (line,) = problems(write(GOOD.replace("samples: 2", "name: breast_cancer")))
    assert line.startswith(
        "run.yaml:2: data: digits_cnn cannot take the samples of 'breast_cancer', of shape (30,): RuntimeError: "
    )


@pytest.mark.parametrize("new, problems_found", [
    ("output_layer: heda",
     ["7: explainers.1.output_layer: no module 'heda' in the model; the nearest: 'head'"]),
    ("output_layer: 3",
     ["7: explainers.1.output_layer: a layer must be a str or a module, or a sequence of them, but is 3"]),
    ("n_classes: 7", ["7: explainers.1.n_classes: n_classes=7 was given, but the model's output has shape (1, 10), "
                      "with 10 classes"]),
    ("n_classes: true", ["7: explainers.1.n_classes: `n_classes >= 1` must hold, but got n_classes=True"]),
    ("forward_arg_extractor: 2.5", ["7: explainers.1.forward_arg_extractor: forward_arg_extractor must be an int, "
                                    "a str, a sequence of them, or a callable, but is 2.5"]),
    ("forward_arg_extractor: image",
     ["7: explainers.1.forward_arg_extractor: a Tensor as batch has no part 'image'; there are none"]),
    ("channel_axis: 9\n    reducer: sum",
     ["7: explainers.1.channel_axis: channel_axis must be one of the axes 1 to 3 of the value, but is 9"]),
    ("score: regression", ["7: explainers.1.score: targets=None needs one predicted class, but a regression with "
                           "output of shape (1, 10) has several outputs a sample; say which one is explained, such as "
                           "targets=0"]),
    ("sampler: [a]",
     ["7: explainers.1.sampler: no sampler ['a']; there are: 'independent', 'antithetic', 'orthogonal', 'latin', "
     "'orthogonal_latin'"]),
    ("n_classes: 7\n    n_iter: 2\n    output_layer: heda", [
        "7: explainers.1.n_classes: n_classes=7 was given, but the model's output has shape (1, 10), with 10 classes",
        "9: explainers.1.output_layer: no module 'heda' in the model; the nearest: 'head'"]),
])
def test_what_only_the_model_can_tell_of_a_parameter_is_found_before_anything_runs(write, new, problems_found):
    assert problems(write(GOOD.replace("n_iter: 4", new))) == [f"run.yaml:{problem}" for problem in problems_found]


def test_items_counted_from_the_end_reach_omegaconf_by_their_number(write, monkeypatch):
    """Its versions before 2.4 take a negative index for a new key."""
    from omegaconf import OmegaConf

    asked, update = [], OmegaConf.update

    def note(config, key, *rest, **named):
        asked.append(key)
        update(config, key, *rest, **named)

    monkeypatch.setattr(OmegaConf, "update", note)
    load(write(GOOD), ["explainers.-1.n_iter=3", "explainers[-2].n_iter=3", "data.samples.x=3", "output=o"])
    asked = [key for key in asked if key != "value"]  # which is how a value is read
    assert asked == ["explainers.1.n_iter", "explainers.0.n_iter", "data.samples.x", "output"]


@pytest.mark.parametrize("name, parameter, problem", [
    ("IntegratedGradients", "baseline: [1, 2]", "a baseline is a number, a tensor, a name (zeros, mean, blur), a "
     "callable on the input, or one for each input, but got [1, 2]"),
    ("Occlusion", "baseline: .nan", "baseline must be finite, but holds nan, where no score is; give numbers, such as "
     "0.0"),
    ("IntegratedGradients", "baseline: -.inf", "baseline must be finite, but holds -inf, where no score is; give "
     "numbers, such as 0.0"),
    ("FeatureAblation", "baseline: blurr", "no baseline 'blurr'; the nearest: 'blur'"),
    ("FeatureAblation", "groups: [1, 2]",
     "groups must have the shape of what is explained, (1, 1, 8, 8), or expand to it, but have (2,)"),
    ("ExpectedGradients", "baselines: zeros",
     "must be a whole number, of samples to draw from the training split, but is 'zeros'"),
    ("ExpectedGradients", "baselines: true",
     "must be a whole number, of samples to draw from the training split, but is true"),
    ("ExpectedGradients", "baselines: -3",
     "baselines must be from 1 to 1347, the samples to draw from, but is -3"),
])
def test_baselines_and_groups_are_tried_as_well(write, name, parameter, problem):
    text = GOOD.replace("name: SmoothGrad", f"name: {name}").replace("n_iter: 4", parameter)
    name, _, _ = parameter.partition(":")
    first, *more = problems(write(text))
    assert first == f"run.yaml:7: explainers.1.{name}: {problem}"
    assert all(line.startswith(f"run.yaml:7: explainers.1.{name}: ") for line in more)  # at the other layer


@pytest.mark.parametrize("layer, problem", [
    ("conv2#9", "the layer 'conv2#9' was not reached: it runs once; choose one that the forward pass uses"),
    ("conv2#0", "calls of a module count from 1, but the layer is 'conv2#0'"),
])
def test_calls_of_a_layer_that_never_come(write, layer, problem):
    (line,) = problems(write(GOOD.replace("conv2", f"'{layer}'")))
    assert line == f"run.yaml:8: explainers.1.layers.1: {problem}"
    (line,) = problems(write(GOOD.replace("conv2", f"'{layer}'").replace("cnn", "cnn, digits_lstm").replace(
        "model: digits_cnn, digits_lstm", "model: [digits_cnn, digits_lstm]").replace(
        "[null,", "{digits_cnn: [null,").replace("']", "']}")))
    assert line == f"run.yaml:8: explainers.1.layers.digits_cnn.1: digits_cnn: {problem}"


FACTORY = """\
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))

def number():
    return 3

def broken():
    raise RuntimeError("no net today")

def data(split):
    return torch.arange(20.0).reshape(5, 4) / 20, torch.tensor([0, 1, 0, 1, 0])

def lists(split):
    return [[1.0]], [0]

def named(split, targets=(0, 1, 0, 1, 0), **known):
    from types import SimpleNamespace
    return SimpleNamespace(inputs=data(split)[0], targets=torch.tensor(targets), **known)

class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        return self.used(x)

class Rough(Lazy):
    def forward(self, x):
        if torch.is_grad_enabled():
            raise RuntimeError("no gradients of me")
        return self.used(x)
"""

OWN = """\
model: {factory: "own_nets:net"}
data: {factory: "own_nets:data", samples: 3}
explainers: [{name: SmoothGrad, n_iter: 3, layers: [null, 0]}]
output: {folder}
"""


@pytest.fixture
def own(write, tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(FACTORY)
    monkeypatch.delitem(sys.modules, "own_nets", raising=False)
    yield write
    sys.modules.pop("own_nets", None)


def test_code_runs_only_where_it_is_allowed(own, tmp_path):
    (tmp_path / "own_nets.py").write_text("raise SystemExit('code ran')")
    path = own(OWN)
    (line,) = problems(path)
    problem = "names code to run, 'own_nets:net'; if you trust this configuration, add --allow-code"
    assert line == f"run.yaml:1: model.factory: {problem}"


def test_models_and_data_from_factories(own):
    work = plan(own(OWN), allow_code=True)
    (subject,) = work.subjects
    assert (subject.name, subject.architecture, subject.accuracy) == ("net", "Sequential", None)
    assert subject.data.inputs.shape == (5, 4) and list(subject.indices) == [0, 1, 2]
    assert [task.layer for task in work.tasks] == [None, "0"]
    assert len(work) == 6


def test_weights_of_a_factory_are_safetensors_beside_the_configuration(own, tmp_path):
    import torch
    from safetensors.torch import save_file

    path = own(OWN.replace('net"}', 'net", weights: w.safetensors}'))
    assert problems(path, allow_code=True) == ["run.yaml:1: model.factory: there is no weights file 'w.safetensors'"]
    (tmp_path / "w.safetensors").write_bytes(b"\x80\x04 a pickle")
    (line,) = problems(path, allow_code=True)
    assert line.startswith("run.yaml:1: model.factory: the weights 'w.safetensors' are no safetensors, or damaged: ")
    weights = {"0.weight": torch.ones(3, 4), "0.bias": torch.ones(3), "2.weight": torch.ones(2, 3)}
    save_file(weights, tmp_path / "w.safetensors")
    (line,) = problems(path, allow_code=True)
    assert line.startswith("run.yaml:1: model.factory: the weights 'w.safetensors' do not fit the model: ")
    assert "2.bias" in line
    save_file({**weights, "2.bias": torch.full((2,), 7.0)}, tmp_path / "w.safetensors")
    assert plan(path, allow_code=True).subjects[0].module[2].bias.tolist() == [7, 7]


@pytest.mark.parametrize("old, new, problem", [
    (":net", "-net", "model.factory: a factory is written 'package.module:function', not 'own_nets-net'"),
    (":net", ":ent", "model.factory: there is no function 'ent' in own_nets; the nearest: 'net'"),
    (":net", ":number", "model.factory: 'own_nets:number' must return a torch.nn.Module, but returned a int"),
    (":net", ":broken", "model.factory: 'own_nets:broken' failed: RuntimeError: no net today"),
    ("own_nets:net", "own_netz:net", "model.factory: no module 'own_netz' is installed or beside the configuration"),
    (":data", ":lists",
     "data.factory: 'own_nets:lists' must return (inputs, targets), tensors of shapes (samples, ...) and (samples,), "
     "or an object with these as attributes; its inputs are [[1.0]]"),
    ('factory: "own_nets:data", ', "",
     "data: must name a data set, or a factory of one, for a model that is not from the zoo"),
])
def test_problems_of_factories(own, old, new, problem):
    (line,) = problems(own(OWN.replace(old, new)), allow_code=True)
    assert line.partition(": ")[2] == problem


@pytest.mark.parametrize("known, problem", [
    ("class_names=['a']", "targets must be from 0 to 0, the positions of the 1 class_names, but 1 is one"),
    ("class_names='ab'", "class_names must be a sequence of text, or None, but is 'ab'"),
    ("class_names=[0, 1]", "class_names must be a sequence of text, or None, but is [0, 1]"),
    ("class_names=2", "class_names must be a sequence of text, or None, but is 2"),
    ("feature_names=['a', 'b', 'c']",
     "feature_names name the last axis of the inputs, of size 4, but there are 3"),
    ("feature_names={'a': 1}", "feature_names must be a sequence of text, or None, but is {'a': 1}"),
    ("kind='picture'", "kind must be one of image, series, tabular, or None, but is 'picture'"),
    ("targets=[0, 1]", "there are 5 inputs, but 2 targets"),
    ("targets=[0.5] * 5, class_names=['a', 'b']",
     "targets must be integers, the positions of their class_names, but are torch.float32"),
    ("targets=[0, 1, 0, 1, -1], class_names=['a', 'b']",
     "targets must be from 0 to 1, the positions of the 2 class_names, but -1 is one"),
])
def test_labels_and_names_of_data_are_checked_where_it_is_loaded(own, tmp_path, known, problem):
    path = own(OWN.replace(":data", ":described"))
    (tmp_path / "own_nets.py").write_text(f"{FACTORY}\ndef described(split):\n    return named(split, {known})\n")
    (line,) = problems(path, allow_code=True)
    assert line == f"run.yaml:2: data.factory: what 'own_nets:described' returns is not right: {problem}"


def test_as_many_class_names_as_the_model_has_classes(own, tmp_path):
    path = own(OWN.replace(":data", ":described"))
    code = f"{FACTORY}\ndef described(split):\n    return named(split, class_names=['a', 'b', 'c'])\n"
    (tmp_path / "own_nets.py").write_text(code)
    (line,) = problems(path, allow_code=True)
    assert line == ("run.yaml:2: data: net gives 2 outputs for a sample, but 'described' has 3 class_names; "
                    "give as many, or none")


@pytest.mark.parametrize("known, label", [
    ("class_names=('no', 'yes'), feature_names=list('abcd'), kind='tabular'", "yes"),
    ("targets=[0.25] * 5", "0.25"),
])
def test_names_that_fit_and_values_to_predict_are_taken(own, tmp_path, known, label):
    path = own(OWN.replace(":data", ":described"))
    (tmp_path / "own_nets.py").write_text(f"{FACTORY}\ndef described(split):\n    return named(split, {known})\n")
    (subject,) = plan(path, allow_code=True).subjects
    assert subject.data.label(1) == label


def test_a_layer_that_the_model_never_runs_is_found_before_anything_runs(own):
    (line,) = problems(own(OWN.replace(":net", ":Lazy").replace("[null, 0]", "[used, idle]")), allow_code=True)
    problem = "the model ran without calling it; choose one that the forward pass uses"
    assert line == f"run.yaml:3: explainers.0.layers.1: the layer 'idle' was not reached: {problem}"


def test_what_is_no_fault_of_the_configuration_is_left_to_the_run(own):
    """The model fails with every parameter, so that the explainer fails, and the others go on."""
    path = own(OWN.replace(":net", ":Rough").replace("[null, 0]", "[null, used]").replace("[{", "[{name: Sobol}, {"))
    work = plan(path, allow_code=True)
    assert len(work.tasks) == 3
    outcome = run(work, quiet=True)
    assert {(failure.explainer, failure.layer) for failure in outcome.failures} == {
        ("SmoothGrad", None), ("SmoothGrad", "used")
    }
    assert outcome.made == 3


@pytest.mark.parametrize("more, problem", [
    ("output: .", r"output: would overwrite this configuration with the one as run, config.yaml"),
    ('output: "a\\0b"', r"output: must be the name of a folder, but holds a null character"),
    ('output: "${"', r"no valid YAML"),
    ("output: out\ntitle: ${oc.env:HOME}", r"config.yaml:5: title: \$\{oc.env:...\} calls a resolver, or may; only"),
    # As YAML reads it, and not as it is written.
    ('output: out\ntitle: "$\\x7boc.env:HOME}"', r"calls a resolver"),
    ('output: out\ntitle: "${oc.env\\x3aHOME}"', r"calls a resolver"),
    ('output: out\ntitle: "${oc.env\\\n  :HOME}"', r"calls a resolver"),
    ("output: oc.env\ntitle: '${${output}:HOME}'", r"calls a resolver"),
    ("output: out\nseed: 1" + 5000 * "0", r"config.yaml:5: a number has 5001 digits; 4300 are the most"),
    ("output: out\nseed: 0x" + 5000 * "f", r"config.yaml:5: a number has 5002 digits; 4300 are the most"),
])
def test_configurations_that_would_do_harm(tmp_path, monkeypatch, more, problem):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text(f"model: digits_rnn\ndata: {{samples: 1}}\nexplainers: [{{name: Gradient}}]\n{more}\n")
    with pytest.raises(ConfigError, match=problem):
        plan(config)


def test_overrides_call_no_resolver_and_references_to_keys_are_allowed(tmp_path):
    config = tmp_path / "config.yaml"
    title = "${model} ${explainers[0].name}"
    config.write_text(f"model: m\ndata: d\nexplainers: [Gradient]\noutput: out\ntitle: '{title}'\n")
    assert load(config).data["title"] == "m Gradient"
    override = r'title="${oc.env\x3aHOME}"'
    with pytest.raises(ConfigError, match=f"^{re.escape(override)}: title: .*calls a resolver"):
        load(config, [override])


@pytest.mark.parametrize("name", sorted(configs()))
def test_shipped_configurations_have_no_problem(name):
    if name == "sentiment":
        pytest.importorskip("transformers", reason="the model that reads texts is of transformers")
    assert len(plan(configs()[name])) > 0
