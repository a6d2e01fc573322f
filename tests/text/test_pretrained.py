"""Models of transformers from folders: loaded as they were saved, or a line that says why not."""

import json
import pickle

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="text models need transformers; pip install '.[text]'")

from pnpx.text.pretrained import load_pretrained, quietly  # noqa: E402
from tests.text import tiny  # noqa: E402


def bert(head):
    return tiny.bert(head, num_hidden_layers=1).float()


def others():
    return [made().float() for made in (tiny.gpt2, tiny.llama, tiny.t5, tiny.bart)]


@pytest.fixture
def saved(tmp_path):
    def saved(model, name="model", words=True):
        with quietly("the tests"):
            model.save_pretrained(tmp_path / name)
            if words:
                tiny.bert_tokenizer().save_pretrained(tmp_path / name)
        return tmp_path / name

    return saved


def problem(name, **options):
    with pytest.raises(ValueError) as error:
        load_pretrained(str(name), **options)
    assert "\n" not in str(error.value)
    return str(error.value)


HEADS = ["SequenceClassification", "TokenClassification", "QuestionAnswering", "MaskedLM", "LMHeadModel"]


@pytest.mark.parametrize("model", [*map(bert, HEADS), *others()], ids=lambda model: type(model).__name__)
def test_the_model_is_the_one_saved(saved, model):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    found, words = load_pretrained(str(saved(model)))
    assert type(found) is type(model) and not found.training
    expected = model.state_dict()
    assert found.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())
    assert words("a film of beauty .")["input_ids"] == tiny.ids_of("[CLS] a film of beauty . [SEP]")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_relative_path_begins_at_the_configuration(saved, tmp_path, monkeypatch):
    saved(bert("MaskedLM"), "nets/model")
    monkeypatch.chdir("/")
    assert type(load_pretrained("nets/model", tmp_path)[0]).__name__ == "BertForMaskedLM"
    monkeypatch.chdir(tmp_path)
    assert type(load_pretrained("./nets/model", tmp_path / "else")[0]).__name__ == "BertForMaskedLM"


def test_folders_that_are_none(saved, tmp_path):
    folder = saved(bert("MaskedLM"))
    assert problem(tmp_path / "modell") == f"there is no folder '{tmp_path}/modell'; the nearest: '{folder}'"
    assert problem("./none", folder=tmp_path / "x") == "there is no folder './none'"
    assert problem(" ").startswith("a model of transformers is written 'transformers:name' or 'transformers:folder'")
    (tmp_path / "empty").mkdir()
    assert problem(tmp_path / "empty") == (
        f"the folder '{tmp_path}/empty' holds no model: it must have a config.json, as save_pretrained writes it")


def test_no_tokenizer(saved):
    folder = saved(bert("SequenceClassification"), words=False)
    assert problem(folder).startswith(f"'{folder}' has no tokenizer")
    assert problem(folder).endswith("save it beside the model: tokenizer.save_pretrained(folder)")


def test_no_head(saved):
    folder = saved(bert("Model"))
    assert problem(folder).startswith(
        f"'{folder}' is a BertModel, and a model without a head for a task scores nothing; ")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": None}))
    assert problem(folder).startswith(f"'{folder}' does not name its architecture, and a model without a head ")


def test_weights_of_a_head_that_are_missing_are_not_made_up(saved):
    folder = saved(bert("Model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertForSequenceClassification"]}))
    assert problem(folder) == (
        f"'{folder}' lacks the weights 'classifier.bias', 'classifier.weight' of a BertForSequenceClassification, "
        "which would be random; train it first, or use a model with that head")


def test_damaged_files(saved):
    folder = saved(bert("MaskedLM"))
    (folder / "model.safetensors").write_bytes(b"no tensors")
    assert problem(folder).startswith(f"the model of '{folder}' cannot be loaded: ")
    (folder / "config.json").write_text("{")
    assert problem(folder).startswith(f"the configuration of '{folder}' cannot be loaded: ")


class Code:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_no_pickled_code_runs(saved, tmp_path):
    folder = saved(bert("MaskedLM"))
    (folder / "model.safetensors").unlink()
    with (folder / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"x": Code(tmp_path / "ran")}, file)
    assert problem(folder).startswith(f"the model of '{folder}' cannot be loaded: ")
    torch.save({"x": Code(tmp_path / "ran")}, folder / "pytorch_model.bin")
    assert problem(folder, allow_code=True).startswith(f"the model of '{folder}' cannot be loaded: ")
    assert not (tmp_path / "ran").exists()


OWN = """\
from pathlib import Path
from transformers import BertConfig, BertForSequenceClassification

Path({mark!r}).touch()

class OwnConfig(BertConfig):
    model_type = "own"

class OwnForSequenceClassification(BertForSequenceClassification):
    config_class = OwnConfig
"""


def test_code_that_comes_with_a_model_runs_only_where_it_is_allowed(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "cache"))
    folder = saved(bert("SequenceClassification"))
    (folder / "own_net.py").write_text(OWN.format(mark=str(tmp_path / "ran")))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "architectures": ["OwnForSequenceClassification"], "auto_map": {
        "AutoConfig": "own_net.OwnConfig",
        "AutoModelForSequenceClassification": "own_net.OwnForSequenceClassification"}}
    (folder / "config.json").write_text(json.dumps(config))
    assert problem(folder) == (
        f"the configuration of '{folder}' brings code of its own; if you trust it, add --allow-code")
    assert not (tmp_path / "ran").exists()
    model, _ = load_pretrained(str(folder), allow_code=True)
    assert type(model).__name__ == "OwnForSequenceClassification" and (tmp_path / "ran").exists()


def test_the_hub_where_it_cannot_be_reached(monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants", reason="comes with transformers")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert problem("nobody-here/no-such-model") == (
        "there is no folder 'nobody-here/no-such-model', and the Hugging Face hub cannot be reached, nor is the model "
        "in its cache here; give a folder, or go online once")


def test_names_that_the_hub_cannot_have():
    assert problem("no model") == (
        "there is neither a folder 'no model' nor a public model of that name on the Hugging Face hub")


def test_progress_bars_are_as_before():
    logging = transformers.utils.logging
    before = logging.is_progress_bar_enabled(), logging.get_verbosity()
    with pytest.raises(KeyError), quietly("the tests"):
        assert not logging.is_progress_bar_enabled()
        raise KeyError
    assert (logging.is_progress_bar_enabled(), logging.get_verbosity()) == before
