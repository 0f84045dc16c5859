"""Debian's Chromium: where it is, and the mark of the tests that need it."""

import os
import shutil
from importlib.util import find_spec

import pytest

if os.environ.get("CI") == "true" and find_spec("playwright") is None:
    raise ModuleNotFoundError("continuous integration needs playwright: pip install '.[lab,test]'")

CHROMIUM = shutil.which("chromium") if find_spec("playwright") else None

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium, or no playwright; on Debian: apt-get install chromium"
)
