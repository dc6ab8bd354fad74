"""Files that are complete or absent: written beside their target, and renamed when they are whole."""

import errno
import io
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
from torch import Tensor
from typing_extensions import Self

from quantizers.core.arguments.checks import check_at_least

FULL = (errno.ENOSPC, errno.EDQUOT)


class NewFile:
    """A file that appears under its name in `close`. Until then, and after an error, what was there stays.

    Use it in a `with`, which closes it, or discards it if an exception leaves the block.

    Raises: OSError with a sentence, in any method. For a full disk it has errno ENOSPC, and says how many bytes
    there are to write.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise IsADirectoryError(f"{self.path} is a folder, expected the name of a file to write")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"{self.path} cannot be written: the folder {self.path.parent} does not exist")
        self._temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.tmp")
        self._size = 0
        try:
            self._file: io.FileIO | None = io.FileIO(self._temporary, "x")
        except OSError as error:
            raise OSError(f"{self.path} cannot be written: {error.strerror}") from error

    def write(self, content: "bytes | memoryview[Any]", offset: int | None = None) -> None:
        """Write bytes at an offset, by default at the end."""
        view = memoryview(content).cast("B")
        position = self._size if offset is None else offset
        self._size = max(self._size, position + len(view))
        file = self._open_file()
        try:
            file.seek(position)
            while len(view):
                view = view[file.write(view) :]
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Put the file in its place. A second call does nothing."""
        if self._file is None:
            return
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._temporary, self.path)
        except OSError as error:
            self._fail(error)
        self._file = None

    def discard(self) -> None:
        """Remove what was written. After `close` this does nothing."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._temporary.unlink(missing_ok=True)
            self._file = None

    def _open_file(self) -> io.FileIO:
        if self._file is None:
            raise ValueError(f"{self.path} is closed already")
        return self._file

    def _fail(self, error: OSError) -> NoReturn:
        self.discard()
        kept = "the file of this name is as it was" if self.path.exists() else "no incomplete file remains"
        reason = error.strerror or str(error)
        if error.errno in FULL:
            free = shutil.disk_usage(self.path.parent).free
            reason = f"there is no space for its {self._size} bytes so far, the disk has {free} free"
        described = OSError(f"{self.path} was not written: {reason}; nothing was lost, {kept}")
        described.errno = error.errno
        raise described from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


class NpyWriter(NewFile):
    """Writes a .npy file block by block, without knowing its length; it appears in `close`, see `NewFile`.

        with NpyWriter("ids.npy", np.uint16, columns=3) as file:
            for block in blocks:
                file.append(block)

    Args:
        path: the file. dtype: of the values in the file. columns: of an array [rows, columns]; None for [rows].
    """

    def __init__(self, path: str | os.PathLike[str], dtype: Any, columns: int | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self.columns = None if columns is None else check_at_least("columns", columns, 1)
        self.rows = 0
        super().__init__(path)
        self.write(self._header())

    def append(self, block: "Tensor | np.ndarray[Any, Any]") -> None:
        """Add rows, [n] or [n, columns]. Raises: ValueError for another shape, and for integers out of range."""
        array = block.detach().cpu().numpy() if isinstance(block, Tensor) else np.asarray(block)
        expected = (len(array) if array.ndim else 0, *([] if self.columns is None else [self.columns]))
        if array.shape != expected:
            rest = "" if self.columns is None else f", {self.columns}"
            raise ValueError(f"block has shape {list(array.shape)}, expected [n{rest}]")
        if not np.can_cast(array.dtype, self.dtype, "same_kind") and array.dtype.kind + self.dtype.kind != "iu":
            raise TypeError(f"block has dtype {array.dtype}, expected {self.dtype}")
        values = np.ascontiguousarray(array, self.dtype)
        if self.dtype.kind in "iu" and not np.array_equal(values, array):
            raise ValueError(
                f"block has values from {array.min()} to {array.max()}, which {self.dtype} cannot hold"
            )
        if len(values):
            self.write(values.data)
            self.rows += len(values)

    def close(self) -> None:
        if self._file is not None:
            self.write(self._header(), offset=0)
        super().close()

    def _header(self) -> bytes:
        """NumPy leaves room for the number of rows, so that every header has the same length."""
        shape = (self.rows,) if self.columns is None else (self.rows, self.columns)
        header = io.BytesIO()
        entries = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, entries)
        return header.getvalue()
