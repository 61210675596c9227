"""Packages that only some of jaxmm needs, imported when they are used."""
import importlib
from types import ModuleType
from typing import Any

from jaxmm.errors import UserError


def need(module: str, what: str, extra: str = "data") -> ModuleType:
    """The module, imported now.

    Args:
      module: of a package that `pip install jaxmm` leaves out.
      what: needs it; the beginning of the message.
      extra: of jaxmm that brings it; "" where none does, and it is to be installed by itself.

    Raises:
      UserError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:     # the latter where a library of the system is missing
        root = module.partition(".")[0]
        package = root.replace("_", "-")
        absent = isinstance(error, ModuleNotFoundError) and (error.name or root).partition(".")[0] == root
        reason = "" if absent else f", which cannot be imported ({error})"
        source = f"'jaxmm[{extra}]'" if extra else package
        raise UserError(f"{what} needs {package}{reason}: pip install {source}") from error


class Later:
    """Stands for a module that is imported by `need` when something of it is first asked for."""

    def __init__(self, module: str, what: str, extra: str = "data"):
        self._args = module, what, extra

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):       # tools look these up on any object, without using the module
            raise AttributeError(name)
        return getattr(need(*self._args), name)
