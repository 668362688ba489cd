"""What is installed: stubs, types, docstrings, the drop-in and others of its name."""

import ast
import importlib.metadata
import inspect
import subprocess
import sys
from pathlib import Path

import deep_ep
import eplb
import pytest
import switchyard
import switchyard.interop
import switchyard.report
import switchyard.torch
from deep_ep import _installed
from switchyard import _core
from switchyard._frameworks import require_torch

package = Path(switchyard.__file__).parent


def test_stubs_name_everything_and_type_check(tmp_path):
    stub = (package / "_core.pyi").read_text()
    for name in vars(_core):
        if not name.startswith("_"):
            assert name in stub, name
    program = tmp_path / "program.py"
    program.write_text(
        "import switchyard\n"
        "from switchyard import _core\n"
        "def run(buffer: switchyard.Buffer, handle: switchyard.Handle) -> int:\n"
        "    event: switchyard.Event = buffer.dispatch_async(None).event\n"
        "    rows: list[int] = buffer.dispatch(None).tokens_per_expert\n"
        "    return handle.num_tokens + len(rows) + int(event.done)\n"
    )
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), str(program)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    program.write_text("import switchyard\nswitchyard.Event().wait('soon')\n")
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1 and "arg-type" in result.stdout, result.stdout + result.stderr


documented = [switchyard, switchyard.interop, switchyard.report, switchyard.torch, deep_ep, eplb]


@pytest.mark.parametrize("module", documented, ids=lambda module: module.__name__)
def test_everything_public_is_documented(module):
    for name in module.__all__:
        item = getattr(module, name)
        if not inspect.isclass(item) and not inspect.isfunction(item):
            continue
        assert item.__doc__, name
        for member, value in vars(item).items():
            if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                assert inspect.getdoc(value), f"{name}.{member}"


public = {module.__name__: set(module.__all__) for module in (switchyard, switchyard.interop, switchyard.torch)}


def names_of_switchyard(tree):
    """(module, name) of what a program imports from switchyard, or reads of its modules."""
    modules = {}  # by their names in the program
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                if each.name.split(".")[0] == "switchyard":
                    yield each.name, None
                    modules[each.asname or "switchyard"] = each.name if each.asname else "switchyard"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "switchyard" and not node.level:
            for each in node.names:
                if f"{node.module}.{each.name}" in public:
                    modules[each.asname or each.name] = f"{node.module}.{each.name}"
                else:
                    yield node.module, each.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            if f"{modules[node.value.id]}.{node.attr}" not in public:
                yield modules[node.value.id], node.attr


def test_the_drop_in_uses_public_names_only():
    seen = set()
    folders = [Path(module.__file__).parent for module in (deep_ep, eplb)]
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for module, name in names_of_switchyard(tree):
            assert module in public, f"{path.name}: {module}"
            assert name is None or name in public[module], f"{path.name}: {module}.{name}"
            seen.add((module, name))
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert "_core" not in attributes, path.name
    assert ("switchyard.interop", "dispatch") in seen and ("switchyard", "Buffer") in seen


def test_private_names_are_found():
    program = "import switchyard\nfrom switchyard import _core, interop\nfrom switchyard._options import x\n"
    program += "switchyard._buffer.y(interop._z, interop.combine)\n"
    expected = {("switchyard", None), ("switchyard", "_core"), ("switchyard._options", "x"), ("switchyard", "_buffer")}
    expected |= {("switchyard.interop", "_z"), ("switchyard.interop", "combine")}
    assert set(names_of_switchyard(ast.parse(program))) == expected


def test_the_extension_does_not_need_pytorch():
    program = "import sys, switchyard; assert 'torch' not in sys.modules and 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_extension_shows_nothing_but_its_entry():
    """What else it showed, libraries that are loaded after it could take for theirs."""
    command = ["nm", "-D", "--defined-only", _core.__file__]
    symbols = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    assert symbols[2::3] == ["PyInit__core"], symbols


def test_an_older_pytorch_is_refused():
    class Older:
        class Tensor:
            pass

        __version__ = "2.9.1"

    with pytest.raises(ImportError, match="expected PyTorch 2.10 or newer, seen 2.9.1: pip install 'torch>=2.10'"):
        require_torch(Older)


def test_every_exception_is_an_error_and_a_built_in_class():
    built_in = {"Timeout": TimeoutError, "PeerLost": ConnectionError, "OutOfMemory": MemoryError}
    for name in ("InvalidArgument", "Timeout", "PeerLost", "OutOfMemory", "Unsupported", "SystemCallError", "Unusable"):
        kind = getattr(switchyard, name)
        assert issubclass(kind, switchyard.Error) and issubclass(kind, RuntimeError)
        assert issubclass(kind, built_in.get(name, Exception))
        assert str(kind("text", 1, 2, "phase")) == "text" and kind("text", 1, 2, "phase").peer == 2


def test_the_drop_in_says_that_it_is_one():
    assert deep_ep.engine == "switchyard"
    try:
        version = importlib.metadata.version("deep_ep")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("run from the sources")
    assert "+switchyard" in version


def test_another_deep_ep_is_not_hidden_silently(tmp_path, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        assert _installed.others() == []
    other = tmp_path / "deep_ep"
    other.mkdir()
    (other / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert _installed.others() == [str(other)]
    with pytest.warns(UserWarning, match="hides the one in"):
        _installed.warn_of_others()


def installed_in(site, name, files):
    """What pip writes down of a distribution."""
    folder = site / f"{name}.dist-info"
    folder.mkdir()
    (folder / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def test_a_deep_ep_of_another_name_is_not_overwritten_silently(tmp_path, monkeypatch):
    (tmp_path / "deep_ep").mkdir()
    monkeypatch.setattr(_installed, "__file__", str(tmp_path / "deep_ep" / "_installed.py"))
    installed_in(tmp_path, "deep_ep-2.1.0+switchyard.0.1.0", ["deep_ep/__init__.py"])
    installed_in(tmp_path, "deepsleep-1.0", ["deepsleep/__init__.py", "deepsleep/deep_ep/__init__.py"])
    (tmp_path / "deep_ep_gone-1.0.dist-info").mkdir()
    assert _installed.overwritten() == []
    installed_in(tmp_path, "sgl_deep_ep-0.1", ["deep_ep/__init__.py", "deep_ep/buffer.py"])
    installed_in(tmp_path, "DeepEP_fork-1.2", ["DeepEP_fork-1.2.dist-info/METADATA", "deep_ep/__init__.py"])
    assert _installed.overwritten() == ["DeepEP_fork-1.2", "sgl_deep_ep-0.1"]
    with pytest.warns(UserWarning, match="has overwritten the one of DeepEP_fork-1.2, sgl_deep_ep-0.1: uninstall both"):
        _installed.warn_of_others()
