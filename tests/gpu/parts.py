"""The payload: one compressed archive, in parts small enough to travel, and a manifest with the digest of each."""

import concurrent.futures
import contextlib
import hashlib
import json
import lzma
import pathlib
import tarfile

MANIFEST = "manifest.json"
# Compressed apart, so that all cores compress. An xz file may have several streams.
BLOCK_BYTES = 96 << 20


class BadPayload(Exception):
    """A part is missing or damaged."""


def part_name(number):
    return f"payload.{number:02}"


def part_folder(number):
    return f"part-{number}"


def compress(archive, preset, threads, block_bytes=BLOCK_BYTES):
    """Yields an archive in compressed blocks."""
    with open(archive, "rb") as file, concurrent.futures.ThreadPoolExecutor(threads) as pool:
        blocks = iter(lambda: file.read(block_bytes), b"")
        # as many blocks at a time as there are threads: they are large
        pending = []
        for block in blocks:
            pending.append(pool.submit(lzma.compress, block, preset=preset))
            if len(pending) == threads:
                yield pending.pop(0).result()
        for block in pending:
            yield block.result()


def write(blocks, output, part_bytes, about):
    """Writes blocks of bytes as parts into `output`, one folder each, and the manifest into the last. Returns its folders."""
    output = pathlib.Path(output)
    buffer, digests, folders = bytearray(), [], []

    def write_part(content):
        folder = output / part_folder(len(folders) + 1)
        folder.mkdir(parents=True)
        (folder / part_name(len(folders) + 1)).write_bytes(content)
        digests.append(hashlib.sha256(content).hexdigest())
        folders.append(folder)

    for block in blocks:
        buffer += block
        while len(buffer) > part_bytes:
            write_part(bytes(buffer[:part_bytes]))
            del buffer[:part_bytes]
    write_part(bytes(buffer))
    manifest = about | {"parts": [{"name": part_name(n + 1), "sha256": digest} for n, digest in enumerate(digests)]}
    (folders[-1] / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return folders


def read_manifest(folder):
    path = pathlib.Path(folder, MANIFEST)
    if not path.is_file():
        raise BadPayload(f"{path} does not exist; it comes with the last part")
    return json.loads(path.read_text())


def unpack(folder, target):
    """Joins the parts in `folder`, compares their digests, and unpacks them to `target`. Returns the manifest."""
    folder, target = pathlib.Path(folder), pathlib.Path(target)
    manifest = read_manifest(folder)
    joined = target.with_name(target.name + ".xz")
    with contextlib.ExitStack() as stack:
        stack.callback(joined.unlink, missing_ok=True)
        with open(joined, "wb") as file:
            for part in manifest["parts"]:
                path = folder / part["name"]
                if not path.is_file():
                    raise BadPayload(f"{path} does not exist; copy every part before the last command")
                content = path.read_bytes()
                if hashlib.sha256(content).hexdigest() != part["sha256"]:
                    raise BadPayload(f"{path} is damaged or of another payload; copy it again")
                file.write(content)
        with lzma.open(joined) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            archive.extractall(target, filter="data")
    return manifest
