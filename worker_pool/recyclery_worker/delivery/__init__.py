"""Nothing accepted is lost: what a dead worker held goes back to its queues at once, by whoever lives.

Redis only: other brokers give back by themselves what a lost connection held.
"""
