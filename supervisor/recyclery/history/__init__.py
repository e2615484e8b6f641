"""The history of samples, runs and actions in `history.db`: written in a thread, readable at any time."""
