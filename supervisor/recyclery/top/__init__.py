"""`recyclery top`: a live view of the supervisor in a terminal, with keys to recycle and reap.

`live` asks the governor and drives the terminal, `view` holds what is known and handles keys, `frame` lays out
the lines (both pure). Plain ANSI: curses lacks many terminals' descriptions in slim images, and rich is not
part of the base installation.
"""
