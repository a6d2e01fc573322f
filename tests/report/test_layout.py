"""The page as a browser lays it out."""

import json
import shutil
import subprocess
from dataclasses import replace

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pnpx.report import Panel, Report, Sample, Section, render

BROWSER = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), "chromium")
HEADLESS = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]

MEASURE = """\
<!DOCTYPE html><body><script>
const page = PAGE, widths = WIDTHS, found = {};
function broken(frame) {  // the words of what is said of samples that stand on more than one line
  const words = [];
  for (const dd of frame.querySelectorAll(".about dd")) {
    const walker = frame.createTreeWalker(dd, NodeFilter.SHOW_TEXT);
    while (walker.nextNode())
      for (const word of walker.currentNode.data.matchAll(/\\S+/g)) {
        const range = frame.createRange();
        range.setStart(walker.currentNode, word.index);
        range.setEnd(walker.currentNode, word.index + word[0].length);
        if (new Set([...range.getClientRects()].map(box => box.top)).size > 1) words.push(word[0]);
      }
  }
  return words;
}
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `border: 0; height: 900px; width: ${width}px`;
  frame.srcdoc = page;
  frame.onload = () => {
    const inside = frame.contentDocument;
    found[width] = {broken: broken(inside), page: inside.documentElement.scrollWidth};
    if (Object.keys(found).length == widths.length) document.body.textContent = JSON.stringify(found);
  };
  document.body.append(frame);
}
</script></body>
"""
WIDTHS = [320, 400, 800, 1400]


@pytest.fixture(scope="module")
def browser():
    """The command of a browser that starts here."""
    try:
        done = subprocess.run([*HEADLESS, "data:text/html,<p>here"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"needs Chromium, which measures the page: {error}")
    if "here" not in done.stdout:
        pytest.skip(f"needs Chromium, which measures the page, but it does not start: {done.stderr[-200:]}")
    return HEADLESS


@pytest.fixture
def measured(tmp_path, browser):
    """What a browser says of the page of samples with a label, by the widths of its window."""

    def measured(label, inches):
        picture = tmp_path / "a.png"
        FigureCanvasAgg(Figure(figsize=(inches, 1), dpi=50)).print_png(picture)
        panel = Panel("SmoothGrad", "conv2", {"n_iter": 20}, picture, label, 0.25, {"gap": "0.013"})
        samples = [Sample(1, picture, label, label, 0.912, [panel] * 3), Sample(2, None, label, label, 0.912, [panel])]
        texts = [replace(samples[1], texts=["a text"], index=3)]
        section = Section("net", "two convolutions", 12345, "digits", 0.9731, samples + texts)
        render(Report("A run", "2026-01-02", "model: net", [section], [], {"torch": "2.9.0"}), tmp_path / "report.html")
        source = json.dumps((tmp_path / "report.html").read_text("utf-8")).replace("</", "<\\/")
        (tmp_path / "measure.html").write_text(MEASURE.replace("WIDTHS", str(WIDTHS)).replace("PAGE", source), "utf-8")
        command = [*browser, f"--user-data-dir={tmp_path / 'browser'}", (tmp_path / "measure.html").as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        said = done.stdout.partition("<body>")[2].partition("</body>")[0]
        return {int(width): one for width, one in json.loads(said).items()}

    return measured


@pytest.mark.parametrize("inches", [2, 6], ids=["beside the figures", "above the figures"])
def test_words_of_samples_are_not_broken(measured, inches):
    found = measured("malignant hippopotamus", inches)
    assert {width: one["broken"] for width, one in found.items()} == {width: [] for width in WIDTHS}
    assert all(one["page"] <= width for width, one in found.items())


@pytest.mark.parametrize("inches", [2, 6], ids=["beside the figures", "above the figures"])
def test_absurdly_long_names_do_not_make_the_page_wider_than_its_window(measured, inches):
    found = measured("W" * 400, inches)
    assert all(one["page"] <= width for width, one in found.items())
    assert all(len(one["broken"]) == 6 for one in found.values())
