#!/bin/sh
# Installs marco from the archive that this script lies in, without a network.
set -eu
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
DEBIAN_FRONTEND=noninteractive
export LC_ALL PATH DEBIAN_FRONTEND
umask 022

usage() {
    cat <<'END'
Usage: ./install.sh [OPTION...]   (as root)
  --check           verify the archive and that it is for this system; change nothing
  --models FOLDER   where the archive's model goes (/srv/marco/models)
  --no-service      no systemd service, even where systemd is there
END
}

die() {
    echo "install: $*" >&2
    exit 1
}

say() {
    echo "install: $*"
}

check=false
service=true
models=/srv/marco/models
while [ $# -gt 0 ]; do
    case $1 in
    --check) check=true ;;
    --no-service) service=false ;;
    --models)
        [ $# -ge 2 ] || die "--models needs a folder"
        models=$2
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        die "unknown option '$1'"
        ;;
    esac
    shift
done
case $models in
/*) ;;
*) die "--models $models: give the whole path, from / on" ;;
esac
cd "$(dirname "$0")"

# ---- nothing is changed before all of this holds ------------------------------------------------

setting() {
    sed -n "s/^$1=//p" bundle.conf
}

[ -f SHA256SUMS ] || die "SHA256SUMS is missing: unpack the whole archive and run it from there"
say "verifying the archive"
sha256sum --check --quiet SHA256SUMS ||
    die "the archive is damaged or incomplete (above): copy it again and compare its SHA-256"

release=unknown
if [ -r /etc/os-release ]; then
    # shellcheck source=/dev/null
    release=$(. /etc/os-release && echo "${ID:-unknown} ${VERSION_ID:-${VERSION_CODENAME:-}}")
fi
[ "$release" = "$(setting release)" ] || die "this archive is for $(setting release), and this is" \
    "$release: make one on a machine with that release"
command -v dpkg >/dev/null || die "dpkg is not there: this archive is for $(setting release)"
architecture=$(dpkg --print-architecture)
[ "$architecture" = "$(setting architecture)" ] || die "this archive is for" \
    "$(setting architecture) processors, and this is $architecture: make one on such a machine"

model=
if [ -d models ]; then
    model=$(ls models)
    if [ -e "$models/$model" ] && ! diff -rq "models/$model" "$models/$model" >/dev/null; then
        die "$models/$model is there already and is another: move it away, or give --models FOLDER"
    fi
fi

# Packages that are missing here, or older than those they were built against.
missing=
outdated=
for package in packages/*.deb; do
    [ -f "$package" ] || break
    name=$(dpkg-deb --field "$package" Package)
    version=$(dpkg-deb --field "$package" Version)
    # shellcheck disable=SC2016 # dpkg-query's own ${}
    present=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$name" 2>/dev/null || true)
    case $present in
    'installed '*)
        dpkg --compare-versions "${present#installed }" ge "$version" ||
            outdated="$outdated $package"
        ;;
    *) missing="$missing $package" ;;
    esac
done
if $check; then
    say "whole, and for this system; packages to install: $(echo "$missing" | wc -w)," \
        "to bring up to date: $(echo "$outdated" | wc -w)"
    exit 0
fi
[ "$(id -u)" -eq 0 ] || die "this needs root: sudo ./install.sh"

# ---- packages -----------------------------------------------------------------------------------

keep=/usr/local/share/marco
record=$keep/installed # what uninstall.sh undoes: a kind and a name a line
mkdir -p "$keep"
touch "$record"

note() {
    grep -qxF "$1 $2" "$record" || echo "$1 $2" >>"$record"
}

# A folder and those above it.
make_folder() {
    [ ! -d "$1" ] || return 0
    make_folder "$(dirname "$1")"
    mkdir "$1"
    note folder "$1"
}

names_of() {
    for package in "$@"; do
        dpkg-deb --field "$package" Package
    done
}

# shellcheck disable=SC2086 # one package a word
if [ -n "$missing$outdated" ]; then
    say "installing $(names_of $missing $outdated | tr '\n' ' ')"
    if ! dpkg --force-confdef --force-confold --install $missing $outdated >"$keep/dpkg.log" 2>&1; then
        tail -n 20 "$keep/dpkg.log" >&2
        # shellcheck disable=SC2046 # one package a word
        [ -z "$missing" ] || dpkg --purge $(names_of $missing) >/dev/null 2>&1 || true
        die "dpkg could not install the packages (above; what was new is removed again): does this" \
            "system have newer ones? Then make the archive on a machine as up to date as this one"
    fi
    for name in $(names_of $missing); do
        note package "$name"
    done
    rm -f "$keep/dpkg.log"
fi

# ---- the program --------------------------------------------------------------------------------

say "installing marco $(setting version) into /usr/local"
find program/usr/local -mindepth 1 -type d | sort | while read -r folder; do
    make_folder "${folder#program}"
done
find program/usr/local ! -type d | sort >"$keep/files"
while read -r file; do
    # Beside and renamed, so that a program that is running is replaced and not written over.
    cp -P "$file" "${file#program}.new"
    mv -f "${file#program}.new" "${file#program}"
    note file "${file#program}"
done <"$keep/files"
# Files of an earlier version that this one lacks.
sed -n 's/^file //p' "$record" | while read -r file; do
    case $file in
    */systemd/*) ;;
    *) grep -qxF "program$file" "$keep/files" || rm -f "$file" ;;
    esac
done
rm "$keep/files"
cp uninstall.sh "$keep/"
ldconfig
/usr/local/bin/marco --version >/dev/null || die "the program does not start (above)"

# ---- the model ----------------------------------------------------------------------------------

if [ -n "$model" ]; then
    if [ ! -e "$models/$model" ]; then
        say "copying the model to $models/$model"
        make_folder "$models"
        rm -rf "${models:?}/.$model.part"
        if ! cp -R "models/$model" "$models/.$model.part"; then
            rm -rf "${models:?}/.$model.part"
            die "the model could not be copied (above)"
        fi
        chmod -R u=rwX,go=rX "$models/.$model.part"
        mv "$models/.$model.part" "$models/$model"
        note model "$models/$model"
    fi
fi

# ---- the service --------------------------------------------------------------------------------

if $service && command -v systemctl >/dev/null; then
    if ! id marco >/dev/null 2>&1; then
        useradd --system --user-group --home-dir /var/lib/marco --no-create-home \
            --shell /usr/sbin/nologin marco
        note user marco
    fi
    if [ ! -d /etc/marco ]; then
        install -d -m 0750 -g marco /etc/marco
        note folder /etc/marco
    fi
    if [ ! -e /etc/marco/marco.conf ]; then
        sed "s,/srv/marco/models/MODEL,$models/${model:-MODEL}," \
            program/usr/local/share/doc/marco/marco.conf >/etc/marco/marco.conf
        cp /etc/marco/marco.conf "$keep/marco.conf"
    fi
    units=/usr/local/lib/systemd/system
    make_folder $units
    cp program/usr/local/share/doc/marco/marco.service $units/
    note file $units/marco.service
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
    say "the service is there and not started: look at /etc/marco/marco.conf, then" \
        "systemctl enable --now marco"
fi
say "done; $keep/uninstall.sh undoes it"
[ -z "$model" ] || say "try: marco run -m $models/$model -p 'Hello'"
