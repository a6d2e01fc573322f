"""A configuration for models that read texts: what it may say, and one line for each of its problems."""

import json
import sys

import pytest

import pnpx
from pnpx import zoo
from pnpx.config import ConfigError
from pnpx.plan import plan
from pnpx.textplan import explains_texts

pytest.importorskip("transformers", reason="the models that read texts are of transformers; pip install transformers")

GOOD = """\
model: sentiment
data:
  texts:
    - A film of rare beauty.
    - {text: Dreadful., label: negative}
explainers:
  - Gradient
  - name: SquareGrad
    n_iter: 4
    granularity: token
    layers: [null, bert.encoder]
text:
  aggregation: sum
output: {folder}
"""


@pytest.fixture(autouse=True, scope="module")
def one_model():
    """The model is read from its file once: these tests change nothing of it."""
    patch = pytest.MonkeyPatch()
    load, model, tokenizer = zoo.load, zoo.load("sentiment"), zoo.tokenizer("sentiment")
    patch.setattr(zoo, "load", lambda name: model if name == "sentiment" else load(name))
    patch.setattr(zoo, "tokenizer", lambda name: tokenizer)
    yield
    patch.undo()


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "run.yaml"
        path.write_text(text.replace("{folder}", str(tmp_path / "out")), encoding="utf-8")
        return path

    return write


def problems(path, *overrides, **options):
    with pytest.raises(ConfigError) as error:
        plan(path, overrides, **options)
    return [line.replace(f"{path.parent}/", "") for line in error.value.problems]


def test_what_is_to_be_done(write):
    work = plan(write(GOOD))
    (subject,) = work.subjects
    assert (subject.name, subject.folder, subject.kind) == ("sentiment", "sentiment", "sequence")
    assert [one.text for one in subject.data.inputs] == ["A film of rare beauty.", "Dreadful."]
    assert [subject.data.label(index) for index in (0, 1)] == [None, "NEGATIVE"]  # by the model's name for it
    assert [(task.title, task.layer) for task in work.tasks] == [
        ("Gradient", None), ("SquareGrad", None), ("SquareGrad", "bert.encoder")]
    first, second, third = (task.explainer for task in work.tasks)
    assert (first.granularity, first.aggregation, first.reduce) == ("word", "sum", "abs_mean")
    assert (second.granularity, second.aggregation, second.parameters) == ("token", "sum", {"n_iter": 4, "seed": 0})
    assert third.parameters == {"n_iter": 4, "seed": 0, "layer": "bert.encoder"}
    assert work.tasks[1].parameters == {
        "granularity": "token", "aggregation": "sum", "reduce": "abs_mean", "seed": 0, "n_iter": 4}
    assert len(work) == 6


@pytest.mark.parametrize("data, texts, labels", [
    ("", 24, ["POSITIVE", "NEGATIVE"]),
    ("data: sentences", 24, ["POSITIVE", "NEGATIVE"]),
    ("data: {name: sentences, indices: [3, 1]}", 24, ["POSITIVE", "NEGATIVE"]),
    ("data: [One., 'Two.', {text: Three., label: 1}]", 3, [None, None, "POSITIVE"]),
])
def test_texts_by_name_and_in_the_configuration(write, data, texts, labels):
    (subject,) = plan(write(f"model: sentiment\n{data}\nexplainers: [Gradient]\noutput: {{folder}}\n")).subjects
    assert len(subject.data.inputs) == texts
    assert [subject.data.label(index) for index in range(len(labels))] == labels
    assert list(subject.indices) == ([3, 1] if "indices" in data else list(range(texts)))


@pytest.mark.parametrize("targets, expected", [
    ("POSITIVE", 1), ("positive", 1), ("0", 0), ("[POSITIVE, NEGATIVE]", [1, 0]), ("[1]", [1]), ("null", None),
])
def test_targets_for_every_text_but_those_with_their_own(write, targets, expected):
    own = GOOD.replace("label: negative", "target: [0, positive]")
    own = own.replace("text:\n  agg", f"text:\n  targets: {targets}\n  agg")
    (subject,) = plan(write(own)).subjects
    assert [sample.target for sample in subject.data.inputs] == [expected, [0, 1]]


@pytest.mark.parametrize("old, new, problem", [
    ("model: sentiment", "model: sentimnet",
     "run.yaml:1: model: there is no model 'sentimnet'; the nearest: 'sentiment'"),
    ("model: sentiment", "model: transformer:bert-base",
     "run.yaml:1: model: there is no model 'transformer:bert-base'; the nearest: 'transformers:bert-base'"),
    ("model: sentiment", "model: [sentiment, sentimnet]",
     "run.yaml:1: model.1: there is no model 'sentimnet'; the nearest: 'sentiment'"),
    ("model: sentiment", "model: [sentiment, digits_cnn]",
     "run.yaml:1: model.1: 'digits_cnn' reads no texts, but another model of this run does; give it a configuration of "
     "its own"),
    ("model: sentiment", "model: [sentiment, sentiment]",
     "run.yaml:1: model.1: the model 'sentiment' is listed twice; leave one out"),
    ("model: sentiment", "model: digits_cnn",
     "run.yaml:3: data.texts: is for models that read texts, and the model of this run is none"),
    ("- Gradient", "- Gradeint",
     "run.yaml:7: explainers.0.name: there is no explainer 'Gradeint'; the nearest: 'Gradient'"),
    ("- Gradient", "- ExpectedGradients",
     "run.yaml:7: explainers.0.name: ExpectedGradients does not explain texts; those that do: "),
    ("granularity: token", "granularity: tokens",
     "run.yaml:10: explainers.1.granularity: there is no granularity 'tokens'; the nearest: 'token'"),
    ("granularity: token", "granularty: token",
     "run.yaml:10: explainers.1.granularty: SquareGrad has no parameter 'granularty' here; the nearest: 'granularity'"),
    ("granularity: token", "output_extractor: 0",
     "run.yaml:10: explainers.1.output_extractor: SquareGrad has no parameter 'output_extractor' here; "),
    ("granularity: token", "reduce: l1", "run.yaml:10: explainers.1.reduce: there is no reduce 'l1'; there are: "),
    ("aggregation: sum", "aggregation: summ",
     "run.yaml:13: text.aggregation: there is no aggregation 'summ'; the nearest: 'sum'"),
    ("aggregation: sum", "aggregaton: sum",
     "run.yaml:13: text.aggregaton: there is no such key; the nearest: 'aggregation'"),
    ("aggregation: sum", "targets: POSITVE",
     "run.yaml:13: text.targets: the model has no class 'POSITVE'; the nearest: 'POSITIVE'"),
    ("aggregation: sum", "targets: 2",
     "run.yaml:13: text.targets: the model has no class 2; there are: 'NEGATIVE', 'POSITIVE'"),
    ("aggregation: sum", "targets: [1, POSITVE]",
     "run.yaml:13: text.targets: the model has no class 'POSITVE'; the nearest: 'POSITIVE'"),
    ("aggregation: sum", "targets: 1.5",
     "run.yaml:13: text.targets: must be the name or the number of a class, or a text to be generated, but is 1.5"),
    ("aggregation: sum", "targets: true",
     "run.yaml:13: text.targets: must be the name or the number of a class, or a text to be generated, but is true"),
    ("aggregation: sum", "targets: []", "run.yaml:13: text.targets: must have at least one item, but is empty"),
    ("aggregation: sum", "generation: {max_new_tokens: 3}",
     "run.yaml:13: text.generation.max_new_tokens: is for models that generate, but BertForSequenceClassification does "
     "not"),
    ("name: SquareGrad\n    n_iter: 4", "name: KernelShap\n    replacement: maks",
     "run.yaml:9: explainers.1.replacement: replacement must be 'mask', 'pad', 'unk', 'zero', 'delete', a token or its "
     "id, but is 'maks'; the nearest: 'mask'"),
    ("n_iter: 4", "replacement: mask",
     "run.yaml:9: explainers.1.replacement: replacement says what takes the place of a unit, but SquareGrad replaces "
     "none; leave it out"),
    ("n_iter: 4", "n_iter: 0", "run.yaml:9: explainers.1.n_iter: `n_iter >= 1` must hold, but got n_iter=0"),
    ("bert.encoder", "bert.encodr",
     "run.yaml:11: explainers.1.layers.1: no module 'bert.encodr' in the model; the nearest: 'bert.encoder'"),
    ("label: negative", "label: angry",
     "run.yaml:5: data.texts.1.label: the model has no class 'angry'; there are: 'NEGATIVE', 'POSITIVE'"),
    ("label: negative", "labl: negative", "run.yaml:5: data.texts.1.labl: there is no such key; the nearest: 'label'"),
    ("label: negative", "label: 1.5",
     "run.yaml:5: data.texts.1.label: must be the name or the number of a class, or a text to be generated, but is "),
    ("label: negative", "target: sad",
     "run.yaml:5: data.texts.1.target: the model has no class 'sad'; there are: 'NEGATIVE', 'POSITIVE'"),
    ("text: Dreadful., ", "", "run.yaml:5: data.texts.1: the key 'text' is missing"),
    ("text: Dreadful.", "text: 3", "run.yaml:5: data.texts.1.text: must be a text, but is 3"),
    ("- A film of rare beauty.", "- 12",
     "run.yaml:4: data.texts.0: must be a text in quotes, or a mapping with one as 'text', but is 12"),
    ("- A film of rare beauty.", "- ' '", "run.yaml:4: data.texts.0: must have a text, but it is empty"),
    ("  texts:", "  file: a.csv\n  texts:",
     "run.yaml:2: data: has both 'texts' and 'file'; give the one or the other"),
    ("  texts:", "  split: test\n  texts:", "run.yaml:3: data.split: texts have no splits; leave it out"),
    ("  texts:", "  samples: 3\n  texts:",
     "run.yaml:3: data.samples: samples must be at most 2, as many as 'the configuration' has, but is 3"),
])
def test_one_line_for_a_problem(write, old, new, problem):
    assert old in GOOD
    found = problems(write(GOOD.replace(old, new)))
    assert any(line.startswith(problem) for line in found), found
    if "digits_cnn" not in new and "sentimnet" not in new:
        assert len(found) == 1, found


@pytest.mark.parametrize("data, problem", [
    ("digits", "run.yaml:2: data: 'digits' holds no texts, but the model reads them; there are: 'sentences'"),
    ("sentence", "run.yaml:2: data: there are no texts 'sentence'; the nearest: 'sentences'"),
    ("{factory: 'a:b'}",
     "run.yaml:2: data.factory: a factory gives tensors, but the model reads texts; give texts, or a file"),
    ("{file: none.csv}", "run.yaml:2: data.file: there is no file '"),
    ("{file: a.csv, columns: {txt: a}}",
     "run.yaml:2: data.columns.txt: there is no such key; the nearest: 'text'"),
    ("{columns: {text: a}}", "run.yaml:2: data: has 'columns' but no 'file' that they could be of"),
])
def test_problems_of_data(write, data, problem):
    line, *_ = problems(write(f"model: sentiment\ndata: {data}\nexplainers: [Gradient]\noutput: {{folder}}\n"))
    assert line.startswith(problem)


def test_texts_in_a_file_beside_the_configuration(write, tmp_path, monkeypatch):
    text = "model: sentiment\ndata: {file: a.csv, columns: {text: review, label: stars}}\nexplainers: [Gradient]\n"
    path = write(text + "output: {folder}\n")
    (tmp_path / "a.csv").write_text('stars,review\n1,"Good, really."\n0,Bad.\n')
    (subject,) = plan(path).subjects
    assert subject.data.name == "a.csv" and subject.data.inputs[0].text == "Good, really."
    assert [subject.data.label(index) for index in (0, 1)] == ["POSITIVE", "NEGATIVE"]  # from numbers, as in the file
    (tmp_path / "a.csv").write_text("stars,review\n5,Good.\n")
    assert problems(path) == [
        "run.yaml:2: data.file: text 0: the model has no class '5'; there are: 'NEGATIVE', 'POSITIVE'"]
    (tmp_path / "a.csv").write_text("stars,reveiw\n5,Good.\n")
    assert problems(path) == [
        "run.yaml:2: data.file: a.csv must have the column 'review' in its first row; the nearest: 'reveiw'"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (elsewhere / "b.jsonl").write_text(json.dumps({"text": "Here."}))
    assert plan(path, ["data={file: b.jsonl}"]).subjects[0].data.inputs[0].text == "Here."


def test_text_is_a_key_for_text_models_only(write):
    text = "model: digits_cnn\ndata: {samples: 1}\nexplainers: [Gradient]\ntext: {granularity: word}\n"
    assert problems(write(text + "output: {folder}\n")) == [
        "run.yaml:4: text: is for models that read texts, and the model of this run is none"]


def test_explainers_that_need_more_than_a_text_are_none_of_texts():
    assert explains_texts(pnpx.SquareGrad) and explains_texts(pnpx.KernelShap)
    assert not explains_texts(pnpx.ExpectedGradients)


def test_without_transformers_what_to_install_is_named(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    for model, who in (("sentiment", "the zoo's text models"), ("transformers:x/y", "models of transformers")):
        (line,) = problems(write(GOOD.replace("model: sentiment", f"model: {model}")))
        assert line == (f"run.yaml:1: model: {who} need transformers, which is not installed; install it: "
                        "pip install transformers tokenizers")
