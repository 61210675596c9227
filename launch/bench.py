"""Times training steps: jaxmm/commands/bench.py, from a checkout."""
from jaxmm.commands import app, bench

if __name__ == "__main__":
    app.run(bench)
