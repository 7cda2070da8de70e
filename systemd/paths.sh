# Read by install.sh and uninstall.sh: their options, and what goes where. POSIX sh.

PROGRAM=$(basename "$0")
PREFIX=/usr
DESTDIR=${DESTDIR:-}
# Set by uninstall.sh, the only one that has --purge.
PURGE=${PURGE:-}

fail() {
  echo "$PROGRAM: $*" >&2
  exit 1
}

usage_error() {
  echo "$PROGRAM: $*; see $PROGRAM --help" >&2
  exit 2
}

while [ $# -gt 0 ]; do
  case $1 in
    --prefix | --destdir)
      [ $# -ge 2 ] || usage_error "$1 needs a folder"
      if [ "$1" = --prefix ]; then PREFIX=$2; else DESTDIR=$2; fi
      shift
      ;;
    --prefix=*) PREFIX=${1#*=} ;;
    --destdir=*) DESTDIR=${1#*=} ;;
    --purge)
      [ -n "$PURGE" ] || usage_error "unknown option $1"
      PURGE=yes
      ;;
    -h | --help)
      help
      exit 0
      ;;
    *) usage_error "unknown option $1" ;;
  esac
  shift
done

# What is written into the unit must hold no character that sed or systemd would take for something else.
case $PREFIX in
  /*[!A-Za-z0-9/._-]*) fail "--prefix $PREFIX: only letters, digits and / . _ - are possible" ;;
  /*) PREFIX=${PREFIX%/} ;;
  *) fail "--prefix $PREFIX: it has to begin with /" ;;
esac
case $DESTDIR in
  '' | /*) DESTDIR=${DESTDIR%/} ;;
  *) fail "--destdir $DESTDIR: it has to begin with /" ;;
esac

# As they are once installed; files are written below $DESTDIR.
LIB=$PREFIX/lib/constellation
RELEASES=$LIB/releases
BIN=$PREFIX/bin
UNIT=$PREFIX/lib/systemd/system/constellation.service
SYSUSERS=$PREFIX/lib/sysusers.d/constellation.conf
ETC=/etc/constellation

# Into a DESTDIR, files are all there is to do: users and services are the target's.
[ -n "$DESTDIR" ] || [ "$(id -u)" -eq 0 ] || fail "run this as root, or give a --destdir"

systemd_runs() {
  [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]
}

# Whether the folder $1 is an installation of ours, and so ours to remove. Earlier versions had no releases.
is_ours() {
  [ -d "$1/releases" ] || { [ -f "$1/package.json" ] && grep -q '"name": "constellation"' "$1/package.json"; }
}

# The processes that run from the folder $1: while one does, it has the native module mapped. The kernel knows, whoever
# started it and however it ended.
pids_from() {
  pids_from_folder=$(cd "$1" 2>/dev/null && pwd -P) || return 0
  for pids_from_maps in $(grep -lsF "$pids_from_folder/dist/workers/native/addon.node" /proc/[0-9]*/maps); do
    pids_from_maps=${pids_from_maps#/proc/}
    echo "${pids_from_maps%/maps}"
  done
}

# Whether the link $1 leads to an installation of ours, or into one.
is_our_link() {
  [ -L "$1" ] && case $(readlink "$1") in *lib/constellation | *lib/constellation/*) true ;; *) false ;; esac
}
