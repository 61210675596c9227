"""Prepares a data set: jaxmm/commands/prepare.py, from a checkout."""
from jaxmm.commands import app, prepare

if __name__ == "__main__":
    app.run(prepare)
