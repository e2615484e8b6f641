"""The command line: the parser, and the small commands. A command of several files is a folder of its own."""
