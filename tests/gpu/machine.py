"""The machine: CUDA's libraries among Python's packages, the card, the driver, versions."""

import ctypes
import os
import pathlib
import platform
import shutil
import site
import subprocess
import sys

# What libonnxruntime's CUDA provider needs, by the names that the dynamic linker looks for.
CUDA_LIBRARIES = ("libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10", "libcudnn.so.9")
# Opened by some operators, or by the TensorRT provider alone.
OPTIONAL_LIBRARIES = ("libcufft.so.12", "libnvrtc.so.13", "libnvinfer.so.10", "libnvonnxparser.so.10")
# Part of the driver.
DRIVER = "libcuda.so.1"
SYSTEM_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/local/nvidia/lib64",
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/targets/x86_64-linux/lib",
)


def package_folders():
    """Folders of Python's packages."""
    found = [*site.getsitepackages(), site.getusersitepackages(), *sys.path]
    folders = [pathlib.Path(path) for path in found if path]
    return list(dict.fromkeys(path for path in folders if path.name.endswith("-packages") and path.is_dir()))


def find_libraries(names, packages, system=SYSTEM_FOLDERS):
    """The folder of each library, from the packages or the system; None for one that is in neither."""
    found = dict.fromkeys(names)
    for root in map(str, packages):
        for folder, _, files in os.walk(root):
            for name in files:
                if name in found and found[name] is None:
                    found[name] = folder
    for folder in system:
        for name in names:
            if found[name] is None and os.path.exists(os.path.join(folder, name)):
                found[name] = folder
    return found


def library_path(own, found):
    """LD_LIBRARY_PATH: our libraries, those found, then what it was."""
    folders = [str(own), *(folder for folder in found.values() if folder), os.environ.get("LD_LIBRARY_PATH", "")]
    return ":".join(dict.fromkeys(folder for folder in folders if folder))


def open_driver(folders=SYSTEM_FOLDERS):
    """Why CUDA's driver cannot be used, or None; and its folder, if the dynamic linker does not find it by itself."""
    problems = []
    for folder in (None, *folders):
        try:
            driver = ctypes.CDLL(os.path.join(folder, DRIVER) if folder else DRIVER)
        except OSError as error:
            problems.append(str(error))
            continue
        return driver_problem(driver), folder
    return f"no NVIDIA driver: {problems[0]}", None


def driver_problem(driver):
    """Why an opened driver cannot be used, or None."""
    status = driver.cuInit(0)
    count = ctypes.c_int(0)
    if status == 0:
        status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0:
        return f"the driver's cuInit or cuDeviceGetCount returned {status}"
    return None if count.value > 0 else "the driver has no device"


def card():
    """Name, driver, memory and compute capability by nvidia-smi; empty without it."""
    if shutil.which("nvidia-smi") is None:
        return {}
    fields = ("name", "driver_version", "memory.total", "compute_cap")
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return {}
    values = [value.strip() for value in shown.stdout.partition("\n")[0].split(",")]
    return dict(zip(fields, values)) if shown.returncode == 0 and len(values) == len(fields) else {}


def processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def versions(names):
    """Versions of Python packages; None for one that is not installed."""
    from importlib import metadata

    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def describe():
    return {
        "card": card(),
        "processor": processor(),
        "processors": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": versions(("torch", "transformers", "safetensors", "numpy")),
    }
