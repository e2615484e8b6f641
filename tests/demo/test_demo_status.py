"""Reading the supervisor's status document."""

from recyclery_demo.watch import SupervisorStatus, parse_status


def test_recycles_of_all_pools_are_added_up_by_reason() -> None:
    document = {
        "pools": {
            "fast": {"recycles": {"max_tasks": 2}},
            "slow": {"recycles": {"max_tasks": 3, "budget": 4}},
        },
        "browsers": {"reaped": 45},
    }
    assert parse_status(document) == SupervisorStatus({"max_tasks": 5, "budget": 4}, 45)


def test_reasons_that_never_came_up_are_left_out() -> None:
    assert parse_status({"pools": {"slow": {"recycles": {"budget": 0}}}}).recycles == {}


def test_a_status_from_before_the_first_tick_is_empty() -> None:
    assert parse_status({}) == SupervisorStatus({}, 0)
