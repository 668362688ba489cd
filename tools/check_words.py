#!/usr/bin/env python3
"""Reports words that this project has replaced.  Usage: check_words.py ROOT

docs/glossary.md has the words in use. A line that must keep one of these ends in a comment with `word-ok`."""

import re
import subprocess
import sys
from pathlib import Path

# What is banished, and what to write instead. Patterns match whole words, in any case.
BANISHED = {
    r"told|tells? (?:its|the|their|all|every|each|a) (?:peers?|ranks?|sources?|host)": "published, publishes",
    r"hears? of|heard of": "learns",
    r"lets? go of|let_go": "releases",
    r"likewise": "as above, or say it again",
    r"beside (?:it|them|one another)": "next to, with",
    r"what is no|what are no": "what is not a",
    r"lookout": "failure monitor",
    r"frame_?book": "frame tracker",
    r"glimpse": "weak tensor",
    r"call_roll|judge_wait": "wait_for_peers, wait result",
}
PATTERNS = [(re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE), instead) for pattern, instead in BANISHED.items()]

SUFFIXES = {".cpp", ".hpp", ".cu", ".cuh", ".py", ".md", ".cmake", ".pml"}
# Records of the past, and this list.
EXEMPT = {"tools/check_words.py", "tools/check_words_test.py", "CHANGELOG.md"}
EXEMPT_FOLDERS = ("bench/results/",)


def tracked(root):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name]


def is_checked(name):
    return Path(name).suffix in SUFFIXES and name not in EXEMPT and not name.startswith(EXEMPT_FOLDERS)


def check_text(name, text):
    for number, line in enumerate(text.splitlines(), 1):
        if "word-ok" in line:
            continue
        for pattern, instead in PATTERNS:
            if found := pattern.search(line):
                yield f"{name}:{number}: “{found.group(0)}”: write {instead}"


def check(root):
    for name in tracked(root):
        path = root / name
        if is_checked(name) and path.exists():
            yield from check_text(name, path.read_text(encoding="utf-8"))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    complaints = list(check(Path(sys.argv[1])))
    print("\n".join(complaints), file=sys.stderr, end="\n" if complaints else "")
    if complaints:
        sys.exit(f"{len(complaints)} banished words; docs/glossary.md has those in use")
    print("words: none of those that were replaced")


if __name__ == "__main__":
    main()
