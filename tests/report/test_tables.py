import csv
import io

from jaxmm.report import tables

SCORES = {
    "dynamic": {"accuracy": 0.9, "macro_f1": 0.89, "ece": 0.0404, "nll": 0.3},
    "fused": {"accuracy": 0.9166, "macro_f1": 0.91, "ece": 0.03, "nll": 0.25},
    "touch": {"accuracy": 1.0, "macro_f1": 1.0, "ece": 0.0, "nll": 12.34567},
    "smell": {"accuracy": 0.05, "macro_f1": 0.0, "ece": 0.5, "nll": 2.3},
}


def test_markdown_aligns_columns_and_leaves_missing_cells_empty():
    rows = [{"name": "a", "count": 10}, {"name": "longer", "other": 1.5}, {"name": None}]
    assert tables.markdown(rows, ["name", "count", "other"]) == (
        "| name   | count | other |\n"
        "| ------ | ----: | ----: |\n"
        "| a      |    10 |       |\n"
        "| longer |       |   1.5 |\n"
        "|        |       |       |\n")


def test_markdown_escapes_what_would_end_a_cell():
    text = tables.markdown([{"n": "a|b", "v": 1}], ["n", "v"])
    assert text.splitlines()[2] == r"| a\|b |   1 |"
    text = tables.markdown([{"a|b": "x\ny"}], ["a|b"])
    assert text.splitlines() == [r"| a\|b  |", "| ----- |", r"| x\\ny |"]


def test_csv_text_quotes_and_reads_back():
    rows = [{"method": "a,b", "std": 0.1}, {"method": 'say "x"', "std": None}]
    text = tables.csv_text(rows, ["method", "std"])
    assert text == 'method,std\n"a,b",0.1\n"say ""x""",\n'
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"method": "a,b", "std": "0.1"}, {"method": 'say "x"', "std": ""}]


def test_csv_text_has_no_formulas():
    rows = [{"class": "=1+1", "-x": -0.5}, {"class": "-3", "-x": "+1.5"}]
    assert tables.csv_text(rows, ["class", "-x"]) == "class,'-x\n'=1+1,-0.5\n-3,+1.5\n"


def test_sort_heads_puts_modalities_first_then_fused_then_the_rest():
    assert tables.sort_heads(SCORES, ["touch", "smell"]) == ["touch", "smell", "fused", "dynamic"]
    assert tables.sort_heads(["fused", "b"], ["a", "b"]) == ["b", "fused"]


def test_scores_table_rounds_shares_to_percent():
    assert tables.scores_table(SCORES, ["touch", "smell"]) == (
        "| head    | accuracy | macro F1 |   ECE |    NLL |\n"
        "| ------- | -------: | -------: | ----: | -----: |\n"
        "| touch   |   100.0% |   100.0% | 0.000 | 12.346 |\n"
        "| smell   |     5.0% |     0.0% | 0.500 |  2.300 |\n"
        "| fused   |    91.7% |    91.0% | 0.030 |  0.250 |\n"
        "| dynamic |    90.0% |    89.0% | 0.040 |  0.300 |\n")


def test_latex_escapes_names_and_marks_the_best():
    rows = [{"a_b": "[x] & y", "n": "1.0 ± 0.1"}, {"a_b": "\\input{f}%", "n": None}]
    text = tables.latex(rows, ["a_b", "n"], "50% #1", ["so~so"], {(0, "n"): "*"})
    assert text.splitlines() == [
        r"\begin{table}", r"\centering", r"\caption{50\% \#1}", r"\begin{tabular}{lr}", r"  \toprule",
        r"  a\_b & n \\", r"  \midrule",
        r"  {[}x] \& y & \textbf{1.0 $\pm$ 0.1}\textsuperscript{{*}} \\",
        r"  \textbackslash{}input\{f\}\% &  \\", r"  \bottomrule", r"\end{tabular}",
        r"\par\smallskip\footnotesize so\textasciitilde{}so", r"\end{table}"]


def test_scores_of_other_tasks_have_their_units():
    scores = {"fused": {"mae": 0.51234, "rmse": 123.456, "pearson": 0.5, "acc_7": 0.25}}
    assert tables.scores_table(scores, []).splitlines()[::2] == [
        "| head  |    MAE |  RMSE | Pearson | Acc-7 |", "| fused | 0.5123 | 123.5 |   0.500 | 25.0% |"]
