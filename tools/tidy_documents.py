# SPDX-License-Identifier: Apache-2.0
"""What tools/tidy knows of text: the files, headings and links that comments and documents name,
and how wide Markdown is.

Test: tests/unit/tidy_test.py.
"""
import ast
import pathlib
import re
import textwrap

MARKDOWN_COLUMNS_MAX = 120

# A path is told by its suffix, by the folder of the tree that it begins with, or by ending in
# README. What lies in a folder that we have not (linux/kvm.h, arch/x86/kvm/x86.c) is others'.
WORD = r"(?:(?:\.\./)+)?(?:[\w.-]+/)*"
PATH = re.compile(
    r"(?<![\w./<>$%~{}@:*?&=-])"
    rf"(?P<path>{WORD}[\w.-]*\w\.(?:c|h|py|md|txt|S|pml|map|build|ld|svg|bash)\b|"
    r"(?:[\w.-]+/)+(?:[\w-]+/?)?)(?![\w*<>{$%-]|\.\w|/\w)")
OTHERS = {  # names of files that are not ours and stand without their folder
    "start_info.h", "elfnote.h",  # Xen's
    "kvm.c",  # kvmtool's
    "string.h",
}
OTHERS_PATHS = {"src/vmm/src"}  # Firecracker's
FUNCTION = re.compile(r":([a-z]\w*_\w+|[a-z]\w+(?=\(|`))")  # behind a path: file.c:function
HEADING = re.compile(r"^#{1,6} +(.*?)\s*#*$")
NAMED_HEADING = re.compile(r'(?P<path>[\w./-]+\.md)[,:]? (?:under |section )?"(?P<heading>[^"]+)"')
LINK = re.compile(r"\]\((?P<path>[^()\s:#]*)(?:#(?P<anchor>[^()\s]+))?\)")
SUBJECT = re.compile(r"^- (\*\*[^*]+\*\*)")
UNBREAKABLE = re.compile(r"^(\||    |\t|```|<)")
ITEM = re.compile(r"^(?P<indent> *)(?P<mark>(?:[-*]|\d+\.) +|)(?P<text>.*)$")


def headings(text):
    """The headings of a Markdown text; what stands in a fenced block is none."""
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        m = None if fenced else HEADING.match(line)
        if m:
            yield m.group(1)


def anchor_of(heading):
    """The name by which a link finds the heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def script_comments(text):
    """Comments of a script or build file, and the documentation strings of a Python program;
    lines stay where they are."""
    lines = text.splitlines()
    kept = [line if re.match(r"\s*#(?!!)", line) else "" for line in lines]
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return "\n".join(kept)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
                node, clean=False):
            first, last = node.body[0].lineno, node.body[0].end_lineno
            kept[first - 1:last] = lines[first - 1:last]
    return "\n".join(kept)


class Documents:
    """Checks what files say of others. `files` are all of the tree, relative to `root`;
    `say(path, line, what, why)` takes each breach."""

    def __init__(self, root, files, say):
        self.root, self.say = root, say
        self.names = {path.name for path in files}
        self.paths = {str(path) for path in files}
        self.paths |= {str(parent) for path in files for parent in path.parents}
        self.starts = {path.split(".")[0] for path in self.paths}  # a name without its suffix
        self.tops = {path.parts[0] for path in files if len(path.parts) > 1}
        self.folders = self.tops | {path.parts[1] for path in files
                                    if path.parts[0] == "src" and len(path.parts) > 2}

    def find(self, path, word):
        """The path in the tree that `word` names in the file `path`; None: there is none."""
        for base in (".", "src", "include", "docs", path.parent, path.parent.parent):
            parts = []
            for part in (pathlib.PurePosixPath(base) / word).parts:
                if part == ".." and parts:
                    parts.pop()
                elif part != "..":
                    parts.append(part)
            name = "/".join(parts) or "."
            numbered = re.search(r"decisions/\d{4}$", name) and any(
                p.startswith(name + "-") for p in self.paths)
            if name in self.paths or name in self.starts or numbered:
                return name
        return None

    def is_ours(self, word):
        """Whether a word that looks like a path speaks of this tree."""
        if word.rstrip("/") in OTHERS_PATHS:
            return False
        first, *rest = word.split("/")
        suffix = re.search(r"\.\w+$", word)
        if not rest:
            return word not in OTHERS
        if suffix or word.endswith("README"):
            return first in self.folders | {".."}
        return first in self.tops

    def check_paths(self, path, lines):
        for n, line in enumerate(lines, 1):
            for m in PATH.finditer(line):
                word = m.group("path")
                if not self.is_ours(word):
                    continue
                known = word in self.names if "/" not in word else self.find(path, word)
                if not known:
                    self.say(path, n, f"{word} is named", "there is no such file or folder")
                elif FUNCTION.match(line, m.end()):
                    self.check_function(path, n, word, FUNCTION.match(line, m.end()).group(1))
            for m in NAMED_HEADING.finditer(line):
                self.check_heading(path, n, m.group("path"), m.group("heading"))

    def check_function(self, path, n, word, function):
        found = self.find(path, word)
        places = [found] if found else [p for p in sorted(self.paths) if p.endswith("/" + word)]
        texts = [(self.root / p).read_text(encoding="utf-8") for p in places
                 if (self.root / p).is_file()]
        if not any(re.search(rf"\b{function}\b", text) for text in texts):
            self.say(path, n, f"{word}:{function} is named", "it has no such function")

    def check_heading(self, path, n, document, heading, anchor=False):
        name = self.find(path, document) or next(
            (p for p in sorted(self.paths) if p.endswith("/" + document)), None)
        if not name or not name.endswith(".md"):
            return
        have = headings((self.root / name).read_text(encoding="utf-8"))
        if heading not in (map(anchor_of, have) if anchor else have):
            self.say(path, n, f'"{heading}" of {document} is named', "it has no such heading")

    def check_links(self, path, lines):
        for n, line in enumerate(lines, 1):
            for m in LINK.finditer(line):
                target = m.group("path")
                if target and not (self.root / path.parent / target).exists():
                    self.say(path, n, f"link to {target}", "there is no such file or folder")
                elif m.group("anchor"):
                    self.check_heading(path, n, target or path.name, m.group("anchor"), True)

    def check_width(self, path, lines):
        """A row of a table cannot be broken, nor can a single word."""
        for n, line in enumerate(lines, 1):
            if len(line) > MARKDOWN_COLUMNS_MAX and not line.startswith("|") and \
                    " " in line.strip():
                self.say(path, n, f"{len(line)} columns",
                         f"the limit is {MARKDOWN_COLUMNS_MAX}: tools/tidy --reflow mends it")

    def check_subjects(self, path, lines):
        """Of a list whose points begin with what they are about: each is there once."""
        seen = {}
        for n, line in enumerate(lines, 1):
            m = SUBJECT.match(line)
            if m and seen.setdefault(m[1], n) != n:
                self.say(path, n, f"{m[1]} once more",
                         f"line {seen[m[1]]} is about that: make one point of them")


def reflow(text):
    """The Markdown text with each paragraph that has a line above the limit broken anew."""
    out, block, fenced = [], [], False

    def flush():
        if any(len(line) > MARKDOWN_COLUMNS_MAX for line in block):
            out.extend(broken(block))
        else:
            out.extend(block)
        block.clear()

    for line in text.split("\n"):
        if line.startswith("```"):
            fenced = not fenced
        verbatim = fenced or HEADING.match(line) or (
            UNBREAKABLE.match(line) and not (block and line.startswith("    ")))
        if verbatim or not line.strip():
            flush()
            out.append(line)
            continue
        if ITEM.match(line).group("mark"):
            flush()
        block.append(line)
    flush()
    return "\n".join(out)


LIKE_ITEM = re.compile(r"(?<=\S) (?=(?:[-+*#]+|\d+[.)]|\||=+)(?: |$))")


def broken(block):
    m = ITEM.match(block[0])
    first = m.group("indent") + m.group("mark")
    words = " ".join([m.group("text"), *(line.strip() for line in block[1:])])
    # What stands in backquotes stays together, so that it can be searched for; and what would be
    # an item or a heading at the start of a line stays with the word before it.
    words = re.sub(r"`[^`]{,60}`", lambda m: m.group().replace(" ", "\0"), words)
    words = LIKE_ITEM.sub("\0", words)
    lines = textwrap.wrap(words, MARKDOWN_COLUMNS_MAX, initial_indent=first,
                          subsequent_indent=" " * len(first), break_long_words=False,
                          break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines]
