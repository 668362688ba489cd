#!/usr/bin/env python3
"""Feeds check_words.py lines with banished words, and lines without."""

import unittest

import check_words


class CheckWords(unittest.TestCase):
    def found(self, line):
        return len(list(check_words.check_text("a.cpp", line)))

    def test_banished_words(self):
        for line in ("// Told by the peer.", "// whoever lets go of it", "void let_go();", "// Likewise.", "FrameBook book;"):
            self.assertEqual(self.found(line), 1, line)

    def test_ordinary_lines(self):
        for line in ("// Published by the peer.", "let gone = 1", "int untold = 0;", "release(frame);"):
            self.assertEqual(self.found(line), 0, line)

    def test_exempt_lines_and_files(self):
        self.assertEqual(self.found("unless told otherwise  // word-ok"), 0)
        self.assertFalse(check_words.is_checked("bench/results/2026-11-24-cpu-engine.md"))
        self.assertFalse(check_words.is_checked("docs/picture.png"))
        self.assertTrue(check_words.is_checked("docs/api.md"))


if __name__ == "__main__":
    unittest.main()
