"""Alerts: rules that fire and resolve, and the webhook that they are sent to."""
