"""Multimodal learning in JAX: pure functions over one explicit state.

What stands here is imported when it is first asked for; `import jaxmm` alone imports nothing large.
"""
import importlib
from typing import TYPE_CHECKING, Any

from jaxmm.caches import give_libraries_folders

if TYPE_CHECKING:
    from jaxmm.errors import UserError
    from jaxmm.estimators import Classifier, Comparison, Regressor, compare, load, rows

    METHODS: dict[str, str]     # what each method does, and its paper

__version__ = "0.1.0"
__all__ = ["METHODS", "Classifier", "Comparison", "Regressor", "UserError", "compare", "load", "rows"]

give_libraries_folders()    # before any of them is imported


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "METHODS":       # without scikit-learn's estimators
        value = dict(importlib.import_module("jaxmm.experiments.listing").methods())
    else:
        home = "errors" if name == "UserError" else "estimators"
        value = getattr(importlib.import_module(f"jaxmm.{home}"), name)
    return globals().setdefault(name, value)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
