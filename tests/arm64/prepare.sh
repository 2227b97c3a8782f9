#!/usr/bin/env bash
# An arm64 Python under QEMU in a folder: Debian's packages unpacked, nothing installed, no root needed.
# Usage: prepare.sh FOLDER PYTHON (whose pip fetches the wheels)
set -euo pipefail
folder=$(realpath -m "$1") python=$(realpath -s "$2") here=$(cd "$(dirname "$0")/../.." && pwd)
wheels=(numba llvmlite numpy ml_dtypes)
[ "$(cat "$folder/ready" 2>/dev/null)" = "${wheels[*]}" ] && exit 0
command -v apt-get dpkg >/dev/null || { echo "prepare.sh: needs Debian's apt-get and dpkg" >&2; exit 1; }
mkdir -p "$folder"/{lists/partial,cache/archives/partial,debs,host,root,site,wheels}
guest=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::Lists="$folder/lists"
       -o Dir::Cache="$folder/cache" -o Dir::State::status=/dev/null -o APT::Sandbox::User="$(id -un)")
cd "$folder/debs"
apt-get "${guest[@]}" -qq update
apt-get "${guest[@]}" -qq download python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libgcc-s1 \
    libstdc++6 zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5 libssl3 libcrypt1 libuuid1
apt-get -qq -o APT::Sandbox::User="$(id -un)" download qemu-user-static
for package in *_arm64.deb; do dpkg -x "$package" "$folder/root"; done
dpkg -x qemu-user-static_*.deb "$folder/host"
"$python" -m pip --disable-pip-version-check -q download --no-deps --only-binary=:all: --python-version 3.11 \
    --implementation cp --abi cp311 --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux_2_17_aarch64 -d "$folder/wheels" --constraint "$here/constraints.txt" "${wheels[@]}"
for wheel in "$folder"/wheels/*.whl; do "$python" -m zipfile -e "$wheel" "$folder/site"; done
echo "${wheels[*]}" > "$folder/ready"
