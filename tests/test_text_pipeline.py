"""A run on texts makes what the configuration says, once, loses nothing that it finished, and shows it as text."""

import json
import re

import pyarrow.parquet as pq
import pytest
import torch

import pnpx
from pnpx import zoo
from pnpx.plan import plan
from pnpx.text import TextExplainer, TextExplanation
from tests.space import changed, space_fixture
from tests.text import tiny

CONFIG = """\
title: Which words
model: sentiment
data: {indices: [19, 0]}
explainers:
  - {name: Gradient, reduce: sum}
  - name: VarGrad
    n_iter: 3
    granularity: token
    layers: [null, bert.encoder.layer.0]
output: {folder}
"""
FILES = ["Gradient/inputs", "VarGrad/bert.encoder.layer.0", "VarGrad/inputs"]
EOS = tiny.WORDS.index("[EOS]")
space = space_fixture(CONFIG, ".json")


def embedding_gradient(text, target):
    """d logit / d embedding, summed over the width, for each token but the special ones, by autograd alone."""
    model, tokenizer = zoo.load("sentiment"), zoo.tokenizer("sentiment")
    batch = tokenizer(text, return_tensors="pt")
    vectors = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    model(inputs_embeds=vectors, attention_mask=batch["attention_mask"]).logits[0, target].backward()
    return vectors.grad.sum(-1)[0, 1:-1]


def test_writes_explanations_pictures_and_a_report(space):
    outcome = space.run()
    assert (outcome.made, outcome.found, outcome.failures) == (6, 0, [])
    names = [f"sentiment/{name}/{index}" for name in FILES for index in ("0000", "0019")]
    assert sorted(space.stamps()) == [f"{name}.json" for name in names]
    assert sorted(space.stamps("**/*.png")) == [f"{name}.png" for name in names]
    assert {path.name for path in space.folder.iterdir()} == {"sentiment", "config.yaml", "report.html"}
    page = outcome.report.read_text()
    for part in ("Which words", "sentiment", "VarGrad at bert.encoder.layer.0", "2026-01-02 03:04", "A film of rare"):
        assert part in page
    assert "data:image" not in page and page.count('class="legend"') == 6
    assert page.count("✗ mistake") == 1 and page.count("✓ right") == 1  # the zoo says that 19 is one of four misread
    assert "fingerprint" not in page
    assert not re.search(r"(src|href)=\"(?!#)", page)


def test_explanations_are_those_of_the_explainer(space):
    space.run("data.indices=[0]", "text={targets: [NEGATIVE, POSITIVE]}", "seed=5")
    found = TextExplanation.load(space.folder / "sentiment/Gradient/inputs/0000.json")
    assert found.target_names == ("NEGATIVE", "POSITIVE") and found.texts == ("A film of rare beauty.",)
    expected = torch.stack([embedding_gradient(found.texts[0], target) for target in (0, 1)])
    assert found.words == ["A", "film", "of", "rare", "beauty", "."] and expected.shape == found.scores.shape
    torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-6)
    explain = TextExplainer(pnpx.VarGrad, zoo.load("sentiment"), zoo.tokenizer("sentiment"), granularity="token",
                            n_iter=3, layer="bert.encoder.layer.0", seed=5)
    (again,) = explain(list(found.texts), [["NEGATIVE", "POSITIVE"]])
    stored = TextExplanation.load(space.folder / "sentiment/VarGrad/bert.encoder.layer.0/0000.json")
    torch.testing.assert_close(stored.scores, again.scores)


def test_explainers_that_take_words_away(space):
    """Exact Shapley values and single removals by calls of the model alone, each word replaced by [MASK]."""
    explainers = "explainers=[{name: KernelShap, n_iter: 64, replacement: mask}, {name: Occlusion, replacement: mask}]"
    outcome = space.run("data=[A rare beauty.]", "text={targets: 1}", explainers)
    assert (outcome.made, outcome.failures) == (2, [])
    model, tokenizer = zoo.load("sentiment"), zoo.tokenizer("sentiment")
    found = {name: TextExplanation.load(space.folder / f"sentiment/{name}/inputs/0000.json")
             for name in ("KernelShap", "Occlusion")}
    ids, units = tokenizer("A rare beauty.")["input_ids"], found["Occlusion"].units
    players = range(len(units))

    def worth(kept):
        hidden = {token for player in players if player not in kept for token in units[player].tokens}
        edited = [tokenizer.mask_token_id if place in hidden else token for place, token in enumerate(ids)]
        return float(model(torch.tensor([edited])).logits[0, 1].detach())

    whole = worth(players)
    single = torch.tensor([whole - worth(set(players) - {player}) for player in players])
    torch.testing.assert_close(found["Occlusion"].scores.float(), single, rtol=1e-4, atol=1e-5)
    assert float(found["KernelShap"].scores.sum()) == pytest.approx(whole - worth(set()), abs=1e-4)
    assert space.run("data=[A rare beauty.]", "text={targets: 1}", explainers.replace("mask}]", "delete}]")).made == 1


def test_a_second_run_makes_nothing_and_force_all(space):
    space.run()
    before, pictures, page = space.stamps(), space.stamps("**/*.png"), (space.folder / "report.html").read_bytes()
    outcome = space.run()
    assert (outcome.made, outcome.found) == (0, 6)
    assert space.stamps() == before and space.stamps("**/*.png") == pictures
    assert (space.folder / "report.html").read_bytes() == page  # whether made now or found
    assert space.run(force=True).made == 6
    assert len(changed(before, space.stamps())) == len(changed(pictures, space.stamps("**/*.png"))) == 6


def test_what_is_changed_is_made_again_and_no_other(space):
    space.run()
    for override, made in [
        ("explainers.1.n_iter=4", 4), ("explainers.1.granularity=word", 4), ("explainers.0.reduce=l2", 2),
        ("text={aggregation: max}", 6), ("text={targets: 0}", 6), ("seed=3", 4), ("data.indices=[0,1]", 3),
        ("explainers.0.batch_size=1", 0), ("title=Other", 0),
    ]:
        outcome = space.run(override)
        assert (outcome.made, outcome.found, outcome.failures) == (made, 6 - made, []), override
        space.run()


def test_changed_weights_tokenizer_or_labels_make_all_again(space, monkeypatch):
    from tokenizers.normalizers import NFC

    space.run()
    load, words = zoo.load, zoo.tokenizer

    def trained_on(name):
        model = load(name)
        with torch.no_grad():
            model.classifier.bias += 1e-3
        return model

    def renamed(name):
        model = load(name)
        model.config.id2label = {0: "BAD", 1: "GOOD"}
        return model

    def cased(name):
        tokenizer = words(name)
        tokenizer.backend_tokenizer.normalizer = NFC()
        return tokenizer

    for name, other in (("load", trained_on), ("load", renamed), ("tokenizer", cased)):
        with monkeypatch.context() as patch:
            patch.setattr(zoo, name, other)
            assert space.run().made == 6, other


def test_a_failing_explainer_is_reported_and_the_others_go_on(space, monkeypatch):
    def fail(*_):
        raise RuntimeError("no <gradient> today")

    monkeypatch.setattr(pnpx.VarGrad, "explain", fail)
    outcome = space.run()
    assert outcome.made == 2
    message = "2 of 2 samples: RuntimeError: no <gradient> today"
    assert [(failure.explainer, failure.layer, failure.message) for failure in outcome.failures] == [
        ("VarGrad", layer, message) for layer in (None, "bert.encoder.layer.0")]
    assert "no &lt;gradient&gt; today" in outcome.report.read_text()
    failures = (space.folder / "failures.txt").read_text()
    assert failures.startswith("VarGrad at the inputs of sentiment, 2 of 2 samples\n")


def test_a_killed_run_loses_no_finished_text(space):
    space.run_killed(4, before=True)
    finished = space.stamps()
    assert len(finished) == 3 and len(list(space.folder.glob("**/.*.part"))) == 1
    outcome = space.run()
    assert (outcome.made, outcome.found) == (3, 3)
    assert {name: stamp for name, stamp in space.stamps().items() if name in finished} == finished
    assert len(space.stamps()) == len(space.stamps("**/*.png")) == 6 and not list(space.folder.glob("**/.*.part"))


HOSTILE = "</title></style><script>alert(1)</script><img src=x onerror=x> \"' {{ 7*7 }} &amp; \u202eabc\x00\x1b[31m"


def test_no_text_becomes_markup(space, tmp_path):
    texts = (HOSTILE, "👩‍👩‍👧 שלום e\u0301", "w" * 5000)
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, texts)))
    outcome = space.run(f"data={{file: {tmp_path}/a.jsonl}}", "title='<b>'")
    assert (outcome.made, outcome.failures) == (9, [])
    page = outcome.report.read_text()
    assert "<script" not in page and "<img" not in page and "<b>" not in page.replace('target <b>', "")
    assert "\x00" not in page and "\x1b" not in page
    stored = TextExplanation.load(space.folder / "sentiment/Gradient/inputs/0000.json")
    assert stored.texts == (HOSTILE,)


@pytest.fixture
def gpt2(tmp_path):
    model = tiny.gpt2(bos_token_id=EOS, eos_token_id=EOS).float()
    tokenizer = tiny.tokenizer_of(tiny.WORDS, unk_token="[UNK]", eos_token="[EOS]")
    model.save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    return model, tokenizer


GENERATES = """\
model: transformers:gpt2
data: [a film of, {text: rare beauty, target: is ten}]
explainers: [{name: Gradient, reduce: sum}]
text: {granularity: all_tokens, generation: {max_new_tokens: 2, do_sample: false}}
output: {folder}
"""


def test_generation_by_a_model_in_a_folder(space, gpt2):
    model, tokenizer = gpt2
    space.config.write_text(GENERATES.replace("{folder}", str(space.folder)))
    outcome = space.run()
    assert (outcome.made, outcome.failures) == (2, [])
    free, given = (TextExplanation.load(space.folder / f"gpt2/Gradient/inputs/000{index}.json") for index in (0, 1))
    prompt = tokenizer("a film of", return_tensors="pt")["input_ids"]
    expected = model.generate(prompt, max_new_tokens=2, do_sample=False, pad_token_id=0)[0, 3:]
    assert list(free.targets) == expected.tolist()
    assert given.generated == ("is", "ten") and given.words == ["rare", "beauty", "is", "ten"]
    ids = torch.tensor([tiny.ids_of("rare beauty is ten")])
    vectors = model.get_input_embeddings()(ids).detach().requires_grad_()
    logit = model(inputs_embeds=vectors).logits[0, 1, ids[0, 2]]
    (gradient,) = torch.autograd.grad(logit, vectors)
    torch.testing.assert_close(given.scores[0], gradient[0].sum(-1) * torch.tensor([1, 1, 0, 0]), rtol=1e-4, atol=1e-6)
    page = outcome.report.read_text()
    assert "generated tokens" in page and "<dt>continuation</dt><dd>" in page and "predicted" not in page
    assert "mistake" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    outcome = space.run("text.generation.max_new_tokens=1")
    assert (outcome.made, outcome.found) == (2, 0)


@pytest.mark.parametrize("override, problem", [
    ("text.generation.max_new_tokns=1",
     "text.generation.max_new_tokns: generate has no argument 'max_new_tokns'; the nearest: 'max_new_tokens'"),
    ("text.targets=3", "text.targets: must be the text to be generated for GPT2LMHeadModel, but is 3"),
    ("data=sentences", None),
    ("model=transformers:gpt", "there is no folder 'gpt', and the Hugging Face hub cannot be reached"),
])
def test_problems_of_generation(space, gpt2, override, problem, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants", reason="comes with transformers")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    space.config.write_text(GENERATES.replace("{folder}", str(space.folder)))
    if problem is None:  # labels of classes say nothing to a model that generates
        (subject,) = plan(space.config, [override]).subjects
        assert subject.data.label(0) is None
        return
    with pytest.raises(pnpx.config.ConfigError) as error:
        plan(space.config, [override])
    assert problem in error.value.problems[0] and len(error.value.problems) == 1


def test_texts_are_judged_and_ranked_by_what_has_a_score(space):
    given = "metrics=[AbPC, Complexity]", "text={targets: [NEGATIVE, POSITIVE]}"
    outcome = space.run(*given)
    assert outcome.failures == []
    assert [where for where, _ in outcome.rankings] == [
        "the inputs of sentiment, by word",
        "the inputs of sentiment, by token",
        "bert.encoder.layer.0 of sentiment, by token",
    ]
    names = [row.explainer for _, ranking in outcome.rankings for row in ranking.rows]
    assert names == ["Gradient", "VarGrad", "VarGrad"]
    assert "Ranking at the input, by word" in outcome.report.read_text()
    rows = pq.read_table(space.folder / "scores.parquet").to_pylist()
    assert len(rows) == 3 * 2 * 2 * 2
    stored = TextExplanation.load(space.folder / "sentiment/Gradient/inputs/0019.json")
    found = {row["target"]: row["value"] for row in rows if (row["explainer"], row["metric"], row["sample"]) ==
             ("Gradient", "Complexity", 19)}
    for target, scores in enumerate(stored.scores.abs().double()):
        assert found[target] == pytest.approx(float(torch.distributions.Categorical(scores).entropy()))
    before = space.stamps("**/*.scores.json")
    assert len(before) == 6 and space.run(*given).failures == []
    assert space.stamps("**/*.scores.json") == before
