"""A folder with copies of objects that lie elsewhere: each whole and checked, or not there.

``files/`` holds the copies, ``parts/`` what is under way, ``journal.jsonl`` what each copy is a copy of. An
object is taken in blocks, so that several of one object come at once and a killed process loses only
those under way; nothing here knows where bytes come from.
"""

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipriv.data.files import refuse_name
from mipriv.errors import InputError
from tasks.engine.events import sha256

BLOCK = 32 * 2**20  # bytes
MD5 = re.compile("[0-9a-f]{32}")  # an ETag of one part; with several it ends in their number
NAME_LENGTH = 255  # bytes that common file systems take between two slashes


@dataclass(frozen=True)
class Object:
    """One object as its server lists it.

    Attributes:
        uri: its full address, for messages.
        key: its key in the bucket.
        name: its path below the address that was listed.
        size: bytes.
        etag: the server's mark of its content, without quotes.
    """

    uri: str
    key: str
    name: str
    size: int
    etag: str


@dataclass(frozen=True)
class Block:
    """`length` bytes of an object from `first` on; `whole` where that is all there is."""

    object: Object
    first: int
    length: int

    @property
    def whole(self) -> bool:
        """Whether it is the object's only block."""
        return self.length == self.object.size


def refuse_names(objects: Iterable[Object]) -> None:
    """Refuse names that would leave a folder, or that no folder can hold beside one another.

    Raises:
        InputError: naming the first object of such a name; see also `refuse_name`.
    """
    objects = list(objects)
    folders = {parent for one in objects for parent in _parents(one.name)}
    for one in objects:
        parts = one.name.split("/")
        if {"", ".", ".."} & set(parts) or "\\" in one.name or "\0" in one.name:
            allowed = "relative paths without empty, . and .. parts, backslash and NUL"
            raise InputError(f"{one.uri!r}: key leaves its folder, or is no path; allowed: {allowed}")
        refuse_name(one.name, "an object of the bucket")
        if max(len(part.encode()) for part in parts) > NAME_LENGTH:
            raise InputError(f"{one.uri!r}: key is too long; allowed: {NAME_LENGTH} bytes between slashes")
        if one.name in folders:
            raise InputError(f"{one.uri!r}: key is both an object and a folder; allowed: one of them")


class Mirror:
    """The copies in `folder`; one process at a time, from several threads."""

    def __init__(self, folder: Path) -> None:
        self.files, self._parts, self._journal = folder / "files", folder / "parts", folder / "journal.jsonl"
        self._turn = threading.Lock()
        for path in (self.files, self._parts):
            path.mkdir(parents=True, exist_ok=True)
        self._known = {line["name"]: line for line in _lines(self._journal)}

    def prune(self, objects: Iterable[Object]) -> None:
        """Remove copies and parts of whatever is not among `objects`, and folders left empty."""
        names: set[str] = set()
        parts: set[str] = set()
        for one in objects:
            names.add(one.name)
            parts |= {self._part(one).name, self._marks(one).name}
        self._known = {name: line for name, line in self._known.items() if name in names}
        for folder, _, files in os.walk(self.files, topdown=False):
            for file in files:
                if Path(folder, file).relative_to(self.files).as_posix() not in names:
                    Path(folder, file).unlink()
            if Path(folder) != self.files and not os.listdir(folder):
                os.rmdir(folder)
        for path in self._parts.iterdir():
            if path.name not in parts:
                path.unlink()

    def has(self, one: Object) -> bool:
        """Whether a copy is there, of this very content, by reading it."""
        line, path = self._known.get(one.name), self.files / one.name
        if line is None or (line["size"], line["etag"]) != (one.size, one.etag) or not path.is_file():
            return False
        return sha256(path) == str(line["sha256"])

    def missing(self, one: Object) -> list[Block]:
        """Blocks of an object that no earlier process took; an empty object has one, of no byte."""
        there = {line["first"] for line in _lines(self._marks(one))} if self._part(one).exists() else set()
        blocks = (Block(one, first, min(BLOCK, one.size - first)) for first in range(0, one.size or 1, BLOCK))
        return [block for block in blocks if block.first not in there]

    def write(self, block: Block, chunks: Iterable[bytes]) -> None:
        """Put a block's bytes in their place and sync them; whatever `chunks` raises ends it half way."""
        descriptor = os.open(self._part(block.object), os.O_RDWR | os.O_CREAT, 0o644)
        with open(descriptor, "r+b") as file:
            file.seek(block.first)
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())

    def mark(self, block: Block) -> None:
        """Note that a block is there, for a process that comes after this one."""
        with self._turn:
            _append(self._marks(block.object), {"first": block.first})

    def accept(self, one: Object, proven: bool) -> bool:
        """Make a finished part the copy, or drop it where its md5 is not the ETag's.

        Args:
            proven: the ETag may be taken for an md5, if it looks like one.
        """
        part, final = self._part(one), self.files / one.name
        digest = _md5(part) if proven and MD5.fullmatch(one.etag) else one.etag
        if digest != one.etag or part.stat().st_size != one.size:
            self.drop(one)
            return False
        line = {"name": one.name, "size": one.size, "etag": one.etag, "sha256": sha256(part)}
        final.parent.mkdir(parents=True, exist_ok=True)
        part.replace(final)
        self._marks(one).unlink(missing_ok=True)
        with self._turn:
            _append(self._journal, line)
            self._known[one.name] = line
        return True

    def drop(self, one: Object) -> None:
        """Forget the part of an object."""
        for path in (self._part(one), self._marks(one)):
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Rewrite the journal without lines that later ones replaced, once all is there."""
        fresh = self._journal.with_suffix(".new")
        with fresh.open("w", encoding="ascii") as file:
            file.writelines(json.dumps(line) + "\n" for line in self._known.values())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._journal)
        shutil.rmtree(self._parts)

    def _part(self, one: Object) -> Path:
        # Named after the content too: what is left of an older version is never continued.
        return self._parts / hashlib.sha256(json.dumps([one.name, one.size, one.etag]).encode()).hexdigest()

    def _marks(self, one: Object) -> Path:
        return self._part(one).with_suffix(".blocks")


def _parents(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="ascii") as file:
        file.write(f"\n{json.dumps(line)}\n")  # a killed writer's half line ends before it


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """JSON lines that are whole; a killed writer may leave half a one."""
    if not path.exists():
        return
    for text in path.read_bytes().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line
