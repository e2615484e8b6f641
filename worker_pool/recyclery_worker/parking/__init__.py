"""A task that keeps killing the process it runs in is parked: set aside in Redis until a person decides.

Redis only, where nobody else counts how often a message came back.
"""
