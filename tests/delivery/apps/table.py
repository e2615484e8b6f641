"""The app shapes: how a user's app may be laid out, and which of its tasks say that they are early."""

from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).with_name("shapes")
SHAPES = "delivery.apps.shapes"
WHERE = {"PYTHONPATH": f"{FOLDER.parents[2]}:{FOLDER}/src_folder/src"}
"""The environment in which every shape's app is found."""
EARLY: Mapping[str, tuple[str, ...]] = {
    "plain": (),
    "packaged": (),
    "django_project": (),
    "src_folder": (),
    "settings_module": (),
    "factory": (),
    "shared_at_import": (),
    "two_apps": (),
    "beat_by_name": (),
    "after_configure": (),
    "after_finalize": (),
    "routed_by_task": (),
    "registry_at_import": (),
    "finalized_at_import": (),
    "canvas_at_import": (),
    "settings_read_at_import": (),
    "old_names": (),
    "bound": (),
    "retrying": (),
    "eager_class": (),
    "class_based": (),
    "base_class": (),
    "task_class": (),
    "celery_task_bound": (),
    "queues_and_priorities": (),
    "late_by_setting_after_use": (),
    "early_by_setting_after_use": ("work",),
    "late_by_annotation": (),
    "reads_when_bound": (),
    "own_from_config": (),
    "registered_late": (),
    "late_by_task": ("once",),
    "early_by_task": ("once",),
    "early_by_base": ("once",),
    "early_by_setting": ("work",),
    "early_by_prefixed_setting": ("work",),
    "early_by_old_name": ("work",),
    "early_by_annotation": ("once",),
}
"""Each shape, a module of `shapes`, with its early tasks; all others are late."""


def name_of_app(shape: str) -> str:
    """Return what `celery -A` takes for a shape."""
    return "shop" if shape == "src_folder" else f"{SHAPES}.{shape}"


def name_of_work(shape: str) -> str:
    """Return the name of a shape's task `work`."""
    own = {"class_based": "class_based.work", "django_project": f"{SHAPES}.django_project.orders.tasks.work"}
    is_package = (FOLDER / shape).is_dir()
    return own.get(shape, f"{name_of_app(shape)}.{'tasks.' if is_package else ''}work")
