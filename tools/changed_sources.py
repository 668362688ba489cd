#!/usr/bin/env python3
"""changed_sources.py ROOT COMMIT SOURCE...: prints each SOURCE that reads differently now than at COMMIT, NUL-terminated.

That is a source that changed, or includes a file that changed, at any depth. All of them if COMMIT is not there, or if
what clang-tidy looks for changed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import check_layers

folders = ("", "src", "include", "bench/mpi_alltoall")  # where an include is looked for, and next to the source
rules = {".clang-tidy", "tools/tidy"}


def git(root: Path, *arguments: str) -> list[str] | None:
    """Returns the lines that git printed, or None if it failed."""
    run = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)
    return run.stdout.splitlines() if run.returncode == 0 else None


def included(root: Path, name: str) -> set[str]:
    """Returns the files of the tree that a file includes."""
    found = set()
    for _, include in check_layers.includes(root / name):
        for folder in (Path(name).parent, *map(Path, folders)):
            if (root / folder / include).is_file():
                found.add((folder / include).as_posix())
                break
    return found


def reached(root: Path, source: str, known: dict[str, set[str]]) -> set[str]:
    """Returns the source and all that it includes."""
    seen: set[str] = set()
    to_see = [source]
    while to_see:
        name = to_see.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in known:
            known[name] = included(root, name)
        to_see += known[name]
    return seen


def changed_sources(root: Path, commit: str, sources: list[str]) -> list[str]:
    since, new = git(root, "diff", "--name-only", commit), git(root, "ls-files", "-o", "--exclude-standard")
    if since is None or new is None:
        print(f"no commit {commit} here: all sources are taken", file=sys.stderr)
        return sources
    changed = {*since, *new}
    if changed & rules:
        return sources
    known: dict[str, set[str]] = {}
    return [source for source in sources if reached(root, source, known) & changed]


if __name__ == "__main__":
    for source in changed_sources(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]):
        sys.stdout.write(f"{source}\0")
