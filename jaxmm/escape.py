"""Escapes text that came with data, such as names, where some characters have a meaning."""
import re
import shlex
from collections.abc import Iterable
from typing import Any

# Characters with a meaning in Markdown, its tables, HTML and formulas. Underscores have one only at the
# edge of a word; a star at the end of a text, as in 66.4*, has none.
_SIGNS = re.compile(r"[\\`\[\]<|~$&]|\*(?!$)|(?<!\w)\*|(?<![^\W_])_|_(?![^\W_])")


def printable(text: Any) -> str:
    """One line for terminals; characters that cannot be printed are escaped, as \\x1b."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def markdown(text: Any) -> str:
    """One line that Markdown shows as it is: it ends no cell and loads no picture."""
    return _SIGNS.sub(r"\\\g<0>", printable(text))


def code(text: Any) -> str:
    """Inline code of Markdown, between more backticks than the text has in a row."""
    text = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def latex(text: Any) -> str:
    """One line that LaTeX prints as it is, in a cell of a table too.

    Letters that pdflatex's fonts lack, such as Greek or Chinese ones, need LuaLaTeX or XeLaTeX.
    """
    return re.sub(r"[\\{}$&#_%^~<>|\"\[*±→↓−]|-(?=-)", lambda sign: _LATEX[sign[0]], printable(text))


# A [ or * at the start of a row would be an option of the \\ before it; two hyphens make a dash.
_LATEX = {sign: f"\\{sign}" for sign in "{}$&#_%"} | {
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "[": "{[}", "*": "{*}",
    "±": r"$\pm$", "→": r"$\to$", "↓": r"$\downarrow$", "−": "$-$", "-": "-{}"}


def cell(value: Any) -> Any:
    """A value for a CSV file: text that a spreadsheet would take as a formula gets a ' in front."""
    if isinstance(value, str) and value.lstrip()[:1] in ("=", "+", "-", "@") and value.strip():
        try:
            float(value)
        except ValueError:
            return f"'{value}"
    return value


def command(arguments: Iterable[Any]) -> str:
    """The command line, in one line, that passes these arguments to a program in a shell."""
    return " ".join(_word(str(argument)) for argument in arguments)


def _word(argument: str) -> str:
    if argument.isprintable():
        return shlex.quote(argument)
    shown = (c if c.isprintable() and c not in "\\'" else
             "".join(f"\\x{byte:02x}" for byte in c.encode("utf-8", "surrogateescape")) for c in argument)
    return f"$'{''.join(shown)}'"
