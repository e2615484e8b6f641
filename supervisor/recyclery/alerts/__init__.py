"""Alerts: the rules by which they fire and resolve, and the webhook that they are sent to."""
