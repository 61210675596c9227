"""Says which method to choose: jaxmm/commands/advise.py, from a checkout."""
from jaxmm.commands import app, advise

if __name__ == "__main__":
    app.run(advise)
