"""A task that keeps killing its process is parked: its message is set aside in Redis until a person decides.

Redis only, where nothing else counts how often a message came back.
"""
