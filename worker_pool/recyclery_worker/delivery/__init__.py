"""Nothing accepted is lost: the messages of a dead worker go back to their queues at once.

Redis only: other brokers give back by themselves what a lost connection held.
"""
