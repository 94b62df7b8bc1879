#!/bin/bash
# Runs this crate's tests on an emulated processor with AVX-512 VNNI and AMX, for machines without them: Bochs 3.0 as a Sapphire
# Rapids, with Debian's kernel 6.12. Slow: some minutes to build Bochs, and some for the tests.
#
#   crates/jetmoe-kernels/tests/emulated.sh [FOLDER]      FOLDER keeps what is downloaded and built
#
# Needs a Debian or a relative of it (dpkg-deb, ldd), curl, g++, make, python3, cargo, genisoimage and cpio. Exits with 0
# only if every test passed and the tests covered both instruction sets.
set -euo pipefail

work=$(realpath -m "${1:-/tmp/jetmoe-emulated}")
root=$(realpath "$(dirname "$0")/../../..")
pool=http://deb.debian.org/debian/pool/main
mkdir -p "$work" && cd "$work"

fetch() {
    [ -e "${1##*/}" ] || curl -fsSL --remote-name "$pool/$1"
}

fetch b/bochs/bochs_3.0+dfsg.orig.tar.xz
for package in b/bochs/bochsbios_3.1+dfsg-1_all.deb v/vgabios/vgabios_0.9d+ds-2_all.deb \
    l/linux-signed-amd64/linux-image-6.12.117+deb13-cloud-amd64_6.12.117-1_amd64.deb \
    b/busybox/busybox-static_1.35.0-4+deb12u1+b1_amd64.deb \
    s/syslinux/isolinux_6.04~git20190206.bf6db5b4+dfsg1-3_all.deb \
    s/syslinux/syslinux-common_6.04~git20190206.bf6db5b4+dfsg1-3_all.deb; do
    fetch "$package"
    dpkg-deb -x "${package##*/}" debian
done

if [ ! -x bochs-3.0/bochs ]; then
    rm -rf bochs-3.0 && tar xf bochs_3.0+dfsg.orig.tar.xz
    python3 "$root/crates/jetmoe-kernels/tests/emulated_tiles.py" bochs-3.0
    (cd bochs-3.0 && CXXFLAGS="-O2 -fno-strict-aliasing" ./configure --with-nogui --enable-x86-64 \
        --enable-cpu-level=6 --disable-logging --enable-avx \
        --enable-evex --enable-amx --enable-pci --enable-repeat-speedups --enable-fast-function-calls \
        --enable-handlers-chaining --enable-memtype --enable-protection-keys --enable-cet --enable-uintr \
        --enable-monitor-mwait --enable-perfmon --enable-vmx=2 --disable-docbook --disable-stats > configure.log \
        && make -j"$(nproc)" > make.log 2>&1)
fi

# the test programs and what they are linked with
rm -rf initial iso && mkdir -p initial/{bin,lib64,proc,dev,tmp} iso
(cd "$root" && cargo test -p jetmoe-kernels --no-run --message-format json ${TARGET_DIR:+--target-dir "$TARGET_DIR"}) \
    | grep -o '"executable":"[^"]*"' | cut -d'"' -f4 | grep /deps/ > programs
while read -r program; do
    name=$(basename "$program")
    cp "$program" "initial/bin/${name%-*}" && strip "initial/bin/${name%-*}"
    ldd "$program" | awk '$3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }' | while read -r library; do
        install -D "$library" "initial$library"
    done
done < programs
cp debian/bin/busybox initial/bin/busybox && ln -s busybox initial/bin/sh
cat > initial/init << 'INIT'
#!/bin/sh
busybox=/bin/busybox
$busybox mount -t proc proc /proc && $busybox mount -t devtmpfs devices /dev
exec < /dev/console > /dev/console 2>&1
export PROPTEST_DISABLE_FAILURE_PERSISTENCE=1
failed=0
for program in jetmoe_kernels products; do /bin/$program --nocapture || failed=1; done
echo "THE END failed=$failed"
$busybox poweroff -f
INIT
chmod +x initial/init
(cd initial && find . | cpio --quiet -o -H newc | gzip -1 > ../iso/initial.gz)

cp debian/usr/lib/ISOLINUX/isolinux.bin debian/usr/lib/syslinux/modules/bios/ldlinux.c32 iso/
cp debian/boot/vmlinuz-6.12* iso/vmlinuz
cat > iso/isolinux.cfg << 'MENU'
DEFAULT tests
PROMPT 0
LABEL tests
 KERNEL vmlinuz
 INITRD initial.gz
 APPEND console=ttyS0,115200 nokaslr mitigations=off loglevel=3 tsc=reliable random.trust_cpu=on panic=1
MENU
genisoimage -quiet -o boot.iso -b isolinux.bin -no-emul-boot -boot-load-size 4 -boot-info-table iso

# a slow emulated clock, so that timeouts are short
cat > bochsrc << CONFIGURATION
config_interface: textconfig
display_library: nogui
cpu: model=sapphire_rapids, count=1, ips=20000000, reset_on_triple_fault=0, exclude_features="cet,uintr,la57,serialize"
memory: guest=512, host=512
romimage: file=debian/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=debian/usr/share/vgabios/vgabios.bin
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=serial
clock: sync=none
log: bochs.log
panic: action=fatal
CONFIGURATION
rm -f serial
bochs-3.0/bochs -q -f bochsrc > bochs.out 2>&1 &
emulator=$!
trap 'kill $emulator 2> /dev/null || true' EXIT
while kill -0 $emulator 2> /dev/null && ! grep -q 'THE END' serial 2> /dev/null; do sleep 2; done

grep -aE 'ISAS|^test |THE END|panicked|Kernel panic' serial
grep -aq 'ISAS .*avx512vnni.*amx' serial
grep -aq 'THE END failed=0' serial
