"""The browser that the tests of a file share."""

import pytest
from chromium import CHROMIUM


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium."""
    from lab import CHROMIUM_FLAGS
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()
