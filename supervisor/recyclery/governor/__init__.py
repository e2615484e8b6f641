"""The governor process: it observes, decides and acts, and answers operators."""
