"""Makes a CUDA library compress well: the machine code for other GPU architectures becomes zeros.

nvcc embeds the code for several architectures in a library, as "fat binaries": a header of 16 bytes (magic, version, size of the
header, size of the entries), then one entry per architecture. An entry has a header (kind, version, size of the header, size of
the code, ..., architecture at byte 28) and the code: PTX, which the driver compiles when no machine code fits, or an ELF file.
The file keeps its size and layout, so that it loads as before, and the driver selects the same code on the kept architecture.
The layout is not documented by NVIDIA; the one here is that of CUDA 13, and a library without the architecture is an error.
"""

import collections
import dataclasses
import struct

MAGIC = struct.pack("<I", 0xBA55ED50)
HEADER = struct.Struct("<IHHQ")  # magic, version, bytes of this header, bytes of all entries
ENTRY = struct.Struct("<HHIQ")  # kind, version, bytes of this header, bytes of the code
ARCHITECTURE = struct.Struct("<I")
ARCHITECTURE_OFFSET = 28
VERSION = 1
KINDS = {1: "ptx", 2: "sm"}


class MissingArchitecture(Exception):
    """The library has no machine code for the architecture."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """The code for one architecture in a fat binary."""

    kind: str
    architecture: int
    start: int
    size: int


def entries(data):
    """Every entry of every fat binary in the bytes of a library, in order."""
    found = []
    at = data.find(MAGIC)
    while at >= 0:
        end = _read_binary(data, at, found)
        at = data.find(MAGIC, end)
    return found


def _read_binary(data, at, found):
    """Adds the entries of the fat binary at `at`. Returns where the search for the next one goes on."""
    beyond_magic = at + len(MAGIC)
    if at + HEADER.size > len(data):
        return beyond_magic
    _, version, header, size = HEADER.unpack_from(data, at)
    entry, end = at + header, at + header + size
    if version != VERSION or header < HEADER.size or end > len(data):
        return beyond_magic  # four bytes that happen to be equal
    while entry + ARCHITECTURE_OFFSET + ARCHITECTURE.size <= end:
        kind, _, entry_header, code = ENTRY.unpack_from(data, entry)
        (architecture,) = ARCHITECTURE.unpack_from(data, entry + ARCHITECTURE_OFFSET)
        start = entry + entry_header
        is_entry = kind in KINDS and entry_header >= ARCHITECTURE_OFFSET + ARCHITECTURE.size
        if not is_entry or start + code > end:
            break
        found.append(Entry(KINDS[kind], architecture, start, code))
        entry = start + code
    return end


def keep(data, architecture):
    """Zeroes the code for all other architectures, and all PTX, in a bytearray. Returns bytes per kind and architecture, and the
    number of zeroed bytes.
    """
    found = entries(data)
    sizes = collections.Counter()
    for entry in found:
        sizes[f"{entry.kind}_{entry.architecture}"] += entry.size
    if f"sm_{architecture}" not in sizes:
        raise MissingArchitecture(f"no machine code for sm_{architecture}; the library has {', '.join(sizes) or 'none'}")
    zeroed = 0
    for entry in found:
        if (entry.kind, entry.architecture) != ("sm", architecture):
            data[entry.start : entry.start + entry.size] = bytes(entry.size)
            zeroed += entry.size
    return sizes, zeroed
