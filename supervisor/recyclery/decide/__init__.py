"""What to do: pure functions from a `Snapshot`, what was learned, and the policy, to a list of actions.

No I/O, no clock of its own: the same arguments always give the same answer.
"""
