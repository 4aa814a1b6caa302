#!/usr/bin/env bash
# Installs the wheel on a bare Debian of any processor and runs it there: pip install, then verify, predict and bench of a
# bundle, with the base install alone and with OpenVINO. Another processor than this machine's is emulated by qemu-user; what
# bench measures there says so itself. Writes one JSON document.
#
#   sudo tests/devices/debian.sh arm64 bookworm BUNDLE CACHE RESULT.json
#   sudo tests/devices/debian.sh amd64 trixie   BUNDLE CACHE RESULT.json
#
# Needs root, debootstrap, git, uv and python3, and for another processor qemu-user-static. CACHE keeps Debian's packages and the
# wheels of the Python package index between runs. DEBIAN_MIRROR and pip's settings in PIP_* are used if they are set.
set -euo pipefail

fail() {
    printf 'debian.sh: %s\n' "$*" >&2
    exit 2
}

[ $# -eq 5 ] || fail "expected five arguments: arm64|amd64, a suite of Debian (bookworm, trixie), BUNDLE, CACHE, RESULT.json"
[ "$(id -u)" -eq 0 ] || fail "a root of another system is entered with chroot, which only root may; run this with sudo"
for tool in debootstrap dpkg-deb unshare git uv python3; do
    command -v "$tool" >/dev/null || fail "'$tool' is missing; install it (Debian: apt-get install debootstrap; pip install uv)"
done
# What is mounted below is gone with this process, however it ends.
[ -n "${EDGEWRIGHT_OWN_MOUNTS:-}" ] || exec env EDGEWRIGHT_OWN_MOUNTS=1 unshare --mount -- "$0" "$@"

arch=$1 suite=$2 bundle=$(realpath "$3") cache=$(realpath --canonicalize-missing "$4") result=$(realpath "$5")
[ -f "$bundle/manifest.json" ] || fail "'$bundle' is no bundle: it has no manifest.json; make one with 'edgewright quickstart'"
repository=$(realpath "$(dirname "$0")/../..")
root="$cache/$suite-$arch"
seconds=${BENCH_SECONDS:-20}

allow_foreign_programs() {
    local magic='\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    local mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    local kernel=/proc/sys/fs/binfmt_misc
    [ ! -e "$kernel/qemu-aarch64" ] || return 0
    command -v qemu-aarch64-static >/dev/null || fail "'qemu-aarch64-static' is missing; apt-get install qemu-user-static"
    [ -e "$kernel/register" ] || mount -t binfmt_misc binfmt_misc "$kernel" || fail "the kernel has no binfmt_misc"
    # F: opened now, so that it is found from inside the root; O and C: as Debian registers it.
    printf ':qemu-aarch64:M::%s:%s:%s:OCF' "$magic" "$mask" "$(command -v qemu-aarch64-static)" >"$kernel/register"
}

make_root() {
    [ ! -e "$root/.complete" ] || return 0
    rm -rf "$root"
    mkdir -p "$root"
    debootstrap --foreign --variant=minbase --arch="$arch" --include=python3,python3-venv "$suite" "$root" \
        "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >&2
    # Unpacked by this machine: configuring packages under emulation takes a quarter of an hour, and Python needs none of it.
    for package in "$root"/var/cache/apt/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" | tar --extract --directory "$root" --keep-directory-symlink
    done
    # In some containers debootstrap leaves a link to this machine's, which leads nowhere inside.
    [ ! -L "$root/proc" ] || rm "$root/proc"
    mkdir -p "$root/proc" "$root/sys"
    touch "$root/.complete"
}

inside() {
    local settings=(PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C.UTF-8 PIP_CACHE_DIR=/var/cache/pip)
    local name
    for name in "${!PIP_@}" http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        # Folders of this machine are not there.
        case $name in PIP_CERT | PIP_CACHE_DIR | PIP_FIND_LINKS | PIP_CONFIG_FILE) continue ;; esac
        [ -z "${!name:-}" ] || settings+=("$name=${!name}")
    done
    env -i "${settings[@]}" chroot "$root" "$@"
}

# Runs a command of edgewright inside; keeps its document, its messages, exit status and time.
try() {
    local name=$1 status=0 started ended
    shift
    printf '%s\n' "$name: edgewright $*" >&2
    started=$(date +%s.%N)
    inside /opt/device/bin/edgewright "$@" >"$work/$name.out" 2>"$work/$name.err" || status=$?
    ended=$(date +%s.%N)
    printf '%s %s %s\n' "$status" "$started" "$ended" >"$work/$name.status"
    tail -n 3 "$work/$name.err" >&2
}

# Bytes of what pip installed, without pip itself and without bytecode.
installed_bytes() {
    find "$root"/opt/device/lib/python3*/site-packages -type f ! -name '*.pyc' \
        ! -path '*/site-packages/pip*' ! -path '*/site-packages/setuptools*' ! -path '*/site-packages/_distutils_hack*' \
        ! -path '*/site-packages/pkg_resources*' ! -name distutils-precedence.pth -printf '%s\n' |
        awk '{ bytes += $1 } END { printf "%d\n", bytes }'
}

[ "$arch" = "$(dpkg --print-architecture)" ] || allow_foreign_programs
make_root
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# From a copy: what an earlier build left in the repository would get into the wheel.
mkdir "$work/source"
(cd "$repository" && git -c safe.directory='*' ls-files -z | tar --create --null --files-from - ) | tar --extract --directory "$work/source"
uv build --wheel --quiet --out-dir "$work" "$work/source"
wheel=$(basename "$work"/*.whl)

mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
# OpenVINO crashes without the list of cores and caches that is there.
mount --rbind /sys "$root/sys"
if [ "$arch" != "$(dpkg --print-architecture)" ]; then
    # ONNX Runtime crashes where these are there but /proc/cpuinfo is that of another kind of processor; without, it warns.
    for list in present possible; do
        mount --bind /dev/null "$root/sys/devices/system/cpu/$list"
    done
fi
mkdir -p "$root/etc/ssl/certs" "$root/bundle" "$root/wheel" "$root/var/cache/pip"
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
mount --rbind "$bundle" "$root/bundle"
mount --bind "$work" "$root/wheel"
picture=$(find "$bundle/golden" -type f \( -name '*.png' -o -name '*.jpg' \) -printf '/bundle/golden/%P\n' | sort | head -n 1)

rm -rf "$root/opt/device"
inside /usr/bin/python3 -m venv /opt/device
pip=(/opt/device/bin/pip install --quiet --no-compile --only-binary :all:)
for extra in "" "[openvino]"; do
    name=base
    [ -z "$extra" ] || name=openvino
    printf '%s\n' "$name: pip install $wheel$extra" >&2
    inside "${pip[@]}" "/wheel/$wheel$extra" >&2
    installed_bytes >"$work/$name.bytes"
    inside /opt/device/bin/pip freeze --exclude edgewright >"$work/$name.freeze"
    try "$name.verify" verify /bundle --json
    try "$name.predict" predict /bundle "$picture" --json
    try "$name.bench" bench /bundle --seconds "$seconds" --batch 1 --threads 1 --json
done

python3 - "$work" "$result" "$arch" "$suite" <<'PYTHON'
"""One document of what the commands left behind."""

import json
import sys
from datetime import datetime, timezone
from pathlib import Path

work, result, arch, suite = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]


def outcome(name: str) -> dict[str, object]:
    status, started, ended = (work / f"{name}.status").read_text().split()
    said = (work / f"{name}.out").read_text()
    found: dict[str, object] = {"status": int(status), "seconds": round(float(ended) - float(started), 1)}
    try:
        found["document"] = json.loads(said)
    except ValueError:
        found["messages"] = (work / f"{name}.err").read_text()[-2000:]
    return found


document: dict[str, object] = {
    "date": datetime.now(timezone.utc).date().isoformat(),
    "debian": suite,
    "architecture": arch,
}
for install in ("base", "openvino"):
    document[install] = {
        "installed_mb": round(int((work / f"{install}.bytes").read_text()) / 1e6, 1),
        "packages": (work / f"{install}.freeze").read_text().split(),
        **{command: outcome(f"{install}.{command}") for command in ("verify", "predict", "bench")},
    }
result.write_text(json.dumps(document, indent=2) + "\n")

failed = 0
for install in ("base", "openvino"):
    row = document[install]
    print(f"{install}: {row['installed_mb']} MB installed")
    for command in ("verify", "predict", "bench"):
        done = row[command]
        failed += done["status"] != 0
        print(f"  {command}: exit status {done['status']} after {done['seconds']} s")
        for one in done.get("document", {}).get("artefacts", []) if command == "verify" else []:
            apart = one["max_abs_logit_diff"]
            print(f"    {one['name']}:", one["reason"] or f"passed, logits at most {apart:.2g} apart")
        told = done.get("document", {}) if command == "bench" else {}
        if told:
            print(f"    {told['device']['cpu']}; emulated: {told['device']['emulated']}")
        for report in told.get("reports", []):
            print(f"    {report['artefact']}: p50 {report['p50_ms']:.1f} ms")
        for finding in told.get("conditions", {}).get("findings", []):
            print(f"    {finding}")
sys.exit(1 if failed else 0)
PYTHON
