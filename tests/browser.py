"""A real browser for tests: the system's Chromium, without a window, driven by Playwright.

`tests/conftest.py` makes the fixture `open_page` known to every test.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenPage = Callable[..., "Opened"]


class Opened(NamedTuple):
    """A page, and what went wrong on it: messages of the console, errors, and requests that leave it or its server."""

    page: Page
    problems: list[str]


@pytest.fixture(scope="module")
def open_page() -> Iterator[OpenPage]:
    """`open_page(path, width=1280, *, colour_scheme="light")` gives an `Opened`; for a path also the URL of a server.

    Of module scope, since Playwright keeps an event loop running in the thread of the tests.
    """
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs Playwright for Python: pip install playwright"
    )
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("needs a Chromium of the system (Debian: apt-get install chromium), and there is none")
    options = ["--no-sandbox"] if os.geteuid() == 0 else []  # as root there is no other way
    with (
        playwright.sync_playwright() as driver,
        driver.chromium.launch(executable_path=chromium, args=options) as browser,
    ):

        def open_one(path: Path | str, width: int = 1280, *, colour_scheme: str = "light") -> Opened:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=colour_scheme)
            own, problems = path if isinstance(path, str) else path.as_uri(), []

            def asked(url: str) -> None:
                of_the_server = isinstance(path, str) and url.removeprefix("blob:").startswith(own)
                if url.partition("#")[0] != own and not of_the_server and not url.startswith("data:"):
                    problems.append(f"asks for {url}")

            page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: problems.append(f"error: {error}"))
            page.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
            page.on("request", lambda request: asked(request.url))
            page.on("requestfailed", lambda request: problems.append(f"failed: {request.url[:200]}"))
            page.goto(own)
            return Opened(page, problems)

        yield open_one


def axe(page: Page) -> list[str]:
    """What axe-core finds on a page that is serious or critical, one line each."""
    module = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-core: pip install axe-playwright-python"
    )
    violations = module.Axe().run(page).response["violations"]
    return [
        f"{found['impact']} {found['id']}: {found['help']}; {[node['target'] for node in found['nodes']][:5]}"
        for found in violations
        if found["impact"] in {"serious", "critical"}
    ]
