"""What runs inside a Celery worker: the pool, the children's reports, the link to the governor, the browser.

Loaded into the user's processes by `celery worker -P custom -I recyclery_worker`, so it stays small and never
imports `recyclery`. Importing it does nothing unless the supervisor started this process.
"""

import os

if os.environ.get("RECYCLERY_POOL"):
    from recyclery_worker.plugin import install

    install()
    if os.environ.get("RECYCLERY_TUNE"):
        from recyclery_worker.tuning.isolation import install_if_tuned

        install_if_tuned()
