"""What was measured and done, kept in `history.db`: written beside the tick, read while it is written."""
