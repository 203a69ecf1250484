"""Modules of this program by the names in its registries, such as 'data.pendulum'."""

import importlib
from typing import Any

# '' in the clone. From elsewhere, the package vdsm_in_practice imports these modules below itself.
ROOT = __name__.removesuffix("utils.modules")


def module(name: str) -> Any:
    """The module of that name."""
    return importlib.import_module(ROOT + name)
