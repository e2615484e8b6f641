"""The environment variables that the product reads or sets: none comes or goes unnoticed."""

import re

from contracts.frozen import assert_frozen
from contracts.sources import strings

NAME = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|CHROMEDRIVER|HOME|PORT|TERM|TMPDIR")
# A word of sysconf(3).
OTHERS = {"SC_CLK_TCK"}


def test_the_product_knows_the_frozen_environment_variables() -> None:
    found = {text for text in strings() if NAME.fullmatch(text)}
    assert_frozen("environment", sorted(found - OTHERS))
