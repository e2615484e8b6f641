"""The web service: `uvicorn app.backend.main:api`."""
