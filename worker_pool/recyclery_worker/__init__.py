"""What runs inside a Celery worker: the pool, the children's reports, the link to the governor, the browser.

The supervisor starts a worker by `python -m recyclery_worker.celery`. All of this is imported into the user's
processes, so it stays small and never imports `recyclery`. Importing the package by itself does nothing.
"""
