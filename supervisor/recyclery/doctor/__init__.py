"""`recyclery doctor`: each module reads facts (`read_*`) and finds what is wrong (`*_findings`, pure).

Nothing here changes anything.
"""
