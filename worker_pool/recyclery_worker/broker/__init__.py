"""The worker's connection to its broker, and what is special where that is Redis."""
