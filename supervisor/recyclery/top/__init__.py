"""`recyclery top`: the supervisor live in a terminal, and keys to act.

`asking` observes, `view` and `frame` decide (pure: what is known and which key, which lines), `terminal` and
`live` act. Written in plain ANSI: curses lacks the description of many a terminal in a slim container, rich is
no part of the base installation.
"""
