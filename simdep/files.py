"""Files: one reader for each format, and one writer.

A reader takes regular files of a stated size only, so that no pipe is waited for and no device read
without end. Size and depth are bounded before anything is parsed, and an error is an `InputError`
that names the file, the place in it, what the file looks like and what was expected.

The writer leaves an existing file whole whatever happens: a file is written beside it and renamed.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import re
import secrets
import stat
import tomllib
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from simdep.checks import InputError, RunError, printable, shown
from simdep.file_kinds import FORMATS, kind_of

if TYPE_CHECKING:
    import pandas as pd

MIB = 2**20
MAX_TOML_BYTES = MIB
MAX_JSON_BYTES = 48 * MIB
MAX_CSV_BYTES = 64 * MIB
MAX_PARQUET_BYTES = 256 * MIB
MAX_DEPTH = 64  # of tables in tables, in JSON and TOML
MAX_CELLS = 8_000_000  # of a table
MAX_VALUES = 3_000_000  # of a JSON file
_HEAD_BYTES = 2**16  # of a file, to see what it is
_GZIP = b"\x1f\x8b"
_UNPACKING = "gzip"
_TOML_TEXT = re.compile(  # strings and remarks of TOML, whose brackets and dots mean nothing
    r'"""(?:[^"\\]++|\\.|"(?!""))*+(?:""")?|'
    r"'''(?:[^']++|'(?!''))*+(?:''')?|"
    r'"(?:[^"\\\n]++|\\.)*+"?|'
    r"'[^'\n]*+'?|#[^\n]*+",
    re.DOTALL,
)
_LONG_NUMBER = re.compile(r"(?<![\w-])\d[0-9A-Za-z_]{400}")
_BRACKETS = str.maketrans("[]{}", "()()")
_TOML_PLACE = re.compile(r" ?\(at (?:line (\d+), column (\d+)|end of document)\)$")
_TOML_RULES = {  # what tomllib says -> what was expected
    "Expected '='": "expected KEY = VALUE or [TABLE]",
    "Invalid statement": "expected KEY = VALUE or [TABLE]",
    "Invalid initial character": "expected KEY = VALUE or [TABLE]",
    "Invalid value": 'expected a value: "text", a number, true, false or a [list]',
    "Cannot overwrite": "a key is given twice",
    "Cannot declare": "a table is given twice",
    "Expected newline": "expected the end of the line after a value",
    "Unterminated": "a text does not end",
    "Unclosed": "a list or a table does not end",
}


@contextlib.contextmanager
def context(path: Path, expected: str = "", parsing: str = "") -> Iterator[None]:
    """Errors of what was read from `path` name it, and say what the file looks like if it is not
    what was `expected`.

    `expected` is one of the nouns of `simdep.file_kinds`; `parsing` is the format that the file is
    being read as.
    """
    try:
        yield
    except InputError as error:
        if error.place not in ("", str(path), shown_path(path)):
            raise  # it names another file, or a line of this one
        sentence = str(error).removeprefix(f"{error.place}: ")
        raise _refused(path, sentence, expected, parsing) from None
    except (OverflowError, RecursionError, MemoryError):
        raise _refused(path, "a number or a nesting in it is too large", expected) from None
    except ValueError as error:
        raise _refused(path, str(error), expected) from None


def read_bytes(path: Path, limit: int = MAX_JSON_BYTES, expected: str = "") -> bytes:
    """The content of a regular file of at most `limit` bytes; InputError for anything else."""
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = b""
        if size <= limit:
            data = file.read(limit + 1) or b""  # some files of /proc would have us wait
    if max(len(data), size) > limit:
        raise _refused(path, f"it has more than {limit / MIB:,.4g} MiB", expected)
    return data


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file to read; InputError for anything else. A pipe is not waited for."""
    name = shown_path(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise InputError(f"it is {_special(mode)}; expected a regular file", name)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                yield file
        finally:
            os.close(descriptor)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"the file can't be read: {_reason(error)}", name) from None


def read_text(path: Path, limit: int = MAX_JSON_BYTES, expected: str = "") -> str:
    """The text of a regular file in UTF-8, without a byte order mark."""
    data = read_bytes(path, limit, expected)
    return _decoded(data, path, expected)


def read_json(path: Path, expected: str = "", *, limit: int = MAX_JSON_BYTES) -> Any:
    """The value in a JSON file. A `.json.gz` is read through; its content is bounded likewise."""
    data = read_bytes(path, limit, expected)
    if data.startswith(_GZIP) and path.name.lower().endswith(".gz"):
        data = _decompressed(data, path, limit, expected)
    text = _decoded(data, path, expected)
    with context(path, expected, "JSON"):
        return parse_json(text)


def parse_json(text: str) -> Any:
    """The value of a JSON text; InputError, with line and column, for what is none, is nested too
    deep or gives a key twice."""
    if text.count(",") > MAX_VALUES:
        raise InputError(f"it has more than {MAX_VALUES:,} values")
    plain = text.replace("\\\\", "").replace('\\"', "")
    _check_depth("".join(plain.split('"')[::2]))  # what stands outside of strings
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{place}: expected JSON" if text.strip() else "it is empty") from None
    except RecursionError:
        raise InputError(f"it is nested more than {MAX_DEPTH} deep") from None
    except InputError:
        raise
    except ValueError:  # Python reads integers of at most 4,300 digits
        raise InputError("a number in it has thousands of digits") from None


def read_json_lines(
    path: Path, expected: str = "", *, limit: int = MAX_CSV_BYTES
) -> Iterator[tuple[int, Any]]:
    """The value of every line that is not empty, with the number of the line."""
    text = read_text(path, limit, expected)
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            with context(path, expected, "JSON lines"), _in_line(number):
                value = parse_json(line)
            yield number, value


def read_toml(path: Path, expected: str = "", *, limit: int = MAX_TOML_BYTES) -> dict[str, Any]:
    """The tables of a TOML file."""
    text = read_text(path, limit, expected)
    with context(path, expected, "TOML"):
        return parse_toml(text)


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text; InputError, with line and column, for what is none or is nested
    too deep."""
    bare = _TOML_TEXT.sub("", text)
    _check_depth(bare)
    # tomllib takes the square of a key's parts: a key of 200 kB would take minutes
    if any(key.count(".") > MAX_DEPTH for key in re.split(r"[=,\[\]{}\n]", bare)):
        raise InputError(f"a key has more than {MAX_DEPTH} parts")
    if _LONG_NUMBER.search(bare):
        raise InputError("a number in it has hundreds of digits")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(_toml_rule(str(error))) from None
    except RecursionError:
        raise InputError(f"it is nested more than {MAX_DEPTH} deep") from None
    except ValueError:
        raise InputError("a number or a date in it is none") from None


@dataclass(frozen=True)
class CsvTable:
    """A CSV file whose every row has one field for each column: the text without remarks, its
    columns, and the line of the file that each row ends on."""

    text: str
    columns: tuple[str, ...]
    lines: tuple[int, ...]

    def records(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Every row as it is written, by column, with its line."""
        rows = _csv_rows(self.text)
        next(rows)
        for line, row in rows:
            yield line, dict(zip(self.columns, row, strict=True))

    def frame(self, **options: Any) -> pd.DataFrame:
        """The table as pandas reads it, indexed by line; `options` are those of `pandas.read_csv`.

        Raises InputError for a table that pandas reads otherwise.
        """
        import pandas as pd

        try:
            source = io.StringIO(self.text)
            table: pd.DataFrame = pd.read_csv(source, skipinitialspace=True, **options)
        except (ValueError, OverflowError):
            raise InputError("a cell of the table can't be read") from None
        if not isinstance(table.index, pd.RangeIndex) or len(table) != len(self.lines):
            raise InputError("the table can't be read; its quotes do not match")
        table.columns = pd.Index(self.columns)
        return table.set_index(pd.Index(self.lines))


def read_csv(
    path: Path, expected: str = "", *, remarks: bool = False, limit: int = MAX_CSV_BYTES
) -> CsvTable:
    """A table with a header, whose columns differ and whose rows have as many fields.

    With `remarks`, what follows a # in a line does not count.
    """
    text = read_text(path, limit, expected)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if remarks:
        text = "\n".join(line.partition("#")[0] for line in text.split("\n"))
    with context(path, expected, "CSV"):
        if text.lstrip().startswith(("{", "[")):
            raise InputError("line 1: expected CSV")
        if text.count(",") + text.count("\n") > MAX_CELLS:
            raise InputError(f"it has more than {MAX_CELLS:,} cells")
        rows = _csv_rows(text)
        line, header = next(rows, (0, []))
        if not header:
            raise InputError("it is empty; expected a header with the names of the columns")
        columns = tuple(name.strip() for name in header)
        twice = first_duplicate(columns)
        if twice is not None:
            raise InputError(f"line {line}: column {shown(twice)} is there twice")
        lines = []
        for line, row in rows:
            if len(row) != len(columns):
                rule = f"expected {len(columns)}, one for each column"
                raise InputError(f"line {line}: {len(row)} fields; {rule}")
            lines.append(line)
    return CsvTable(text, columns, tuple(lines))


def read_parquet(path: Path, expected: str = "") -> pd.DataFrame:
    """The table of a Parquet file."""
    import pandas as pd

    data = io.BytesIO(read_bytes(path, MAX_PARQUET_BYTES, expected))
    with context(path, expected, "Parquet"):
        try:
            from pyarrow import parquet

            size = parquet.ParquetFile(data).metadata
        except (ImportError, ValueError, OSError):
            raise InputError("expected Parquet") from None
        if size.num_rows * size.num_columns > MAX_CELLS:
            raise InputError(f"it has more than {MAX_CELLS:,} cells")
        try:
            table: pd.DataFrame = pd.read_parquet(data)
        except (ValueError, OSError, KeyError, NotImplementedError):
            raise InputError("its Parquet is damaged") from None
    return table


def describe(path: Path) -> str:
    """What a file looks like, such as `a Kineto trace`; empty for one that is not known."""
    with contextlib.suppress(InputError), _opened(path) as file:
        return _kind_of_head(file)
    return ""


def _kind_of_head(file: BinaryIO) -> str:
    head = file.read(_HEAD_BYTES) or b""
    if not head.startswith(_GZIP):
        return kind_of(head)
    with contextlib.suppress(zlib.error):
        inside = zlib.decompressobj(wbits=31).decompress(head, _HEAD_BYTES)
        if inner := kind_of(inside):
            return f"{inner}, compressed by gzip"
    return "a gzip file"


def names_file(name: str) -> bool:
    """Whether a word that may be a name means a file: it is the path of one, or looks like one."""
    return name.endswith(".json") or name.startswith(("/", "./", "../")) or os.path.isfile(name)


def write(path: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all; InputError for a path where no file can be, RunError
    where writing fails."""
    data = content.encode() if isinstance(content, str) else content
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` once it is complete and on disk.

    Until then, and whatever ends the writing, what was there before stays. A device or pipe, such
    as /dev/stdout, is written directly.
    """
    _check_path(path)
    try:
        if path.exists() and not path.is_file():
            with os.fdopen(_opened_device(path), "wb") as file:
                yield file
            return
        target = Path(os.path.realpath(path))  # a link stays one
        with _temporary(target) as (part, file):
            yield file
            file.flush()
            os.fsync(file.fileno())
            part.replace(target)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        raise
    except OSError as error:
        raise RunError(f"{shown_path(path)}: the file can't be written: {_reason(error)}") from None


def _opened_device(path: Path) -> int:
    """A descriptor to write a device or pipe; InputError for a pipe that no program reads."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise InputError("no program reads this pipe", shown_path(path)) from None
        raise
    os.set_blocking(descriptor, True)
    return descriptor


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file beside `target`, with its mode; gone at the end unless it was renamed."""
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if target.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            yield part, file
    finally:
        part.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise InputError for a path that no file can be written to; what is there stays as it is."""
    _check_path(path)
    if path.exists() and not path.is_file():
        return
    try:
        with _temporary(Path(os.path.realpath(path))):
            pass
    except OSError as error:
        sentence = f"the file can't be written: {_reason(error)}"
        raise InputError(sentence, shown_path(path)) from None


def _check_path(path: Path) -> None:
    name = shown_path(path)
    try:
        if "\0" in str(path):
            raise ValueError
        if path.is_dir():
            raise InputError("it is a folder; name a file", name)
        if not path.parent.is_dir():
            raise InputError(f"there is no folder {shown_path(path.parent)}", name)
        if path.exists() and not os.access(path, os.W_OK):
            raise InputError("the file is read-only", name)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"the file can't be written: {_reason(error)}", name) from None


def make_folder(path: Path) -> None:
    """Make a folder and those that it lies in; raises InputError where none can be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        sentence = f"the folder can't be made: {_reason(error)}"
        raise InputError(sentence, shown_path(path)) from None


def shown_path(path: Path) -> str:
    """A path as messages show it: printable, its beginning left out where it is long."""
    text = printable(str(path))
    return text if len(text) <= 160 else f"...{text[-157:]}"


def _refused(path: Path, sentence: str, expected: str, parsing: str = "") -> InputError:
    """The error of a file: what is wrong in it, or, if it is another kind of file, that."""
    kind = describe(path)
    if kind in FORMATS and FORMATS[kind] == (parsing or FORMATS[kind]):
        kind = ""
    if path.suffix == ".parquet" and "Parquet" in kind:
        kind = ""
    if parsing == _UNPACKING and (kind == "a gzip file" or kind.startswith(expected or "\0")):
        kind = ""  # it is what was expected, but damaged
    if kind and kind != expected:
        sentence = f"it looks like {kind}; expected {expected or parsing}"
    return InputError(sentence, shown_path(path))


@contextlib.contextmanager
def _in_line(number: int) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"line {number}: {error}") from None


def _decoded(data: bytes, path: Path, expected: str) -> str:
    try:
        text = data.decode("utf-8-sig")
        fault = text.find("\0")
        fault = fault if fault < 0 else len(text[:fault].encode())
    except UnicodeDecodeError as error:
        fault = error.start
    if fault >= 0:
        line = data.count(b"\n", 0, fault) + 1
        raise _refused(path, f"line {line}: expected text in UTF-8", expected)
    return text


def _decompressed(data: bytes, path: Path, limit: int, expected: str) -> bytes:
    unpacked = zlib.decompressobj(wbits=31)
    try:
        content = unpacked.decompress(data, limit + 1)
    except zlib.error:
        raise _refused(path, "its gzip compression is damaged", expected, _UNPACKING) from None
    if len(content) > limit:
        raise _refused(
            path, f"it unpacks to more than {limit / MIB:,.4g} MiB", expected, _UNPACKING
        )
    if not unpacked.eof:
        raise _refused(path, "its gzip compression ends early", expected, _UNPACKING)
    return content


def _check_depth(bare: str) -> None:
    """Raise InputError where brackets, in a text without strings, nest more than MAX_DEPTH deep.

    Each pass takes the innermost pairs away, in C.
    """
    brackets = re.sub(r"[^][{}]+", "", bare).translate(_BRACKETS)
    for _ in range(MAX_DEPTH):
        if "()" not in brackets:
            break
        brackets = brackets.replace("()", "")
    if brackets.count("(") > MAX_DEPTH:
        raise InputError(f"it is nested more than {MAX_DEPTH} deep")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = first_duplicate(name for name, _ in pairs)
        raise InputError(f"key {shown(twice)} is given twice")
    return table


def first_duplicate(names: Iterable[str]) -> str | None:
    """The first name that is there a second time; None if all differ."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _toml_rule(message: str) -> str:
    """What tomllib found, as line, column and what was expected there."""
    match = _TOML_PLACE.search(message)
    place = f"line {match[1]}, column {match[2]}: " if match and match[1] else ""
    for start, rule in _TOML_RULES.items():
        if message.startswith(start):
            return place + rule
    return f"{place}expected TOML"


def _csv_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV text that are not blank, each with the line it ends on."""
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        for row in reader:
            if row and (len(row) > 1 or row[0].strip()):
                yield reader.line_num, row
    except csv.Error:
        limit = csv.field_size_limit()
        rule = f"a cell has more than {limit:,} characters, or a quote does not end"
        raise InputError(f"line {reader.line_num}: {rule}") from None


def _special(mode: int) -> str:
    """What a file is that is not a regular one."""
    names: dict[Callable[[int], bool], str] = {
        stat.S_ISDIR: "a folder",
        stat.S_ISFIFO: "a pipe",
        stat.S_ISSOCK: "a socket",
    }
    return next((name for test, name in names.items() if test(mode)), "a device")


def _reason(error: Exception) -> str:
    """Why the system refuses a file, in its own words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return "its name is not one of a file"
