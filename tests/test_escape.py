import html
import subprocess

import pytest
from markdown_it import MarkdownIt

from jaxmm import escape
from jaxmm.report.tables import markdown

NAMES = ["a|b", "`code`", "``", "<script>alert(1)</script>", "![x](http://host/pixel.png)",
         "[x](http://host)", "*a*", "__init__", "_a_", "a_b", "~~a~~", "&lt;", "back\\slash", "# a",
         "$\\frac{$", "=1+1", "class 1", "Füße", "<!--", "trailing\\"]


def test_printable_is_one_line_without_control_characters():
    assert escape.printable("Füße 1\t\n\x1b[2J\u202e\udcff\x00") == \
        "Füße 1\\t\\n\\x1b[2J\\u202e\\udcff\\x00"


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_a_name_as_it_is(name):
    """As a renderer of Markdown reads it: in a cell, in a heading, and as code."""
    render = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render
    table = render(markdown([{"name": name, name + "2": 1}], ["name", name + "2"]))
    shown = html.escape(name, quote=False).replace('"', "&quot;")
    assert table.count("</td>") == table.count("</th>") == 2
    assert f"<td>{shown}</td>" in table and f">{shown}2</th>" in table
    assert render(f"x {escape.markdown(name)}") == f"<p>x {shown}</p>\n"
    assert render(f"x {escape.code(name)}") == f"<p>x <code>{shown}</code></p>\n"


def test_markdown_leaves_ordinary_names_readable_and_keeps_one_line():
    assert escape.markdown("mel_spectrogram-2 (16 kHz)") == "mel_spectrogram-2 (16 kHz)"
    assert escape.markdown("$x$") == "\\$x\\$"
    assert escape.markdown("a\n## Title") == "a\\\\n## Title"


@pytest.mark.parametrize("value, expected", [
    ("=1+1", "'=1+1"), ("+cmd", "'+cmd"), ("-x", "'-x"), ("@sum", "'@sum"), ("\t=1", "'\t=1"),
    ("-3", "-3"), ("+1.5", "+1.5"), ("-1e-5", "-1e-5"), ("a=b", "a=b"), ("", ""), (-2.5, -2.5),
    (None, None)])
def test_cell_is_no_formula_and_numbers_stay(value, expected):
    assert escape.cell(value) == expected


def test_command_is_one_line_that_the_shell_gives_back():
    arguments = ["a b", "$HOME", "x\ny'\\z", "\x1b[31mred", "`id`", "", "ü\udcff"]
    line = escape.command(["printf", r"%s\0", *arguments])
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1] == arguments


@pytest.mark.parametrize("text, expected", [
    ("a_b%$#&{}", r"a\_b\%\$\#\&\{\}"), ("\\end{table}", r"\textbackslash{}end\{table\}"),
    ("a--b---c-d", "a-{}-b-{}-{}-c-d"), ("[1] *", "{[}1] {*}"), ("x\n\ny\x1b", r"x\textbackslash{}n"
     r"\textbackslash{}ny\textbackslash{}x1b"), ("a<b>|~^\"", r"a\textless{}b\textgreater{}\textbar{}"
     r"\textasciitilde{}\textasciicircum{}''"), ("Köln ± 1", r"Köln $\pm$ 1")])
def test_latex_prints_names_as_they_are(text, expected):
    assert escape.latex(text) == expected
