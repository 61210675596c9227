"""Multimodal learning in JAX: pure functions over one explicit state."""
from jaxmm.caches import give_libraries_folders

__version__ = "0.1.0"

give_libraries_folders()    # before any of them is imported
