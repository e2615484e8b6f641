"""Fixtures that run a test of PID 1 in both of its places."""

from functools import partial

import pytest

from recyclery_demo.guard import refused_namespaces
from support.stood_in import AS_PID_1, AS_SUBREAPER, Start, stood_in


@pytest.fixture(
    params=[
        pytest.param(AS_SUBREAPER, id="subreaper"),
        pytest.param(AS_PID_1, id="pid-1", marks=pytest.mark.cgroup),
    ]
)
def wrapper(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The words before the command: none, or those that make it PID 1."""
    words: tuple[str, ...] = request.param
    if words and (reason := refused_namespaces()):
        pytest.skip(f"no namespaces here: {reason}")
    return words


@pytest.fixture
def start(wrapper: tuple[str, ...]) -> Start:
    """Start the supervisor over shell commands in place of workers."""
    return partial(stood_in, wrapper=wrapper)
