"""Text that came with data, for places where text means something: names there are only names."""
import re
import shlex
from collections.abc import Iterable
from typing import Any

# What Markdown, its tables, HTML and formulas take as signs; of underscores those around words, and
# no star that ends a text, as in 66.4*, which opens nothing.
_SIGNS = re.compile(r"[\\`\[\]<|~$&]|\*(?!$)|(?<!\w)\*|(?<![^\W_])_|_(?![^\W_])")


def printable(text: Any) -> str:
    """In one line, for terminals: what moves the cursor, breaks lines or has no glyph as \\x1b."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def markdown(text: Any) -> str:
    """In one line that Markdown shows as it is: no cell ends there, and no picture is fetched."""
    return _SIGNS.sub(r"\\\g<0>", printable(text))


def code(text: Any) -> str:
    """As code in a line of Markdown, between more backticks than it has in a row."""
    text = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def latex(text: Any) -> str:
    """In one line that LaTeX prints as it is, in a cell of a table too.

    What is no letter of the fonts of pdflatex, as Greek or Chinese, takes LuaLaTeX or XeLaTeX.
    """
    return re.sub(r"[\\{}$&#_%^~<>|\"\[*±→↓−]|-(?=-)", lambda sign: _LATEX[sign[0]], printable(text))


# A [ or * at the start of a row would be an option of the \\ before it; two hyphens make a dash.
_LATEX = {sign: f"\\{sign}" for sign in "{}$&#_%"} | {
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "[": "{[}", "*": "{*}",
    "±": r"$\pm$", "→": r"$\to$", "↓": r"$\downarrow$", "−": "$-$", "-": "-{}"}


def cell(value: Any) -> Any:
    """A value of a CSV file: text that a spreadsheet would take for a formula gets a ' in front."""
    if isinstance(value, str) and value.lstrip()[:1] in ("=", "+", "-", "@") and value.strip():
        try:
            float(value)
        except ValueError:
            return f"'{value}"
    return value


def command(arguments: Iterable[Any]) -> str:
    """A command line for a shell, in one line, that gives a program these arguments."""
    return " ".join(_word(str(argument)) for argument in arguments)


def _word(argument: str) -> str:
    if argument.isprintable():
        return shlex.quote(argument)
    shown = (c if c.isprintable() and c not in "\\'" else
             "".join(f"\\x{byte:02x}" for byte in c.encode("utf-8", "surrogateescape")) for c in argument)
    return f"$'{''.join(shown)}'"
