"""How `recyclery run` ends."""

DRAINED = 0
KILLED = 1
WRONG_USAGE = 2
GAVE_UP = 70
BAD_CONFIGURATION = 78
