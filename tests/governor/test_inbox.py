"""The reports that the governor holds between ticks."""

from recyclery.governor.inbox import Inbox
from recyclery.observe.queue_depths import Broker
from support.snapshots import CHILD, SETTINGS


def test_a_session_of_a_child_whose_reports_are_dropped_is_forgotten_without_an_error() -> None:
    inbox = Inbox(SETTINGS, Broker(""))
    inbox.forget_session(CHILD, "a session")
    assert inbox.states == {}
