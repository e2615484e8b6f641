"""The back office: notifications, a calendar, conversation memory, and documents from the tax office."""
