"""Run a guide as a script, without a network: python -m tests.docs.run_guide GUIDE.

A notebook also shows the value of the last expression of a cell, which a script does not: here it must be None.
"""

import ast
import re
import socket
import sys
from pathlib import Path
from types import CodeType
from typing import Any

LOCAL = ("127.0.0.1", "::1", "localhost")


def compiled(source: str, name: str) -> CodeType:
    """The code of a guide, in which each cell that ends in an expression asserts that this is None."""
    statements: list[ast.stmt] = []
    line = 0
    for cell in re.split(r"^(?=# %%)", source, flags=re.M):
        tree = ast.increment_lineno(ast.parse(cell), line)
        line += cell.count("\n")
        if tree.body and isinstance(last := tree.body[-1], ast.Expr):
            none = ast.Compare(last.value, [ast.Is()], [ast.Constant(None)])
            message = ast.Constant(f"a notebook shows the value of {ast.unparse(last)}")
            tree.body[-1] = ast.copy_location(ast.Assert(none, message), last)
        statements += tree.body
    return compile(ast.fix_missing_locations(ast.Module(statements, type_ignores=[])), name, "exec")


def stay_offline() -> None:
    """Let sockets connect to this machine alone."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL:
            raise OSError(f"a guide connects to {address}")
        connect(self, address)

    socket.socket.connect = connect_here  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    stay_offline()
    guide = Path(sys.argv[1])
    exec(compiled(guide.read_text(), str(guide)), {"__name__": "__main__"})
