"""What the README shows is true: its Python runs, its commands and links exist."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


def test_the_python_runs_and_gives_the_shapes_it_says(tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="the README shows a Hugging Face model; pip install '.[text]'")
    pytest.importorskip("optuna", reason="the README tunes an explainer; pip install '.[tune]'")
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["attributions"].shape == (1, 32, 4, 4)
    assert namespace["out"].shape[:2] == (4, 8)
    assert namespace["why"].prediction.tolist() == [8]
    assert namespace["halves"].shape[0] == 1
    report = namespace["report"]
    assert report.failures == {} and report.best is report.explainers[report.ranking.rows[0].explainer]
    assert (tmp_path / "cancer" / "report.html").stat().st_size > 100_000
    assert (tmp_path / "cancer" / "scores.parquet").exists()
    assert [len(one) for one in namespace["more"]][:2] == [8, 8]
    assert len(namespace["tuned"].trials) == 5 and namespace["tuned"].value >= namespace["tuned"].baseline
    assert namespace["faithful"].shape == namespace["stable"].shape == (4,)
    assert (tmp_path / "eight_not_three.png").stat().st_size > 1000
    assert namespace["beauty"].target_names == ("POSITIVE",) and namespace["bored"].target_names == ("NEGATIVE",)
    assert namespace["beauty"].words == ["A", "film", "of", "rare", "beauty", "."]
    assert namespace["beauty"].strongest()[0] == namespace["beauty"].words.index("beauty")
    assert (tmp_path / "beauty.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert namespace["fading"].scores.shape == (6,) and (namespace["fading"].scores > 0).all()


def test_the_picture_is_what_the_code_draws(tmp_path, monkeypatch):
    """Pixel by pixel the fonts and versions of a machine would matter; the numbers that it shows do not."""
    import pnpx
    from pnpx import zoo

    image = zoo.data("digits").inputs[2:3]
    model = zoo.load("digits_cnn")
    why = pnpx.IntegratedGradients(model, n_steps=64).explain(image, targets=[[8, 3]])
    sums = why.attributions.flatten(2).sum(2)
    eight, three = (model(image) - model(torch.zeros_like(image)))[0, [8, 3]].tolist()
    torch.testing.assert_close(sums, torch.tensor([[eight, three]]), rtol=0.02, atol=0.05)
    assert (ROOT / "notebooks" / "eight_not_three.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_links_and_commands_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("http") or (ROOT / target).exists(), target
    for config in re.findall(r"configs/\w+\.yaml", TEXT):
        assert (ROOT / config).exists(), config
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in re.findall(r"^\$ make (\w+)", TEXT, flags=re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, flags=re.MULTILINE), command


def test_what_is_to_be_installed_can_be():
    """No index has the package: what its extras bring is installed from its clone."""
    root = Path(__file__).parents[1]
    pages = [root / "README.md", *root.glob("notebooks/*.ipynb"), *root.glob("pnpx/**/*.py")]
    assert len(pages) > 100 and [str(page) for page in pages if "pnpx[" in page.read_text("utf-8")] == []
