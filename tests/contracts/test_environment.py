"""The environment variables that the product reads or sets."""

import re

from contracts.frozen import assert_frozen
from contracts.sources import strings

NAME = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|CHROMEDRIVER|HOME|PORT|TERM|TMPDIR")
# Names for sysconf(3).
OTHERS = {"SC_CLK_TCK", "SC_PAGE_SIZE", "SC_PHYS_PAGES"}


def test_the_code_names_exactly_the_frozen_environment_variables() -> None:
    found = {text for text in strings() if NAME.fullmatch(text)}
    assert_frozen("environment", sorted(found - OTHERS))
