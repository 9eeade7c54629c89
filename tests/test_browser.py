"""The report and drawings of a notebook in a real browser: nothing cut off, every picture shown.

Chromium is looked for by `browsers`; where there is none the tests are skipped.
"""

import html
import json
import subprocess
import sys
from html.parser import HTMLParser

import browsers
import pytest
from conftest import ROOT
from test_figures import MODELS
from test_report import TINY, make_run
from test_show import evil_search

from psr_lib import figures, manifest, report, show

BROWSER = browsers.find()
needs_browser = pytest.mark.skipif(not BROWSER, reason=browsers.NONE)
# The page stands in a frame as wide as a window: the script outside it measures, as the page's own
# policy lets none run.
FRAME = """<body style="margin:0"><iframe style="border:0;width:{width}px;height:900px"
srcdoc="{page}"></iframe><pre id="found">nothing</pre><script>
document.querySelector("iframe").addEventListener("load", function () {{
  const page = this.contentDocument, look = (e) => this.contentWindow.getComputedStyle(e);
  const scrolls = (e) => e && (["auto", "scroll"].includes(look(e).overflowX)
    || scrolls(e.parentElement));
  document.getElementById("found").textContent = JSON.stringify({{
    wide: page.documentElement.scrollWidth,
    cut: [...page.querySelectorAll("body *")].filter((e) => !scrolls(e)
      && e.getBoundingClientRect().right > {width} + 1).map((e) => e.outerHTML.slice(0, 80)),
    pictures: [...page.images].map((one) => one.naturalWidth > 0),
    ground: look(page.body).backgroundColor,
    folds: page.querySelectorAll("details").length}});
}});</script>"""


class Found(HTMLParser):
    """What the script wrote down."""

    def __init__(self, dom):
        super().__init__()
        self.inside, self.text = False, ""
        self.feed(dom)

    def handle_starttag(self, tag, attrs):
        self.inside = ("id", "found") in attrs

    def handle_data(self, data):
        self.text += data if self.inside else ""

    def handle_endtag(self, tag):
        self.inside = False


def looked(page, folder, width, dark=False):
    """What a browser makes of a page in a window of this width."""
    file = folder / f"frame{width}{dark}.html"
    file.write_text(FRAME.format(page=html.escape(page), width=width), encoding="utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", scheme,
               f"--user-data-dir={folder / 'profile'}", f"--window-size={width + 40},1000",
               "--virtual-time-budget=5000", "--dump-dom", file.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return json.loads(Found(done.stdout).text)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a run with a real figure."""
    root = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "root", lambda: root)
        run = make_run(root / "runs")
        chart = figures.accuracy_by_model(MODELS, "A finding")
        figures.save_fig(chart, run.paper / "figures", "methods", MODELS, "a run")
        return report.write(run, TINY).read_text(encoding="utf-8")


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_fits_a_desktop_and_a_phone_in_light_and_dark(page, tmp_path, width, dark):
    found = looked(page, tmp_path, width, dark)
    assert found["wide"] <= width and found["cut"] == []
    assert found["pictures"] == [True] and found["folds"] > 3
    assert found["ground"] == ("rgb(21, 24, 27)" if dark else "rgb(255, 255, 255)")


@needs_browser
def test_a_search_and_its_judge_fit_a_notebooks_cell(tmp_path):
    views = [view.__html__() for view in (show.search(evil_search()), show.judge(evil_search()))]
    found = looked("".join(views), tmp_path, 960)
    assert found["wide"] <= 960 and found["cut"] == [] and found["folds"] > 0


@needs_browser
def test_what_is_cut_off_is_found(tmp_path):
    found = looked("<p style='width:900px'>x</p><img src='data:image/png;base64,x'>", tmp_path, 390)
    assert found["wide"] > 390 and "<p" in found["cut"][0] and found["pictures"] == [False]


def test_a_browser_is_looked_for_and_one_that_is_missing_is_said_aloud(tmp_path):
    assert "browsers.py" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    place = tmp_path / "chromium-1234" / "chrome-linux" / "chrome"
    none, found = (_said(tmp_path), [])
    for name, value in (("PSR_BROWSER", "/my/chrome"), ("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        found.append(_said(tmp_path, **{name: value}).rpartition(" ")[2])
    assert f"! {browsers.NONE} !" in none and none.count("\n") == 0
    assert found == ["/my/chrome", str(place)]


def _said(home, **names):
    """What `browsers.py` says on a machine with nothing on its PATH."""
    command = [sys.executable, str(ROOT / "tests/browsers.py")]
    place = {"PATH": str(home / "none"), "HOME": str(home), **names}
    return subprocess.run(command, env=place, capture_output=True, text=True).stdout.strip()
