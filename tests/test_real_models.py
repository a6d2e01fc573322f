"""Explanations of networks that others trained: the numbers are autograd's, and the heat lies where it must.

The networks come in packages of their own, which nothing here installs: where one is missing, its tests are skipped and
say how to get it.
"""

import pytest
import torch

import pnpx
from benchmarks import trained
from benchmarks.trained import LITE0, MINILM, PHOTOS, token_ids
from pnpx.detector import detect
from pnpx.metrics import AbPC, MuFidelity

GRID = (8, 1, 10, 13)  # photos of a yurt, a folding chair, a drum and a cannon, all of them recognized with certainty


def installed(*packages):
    """Skip what needs ``packages`` where one is not installed."""
    try:
        trained.require(*packages)
    except ModuleNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def lite0():
    installed(LITE0, PHOTOS)
    return trained.lite0()


@pytest.fixture(scope="module")
def photos():
    installed(PHOTOS, LITE0)
    return trained.photos()


@pytest.fixture(scope="module")
def grid(photos):
    """Four photos as one, (1, 3, 448, 448), and their classes (1, 4): for each of them it is known where its object is
    (the grid pointing game of Boehle et al., 2021, arXiv:2104.00032)."""
    images, classes = photos
    rows = [torch.cat([images[left], images[right]], dim=2) for left, right in (GRID[:2], GRID[2:])]
    return torch.cat(rows, dim=1)[None], classes[list(GRID)][None]


def shares(attributions):
    """For each of the four targets of `grid`, how much of the positive heat lies in its own quarter: (4,)."""
    heat = attributions[0].sum(1).clamp(min=0)
    half = heat.shape[-1] // 2
    quarters = heat.unfold(1, half, half).unfold(2, half, half).sum((3, 4)).flatten(1)
    return (quarters / quarters.sum(1, keepdim=True)).diagonal()


def test_lite0_recognizes_the_photos(lite0, photos):
    images, classes = photos
    with torch.no_grad():
        assert (lite0(images).argmax(1) == classes).sum() >= 16


@pytest.mark.parametrize("number", [None, 5, 10])
def test_lite0_gradient_is_that_of_autograd(lite0, photos, number):
    images = photos[0][[0, 8]]
    if number is None:
        place, scores = images.clone().requires_grad_(), lite0
    else:
        with torch.no_grad():
            place = lite0.before(images, number)
        place.requires_grad_()

        def scores(x):
            return lite0.after(x, number)

    output = scores(place)
    top = output.max(1).values.sum()
    (expected,) = torch.autograd.grad(top, place)
    layer = None if number is None else f"_blocks.{number}:input"
    explanation = pnpx.Gradient(lite0, layer=layer).explain(images)
    torch.testing.assert_close(explanation.attributions, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    assert torch.equal(explanation.prediction, output.argmax(1))


def test_lite0_smoothgrad_at_a_block_is_that_of_full_passes(lite0, photos):
    images = photos[0][[0, 8]]
    found = [
        pnpx.SmoothGrad(lite0, layer="_blocks.9", n_iter=4, replay=replay, batch_size=size).attribute(images)
        for replay, size in ((True, 32), (False, 32), (True, 1))
    ]
    scale = float(found[0].abs().max())
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, rtol=1e-3, atol=1e-3 * scale)


def test_lite0_integrated_gradients_find_the_objects(lite0, grid):
    found = shares(pnpx.IntegratedGradients(lite0, layer="_blocks.15", n_steps=8).attribute(*grid))
    # By chance it is a quarter; seen: 0.60, 0.82, 0.82, 0.79.
    assert (found > 0.4).all() and found.mean() > 0.6, found


def test_lite0_squaregrad_finds_the_objects(lite0, grid):
    found = shares(pnpx.SquareGrad(lite0, layer="_blocks.10", n_iter=8).attribute(*grid))
    # Seen: 0.36, 0.49, 0.69, 0.37.
    assert (found > 0.28).all() and found.mean() > 0.38, found


def test_lite0_faithful_maps_are_judged_so(lite0, photos):
    """Shapley values of patches beat the same map turned round, and a map that says nothing."""
    images = photos[0][[0, 8]]
    explainer = pnpx.KernelShap(lite0, n_iter=200, groups=56)
    attributions = explainer.attribute(images)
    for metric in (AbPC(groups=56), MuFidelity(groups=56, n_iter=40)):
        found = metric.evaluate(explainer, images, None, attributions)
        turned = metric.evaluate(explainer, images, None, -attributions)
        constant = metric.evaluate(explainer, images, None, torch.ones_like(attributions))
        assert (found > 0.3).all() and (turned < -0.3).all(), (metric, found, turned)
        assert (constant == 0).all()


def test_lite0_is_recommended_what_suits_images(lite0, photos):
    recommended = {one.name: one for one in pnpx.recommend(lite0, photos[0][:1]) if one.picked}
    assert {"IntegratedGradients", "SmoothGrad", "Occlusion", "KernelShap"} <= set(recommended)
    assert "64 patches" in recommended["Occlusion"].reason
    assert str(detect(lite0)) == "convolution x49, linear x1, batch norm x49"


SENTENCES = {"the film was wonderful": "wonderful", "the film was terrible": "terrible",
             "my dinner at the station was truly awful": "awful"}


@pytest.fixture(scope="module")
def minilm():
    installed(MINILM)
    pytest.importorskip("transformers", reason="needs `pip install transformers`")
    return trained.judge()


@pytest.fixture
def judge(minilm):
    return minilm[0]


@pytest.fixture
def tokenizer(minilm):
    return minilm[1]


def test_minilm_gradient_at_the_embeddings_is_that_of_autograd(judge, tokenizer):
    batch = token_ids(tokenizer, list(SENTENCES))
    embeddings = judge.bert.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    scores = judge(batch["attention_mask"], inputs_embeds=embeddings)
    (expected,) = torch.autograd.grad(scores.max(1).values.sum(), embeddings)
    found = pnpx.Gradient(judge, layer="bert.embeddings.word_embeddings").attribute(batch)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_minilm_integrated_gradients_find_the_words_that_judge(judge, tokenizer):
    batch = token_ids(tokenizer, list(SENTENCES))
    explanation = pnpx.IntegratedGradients(judge, layer="bert.embeddings", n_steps=32).explain(batch)
    assert explanation.prediction.tolist() == [0, 1, 1]
    relevance = explanation.attributions.sum(2)
    for row, word in enumerate(SENTENCES.values()):
        tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][row])
        ranked = relevance[row].abs().argsort(descending=True)
        assert tokens[ranked[0]] == word
        assert relevance[row, ranked[0]] > 2 * relevance[row, ranked[1]].abs()
    gap = explanation.diagnostics["completeness_gap"].abs()
    assert (gap < 0.02 * relevance.sum(1).abs()).all(), gap


def test_minilm_words_found_are_those_that_metrics_reward(judge, tokenizer):
    batch = token_ids(tokenizer, list(SENTENCES))
    names = ["IntegratedGradients", "KernelShap", "VarGrad"]
    report = pnpx.auto_explain(judge, batch, metrics=["AbPC"], explainers=names, progress=False)
    assert report.failures == {} and report.modality == "text"
    assert report.explainers["IntegratedGradients"].layer == "bert.embeddings"
    assert report.explainers["KernelShap"].layer is None
    assert (report.scores["KernelShap"]["AbPC"] > 0.2).all(), report.scores


def test_minilm_is_explained_alike_alone_and_in_a_batch(judge, tokenizer):
    explainer = pnpx.SmoothGrad(judge, layer="bert.encoder.layer.2", n_iter=4, noise_std=0.05)
    together = token_ids(tokenizer, list(SENTENCES))
    alone = {key: value[1:2] for key, value in together.items()}
    found, expected = explainer.attribute(together)[1:2], explainer.attribute(alone)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    full_pass = pnpx.SmoothGrad(judge, layer="bert.encoder.layer.2", n_iter=4, noise_std=0.05, replay=False)
    torch.testing.assert_close(expected, full_pass.attribute(alone), rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_minilm_baseline_keeps_the_mask(judge, tokenizer):
    # The baseline of a whole mapping is one of the ids: what the mask hides stays hidden.
    batch = token_ids(tokenizer, list(SENTENCES))
    whole = pnpx.IntegratedGradients(judge, layer="bert.encoder.layer.2", n_steps=4)
    named = pnpx.IntegratedGradients(judge, layer="bert.encoder.layer.2", n_steps=4, forward_arg_extractor="input_ids",
                                     additional_forward_arg_extractor="attention_mask")
    torch.testing.assert_close(whole.attribute(batch), named.attribute(batch))


@pytest.mark.parametrize("family", ["Llama", "Mistral"])
def test_rotary_positions_are_no_features(family):
    """A decoder layer takes the hidden states and the cosines and sines of positions: the states are explained."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=30, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16,
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    batch = {"input_ids": torch.tensor([[3, 4, 5, 6], [7, 8, 9, 1]])}
    layer, last = "model.layers.1", lambda output, _: output[:, -1, 2]
    found = pnpx.Gradient(model, layer=f"{layer}:input").attribute(batch, last)
    assert found.shape == (2, 4, 16)
    torch.testing.assert_close(found, pnpx.Gradient(model, layer="model.layers.0").attribute(batch, last))
    states = model.model(**batch, output_hidden_states=True).hidden_states[1].detach().requires_grad_()
    hook = model.model.layers[1].register_forward_pre_hook(
        lambda _, args, kwargs: ((states, *args[1:]), kwargs), with_kwargs=True
    )
    model(**batch).logits[:, -1, 2].sum().backward()
    hook.remove()
    torch.testing.assert_close(found, states.grad)
