#!/bin/sh
# Removes what install.sh installed. Run again, it finds nothing and is content.
set -eu

help() {
  cat <<'END'
usage: systemd/uninstall.sh [--prefix DIR] [--destdir DIR] [--purge]

Stops the instance of systemd, and removes what systemd/install.sh installed with the same --prefix and --destdir: all
releases. Removes nothing while a process runs from one. The configuration in /etc/constellation and the user stay,
unless --purge is given.
END
}

PURGE=no
# shellcheck source=systemd/paths.sh
. "$(dirname "$0")/paths.sh"

if [ -e "$DESTDIR$LIB" ] && ! is_ours "$DESTDIR$LIB"; then fail "$DESTDIR$LIB is something else and stays"; fi

if systemd_runs && [ -e "$UNIT" ]; then
  systemctl disable --now constellation.service
fi

for folder in "$DESTDIR$LIB" "$DESTDIR$RELEASES"/*; do
  for pid in $(pids_from "$folder"); do fail "process $pid runs from $folder: stop it first"; done
done

rm -rf "$DESTDIR$LIB"
for name in constellationd constellation; do
  if is_our_link "$DESTDIR$BIN/$name"; then rm -f "$DESTDIR$BIN/$name"; fi
done
rm -f "$DESTDIR$UNIT" "$DESTDIR$SYSUSERS"
api=$DESTDIR$ETC/node_modules/constellation
if is_our_link "$api"; then
  rm -f "$api"
  rmdir "$DESTDIR$ETC/node_modules" 2>/dev/null || true
fi

if systemd_runs; then systemctl daemon-reload; fi

if [ "$PURGE" = yes ]; then
  rm -rf "$DESTDIR$ETC"
  if [ -z "$DESTDIR" ] && id constellation >/dev/null 2>&1; then userdel constellation; fi
elif [ -e "$DESTDIR$ETC" ]; then
  echo "the configuration in $DESTDIR$ETC stays; --purge removes it"
fi
echo "removed from $DESTDIR$PREFIX"
