"""Trains one model: jaxmm/commands/train.py, from a checkout."""
from jaxmm.commands import app, train

if __name__ == "__main__":
    app.run(train)
