"""psr_lib's files import in one direction: the graph has no circle, lazy imports included."""

import subprocess
import sys

from conftest import ROOT

from psr_lib import manifest

LIBRARY = ROOT / "psr_lib"


def graph(library=LIBRARY):
    """What each module of the library imports from it."""
    found = {}
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        imports = manifest.imports_of(path.read_text(encoding="utf-8"), library, name)
        # A file of a package runs below the package's __init__, which is no choice of its own.
        above = {".".join(parts[:count]) for count in range(1, len(parts))}
        found[name or library.name] = sorted(imports - above - {name})
    return found


def circle(modules):
    """The modules of one circle, [] if there is none."""
    done, trail = set(), []

    def visit(name):
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        trail.append(name)
        for other in modules.get(name, []):
            if found := visit(other):
                return found
        done.add(trail.pop())
        return []

    return next((found for name in modules if (found := visit(name))), [])


def test_imports_have_no_circle():
    modules = graph()
    for name, imports in modules.items():
        print(f"{name:<20} {', '.join(imports)}")
    assert len(modules) > 8
    assert circle(modules) == []


def test_a_circle_is_found(tmp_path):
    library = tmp_path / "psr_lib"
    library.mkdir()
    for name, text in {"a": "from psr_lib import b", "b": "def f():\n    import psr_lib.c"}.items():
        (library / f"{name}.py").write_text(text)
    (library / "c.py").write_text("from psr_lib.a import x")
    assert circle(graph(library)) == ["a", "b", "c", "a"]


def test_records_and_steps_stand_at_the_bottom():
    modules = graph()
    assert modules["records"] == modules["steps"] == []
    assert "runs" not in {name for imports in modules.values() for name in imports}


def test_a_command_that_only_looks_does_not_wait_for_torch(tmp_path):
    """It takes seconds to load, and every make would wait for it."""
    words = ["status", "--preset", "smoke", "--runs-dir", str(tmp_path)]
    code = f"""import sys
from psr_lib.commands import main
try:
    main({words})
finally:
    print("torch" in sys.modules, "psr_lib.overview" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False True", done.stderr
