"""Compares methods: jaxmm/commands/compare.py, from a checkout."""
from jaxmm.commands import app, compare

if __name__ == "__main__":
    app.run(compare)
