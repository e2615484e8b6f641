"""What the governor remembers between ticks."""
