"""What the back office stands on: the broker, Redis, the workers."""
