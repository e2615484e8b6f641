"""The settings."""

from delivery.apps.body import BROKER

broker_url = BROKER
imports = ["delivery.apps.shapes.settings_module.tasks"]
result_backend = "disabled://"
task_ignore_result = True
worker_send_task_events = True
