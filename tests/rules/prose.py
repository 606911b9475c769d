"""Rules for prose in plain technical English: docstrings, comments, messages and pages of documentation."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

MAX_PAGE_COLUMNS = 120

# Pronouns that stand for a noun which the reader must guess.
BANNED_WORDS = re.compile(r"\b(whoever|whomever|whom|nobody|somebody|so many|so much as)\b", re.IGNORECASE)
# Subjects without a noun, at the start of a sentence.
BANNED_STARTS = re.compile(r"(?:^|(?<=[.:;!?]\s))(Who|What|Those|Likewise|Of|Nobody|Somebody|Whoever)\b(?!')")
FRAGMENTS = {"likewise", "in place", "as above", "ditto", "so it is", "the same", "once", "or none"}
# A function's docstring begins with a verb in the imperative, so never with one of these.
NO_VERBS = frozenset(
    " ".join(
        (
            "a an the this that these those it its what who whom whose whether which how why when where while if as of",
            "for from by with without at on in to into all any some no none not never only also so such both either",
            "each every one two likewise once always again his her their our there here until after before",
        )
    ).split()
)
# Imperatives in s that are no third person, as "Returns" and "Writes" are.
IMPERATIVES_IN_S = frozenset({"alias", "bias", "canvas", "focus"})
Fault = tuple[int, str]


def docstring_faults(tree: ast.Module) -> Iterator[Fault]:
    """Yield (line, fault) of each public docstring whose first line does not say what the thing is or does."""
    for node, is_private in _definitions(tree, private=False):
        text = ast.get_docstring(node)
        if text is None or is_private:
            continue
        first = text.splitlines()[0]
        word = re.match(r"[`\"'(*]*([\w-]*)", first)
        start = word[1].lower() if word else ""
        line = node.body[0].lineno if not isinstance(node, ast.Module) else 1
        if first.rstrip(".").lower() in FRAGMENTS:
            yield line, f"{first!r} is a fragment: name the noun, then the verb"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_property(node):
            if start in NO_VERBS or _is_third_person(start):
                yield (
                    line,
                    f"the docstring of {node.name} begins with {start!r}: begin with a verb (Return, Write, Raise)",
                )
        elif start == "whether" and isinstance(node, ast.FunctionDef):
            continue  # a property is a noun: "Whether the key is valid"
        elif start in {"what", "who", "whom", "whose", "whether", "of", "those", "likewise", "where", "how"}:
            yield line, f"a docstring begins with {start!r}: begin with a noun"


def _definitions(node: ast.AST, *, private: bool) -> Iterator[tuple[ast.Module | ast.ClassDef | ast.FunctionDef, bool]]:
    """Yield modules, classes and functions outside functions, and whether each is private."""
    if isinstance(node, ast.Module):
        yield node, False
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            hidden = private or child.name.startswith("_")
            yield child, hidden
            if isinstance(child, ast.ClassDef):
                yield from _definitions(child, private=hidden)


def _is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    names = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    return bool(names & {"property", "cached_property", "setter"})


def _is_third_person(word: str) -> bool:
    return len(word) > 3 and word.endswith("s") and not word.endswith("ss") and word not in IMPERATIVES_IN_S


def wording_faults(tree: ast.Module, source: str) -> Iterator[Fault]:
    """Yield (line, fault) of each banned word and subject in docstrings, comments and texts of a module."""
    for line, text in _prose(tree, source):
        found = BANNED_WORDS.search(text) or BANNED_STARTS.search(text)
        if found:
            yield line, f"{found[0]!r}: name the noun, then the verb"


def _prose(tree: ast.Module, source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
    comment: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if comment and token.start[0] != last + 1:
            yield first, " ".join(comment)
            comment = []
        first = first if comment else token.start[0]
        last = token.start[0]
        comment.append(token.string.lstrip("# "))
    if comment:
        yield first, " ".join(comment)


def page_faults(text: str) -> Iterator[Fault]:
    """Yield (line, fault) of a page of documentation: prose lines over 120 columns, banned words and subjects.

    Tables, code blocks and lines that hold one long link or code span are exempt from the width.
    """
    in_code = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        if in_code or line.lstrip().startswith(("```", "|", "<")):
            continue
        without = re.sub(r"\]\([^)]*\)|`[^`]*`|<https?:[^>]*>", "", line)
        if len(line) > MAX_PAGE_COLUMNS and len(without) > MAX_PAGE_COLUMNS:
            yield number, f"{len(line)} columns, and prose has at most {MAX_PAGE_COLUMNS}"
        found = BANNED_WORDS.search(without) or BANNED_STARTS.search(without)
        if found:
            yield number, f"{found[0]!r}: name the noun, then the verb"


def prose_faults(path: Path, source: str) -> list[str]:
    """Return every fault of prose of one Python file, as `file:line: what`."""
    tree = ast.parse(source, str(path))
    found = [*docstring_faults(tree), *wording_faults(tree, source)]
    return [f"{path}:{line}: {what}" for line, what in sorted(found)]
