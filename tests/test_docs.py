"""The pages under docs and the README say what is there."""
import csv
import importlib
import pathlib
import re
import subprocess
import sys

import pytest

import jaxmm
from jaxmm.experiments import configs
from jaxmm.methods import METHODS

ROOT = pathlib.Path(jaxmm.__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_pages_build_without_a_warning(tmp_path):
    done = subprocess.run([sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "-d", tmp_path / "trees",
                           "docs", tmp_path / "html"], cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stderr[-2000:]
    methods = (tmp_path / "html" / "methods.html").read_text(encoding="utf-8")
    # What a card takes from the registry, the options and the measured tables.
    assert "https://arxiv.org/abs/2311.10707" in methods and "--config.method.alpha_schedule=constant" in methods
    with open(ROOT / "benchmarks" / "av_digits" / "comparison.csv", encoding="utf-8") as file:
        mla = next(row for row in csv.DictReader(file)
                   if (row["method"], row["head"], row["metric"]) == ("mla", "fused", "accuracy"))
    assert f"fused {100 * float(mla['mean']):.1f} ±" in methods.partition('id="mla"')[2].partition("</section>")[0]


def test_every_method_has_a_card_with_an_equation():
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    cards = re.findall(r"^### (\w+)\n\n:::\{card\} (\w+)\n(.*?)^:::$", text, re.MULTILINE | re.DOTALL)
    assert sorted(name for _, name, _ in cards) == sorted(METHODS)
    assert all(title == name and "$$" in body for title, name, body in cards)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    files = [link.partition("#")[0] for link in links if not link.startswith(("http", "#"))]
    assert [link for link in files if not (page.parent / link).exists()] == []


def commands(text: str):
    """The commands of jaxmm in a page's blocks, as lists of words."""
    for block in re.findall(r"^```(?:bash)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.search(r"(?:\bjaxmm|-m launch\.)\s*(\w+)\b(.*)", line):
                yield [found[1], *found[2].partition(" #")[0].rstrip("'").split()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_flags_configs_and_methods_that_are_named(page):
    for name, *words in commands(page.read_text(encoding="utf-8")):
        command = importlib.import_module(f"jaxmm.commands.{name}")
        known = set(getattr(command, "FLAGS", ())) | {"help"}
        for word in (w for w in words if w.startswith("--") and not w.startswith("--config.")):
            flag, _, value = word[2:].partition("=")
            if flag == "config":
                config, _, method = value.partition(":")
                assert config in configs.names() or "/" in config or config.isupper(), word
                assert method.partition(",")[0] in {"", *METHODS, "METHOD"}, word
            else:
                assert flag in known, (name, word)
            if flag == "methods":
                assert {m.partition(":")[0].partition("+")[0] for m in value.split(",")} <= {*METHODS, "joint", "gdumb"}
