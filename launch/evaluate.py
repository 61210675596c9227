"""Evaluates a trained model: jaxmm/commands/evaluate.py, from a checkout."""
from jaxmm.commands import app, evaluate

if __name__ == "__main__":
    app.run(evaluate)
