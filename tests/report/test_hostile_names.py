"""Names of data that mean something to Markdown, HTML, formulas and terminals, in every report."""
import re

import jax
import pytest
from markdown_it import MarkdownIt

from jaxmm.report import analysis, run_report
from jaxmm.train.schedule import train

ONE = jax.devices()[:1]
MODALITIES = ("$\\frac{$", "a|b`<script>")
CLASSES = ("=1+1", "![x](http://host/x.png)", "c\n\n# Title\x1b[2J\udcff|")


@pytest.fixture(name="reports", scope="module")
def make_reports(make_dataset, make_config, tmp_path_factory):
    """Texts that were shown and written of one run, by name, and its folder."""
    workdir = tmp_path_factory.mktemp("runs") / "a b\n# c"
    dataset = make_dataset({m: (3,) for m in MODALITIES})._replace(
        name="<img src=x>\n# $x$", class_names=CLASSES)
    run = train(make_config("late", epochs=1, modalities=MODALITIES), workdir, dataset=dataset,
                devices=ONE, progress=False)
    shown = {"table": run_report.write(run, workdir),
             "analyses": analysis.write(run, workdir, ["gap", "per_class", "robustness"], "test")}
    return shown | {p.name: p.read_text() for p in workdir.iterdir()
                    if p.suffix in (".md", ".csv")}, workdir


def test_what_is_shown_has_no_control_characters(reports):
    texts, _ = reports
    assert set(texts) == {"table", "analyses", "report.md", "analysis.md", "per_class.csv", "metrics.csv"}
    for name, text in texts.items():
        if not name.endswith(".csv"):
            assert all(c.isprintable() or c == "\n" for c in text), name


def test_names_add_no_markup(reports):
    texts, _ = reports
    for name in ("report.md", "analysis.md"):
        page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(texts[name])
        assert set(re.findall(r'(?:src|href)="(.*?)"', page)) <= {
            "accuracy.png", "predictions.png", "learning_curves.png", "modality_gap.png", "per_class.png",
            "robustness.png", "analysis.md"}
        assert not re.search("<script|<img src=x|<h1>(?!(late|Analyses))|<em>", page)
        assert page.count("<h1>") == 1
        assert "&lt;img src=x&gt;\\n# $x$" in page and "$\\frac{$" in page
    for line in texts["report.md"].splitlines():
        assert not re.match("# c|# Title", line)


def test_tables_keep_their_columns(reports):
    texts, _ = reports
    for text in texts.values():
        for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_no_class_is_a_formula_of_a_spreadsheet(reports):
    cells = re.findall(r"^([^,]*),", reports[0]["per_class.csv"], re.MULTILINE)
    assert "'=1+1" in cells and "=1+1" not in cells
