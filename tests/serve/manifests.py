"""Checks the syntax of the files in examples/serve, and that they agree with each other and with the server.

    python tests/serve/manifests.py JETMOE

Kubernetes manifests by the API's schemas (kubernetes-validate), Dockerfiles by hadolint, the unit by systemd-analyze, nginx.conf by
nginx, serve.toml by `jetmoe serve --print-config`. Nothing is built or applied.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import kubernetes_validate
import yaml
from checks import equal, run_all, true

FOLDER = Path(__file__).parents[2] / "examples/serve"


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"})
    output = done.stdout + done.stderr
    equal(done.returncode, 0, f"the exit status of {' '.join(map(str, command))}:\n{output}\nstatus")
    return output


def tool(name):
    """A program of this environment or of the system. In CI it must be there."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if found is None and os.environ.get("CI") == "true":
        raise AssertionError(f"{name} is not installed, and CI skips no check")
    return found


def documents():
    for path in sorted((FOLDER / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path.name, document


def kubernetes(_):
    kinds = {}
    for name, document in documents():
        kinds[document["kind"]] = document
        if document["kind"] != "InferencePool":
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    equal(sorted(kinds), ["ConfigMap", "Deployment", "InferencePool", "PodDisruptionBudget", "Service"], "kinds")
    # no package has the schema of this resource, so its fields are compared here
    pool = kinds["InferencePool"]
    equal(pool["apiVersion"], "inference.networking.k8s.io/v1", "the version of the pool")
    pod = kinds["Deployment"]["spec"]["template"]
    labels = pod["metadata"]["labels"]
    for kind in ("Service", "PodDisruptionBudget", "InferencePool", "Deployment"):
        selector = kinds[kind]["spec"]["selector"]
        equal(selector.get("matchLabels", selector), labels, f"the selector of {kind}")
    container = pod["spec"]["containers"][0]
    port = container["ports"][0]["containerPort"]
    equal(pool["spec"]["targetPorts"], [{"number": port}], "the port of the pool")
    probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    equal(probes, {"startup": "/ready", "readiness": "/ready", "liveness": "/health"}, "paths of the probes")
    config = tomllib.loads(kinds["ConfigMap"]["data"]["serve.toml"])
    stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    true(pod["spec"]["terminationGracePeriodSeconds"] > stop + config["shutdown_seconds"], "the time to end is long enough")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    true(config["keys_file"].startswith(mounts["keys"]), "the keys are mounted where the configuration reads them")
    for model in config["models"].values():
        true(model["folder"].startswith(mounts["models"]), "the models are mounted where the configuration reads them")


def dockerfiles(_):
    for path in sorted(FOLDER.glob("Dockerfile*")):
        if path.suffix == ".dockerignore":
            continue
        run(tool("hadolint"), path)
        text = path.read_text()
        for image in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
            true(re.search(r":[\w.-]+\d|:bookworm", image), f"{image} in {path.name} is pinned by a tag")
        true((path.parent / f"{path.name}.dockerignore").exists(), f"{path.name} has a list of what its build does not read")
        true(re.search(r"^USER \d+:\d+$", text, re.MULTILINE), f"{path.name} names a user that is not root")


def unit(_):
    analyze = tool("systemd-analyze")
    if analyze is None:
        return "skipped: there is no systemd-analyze"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "jetmoe-serve.service"
        # the command is not installed here
        copy.write_text((FOLDER / copy.name).read_text().replace("=/usr/local/bin/jetmoe ", "=/bin/true "))
        equal(run(analyze, "verify", copy), "", "what systemd-analyze says")
        run(analyze, "security", "--offline=true", "--threshold=20", copy)


def nginx(_):
    program = tool("nginx")
    if program is None:
        return "skipped: there is no nginx"
    run(program, "-t", "-q", "-c", FOLDER / "nginx.conf")


def configurations(arguments):
    """The server reads both configurations, and their times agree with those of the files around them."""
    config = next(document for _, document in documents() if document["kind"] == "ConfigMap")
    with tempfile.TemporaryDirectory() as folder:
        in_kubernetes = Path(folder) / "serve.toml"
        in_kubernetes.write_text(config["data"]["serve.toml"])
        for path in (FOLDER / "serve.toml", in_kubernetes):
            printed = tomllib.loads(run(arguments.jetmoe, "serve", "--config", path, "--print-config"))
            for key, value in tomllib.loads(path.read_text()).items():
                if not isinstance(value, dict):
                    equal(printed[key], value, f"{key} of the configuration in effect")
    limits = printed["limits"]
    text = (FOLDER / "nginx.conf").read_text()
    read_timeout = int(re.search(r"proxy_read_timeout (\d+)s;", text)[1])
    true(read_timeout > limits["request_seconds"], "nginx waits longer than a request may take")
    body = int(re.search(r"client_max_body_size (\d+)m;", text)[1]) << 20
    equal(body, limits["body_bytes"], "the longest body in nginx and in the server")
    stop = int(re.search(r"TimeoutStopSec=(\d+)", (FOLDER / "jetmoe-serve.service").read_text())[1])
    true(stop > printed["shutdown_seconds"], "systemd waits longer than the server takes to end")
    error = json.loads(re.search(r"return 503 '(.*)';", text)[1])
    equal(sorted(error["error"]), ["advice", "code", "message", "param", "type"], "fields of nginx's error")


CHECKS = [kubernetes, dockerfiles, unit, nginx, configurations]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("jetmoe", type=Path)
    arguments = arguments.parse_args()
    run_all(CHECKS, arguments)
    print("the files of examples/serve: checked")


if __name__ == "__main__":
    sys.exit(main())
