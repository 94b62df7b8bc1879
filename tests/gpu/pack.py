"""Packs the commands and libonnxruntime with CUDA into parts that fit a machine with a GPU and without network.

Called by `cargo xtask gpu pack`. Needs `strip`. tests/gpu/run.py, which comes with the repository, unpacks the parts there.
"""

import argparse
import datetime
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import architectures
import parts

COMMANDS = ("jetmoe", "jetmoe-export")
CUDA_PROVIDER = "libonnxruntime_providers_cuda.so"
PART_BYTES = 20 << 20
# Where the parts are collected on the other machine.
THERE = "~/jetmoe-gpu"
COMMAND_LIMIT, STEPS_LIMIT = 600, 480
RUN = f'python3 tests/gpu/run.py --parts {THERE} --limit {STEPS_LIMIT} --output "${{OUT:-gpu-results}}"'


def stage(arguments, folder):
    """Copies everything that travels to `folder`. Returns what is worth knowing of it later."""
    about = {"architecture": arguments.architecture, "profile": arguments.profile, "commit": commit()}
    about["packed"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    (folder / "bin").mkdir(parents=True)
    (folder / "lib").mkdir()
    for name in COMMANDS:
        subprocess.run(["strip", "-o", folder / "bin" / name, arguments.commands / name], check=True)
    libraries = sorted(arguments.libraries.glob("lib*.so*"))
    main = [library.name for library in libraries if library.name.startswith("libonnxruntime.so")]
    if len(main) != 1 or not (arguments.libraries / CUDA_PROVIDER).is_file():
        sys.exit(f"{arguments.libraries} does not hold one libonnxruntime.so and {CUDA_PROVIDER}")
    about["library"] = main[0]
    for library in libraries:
        if library.name == CUDA_PROVIDER:
            data = bytearray(library.read_bytes())
            sizes, zeroed = architectures.keep(data, arguments.architecture)
            (folder / "lib" / library.name).write_bytes(data)
            kept = sizes[f"sm_{arguments.architecture}"]
            print(f"{library.name}: {kept >> 20} MiB of code for sm_{arguments.architecture} kept, {zeroed >> 20} MiB zeroed")
        else:
            shutil.copy(library, folder / "lib" / library.name)
    return about


def commit():
    """The commit of the repository, with a mark if files differ from it."""
    found = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def instructions(count, output):
    """The commands for the other machine, each with the folder that travels with it."""
    copies = [
        (f"{output}/{parts.part_folder(number)}", f"mkdir -p {THERE} && cp {output}/{parts.part_folder(number)}/* {THERE}/")
        for number in range(1, count + 1)
    ]
    folder, copy = copies.pop()
    return [*copies, (folder, f"{copy} && {RUN}")]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=pathlib.Path, required=True, help="folder of jetmoe and jetmoe-export")
    parser.add_argument("--libraries", type=pathlib.Path, required=True, help="folder of libonnxruntime with CUDA")
    parser.add_argument("--architecture", type=int, default=90)
    parser.add_argument("--profile", default="dev", help="cargo's profile of the commands, for the report")
    parser.add_argument("--preset", type=int, default=6, help="of xz, 0 to 9")
    parser.add_argument("--instructions", action="store_true", help="print the commands for the other machine")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(".gpu"))
    arguments = parser.parse_args()

    for old in [*arguments.output.glob("part-*"), arguments.output / "stage"]:
        if old.exists():
            shutil.rmtree(old)
    folder = arguments.output / "stage"
    about = stage(arguments, folder)
    archive = arguments.output / "payload.tar"
    with tarfile.open(archive, "w") as tar:
        # large files first: the last block is then a small one
        for path in sorted(folder.rglob("*"), key=lambda path: -path.stat().st_size):
            if path.is_file():
                tar.add(path, arcname=path.relative_to(folder))
    folders = parts.write(
        parts.compress(archive, arguments.preset, os.cpu_count() or 1), arguments.output, PART_BYTES, about
    )
    unpacked = archive.stat().st_size
    archive.unlink()
    shutil.rmtree(folder)

    packed = sum(file.stat().st_size for part in folders for file in part.iterdir())
    print(f"{unpacked >> 20} MiB, compressed {packed >> 20} MiB, in {len(folders)} parts of at most {PART_BYTES >> 20} MiB")
    if arguments.instructions:
        print_instructions(instructions(len(folders), arguments.output))


def print_instructions(commands):
    print(f"\n{len(commands)} commands for the machine with the GPU, in the root of this repository, each at most {COMMAND_LIMIT} s:")
    for number, (carried, command) in enumerate(commands, 1):
        print(f"\n{number}. with the folder {carried}\n    {command}")
    print("\nThe last one takes the time. To go on with the steps that it did not reach, while the machine is still held:")
    print(f"    {RUN} --continue")
    print("\nThen, here:\n    cargo xtask gpu report FOLDER-OF-RESULTS")


if __name__ == "__main__":
    main()
