"""kubernetes-asyncio's readers of a kubeconfig and of in-cluster credentials, without its client.

The client is some 800 modules of generated models and calls, of which an agent uses none: to import them takes
seconds, and more memory than a small cluster's pods. The readers need nothing of it but its `Configuration`, so
they find a bare package in its place while they are imported.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

_LIBRARY = "kubernetes_asyncio"
_CLIENT = f"{_LIBRARY}.client"


def _imported() -> tuple[Any, Any, Any]:
    """`Configuration`, and the modules that read a kubeconfig and in-cluster credentials."""
    before = {name: module for name, module in sys.modules.items() if _is_of_library(name)}
    for name in before:
        del sys.modules[name]
    try:
        client: Any = _bare_package(_CLIENT, _bare_package(_LIBRARY, None))
        client.ApiClient = None
        configuration = import_module(f"{_CLIENT}.configuration").Configuration
        client.Configuration = configuration
        return (
            configuration,
            import_module(f"{_LIBRARY}.config.kube_config"),
            import_module(f"{_LIBRARY}.config.incluster_config"),
        )
    finally:
        # Whoever wants all of the library, such as a test, imports it whole.
        for name in list(filter(_is_of_library, sys.modules)):
            del sys.modules[name]
        sys.modules.update(before)


def _is_of_library(name: str) -> bool:
    return name == _LIBRARY or name.startswith(f"{_LIBRARY}.")


def _bare_package(name: str, parent: ModuleType | None) -> ModuleType:
    """A package whose modules can be imported, its own code left out."""
    if parent is None:
        spec = find_spec(name)
        assert spec is not None  # it is among the package's requirements
        paths = list(spec.submodule_search_locations or ())
    else:
        paths = [str(Path(path) / name.rpartition(".")[2]) for path in parent.__path__]
    package = ModuleType(name)
    package.__path__ = paths
    sys.modules[name] = package
    return package


Configuration, kube_config, incluster_config = _imported()
