"""The side of the program: runs untrusted code in this interpreter, and answers requests. It never has the tests."""

import os
import sys
import types
from typing import Any

from .calls import FROM_JUDGE, TO_JUDGE
from .handles import LOAD, LOOK, Live
from .peer import Broken, Peer


def run(source: str) -> None:
    """Answer the judge, which can first call two functions: `load` and `look`. Does not return."""
    module = types.ModuleType("__main__")

    def load() -> list[str]:
        """Run the program. Returns its names."""
        sys.modules["__main__"] = module
        exec(compile(source, "<program>", "exec"), vars(module))
        return [k for k in vars(module) if not (k.startswith("__") and k.endswith("__"))]

    def look(name: str) -> Any:
        """The current value of a name."""
        value = vars(module)[name]
        return Live(value) if type(value) in (list, dict, set, bytearray) else value

    peer = Peer(FROM_JUDGE, TO_JUDGE, False, lambda op, target, name: True)
    for number, function in ((LOAD, load), (LOOK, look)):
        peer.handles.ours[number] = function
    try:
        peer.serve()
    except Broken:
        pass
    os._exit(0)
