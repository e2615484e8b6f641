"""A package in a folder `src`, which is found through PYTHONPATH, as an installed one is through its path."""
