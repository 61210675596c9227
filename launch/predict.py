"""Predicts rows without labels: jaxmm/commands/predict.py, from a checkout."""
from jaxmm.commands import app, predict

if __name__ == "__main__":
    app.run(predict)
