"""Lists what there is to choose from: jaxmm/commands/list.py, from a checkout."""
from jaxmm.commands import app, list as command

if __name__ == "__main__":
    app.run(command)
