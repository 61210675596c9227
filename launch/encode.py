"""Computes features of a data set once: jaxmm/commands/encode.py, from a checkout."""
from jaxmm.commands import app, encode

if __name__ == "__main__":
    app.run(encode)
