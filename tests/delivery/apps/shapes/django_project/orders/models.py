"""Its model: Django refuses to make one before it is set up."""

from django.db import models


class Order(models.Model):  # type: ignore[misc]  # Django has no types
    """An order."""
