"""What the governor knows between ticks."""
