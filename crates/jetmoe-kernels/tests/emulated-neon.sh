#!/bin/sh
# Runs the kernels' tests on three emulated AArch64 processors: with 8-bit matrix products (kernels `neoni8mm`), with the dot
# product instruction only (`neon`), and without either (`generic`).
#
#     sudo crates/jetmoe-kernels/tests/emulated-neon.sh [FOLDER]
#
# Needs Linux on x86-64, root for chroot, debootstrap, git, and network to deb.debian.org and crates.io. FOLDER, by default
# /tmp/jetmoe-neon, gets a Debian sid of 2 GB whose rustc has AArch64's standard library, a linker and qemu-user; a second run
# reuses it. Exits with an error if a test fails, or if the tests did not cover the expected kernels.
set -eu

root=$(cd "$(dirname "$0")/../../.." && pwd)
folder=${1:-/tmp/jetmoe-neon}
sid=$folder/sid
packages="rustc cargo libstd-rust-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"

if [ ! -x "$sid/usr/bin/qemu-aarch64" ]; then
    mkdir -p "$sid"
    debootstrap --variant=minbase --include=ca-certificates sid "$sid" http://deb.debian.org/debian
    # an outdated mirror is good enough
    chroot "$sid" sh -ec "
        dpkg --add-architecture arm64
        apt-get -o Acquire::Check-Valid-Until=false update
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $packages"
fi

# a copy, so that nothing is mounted into the chroot
cp /etc/resolv.conf "$sid/etc/resolv.conf"
# the certificates that this machine trusts, such as those of a company's proxy
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || cp /etc/ssl/certs/ca-certificates.crt "$sid/etc/ssl/certs/"
rm -rf "$sid/source"
mkdir "$sid/source"
(cd "$root" && git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from=- --file=-) |
    tar --extract --no-same-owner --directory="$sid/source" --file=-

# run PROCESSOR KERNELS: tests all kernels that the processor supports, of which these must be the best
run() {
    processor=$1
    kernels=$2
    echo "== AArch64 processor $processor, kernels $kernels"
    chroot "$sid" env HOME=/root \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu $processor -L /usr/aarch64-linux-gnu" \
        cargo test --quiet --locked --manifest-path /source/Cargo.toml --package jetmoe-kernels --tests \
        --target aarch64-unknown-linux-gnu --target-dir /target -- --nocapture >"$folder/output" 2>&1 || {
        cat "$folder/output"
        echo "== failed"
        exit 1
    }
    isas=$(sed -n 's/.*this processor has //p' "$folder/output")
    echo "kernels:" $isas
    grep '^test result' "$folder/output"
    best=$(echo "$isas" | tail -1)
    [ "$best" = "$kernels" ] || { echo "== the best kernels here are '$best', not '$kernels'"; exit 1; }
}

run max neoni8mm
run neoverse-n1 neon
run cortex-a53 generic
