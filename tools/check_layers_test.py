#!/usr/bin/env python3
"""Feeds check_layers.py trees that break a rule each, and one that breaks none."""

import tempfile
import unittest
from pathlib import Path

import check_layers


class CheckLayers(unittest.TestCase):
    def complaints(self, files):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return check_layers.check(Path(folder))

    def assert_refused(self, name, text, because):
        found = self.complaints({name: text})
        self.assertEqual(len(found), 1, found)
        self.assertIn(because, found[0])

    def test_good_tree_passes(self):
        self.assertEqual(
            self.complaints(
                {
                    "include/switchyard/a.hpp": '#include <vector>\n#include "switchyard/b.hpp"\n',
                    "src/base/a.hpp": '#include <fmt/format.h>\n#include <unistd.h>\n',
                    "src/plan/a.cpp": '#include "plan/a.hpp"\n#include "base/a.hpp"\n#include "switchyard/a.hpp"\n',
                    "src/engine/cpu/a.cpp": '#include "plan/a.hpp"\n#include "engine/cpu/simd/a.hpp"\n',
                    "src/engine/cpu/simd/a.cpp": "#include <hwy/highway.h>\n#include <memory>\n",
                    "src/api/a.cpp": '#include "engine/cpu/a.hpp"\n#include "engine/cuda/host/a.hpp"\n',
                    "examples/a.cpp": '#include <cstdio>\n#include "switchyard/a.hpp"\n',
                    "examples/b/a.cu": '#include "a.hpp"\n#include <cuda_runtime_api.h>\n#include <unistd.h>\n',
                    "examples/b/a.hpp": "#include <vector>\n",
                }
            ),
            [],
        )

    def test_upward_include(self):
        self.assert_refused("src/base/a.hpp", '#include "plan/a.hpp"\n', "base must not see plan")

    def test_upward_include_in_angle_brackets(self):
        self.assert_refused("src/base/a.hpp", "#  include <api/a.hpp>\n", "base must not see api")

    def test_engines_do_not_see_each_other(self):
        self.assert_refused("src/engine/cpu/a.cpp", '#include "engine/cuda/ptx/a.hpp"\n', "must not see engine/cuda/ptx")
        self.assert_refused("src/engine/cuda/host/a.cpp", '#include "engine/cpu/simd/a.hpp"\n', "must not see engine/cpu")

    def test_modes_do_not_see_each_other(self):
        self.assert_refused(
            "src/engine/cuda/low_latency/kernels/a.cu",
            '#include "engine/cuda/throughput/args.hpp"\n',
            "must not see engine/cuda/throughput",
        )

    def test_oracle_is_not_for_the_library(self):
        self.assert_refused("src/api/a.cpp", '#include "oracle/a.hpp"\n', "must not see oracle")

    def test_oracle_does_not_see_what_it_judges(self):
        for header in ("engine/cpu/a.hpp", "call/a.hpp", "api/a.hpp"):
            self.assert_refused("src/oracle/a.cpp", f'#include "{header}"\n', "oracle must not see")

    def test_engine_does_not_see_transport(self):
        self.assert_refused("src/engine/cpu/a.cpp", '#include "transport/a.hpp"\n', "must not see transport")

    def test_transport_does_not_see_engine(self):
        self.assert_refused("src/transport/a.cpp", '#include "engine/cpu/a.hpp"\n', "must not see engine/cpu")

    def test_back_ends_do_not_see_one_another(self):
        self.assert_refused(
            "src/transport/faulty/a.cpp", '#include "transport/loopback/a.hpp"\n', "must not see transport/loopback"
        )
        self.assert_refused("src/transport/a.cpp", '#include "transport/faulty/a.hpp"\n', "must not see transport/faulty")

    def test_public_header_with_library(self):
        for header in ("<fmt/format.h>", "<spdlog/spdlog.h>", "<cuda.h>", "<Python.h>", "<rdma/fabric.h>", '"base/a.hpp"'):
            self.assert_refused("include/switchyard/a.hpp", f"#include {header}\n", "public and standard")

    def test_example_with_internal_header(self):
        self.assert_refused("examples/a.cpp", '#include "base/check.hpp"\n', "public and standard")
        self.assert_refused("examples/a.cpp", "#include <fmt/format.h>\n", "public and standard")
        self.assert_refused("examples/b/a.cpp", '#include "other.hpp"\n', "public and standard")

    def test_library_in_wrong_layer(self):
        self.assert_refused("src/plan/a.cpp", "#include <nlohmann/json.hpp>\n", "is for cli only")

    def test_unknown_layer(self):
        self.assert_refused("src/misc/a.cpp", "", "no known layer")

    def test_path_not_from_src(self):
        found = self.complaints({"src/base/a.hpp": '#include "b.hpp"\n', "src/base/b.hpp": ""})
        self.assertEqual(len(found), 1, found)


if __name__ == "__main__":
    unittest.main()
