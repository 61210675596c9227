"""Writes a trained model for other programs: jaxmm/commands/export.py, from a checkout."""
from jaxmm.commands import app, export

if __name__ == "__main__":
    app.run(export)
