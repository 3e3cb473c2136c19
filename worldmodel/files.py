"""Files of runs and buffers: written completely or not at all, and validated when read."""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout

from worldmodel.errors import RunError
from worldmodel.extras import require

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

_SPARE_BYTES = 200 * 2**20
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_MAX_JSON_BYTES = 256 * 2**20
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}(\.\w+)?")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file beside `path`, with its suffix, that replaces it on success.

    Its name is random and it is created here, so that it is no link and no file of others. It is
    forced to the disk before it replaces `path`. On failure it is removed and `path` stays as it
    was.
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666))
    except OSError as error:
        error.filename = str(path)  # the name that the user knows
        raise
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_files(folder: Path) -> Iterator[Path]:
    """Find the files of `replacing` below a directory: in use, or left by killed processes."""
    for directory, _, names in os.walk(folder):
        yield from (Path(directory, name) for name in names if _TEMPORARY.fullmatch(name))


def remove_leftovers(folder: Path, seconds: float) -> None:
    """Delete the temporary files that killed processes left below a directory.

    Args:
        folder: the directory.
        seconds: minimum age of the files, longer than other processes may need to write one.
    """
    for path in temporary_files(folder):
        with suppress(FileNotFoundError):  # another process may have removed it
            if time.time() - path.lstat().st_mtime >= seconds:
                path.unlink()


def sync(path: Path) -> None:
    """Force a file to the disk, so that it also survives a power cut."""
    descriptor = os.open(path, os.O_RDWR | _FLAGS)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file, completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, completely or not at all.

    Raises:
        ValueError: If `content` holds NaN or infinity, which JSON does not have.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_text(path: Path, limit: int) -> str:
    """Read UTF-8 text of a file or a pipe.

    Raises:
        ValueError: If it has more than `limit` bytes, or is not UTF-8.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit >> 20} MB")
    return content.decode()


def read_json(path: Path, hint: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: path of the file.
        hint: how to fix a damaged file, for the message.

    Raises:
        RunError: If the file is missing or damaged.
    """
    try:
        content = json.loads(read_text(path, _MAX_JSON_BYTES), parse_constant=_refuse_constant)
    except OSError as error:
        raise RunError(f"cannot read {path} ({error.strerror}); {hint}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}); {hint}") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} is damaged (it holds no JSON object); {hint}")
    return content


def read_record(path: Path, kind: type[T], hint: str) -> T:
    """Read a JSON object as a dataclass or a TypedDict; its fields are validated by pydantic.

    Args:
        path: path of the file.
        kind: the class.
        hint: how to fix a damaged file, for the message.

    Raises:
        RunError: If the file is missing or damaged, or a field is missing or has another type.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(read_json(path, hint))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RunError(
            f"{path} is damaged: {place} is {first['input']!r:.100} ({first['msg']}); {hint}"
        ) from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds {name}, which is not JSON")


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary of tensors, numbers and strings, completely or not at all.

    The bytes depend only on the content: torch would write the name of a file that it opens itself
    into the archive. Torch writes to memory, because it reports a full disk as an internal error.

    Raises:
        OSError: If the file cannot be written, e.g. on a full disk.
    """
    import torch

    memory = io.BytesIO()
    torch.save(content, memory)
    with replacing(path) as temporary:
        temporary.write_bytes(memory.getbuffer())


def load_tensors(path: Path, hint: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save_tensors` wrote; nothing in the file is executed.

    Args:
        path: path of the file.
        hint: how to fix a missing or damaged file, for the message.
        device: device of the tensors.

    Raises:
        RunError: If the file is missing or damaged.
    """
    import torch

    if not path.is_file():
        raise RunError(f"{path} is missing; {hint}")
    try:
        with zipfile.ZipFile(path) as archive:
            require_intact(archive)
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch.load raises many types for damaged files
        raise RunError(f"{path} is damaged and cannot be read ({error}); {hint}") from error
    if not isinstance(content, dict):
        raise RunError(f"{path} is damaged (it does not hold a dictionary); {hint}")
    return content


def save_safetensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write nested dictionaries of tensors; the keys of each tensor are joined by dots.

    Raises:
        MissingLibraryError: If safetensors is not installed.
        RunError: If a value is not a tensor.
    """
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in _flat(content)}
    data = require("safetensors.torch", "hub").save(tensors, metadata={"format": "pt"})
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a file by their keys; nothing in the file is executed.

    Raises:
        MissingLibraryError: If safetensors is not installed.
        RunError: If it is not a safetensors file.
    """
    library = require("safetensors.torch", "hub")
    try:
        tensors: dict[str, torch.Tensor] = library.load(path.read_bytes())
    except Exception as error:  # the library raises several types for damaged files
        raise RunError(f"{path.name} is not an intact safetensors file ({error})") from error
    return tensors


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value
        else:
            raise RunError(
                f"the state {prefix}{key} is a {type(value).__name__}, which safetensors cannot "
                "hold; keep it in a buffer of the module"
            )


def require_intact(archive: zipfile.ZipFile) -> None:
    """Compare the parts of an archive of torch or Stable-Baselines3 with their checksums.

    Neither library does so when it reads one.

    Raises:
        ValueError: If a part differs, or is compressed: it could be of any size.
    """
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise ValueError("its parts are compressed, which no saved model has")
    if (damaged := archive.testzip()) is not None:
        raise ValueError(f"{damaged} in it does not match its checksum")


@contextmanager
def only_one_process(path: Path, task: str) -> Iterator[None]:
    """Hold a lock file, which the system frees when the process ends.

    Args:
        path: path of the lock file.
        task: what the process does, as in ``"training results/run"``.

    Raises:
        RunError: If another process holds the lock.
    """
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise RunError(f"another process is {task}; wait until it ends") from None
    try:
        yield
    finally:
        lock.release()


def require_directory(path: Path) -> None:
    """Raise OSError if there is a file where a directory for data should be."""
    if path.exists() and not path.is_dir():
        raise OSError(f"{path} is a file; expected a directory for the data: pass another path")


def require_space(path: Path, needed: int, content: str, hint: str) -> None:
    """Raise OSError if the disk of a path has too little space.

    Args:
        path: where the content will be written; it need not exist.
        needed: bytes, at most.
        content: what will be written, for the message.
        hint: how to need less, for the message.
    """
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if needed + _SPARE_BYTES > free:
        raise OSError(
            f"no space for {content} in {path}: they need up to {needed / 1e9:.1f} GB and "
            f"{free / 1e9:.1f} GB are free; {hint}"
        )
