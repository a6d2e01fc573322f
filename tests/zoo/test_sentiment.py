"""The shipped text model: transformers loads it from its folder, and it reads sentences that it has never seen."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from pnpx import zoo
from pnpx.zoo import train_sentiment as training
from pnpx.zoo.rated import RatedSentence

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install '.[text]'")

FOLDER = zoo.text_folder("sentiment")
BRIEF = training.SentimentRecipe(vocabulary=150, width=8, heads=2, epochs=2, batch_size=8)
PRAISE, BLAME = "a joy, and a lovely café", "it isn't good: a dull mess"
RATED = [RatedSentence(f"{text} {n}", 3.0 if text is PRAISE else -3.0, f"d/{n}") for n in range(12)
         for text in (PRAISE, BLAME)]


@pytest.fixture(scope="module")
def model():
    return zoo.load("sentiment")


@pytest.fixture(scope="module")
def tokenizer():
    return zoo.tokenizer("sentiment")


def test_names():
    assert zoo.text_names() == ("sentiment",)
    assert "sentiment" not in zoo.names()  # which are models of numbers, for those who go through all


def test_the_entry_says_what_was_recorded():
    entry = zoo.entry("sentiment")
    record = json.loads((FOLDER / "training.json").read_text())
    assert (entry.kind, entry.data, entry.folder, entry.record) == ("text", zoo.sentences().name, FOLDER, record)
    assert 0.75 < entry.accuracy == record["accuracy"]
    assert "vaderSentiment==3.3.2" in record["data"] and record["split"] == "by document, 20% held out, seed 0"
    assert record["trained_on"] > 3 * record["held_out"] > 9000
    assert {"seed", "epochs", "torch", "transformers", "data_fingerprint"} <= record.keys()


def test_the_shipped_weights_were_trained_by_the_recipe():
    assert asdict(training.SentimentRecipe()).items() <= zoo.entry("sentiment").record.items()


def test_the_folder_is_small_and_holds_no_code():
    files = {file.name: file.stat().st_size for file in FOLDER.iterdir()}
    assert files.keys() == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "training.json",
    }
    assert sum(files.values()) < 2_000_000


def test_from_pretrained_loads_the_folder_without_network():
    """In a process of its own, as the package reads the variable when it is imported, where any connection fails."""
    code = f"""
import os, socket
os.environ["HF_HUB_OFFLINE"] = "1"
def refuse(*_): raise OSError("no network")
socket.socket.connect = refuse
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained({str(FOLDER)!r})
tokenizer = AutoTokenizer.from_pretrained({str(FOLDER)!r})
logits = model(**tokenizer("A film of rare beauty.", return_tensors="pt")).logits
print(model.dtype, model.config.id2label, model.config.label2id, tokenizer.is_fast, logits.argmax().item())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    labels = "{0: 'NEGATIVE', 1: 'POSITIVE'} {'NEGATIVE': 0, 'POSITIVE': 1}"
    assert ran.stdout == f"torch.float32 {labels} True 1\n"


def test_a_loaded_model_is_ready_to_run_and_to_train_on(model):
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    stored = load_file(zoo.entry("sentiment").weights)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert all(torch.equal(tensor.float(), model.state_dict()[name]) for name, tensor in stored.items())
    assert stored.keys() == dict(model.named_parameters()).keys()


def test_loading_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    zoo.load("sentiment")
    zoo.tokenizer("sentiment")
    assert torch.equal(torch.get_rng_state(), before)


def test_build_gives_fresh_weights_of_the_same_shapes(model):
    fresh = zoo.entry("sentiment").build().state_dict()
    assert {name: tensor.shape for name, tensor in fresh.items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }
    assert not torch.equal(fresh["classifier.weight"], model.state_dict()["classifier.weight"])


def test_layers_worth_explaining_are_run(model, tokenizer):
    ran, handles = [], []
    for layer in zoo.entry("sentiment").layers:
        module = model.get_submodule(layer)
        handles.append(module.register_forward_hook(lambda *_, layer=layer: ran.append(layer)))
    model(**tokenizer("A film.", return_tensors="pt"))
    for handle in handles:
        handle.remove()
    assert sorted(ran) == sorted(zoo.entry("sentiment").layers) and ran


def test_our_sentences_are_classified(model, tokenizer):
    data = zoo.sentences()
    with torch.no_grad():
        predicted = model(**tokenizer(list(data.texts), padding=True, return_tensors="pt")).logits.argmax(1)
    wrong = [text for text, right in zip(data.texts, predicted == data.targets, strict=True) if not right]
    assert len(wrong) <= 0.2 * len(data), wrong  # it misreads negations and contrasts
    assert data.class_names == tuple(model.config.id2label[index] for index in range(2))


def test_our_sentences_are_balanced_and_of_mixed_lengths():
    data = zoo.sentences()
    assert Counter(data.targets.tolist()) == {0: 12, 1: 12} and data.targets.dtype == torch.int64
    assert len(set(data.texts)) == len(data) == 24 and data.kind == "text"
    lengths = [len(text.split()) for text in data.texts]
    assert min(lengths) == 1 and max(lengths) > 20


def test_padding_does_not_change_a_result(model, tokenizer):
    texts = list(zoo.sentences().texts)
    with torch.no_grad():
        together = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
        alone = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])
    torch.testing.assert_close(together, alone)


def test_the_tokenizer_points_at_the_text_as_written(tokenizer):
    text = "The CAFÉ isn\u2019t good..."
    encoded = tokenizer(text, return_offsets_mapping=True)
    words = {}
    for word, (start, end) in zip(encoded.word_ids(), encoded["offset_mapping"], strict=True):
        if word is not None:
            words[word] = words.get(word, "") + text[start:end]
    assert list(words.values()) == ["The", "CAFÉ", "isn\u2019t", "good", "..."]
    assert encoded["input_ids"] == tokenizer("the cafe isn't good...")["input_ids"]
    assert tokenizer.unk_token_id not in encoded["input_ids"]


def test_special_tokens(tokenizer):
    assert tokenizer.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    ids = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id]
    assert [*ids, tokenizer.mask_token_id] == [0, 1, 2, 3, 4]
    pair = tokenizer("good", "bad [MASK]")
    assert [tokenizer.convert_ids_to_tokens(one) for one in pair["input_ids"]] == [
        "[CLS]", "good", "[SEP]", "bad", "[MASK]", "[SEP]",
    ]
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1, 1]
    assert tokenizer.decode(tokenizer("An unputdownable film")["input_ids"][1:-1]) == "an unputdownable film"


def test_over_long_texts_can_be_truncated(model, tokenizer):
    encoded = tokenizer("good " * 500, truncation=True, return_tensors="pt")
    assert encoded["input_ids"].shape == (1, model.config.max_position_embeddings) == (1, 128)
    assert model(**encoded).logits.shape == (1, 2)


@pytest.mark.parametrize("ask", [zoo.tokenizer, zoo.text_folder])
def test_an_unknown_text_model_is_answered_with_the_nearest(ask):
    with pytest.raises(LookupError) as error:
        ask("sentimental")
    assert str(error.value) == "no text model 'sentimental' in the zoo; the nearest: 'sentiment'"
    with pytest.raises(LookupError, match="no model 'sentimnt' in the zoo; the nearest: 'sentiment'"):
        zoo.load("sentimnt")


@pytest.mark.parametrize("ask", [zoo.load, zoo.tokenizer])
def test_without_transformers_the_error_says_what_to_install(ask, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError) as error:
        ask("sentiment")
    assert str(error.value) == (
        "the zoo's text models need transformers, which is not installed; install it: "
        "pip install transformers tokenizers"
    )


def test_describing_imports_no_transformers():
    code = """
import sys
from pnpx import zoo
zoo.entry("sentiment").accuracy, zoo.entry("sentiment").kind, zoo.text_folder("sentiment"), zoo.sentences()
print("transformers" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def brief(seed=0):
    tokenizer = training.train_tokenizer([one.text for one in RATED], BRIEF.vocabulary)
    return tokenizer, training.train(training.SentimentRecipe(**{**asdict(BRIEF), "seed": seed}), tokenizer, RATED)


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_repeats_itself_and_the_seed_matters():
    before = torch.get_rng_state()
    (tokenizer, first), (again, second) = brief(), brief()
    assert tokenizer.to_str() == again.to_str() and same(first, second) and not first.training
    assert not same(first, brief(seed=1)[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_vocabulary_is_specials_then_characters_then_frequent_pieces():
    counts = Counter({"aba": 3, "ab": 3, "##a": 1, "##ab": 9, "b": 1})
    expected = [*training.SPECIAL, "a", "b", "##a", "##b", "##ab", "ab", "aba"]
    assert list(training.vocabulary(counts, 100)) == expected
    assert training.vocabulary(counts, 10) == {piece: index for index, piece in enumerate(expected[:10])}


def test_hidden_are_words_only_and_about_as_many_as_asked_for():
    tokens = torch.tensor([[training.CLS, *[7] * 200, training.SEP, training.PAD]]).repeat(400, 1)
    hidden = training.hide(tokens, 0.3, torch.Generator().manual_seed(0))
    assert torch.equal(hidden[:, [0, -2, -1]], tokens[:, [0, -2, -1]])
    shares = (hidden == training.MASK)[:, 1:201].float().mean(1)
    assert shares.mean().item() == pytest.approx(0.3, abs=0.03) and shares.max() > 0.5 and shares.min() < 0.1
    assert set(hidden.unique().tolist()) == {training.PAD, training.CLS, training.SEP, training.MASK, 7}


def test_every_row_is_in_one_batch():
    ids = [torch.zeros(length) for length in range(1, 24)]
    found = list(training.batches(ids, 4, torch.Generator().manual_seed(0)))
    assert sorted(row for batch in found for row in batch) == list(range(23))
    assert {len(batch) for batch in found} == {4, 3}


def test_long_texts_end_with_the_separator():
    tokenizer = training.train_tokenizer(["good"], 50)
    long, short = training.encode(tokenizer, ["good " * 300, "good"])
    assert len(long) == training.LONGEST and long[-1] == short[-1] == training.SEP and len(short) == 3


def test_accuracy_is_the_share_with_the_sign_of_the_rating():
    tokenizer = training.train_tokenizer([one.text for one in RATED], BRIEF.vocabulary)
    model = training.build(BRIEF, tokenizer.get_vocab_size()).eval()
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 1.0]))
    assert training.accuracy(model, tokenizer, RATED[:3]) == pytest.approx(2 / 3)


def test_what_is_written_is_what_was_measured(tmp_path):
    tokenizer, model = brief()
    training.write_folder(tmp_path / "new", model, tokenizer, {"accuracy": 1.0})
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "new").eval()
    reread = transformers.AutoTokenizer.from_pretrained(tmp_path / "new")
    assert same(model, loaded)
    assert reread(PRAISE)["input_ids"] == training.encode(tokenizer, [PRAISE])[0].tolist()
    with safe_open(tmp_path / "new" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert json.loads((tmp_path / "new" / "training.json").read_text()) == {"accuracy": 1.0}


def test_without_the_sentences_the_command_says_how_to_get_them(tmp_path, capsys):
    with pytest.raises(SystemExit):
        training.main(["--data", str(tmp_path), "--output", str(tmp_path / "new")])
    message = " ".join(capsys.readouterr().err.split())
    assert f"there is no file 'movieReviewSnippets_GroundTruth.txt' in the folder '{tmp_path}'" in message
    assert "pip download --no-deps --no-binary :all: vaderSentiment==3.3.2" in message
    assert not (tmp_path / "new").exists()
