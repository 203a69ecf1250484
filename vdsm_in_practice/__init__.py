"""The program under one name, for scripts and notebooks in other folders.

    from vdsm_in_practice import load

The modules of the clone import each other by names such as `utils`, which a user's own modules may
have. Here they are imported as vdsm_in_practice.utils and so on. Each of them gets an `__import__`
of its own, which looks for such names below this package, also in imports within functions. The
user's `sys.path`, modules and imports stay as they are.
"""

import builtins
import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path

CLONE = Path(__file__).resolve().parent.parent
# what the clone's modules may import from the clone
NAMES = {path.stem for path in CLONE.glob("*.py")}
NAMES |= {path.parent.name for path in CLONE.glob("*/__init__.py")}


def _import(name, globals=None, locals=None, fromlist=(), level=0):
    """The `__import__` of the clone's modules."""
    first = name.partition(".")[0]
    if level or first not in NAMES or first == __name__:
        return builtins.__import__(name, globals, locals, fromlist, level)
    module = builtins.__import__(f"{__name__}.{name}", globals, locals, fromlist, 0)
    # `import a.b` binds a
    return module if fromlist else sys.modules[f"{__name__}.{first}"]


class _Loader(SourceFileLoader):
    def exec_module(self, module):
        # functions keep the builtins of the module that defines them
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _import}
        super().exec_module(module)


class Finder(MetaPathFinder):
    """Finds vdsm_in_practice.NAME in the clone."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        """See `importlib.abc.MetaPathFinder`."""
        package, *parts = fullname.split(".")
        if package != __name__ or not parts or parts[0] not in NAMES:
            return None
        place = CLONE.joinpath(*parts)
        inside = [str(place)] if place.is_dir() else None
        file = place / "__init__.py" if inside else place.with_name(f"{place.name}.py")
        if not file.is_file():
            return None
        loader = _Loader(fullname, str(file))
        return spec_from_file_location(
            fullname, file, loader=loader, submodule_search_locations=inside
        )


if not (CLONE / "main.py").is_file():
    raise ImportError(f"found no clone of the program in {CLONE}: use pip install -e CLONE")
# first, because Python's own finder would find the modules too; a reload replaces its older finder
others = [finder for finder in sys.meta_path if getattr(finder, "__module__", "") != __name__]
sys.meta_path[:] = [Finder, *others]

load = import_module(f"{__name__}.models").load
UserError = import_module(f"{__name__}.utils.errors").UserError

__all__ = ["UserError", "load"]
