"""`recyclery leaks --trace`: which lines of a leaking task allocate what it leaves."""
