#!/bin/sh
# Installs a built tree as a release beside those that are there, and switches to it. Leaves the configuration alone.
set -eu

help() {
  cat <<'END'
usage: systemd/install.sh [--prefix DIR] [--destdir DIR]

Installs the tree this script is in, which must be built (npm ci), as a release beside those that are there, and then
switches to it:

  PREFIX/lib/constellation/releases/BUILD          programs and the packages they need; a folder for each build
  PREFIX/lib/constellation/current                 link to the release that the next start uses
  PREFIX/bin/constellationd, constellation         links
  PREFIX/lib/systemd/system/constellation.service  unit
  PREFIX/lib/sysusers.d/constellation.conf         the user it runs as, who is created
  /etc/constellation/constellation.yaml            an example to be changed, if there is none
  /etc/constellation/node_modules/constellation    link, by which middleboxes of your own there find the API

An instance that runs keeps the files of its own release until it is restarted. Releases are removed that no process
runs from, except the last three. If anything fails, the release before stays the current one.

To go back to another release, run the install.sh that is in it, with the same options:

  PREFIX/lib/constellation/releases/BUILD/systemd/install.sh

  --prefix DIR   default: /usr
  --destdir DIR  write everything below DIR, as packagers do; creates no user and tells systemd nothing.
                 Also $DESTDIR.
END
}

cd "$(dirname "$0")/.."
SOURCE=$(pwd -P)
# shellcheck source=systemd/paths.sh
. "$SOURCE/systemd/paths.sh"

# Releases that stay though no process runs from them, the current one among them.
KEPT=3

command -v node >/dev/null || fail "node is not installed, or not on PATH"
for file in dist/build-id dist/daemon/constellationd.js dist/workers/native/addon.node node_modules; do
  [ -e "$file" ] || fail "$SOURCE is not built: $file is missing; run npm ci there"
done
[ ! -e "$DESTDIR$LIB" ] || is_ours "$DESTDIR$LIB" || fail "$DESTDIR$LIB is something else; remove it first"
for name in constellationd constellation; do
  link=$DESTDIR$BIN/$name
  if [ -e "$link" ] && ! is_our_link "$link"; then fail "$link is something else; remove it first"; fi
done

build=$(cat dist/build-id)
case $build in
  '' | *[!0-9a-z]*) fail "$SOURCE/dist/build-id holds no build id; run npm run build there" ;;
esac

# The packages that are not for development only, as package-lock.json tells them.
production_packages() {
  node -e '
    const { packages } = JSON.parse(require("node:fs").readFileSync("package-lock.json", "utf8"));
    for (const [path, { dev }] of Object.entries(packages))
      if (path.startsWith("node_modules/") && !dev && require("node:fs").existsSync(path)) console.log(path);
  '
}

# Puts a release together in the folder $1.
assemble() {
  mkdir -p "$1/dist" "$1/conf"
  for part in build-id conf daemon options shm workers; do cp -R "dist/$part" "$1/dist/"; done
  find "$1/dist" -name '*.map' -exec rm -f {} +
  chmod 755 "$1/dist/daemon/constellationd.js" "$1/dist/daemon/constellation.js"
  production_packages | while IFS= read -r package; do
    # A package inside another has come with it.
    [ ! -e "$1/$package" ] || continue
    mkdir -p "$1/$(dirname "$package")"
    cp -R "$package" "$1/$package"
  done
  cp package.json LICENSE "$1/"
  cp -R conf/examples conf/constellation.schema.json "$1/conf/"
  cp -R systemd "$1/systemd"
  chmod -R u=rwX,go=rX "$1"
}

# Makes the link $2 lead to $1, at once: there is never none.
switch() {
  ln -sfn "$1" "$2.new"
  mv -fT "$2.new" "$2"
}

mkdir -p "$DESTDIR$RELEASES"
home=$(cd "$DESTDIR$RELEASES" && pwd -P)
# Of installations that were killed.
find "$home" -maxdepth 1 -name '.new-*' -mmin +60 -exec rm -rf {} +
new=$(mktemp -d "$home/.new-XXXXXX")
# A failure leaves nothing behind.
trap 'rm -rf "$new"; rmdir "$DESTDIR$RELEASES" "$DESTDIR$LIB" 2>/dev/null || true' EXIT

if [ "$(dirname "$SOURCE")" = "$home" ]; then
  release=$(basename "$SOURCE")
else
  assemble "$new"
  shown=$("$new/dist/daemon/constellationd.js" --version) || fail "what would be installed does not run; nothing was changed"
  case $shown in
    *"$build"*) ;;
    *) fail "what would be installed says it is $shown, and not build $build; run npm run build; nothing was changed" ;;
  esac
  # A release is never changed. One of the same build can differ in its native module, or be damaged.
  release=$build
  n=1
  while [ -e "$home/$release" ] && ! diff -rq "$new" "$home/$release" >/dev/null 2>&1; do
    n=$((n + 1))
    release=$build-$n
  done
  [ -e "$home/$release" ] || mv -T "$new" "$home/$release"
fi
rm -rf "$new"
# Those that were switched to last are kept.
touch "$home/$release"

mkdir -p "$DESTDIR$BIN" "$DESTDIR$(dirname "$UNIT")" "$DESTDIR$(dirname "$SYSUSERS")" "$DESTDIR$ETC"
sed "s|/usr/bin/|$BIN/|g" systemd/constellation.service >"$DESTDIR$UNIT.new"
cp systemd/constellation.sysusers "$DESTDIR$SYSUSERS.new"
chmod 644 "$DESTDIR$UNIT.new" "$DESTDIR$SYSUSERS.new"
mv -f "$DESTDIR$UNIT.new" "$DESTDIR$UNIT"
mv -f "$DESTDIR$SYSUSERS.new" "$DESTDIR$SYSUSERS"
switch "releases/$release" "$DESTDIR$LIB/current"
for name in constellationd constellation; do
  switch "../lib/constellation/current/dist/daemon/$name.js" "$DESTDIR$BIN/$name"
done

config=$DESTDIR$ETC/constellation.yaml
if [ ! -e "$config" ]; then
  schema=$LIB/current/conf/constellation.schema.json
  sed "s|\$schema=.*|\$schema=$schema|" conf/examples/single-site.yaml >"$config"
  chmod 644 "$config"
  echo "wrote $config, an example: change it, then check it with constellationd --check"
fi

mkdir -p "$DESTDIR$ETC/node_modules"
switch "$LIB/current" "$DESTDIR$ETC/node_modules/constellation"

# Earlier versions lay in $LIB itself.
if [ -e "$DESTDIR$LIB/package.json" ] && [ -z "$(pids_from "$DESTDIR$LIB")" ]; then
  for part in dist node_modules conf package.json LICENSE; do rm -rf "$DESTDIR$LIB/$part"; done
fi
n=0
# shellcheck disable=SC2012 # the names are ours
for name in $(ls -1t "$home"); do
  n=$((n + 1))
  [ "$n" -gt "$KEPT" ] || continue
  [ -n "$(pids_from "$home/$name")" ] || rm -rf "${home:?}/$name"
done

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
echo "installed build $build in $DESTDIR$RELEASES/$release"
for folder in "$DESTDIR$LIB" "$home"/*; do
  [ "$folder" != "$home/$release" ] || continue
  for pid in $(pids_from "$folder"); do
    echo "process $pid runs from $folder until it is restarted (systemctl restart constellation)"
  done
done
