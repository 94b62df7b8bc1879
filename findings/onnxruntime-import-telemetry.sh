#!/usr/bin/env bash
# onnxruntime 1.32.0 (PyPI wheel for Linux x86-64) writes a device id and an event database below the home folder as soon as
# it is imported.
# A good guess: a library that runs models locally writes nothing before it is used, and `disable_telemetry_events()` turns
# telemetry off. Seen: both files exist after `import onnxruntime` alone, and also if telemetry is disabled right after
# the import, because the import creates the environment. Only `ORT_DISABLE_TELEMETRY=1` in the environment of the
# process prevents it. Variables such as CI=true do too, so a test on a CI machine sees nothing.
# The programs run without a network, so that nothing is sent (`unshare` of util-linux).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0

# Runs a program with an empty home folder and prints the files that it leaves there.
written_by() {
    local name=$1 program=$2 home
    shift 2
    home=$(mktemp -d "$work/home.XXXX")
    env -i PATH="$PATH" HOME="$home" "$@" unshare --map-root-user --net "$work/venv/bin/python" -c "$program"
    printf '%s:' "$name"
    (cd "$home" && find . -type f | sort | sed 's/^\./ ~/' | tr -d '\n')
    printf '\n'
}

folder='~/.cache/Microsoft/DeveloperTools/.onnxruntime'
found=$(
    written_by 'import' 'import onnxruntime'
    written_by 'import, disable_telemetry_events()' 'import onnxruntime; onnxruntime.disable_telemetry_events()'
    written_by 'ORT_DISABLE_TELEMETRY=1' 'import onnxruntime' ORT_DISABLE_TELEMETRY=1
)
expected="import: $folder/deviceid $folder/onnxruntime.db
import, disable_telemetry_events(): $folder/deviceid $folder/onnxruntime.db
ORT_DISABLE_TELEMETRY=1:"
printf '%s\n' "$found"
diff <(printf '%s\n' "$expected") <(printf '%s\n' "$found") || { echo "the behaviour changed" >&2; exit 1; }
