"""Multimodal learning in JAX: pure functions over one explicit state."""

__version__ = "0.1.0"
