#!/usr/bin/env python3
"""Checks that no include points from a layer to a later one.  Usage: check_layers.py ROOT

A file of src/X may include headers of X, of the layers before X, and public headers. Public headers and
examples see public and standard headers only; examples also those of their own folder, and of CUDA and POSIX."""

import re
import sys
from pathlib import Path

# Each line a rank; layers on one line must not see each other.
ORDER = [
    ["base"],
    ["layout"],
    ["plan"],
    ["plan/experts"],
    ["memory"],
    ["memory/device"],
    ["bootstrap"],
    ["node"],
    ["job"],
    ["transport"],
    ["transport/faulty", "transport/libfabric", "transport/loopback"],
    ["scale_out"],
    ["control"],
    ["call"],
    ["engine/cpu/simd", "engine/cuda/ptx"],
    ["engine/cpu", "engine/cuda/host"],
    ["engine/cuda/device"],
    ["engine/cpu/throughput", "engine/cpu/low_latency", "engine/cuda/throughput", "engine/cuda/low_latency"],
    ["api"],
    ["oracle"],
    ["cli"],
]
RANK = {layer: rank for rank, layers in enumerate(ORDER) for layer in layers}

# Exceptions to "earlier is fine": these folders, and what lies in them, must not see one another.
FORBIDDEN = [
    ("engine/cpu", "engine/cuda"),
    ("engine", "transport"),
    ("engine/cpu", "memory/device"),
    ("oracle", "engine"),
    ("oracle", "call"),
    ("oracle", "api"),
]

# Libraries that only some folders, and what lies in them, may know.
RESTRICTED = {
    "CLI/": ["cli"],
    "nlohmann/": ["cli"],
    "yaml-cpp/": ["cli"],
    "hwy/": ["engine/cpu/simd"],
    "sodium": ["bootstrap"],
    "rdma/": ["transport/libfabric"],
    "cuda": ["memory/device", "node", "engine/cuda"],
}

STANDARD = set(
    """algorithm any array atomic barrier bit bitset cassert cctype cerrno cfenv cfloat charconv chrono cinttypes
    climits clocale cmath codecvt compare complex concepts condition_variable coroutine csetjmp csignal cstdarg
    cstddef cstdint cstdio cstdlib cstring ctime cuchar cwchar cwctype deque exception execution expected
    filesystem format forward_list fstream functional future initializer_list iomanip ios iosfwd iostream istream
    iterator latch limits list locale map memory memory_resource mutex new numbers numeric optional ostream queue
    random ranges ratio regex scoped_allocator semaphore set shared_mutex source_location span sstream stack
    stdexcept stop_token streambuf string string_view syncstream system_error thread tuple type_traits typeindex
    typeinfo unordered_map unordered_set utility valarray variant vector version""".split()
)

# What a user's program has beside Switchyard.
PLATFORM = {"cuda_pipeline_primitives.h", "cuda_runtime_api.h", "mma.h", "sys/wait.h", "unistd.h"}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SUFFIXES = {".hpp", ".h", ".cpp", ".cu", ".cuh", ".inc", ".ipp"}


def within(path, folder):
    """Whether a path is `folder`, or lies in it."""
    return path == folder or path.startswith(folder + "/")


def forbidden(one, other):
    """Whether two layers must not see each other, whichever comes first."""
    pairs = [*FORBIDDEN, *((b, a) for a, b in FORBIDDEN)]
    return any(within(one, a) and within(other, b) for a, b in pairs)


def layer_of(path):
    """The layer that a path relative to src/ belongs to, or None."""
    return max((layer for layer in RANK if path.startswith(layer + "/")), key=len, default=None)


def includes(file):
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(2)


def complaint_public(header):
    """Why code for users may not include `header`, or None."""
    if header.startswith("switchyard/") or header in STANDARD:
        return None
    return f"sees public and standard headers only, not {header}"


def complaint_example(header, folder):
    """Why an example in `folder` may not include `header`, or None."""
    if header in PLATFORM or ("/" not in header and (folder / header).exists()):
        return None
    return complaint_public(header)


def complaint_library(layer, header):
    for prefix, layers in RESTRICTED.items():
        if header.startswith(prefix) and not any(within(layer, allowed) for allowed in layers):
            return f"{header} is for {', '.join(sorted(layers))} only"
    return None


def complaint_internal(layer, header, folder):
    """Why a file of `layer` in `folder` may not include `header`, or None."""
    if header.startswith("switchyard/"):
        return None
    target = layer_of(header)
    if target is None:
        if "/" not in header and (folder / header).exists():
            return f"write the path from src/: {layer}/{header}"
        return complaint_library(layer, header)
    if target == layer:
        return None
    if RANK[target] >= RANK[layer] or forbidden(layer, target):
        return f"{layer} must not see {target} ({header})"
    return None


def files_under(folder):
    return sorted(file for file in folder.rglob("*") if file.suffix in SUFFIXES)


def check_public(include):
    for file in files_under(include):
        for number, header in includes(file):
            if text := complaint_public(header):
                yield f"{file}:{number}: {text}"


def check_examples(examples):
    for file in files_under(examples):
        for number, header in includes(file):
            if text := complaint_example(header, file.parent):
                yield f"{file}:{number}: {text}"


def check_sources(src):
    for file in files_under(src):
        layer = layer_of(file.relative_to(src).as_posix())
        if layer is None:
            yield f"{file}: in no known layer"
            continue
        for number, header in includes(file):
            if text := complaint_internal(layer, header, file.parent):
                yield f"{file}:{number}: {text}"


def check(root):
    return [*check_public(root / "include"), *check_examples(root / "examples"), *check_sources(root / "src")]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    root = Path(sys.argv[1])
    complaints = check(root)
    print("\n".join(complaints), file=sys.stderr, end="\n" if complaints else "")
    if complaints:
        sys.exit(f"{len(complaints)} includes point the wrong way")
    print(f"layers: {len(files_under(root / 'src'))} sources in order")


if __name__ == "__main__":
    main()
