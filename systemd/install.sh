#!/bin/sh
# Installs a built tree. Run again, it replaces what it installed before and leaves the configuration alone.
set -eu

help() {
  cat <<'END'
usage: systemd/install.sh [--prefix DIR] [--destdir DIR]

Installs the tree this script is in, which must be built (npm ci):

  PREFIX/lib/constellation                         programs and the packages they need
  PREFIX/bin/constellationd, constellation         links
  PREFIX/lib/systemd/system/constellation.service  unit
  PREFIX/lib/sysusers.d/constellation.conf         the user it runs as, who is created
  /etc/constellation/constellation.yaml            an example to be changed, if there is none
  /etc/constellation/node_modules/constellation    link, by which middleboxes of your own there find the API

  --prefix DIR   default: /usr
  --destdir DIR  write everything below DIR, as packagers do; creates no user and tells systemd nothing.
                 Also $DESTDIR.
END
}

cd "$(dirname "$0")/.."
SOURCE=$(pwd)
# shellcheck source=systemd/paths.sh
. "$SOURCE/systemd/paths.sh"

command -v node >/dev/null || fail "node is not installed, or not on PATH"
for file in dist/daemon/constellationd.js dist/workers/native/addon.node node_modules; do
  [ -e "$file" ] || fail "$SOURCE is not built: $file is missing; run npm ci there"
done
[ ! -e "$DESTDIR$LIB" ] || is_ours "$DESTDIR$LIB" || fail "$DESTDIR$LIB is something else; remove it first"
for name in constellationd constellation; do
  link=$DESTDIR$BIN/$name
  if [ -e "$link" ] && ! is_our_link "$link"; then fail "$link is something else; remove it first"; fi
done

# The packages that are not for development only, as package-lock.json tells them.
production_packages() {
  node -e '
    const { packages } = JSON.parse(require("node:fs").readFileSync("package-lock.json", "utf8"));
    for (const [path, { dev }] of Object.entries(packages))
      if (path.startsWith("node_modules/") && !dev && require("node:fs").existsSync(path)) console.log(path);
  '
}

# Everything is put together beside its place and then moved there, so that a failure leaves the old one whole.
new=$DESTDIR$LIB.new
rm -rf "$new"
mkdir -p "$new/dist" "$new/conf"
trap 'rm -rf "$new"' EXIT
for part in conf daemon options shm workers; do cp -R "dist/$part" "$new/dist/"; done
find "$new/dist" -name '*.map' -exec rm -f {} +
chmod 755 "$new/dist/daemon/constellationd.js" "$new/dist/daemon/constellation.js"
production_packages | while IFS= read -r package; do
  # A package inside another has come with it.
  [ ! -e "$new/$package" ] || continue
  mkdir -p "$new/$(dirname "$package")"
  cp -R "$package" "$new/$package"
done
cp package.json LICENSE "$new/"
cp -R conf/examples conf/constellation.schema.json "$new/conf/"
chmod -R u=rwX,go=rX "$new"

rm -rf "$DESTDIR$LIB"
mv "$new" "$DESTDIR$LIB"
trap - EXIT

mkdir -p "$DESTDIR$BIN" "$DESTDIR$(dirname "$UNIT")" "$DESTDIR$(dirname "$SYSUSERS")" "$DESTDIR$ETC"
for name in constellationd constellation; do
  rm -f "$DESTDIR$BIN/$name"
  ln -s "../lib/constellation/dist/daemon/$name.js" "$DESTDIR$BIN/$name"
done
sed "s|/usr/bin/|$BIN/|g" systemd/constellation.service >"$DESTDIR$UNIT"
cp systemd/constellation.sysusers "$DESTDIR$SYSUSERS"
chmod 644 "$DESTDIR$UNIT" "$DESTDIR$SYSUSERS"

config=$DESTDIR$ETC/constellation.yaml
if [ ! -e "$config" ]; then
  sed "s|\$schema=.*|\$schema=$LIB/conf/constellation.schema.json|" conf/examples/single-site.yaml >"$config"
  chmod 644 "$config"
  echo "wrote $config, an example: change it, then check it with constellationd --check"
fi

mkdir -p "$DESTDIR$ETC/node_modules"
ln -sfn "$LIB" "$DESTDIR$ETC/node_modules/constellation"

if [ -z "$DESTDIR" ]; then
  if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers "$SYSUSERS"
  elif ! id constellation >/dev/null 2>&1; then
    useradd --system --user-group --no-create-home --home-dir / --shell /usr/sbin/nologin constellation
  fi
  # A node of nvm or the like is not found by services.
  (PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin; command -v node >/dev/null) ||
    echo "warning: node is at $(command -v node), where services do not look; link it into /usr/local/bin" >&2
fi
if systemd_runs; then
  systemctl daemon-reload
  echo "start it with: systemctl enable --now constellation"
fi
echo "installed in $DESTDIR$LIB"
