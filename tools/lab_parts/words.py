# SPDX-License-Identifier: Apache-2.0
"""Command lines of tools: a parser whose errors are ours, and kinds of words."""
import argparse
import sys

from lab_parts import EXIT_USAGE


class Parser(argparse.ArgumentParser):
    """Of the tool of that name, "tools/lab", which prints its own help."""

    def __init__(self, tool):
        super().__init__(prog=tool, add_help=False, allow_abbrev=False)

    def error(self, message):
        print(f"asyncpf: wrong usage: {self.prog}: {message}; see {self.prog} --help",
              file=sys.stderr)
        sys.exit(EXIT_USAGE)


def whole(low, high):
    """A number from low to high."""
    def parse(text):
        if not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low} to {high}")
        return int(text)
    return parse


def list_of(known):
    """Some of those words, each once, with commas between them."""
    def parse(text):
        words = text.split(",")
        for word in words:
            if word not in known or words.count(word) > 1:
                raise argparse.ArgumentTypeError(f"{text!r} is not a list of {', '.join(known)}, "
                                                 "each once")
        return words
    return parse
