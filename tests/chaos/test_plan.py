"""The plan of faults: the same for the same seed, and with nothing left out."""

from chaos.faults import LONGEST_FREEZE_SECONDS, LONGEST_STEP_SECONDS, WEIGHTS, pick, plan_faults


def test_a_seed_gives_the_same_faults_every_time_and_another_seed_others() -> None:
    assert plan_faults(7, 120) == plan_faults(7, 120)
    assert plan_faults(7, 120) != plan_faults(8, 120)


def test_a_longer_run_begins_as_a_shorter_one_does() -> None:
    short = plan_faults(7, 60)
    assert plan_faults(7, 600)[: len(short)] == short


def test_in_two_minutes_every_kind_of_fault_comes_whatever_the_seed() -> None:
    for seed in range(200):
        faults = plan_faults(seed, 120)
        assert {fault.kind for fault in faults} == WEIGHTS.keys()
        assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
        steps = [fault.seconds for fault in faults if fault.kind.startswith("step")]
        assert all(abs(step) <= LONGEST_STEP_SECONDS for step in steps)
        others = [fault.seconds for fault in faults if not fault.kind.startswith("step")]
        assert all(0 <= seconds <= LONGEST_FREEZE_SECONDS for seconds in others)


def test_whom_a_fault_hits_depends_on_its_chance_alone() -> None:
    assert [pick([30, 10, 20], chance) for chance in (0.0, 0.5, 0.99)] == [10, 20, 30]
    assert pick([], 0.5) is None
