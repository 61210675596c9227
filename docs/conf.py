"""The documentation: `python -m sphinx -W -b html docs docs/_build`."""
import csv
import os
import pathlib
import re
import sys

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ["COLUMNS"] = "80"        # of the tables of options

from jaxmm.experiments.listing import listing  # noqa: E402
from jaxmm.methods import METHODS  # noqa: E402

project = "jaxmm"
author = copyright = "The jaxmm authors"  # noqa: A001
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "jaxmm"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
nb_execution_mode = "off"           # the tests run the notebooks
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"
default_role = "code"            # of docstrings
highlight_language = "none"


class MethodCard(SphinxDirective):
    """A method of the registry: what it does, its paper, the text below, options, measured accuracy."""
    required_arguments = 1
    has_content = True

    def run(self):
        name, = self.arguments
        entry = METHODS[name]
        about = nodes.paragraph("", entry.about[0].upper() + entry.about[1:] + ". Paper: ")
        found = re.search(r"arXiv (\S+)", entry.source)
        about += (nodes.reference("", entry.source, refuri=f"https://arxiv.org/abs/{found[1]}") if found
                  else nodes.Text(entry.source))
        about += nodes.Text(".")
        options = listing("options", name).partition("\n\n")[2]
        parts = [about, *self.parse_content_to_nodes(), nodes.literal_block(options, options)]
        return parts + [nodes.paragraph("", text) for text in measured(name)]


def measured(method: str):
    """Test accuracy by head from `benchmarks`, in percent."""
    for data, metric in (("av_digits", "accuracy"), ("seq_av_digits", "mean_accuracy")):
        with open(ROOT / "benchmarks" / data / "comparison.csv", encoding="utf-8", newline="") as file:
            values = [f"{row['head']} {100 * float(row['mean']):.1f} ± {100 * float(row['std']):.1f}"
                      for row in csv.DictReader(file) if row["method"] == method and row["metric"] == metric]
        values.sort(key=lambda value: value.startswith(("fused", "dynamic")))
        if values:
            yield f"Measured on {data} (%): {', '.join(values)}."


def setup(app):
    app.add_directive("card", MethodCard)
