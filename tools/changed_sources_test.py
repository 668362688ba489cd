#!/usr/bin/env python3
"""Asks changed_sources.py about changes in a repository made for it."""

import subprocess
import tempfile
import unittest
from pathlib import Path

import changed_sources

sources = ["src/a.cpp", "src/b.cpp", "src/deep/c.cpp"]


class ChangedSources(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.write("include/lib/public.hpp", "")
        self.write("src/shared.hpp", '#include "lib/public.hpp"\n')
        self.write("src/a.cpp", '#include "shared.hpp"\n')
        self.write("src/b.cpp", "#include <vector>\n")
        self.write("src/deep/near.hpp", "")
        self.write("src/deep/c.cpp", '#  include "near.hpp"\n')
        self.write(".clang-tidy", "")
        self.git("init", "-q")
        self.git("add", "-A")
        self.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "all")

    def git(self, *arguments):
        subprocess.run(["git", "-C", self.root, *arguments], check=True)

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def changed(self, commit="HEAD"):
        return changed_sources.changed_sources(self.root, commit, sources)

    def test_nothing_changed(self):
        self.assertEqual(self.changed(), [])

    def test_a_source(self):
        self.write("src/b.cpp", "#include <array>\n")
        self.assertEqual(self.changed(), ["src/b.cpp"])

    def test_a_header_at_any_depth(self):
        self.write("include/lib/public.hpp", "// now\n")
        self.assertEqual(self.changed(), ["src/a.cpp"])

    def test_a_header_next_to_its_source(self):
        self.write("src/deep/near.hpp", "// now\n")
        self.assertEqual(self.changed(), ["src/deep/c.cpp"])

    def test_a_new_source(self):
        self.write("src/new.cpp", "")
        self.assertEqual(changed_sources.changed_sources(self.root, "HEAD", ["src/new.cpp"]), ["src/new.cpp"])

    def test_a_change_that_was_committed(self):
        self.write("src/b.cpp", "// now\n")
        self.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "b")
        self.assertEqual(self.changed("HEAD~"), ["src/b.cpp"])

    def test_all_when_the_rules_changed_or_the_commit_is_unknown(self):
        self.assertEqual(self.changed("0123456789012345678901234567890123456789"), sources)
        self.write(".clang-tidy", "Checks: none\n")
        self.assertEqual(self.changed(), sources)


if __name__ == "__main__":
    unittest.main()
