"""A Chromium for tests/test_browser.py, where this machine has one.

    .venv/bin/python tests/browsers.py

says in one line whether there is one: without it the tests of the report in a browser are skipped.
"""

import os
import shutil
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
         "chrome-headless-shell", "chromium-headless-shell")  # fmt: skip
PLAYWRIGHT = ("chromium-*/chrome-linux*/chrome", "chromium_headless_shell-*/*/*headless?shell",
              "chromium-*/*/Chromium.app/Contents/MacOS/Chromium")  # fmt: skip
NONE = "browser checks: not run, no Chromium found (PSR_BROWSER names one)"


def find() -> str:
    """PSR_BROWSER, one on the PATH, or one that playwright has fetched; '' where there is none."""
    named = [os.environ.get("PSR_BROWSER"), *map(shutil.which, NAMES)]
    return next(filter(None, [*named, *_fetched()]), "")


def _fetched() -> list[str]:
    """What playwright has installed, the newest first."""
    places = [Path.home() / ".cache/ms-playwright", Path.home() / "Library/Caches/ms-playwright"]
    if own := os.environ.get("PLAYWRIGHT_BROWSERS_PATH"):
        places = [Path(own)]
    found = (path for place in places for name in PLAYWRIGHT for path in place.glob(name))
    return sorted((str(path) for path in found), reverse=True)


if __name__ == "__main__":
    browser = find()
    print(f"browser checks: run by tests/test_browser.py with {browser}" if browser else
          f"{'!' * 20} {NONE} {'!' * 20}")  # fmt: skip
