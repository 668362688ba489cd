#!/usr/bin/env python3
"""tidy_units.py ROOT BUILD SOURCE...: prints the units that clang-tidy has to read to see every SOURCE, NUL-terminated.

BUILD is configured as a unity build: a unit includes up to a dozen sources, so that their headers are read once for all
of them, which is what clang-tidy's time goes into. Fails for a SOURCE that no unit has: it would not be checked.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path


def sources_of(unit: Path) -> set[Path]:
    """Returns the sources that a unit includes; a unit that CMake did not write is a source itself."""
    if "Unity" not in unit.parts:
        return {unit}
    return {Path(name) for name in re.findall(r'^#include "(.*)"$', unit.read_text(), re.MULTILINE)}


def main(root: Path, build: Path, *sources: str) -> int:
    wanted = {root / name for name in sources}
    commands = json.loads((build / "compile_commands.json").read_text())
    units = {unit: sources_of(unit) & wanted for unit in sorted({Path(each["file"]) for each in commands})}
    missed = wanted.difference(*units.values())
    for source in sorted(missed):
        print(f"{source}: expected in a target of {build}, seen in none: clang-tidy cannot check it", file=sys.stderr)
    sys.stdout.write("".join(f"{unit}\0" for unit, seen in units.items() if seen))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
