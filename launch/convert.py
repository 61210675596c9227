"""Turns weights of other programs into .safetensors: jaxmm/commands/convert.py, from a checkout."""
from jaxmm.commands import app, convert

if __name__ == "__main__":
    app.run(convert)
