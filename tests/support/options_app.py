"""The sample app with a broker of another kind: BROKER_URL, and TRANSPORT_OPTIONS in JSON."""

import importlib
import json
import os

# Where the worker finds it is not where this file is checked.
app = importlib.import_module("sample_app").app

app.conf.update(
    broker_url=os.environ["BROKER_URL"],
    broker_transport_options=json.loads(os.environ["TRANSPORT_OPTIONS"]),
    result_backend="disabled://",
    task_ignore_result=True,
)
