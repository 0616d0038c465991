"""How ``formidler konvolutt`` reads and writes: in chunks, with progress, and what it writes is whole or not there.

1. A result has its name only when it is finished: it is written beside its place under a hidden name, and renamed.
2. Whatever goes wrong, the hidden file or folder is removed; also on Ctrl-C and SIGTERM. Only ``kill -9`` leaves one behind.
3. Plaintext is mode 0600 in folders of mode 0700, from its first byte on.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import typer
from rich.markup import escape

from broker.cli.output import EXIT_REFUSED, complain, errors, print_json
from schemas.errors import ConfigurationError, MeldingsformidlerError, StoreError, UnsealError

if TYPE_CHECKING:
    from types import FrameType

CHUNK_BYTES: Final = 256 * 1024
PROGRESS_FROM_BYTES: Final = 10_000_000
STANDARD: Final = Path("-")
"""Stands for standard input or output."""

_TERMINATED: Final = 128 + signal.SIGTERM
_PREFIX: Final = ".konvolutt-"


@contextmanager
def answering(*, as_json: bool, hint: str | None = None) -> Generator[None, None, None]:
    """Turn our errors into an answer in the form that was asked for, and an exit code; and SIGTERM into an ordinary exit.

    Args:
        as_json: Answer ``{"ok": false, "feil": …, "kode": …}`` on standard output.
        hint: What to do when a package cannot be opened, which the error itself must not say.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except MeldingsformidlerError as error:
        advice = hint if isinstance(error, UnsealError) else None
        if as_json:
            print_json({"ok": False, "feil": str(error), "kode": error.code} | ({"rad": advice} if advice else {}))
        else:
            complain(str(error), code=error.code)
            if advice:
                errors.print(escape(advice), soft_wrap=True)
        raise typer.Exit(EXIT_REFUSED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    sys.exit(_TERMINATED)


@contextmanager
def progress(label: str, total: int) -> Generator[Callable[[int], None], None, None]:
    """Show how far something of ``total`` bytes has come, when it is large and a terminal looks on.

    Yields:
        Takes how many more bytes are done.
    """
    if total < PROGRESS_FROM_BYTES or not errors.is_terminal:
        yield lambda _count: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn  # noqa: PLC0415 - slow, and seldom needed

    with Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=errors, transient=True
    ) as bar:
        task = bar.add_task(escape(label), total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def reading(path: Path, label: str) -> Generator[Iterator[bytes], None, None]:
    """Open a file, or standard input for ``-``, and yield its chunks.

    Raises:
        ConfigurationError: There is no such file, or it cannot be read.
    """
    if path == STANDARD:
        yield _chunks(sys.stdin.buffer, path, lambda _count: None)
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigurationError(f"{path}: {_reason(error)}") from error
    with file, progress(label, os.fstat(file.fileno()).st_size) as advance:
        yield _chunks(file, path, advance)


def _chunks(file: IO[bytes], path: Path, advance: Callable[[int], None]) -> Iterator[bytes]:
    while True:
        try:
            chunk = file.read(CHUNK_BYTES)
        except OSError as error:
            raise ConfigurationError(f"{path}: {_reason(error)}") from error
        if not chunk:
            return
        yield chunk
        advance(len(chunk))


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "filen finnes ikke; sjekk navnet"
    if isinstance(error, IsADirectoryError):
        return "er en mappe; gi navnet på en fil"
    if isinstance(error, PermissionError):
        return "filen kan ikke leses av denne brukeren"
    return f"kan ikke leses ({error.strerror})"


@contextmanager
def writing(
    path: Path, *, overwrite: bool, private: bool, inputs: Iterable[Path] = ()
) -> Generator[IO[bytes], None, None]:
    """Yield a file that takes the name ``path`` when the block ends well, or standard output for ``-``.

    Args:
        path: The result.
        overwrite: Whether it may replace a file that is there.
        private: Plaintext: mode 0600, instead of what the umask gives.
        inputs: Files that it may never replace.

    Raises:
        ConfigurationError: The name is taken, or its folder does not exist.
        StoreError: It cannot be written: a full disk, for example.
    """
    if path == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    check_result(path, overwrite=overwrite, inputs=inputs)
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_PREFIX)
    except OSError as error:
        raise ConfigurationError(f"{path.parent}: kan ikke skrives i ({error.strerror})") from error
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            _settle(file)
        if not private:
            temporary.chmod(0o666 & ~_umask())
        _place(temporary, path, overwrite=overwrite)
    except OSError as error:
        raise StoreError(f"{path}: kan ikke skrives ({error.strerror})") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_result(path: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Check that a result may get this name, before the work is done.

    Raises:
        ConfigurationError: It may not.
    """
    if not path.parent.is_dir():
        raise ConfigurationError(f"{path.parent}: mappen finnes ikke; lag den først")
    if path.is_dir():
        raise ConfigurationError(f"{path}: er en mappe; gi navnet på en fil")
    if path.exists() and any(each != STANDARD and each.exists() and path.samefile(each) for each in inputs):
        raise ConfigurationError(f"{path}: er også en av filene som leses; gi resultatet et annet navn")
    if path.exists() and not overwrite:
        raise ConfigurationError(f"{path}: finnes alt; velg et annet navn, eller bruk --overskriv")


def _settle(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _place(temporary: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        temporary.replace(path)
        return
    try:
        path.hardlink_to(temporary)  # unlike a rename, this never replaces a file that came in the meantime
    except FileExistsError:
        raise ConfigurationError(f"{path}: finnes alt; velg et annet navn, eller bruk --overskriv") from None
    except OSError:  # a file system without hard links
        temporary.replace(path)


@contextmanager
def new_folder(path: Path) -> Generator[Path, None, None]:
    """Yield a private folder that takes the name ``path`` when the block ends well.

    Raises:
        ConfigurationError: ``path`` is there and is not an empty folder, or the folder around it does not exist.
        StoreError: It cannot be written.
    """
    check_folder(path)
    target = path.resolve()
    try:
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=_PREFIX))  # mode 0700
    except OSError as error:
        raise ConfigurationError(f"{target.parent}: kan ikke skrives i ({error.strerror})") from error
    try:
        yield temporary
        temporary.rename(target)  # replaces an empty folder, and fails on one that is not empty any more
    except OSError as error:
        raise StoreError(f"{path}: kan ikke skrives ({error.strerror})") from error
    finally:
        if temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def check_folder(path: Path) -> None:
    """Check that files may be put in a folder of this name, before the work is done.

    Raises:
        ConfigurationError: They may not.
    """
    target = path.resolve()
    if not target.parent.is_dir():
        raise ConfigurationError(f"{target.parent}: mappen finnes ikke; lag den først")
    if not target.exists():
        return
    if not target.is_dir():
        raise ConfigurationError(f"{path}: er en fil; gi --mappe en mappe som er tom eller ikke finnes")
    if any(target.iterdir()):
        raise ConfigurationError(f"{path}: er ikke tom; gi --mappe en mappe som er tom eller ikke finnes")
    if target == Path.cwd():
        raise ConfigurationError(f"{path}: er mappen du står i, og kan ikke byttes ut; gi navnet på en ny")


def write_file(folder: Path, name: str, chunks: Iterable[bytes]) -> None:
    """Write a file below ``folder``, 0600. The name has been judged by whoever verified the package."""
    path = folder / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        for chunk in chunks:
            file.write(chunk)
        _settle(file)


def plain(text: Any) -> str:
    """Return ``text`` for a terminal: letters that would steer it are written out, and rich's markup is taken literally."""
    return escape("".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in str(text)))
