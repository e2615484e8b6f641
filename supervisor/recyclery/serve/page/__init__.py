"""The page for people: `recyclery top` and `recyclery leaks` in a browser, to look at and not to act on.

`files/` is what a browser gets as it is; all figures come from the API, which the page's own script asks.
"""
