#!/bin/sh
# Makes an archive that installs marco on a machine without a network: the program, the packages of
# this distribution that it needs, perhaps a model, the checksums of all of them. `./dev bundle`
# builds and calls this.
#
# Usage: bundle.sh BUILD-FOLDER [--model MODEL] OUT.tar
set -eu
LC_ALL=C
export LC_ALL

die() {
    echo "bundle: $*" >&2
    exit 1
}

say() {
    echo "bundle: $*" >&2
}

# ---- what is asked for --------------------------------------------------------------------------

usage='usage: ./dev bundle [--model MODEL] OUT.tar'
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$1" && pwd)
shift
model=
out=
while [ $# -gt 0 ]; do
    case $1 in
    --model)
        [ $# -ge 2 ] || die "--model needs a file or folder"
        model=$2
        shift
        ;;
    -*) die "unknown option '$1'; $usage" ;;
    *)
        [ -z "$out" ] || die "one archive at a time; $usage"
        out=$1
        ;;
    esac
    shift
done
[ -n "$out" ] || die "$usage"
case $out in
*.tar) ;;
*) die "$out: the archive's name must end in .tar (what is in it is compressed already)" ;;
esac
[ -d "$(dirname "$out")" ] || die "$(dirname "$out"): no such folder"
for tool in apt-get apt-cache dpkg-query ldd sha256sum tar; do
    command -v $tool >/dev/null || die "$tool is not there: bundles are made on Debian or Ubuntu"
done
if [ -n "$model" ]; then
    [ -e "$model" ] || die "$model: no such file or folder"
    case $(basename "$model") in
    .* | -* | *[!A-Za-z0-9._+-]*)
        die "$model: rename it to letters, digits and . _ + - to carry it to another machine"
        ;;
    esac
    "$build/marco" inspect -m "$model" >/dev/null || die "$model: not a model that marco reads"
fi

. /etc/os-release
release="${ID:?} ${VERSION_ID:-${VERSION_CODENAME:?}}"
architecture=$(dpkg --print-architecture)
version=$("$build/marco" --version | sed -n '1s/^marco \([^ ]*\).*/\1/p')
name="marco-${version:?}-$(echo "$release" | tr -d ' ')-$architecture"

work=$(mktemp -d "$build/bundle.XXXXXX")
part=$out.part
trap 'rm -rf "$work" "$part"' EXIT
trap 'exit 130' INT TERM
stage=$work/$name
mkdir -p "$stage/packages" "$work/cache/archives/partial"

# ---- the program --------------------------------------------------------------------------------

DESTDIR=$stage/program cmake --install "$build" --prefix /usr/local --strip >/dev/null
mkdir -p "$stage/program/usr/local/share/doc/marco"
cp -R "$here/../docs/." "$stage/program/usr/local/share/doc/marco/"
cp "$here/marco.service" "$here/marco.conf" "$here/nginx.conf.example" \
    "$here/../LICENSE" "$stage/program/usr/local/share/doc/marco/"
cp "$here/install.sh" "$here/uninstall.sh" "$stage/"
cp "$here/bundle.md" "$stage/README.md"
printf '%s\n' "release=$release" "architecture=$architecture" "version=$version" \
    >"$stage/bundle.conf"

# ---- the packages -------------------------------------------------------------------------------

# The packages that hold the shared libraries of the program, to $work/libraries. What the compiler
# and the linker of this machine chose is asked, so that no list has to be kept. No loop here is part
# of a pipe, where `die` would end the loop alone.
library_packages() {
    ldd "$stage/program/usr/local/bin/marco" "$stage"/program/usr/local/lib/libmarco.so \
        >"$work/ldd" || die "ldd cannot tell the program's libraries"
    # What `marco train` loads when it begins, ldd does not see.
    {
        awk '$2 == "=>" {print $3 ~ /^\// ? $3 : $1}' "$work/ldd"
        PATH=$PATH:/sbin:/usr/sbin ldconfig -p | awk '$1 == "libopenblas.so.0" {print $NF; exit}'
    } | sort -u >"$work/needed"
    : >"$work/owners"
    while read -r library; do
        owner=$(dpkg-query -S "$library" "$(realpath "$library")" 2>/dev/null |
            sed -n 's/^\([a-z0-9][^ ,:]*\)[:,].*/\1/p' | head -n 1)
        [ -n "$owner" ] || die "$library: no package holds this library, so none can be carried"
        echo "$owner" >>"$work/owners"
    done <"$work/needed"
    sort -u "$work/owners" >"$work/libraries"
}

# apt as if this machine had nothing but the packages in $work/status.
bare_apt() {
    command=$1
    shift
    "$command" -o Dir::State::status="$work/status" -o Dir::State::extended_states="$work/extended" \
        -o Dir::Cache="$work/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)" \
        -o APT::Install-Recommends=false -o APT::Architectures="$architecture" "$@"
}

# What every system of this release has: its essential and required packages, and theirs.
minimal_system() {
    required=$(apt-cache dumpavail | awk '
        /^Package: / {name = $2}
        /^Priority: required$/ || /^Essential: yes$/ {print name}' | sort -u)
    [ -n "$required" ] || die "apt knows no packages: apt-get update"
    : >"$work/status"
    # shellcheck disable=SC2086 # one package a word
    bare_apt apt-get -s install $required >"$work/simulated" 2>"$work/apt.log" ||
        die "apt cannot make out a minimal system: $(grep '^E:' "$work/apt.log" | head -n 1)"
    sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*/\1=\2/p' "$work/simulated" | sort
}

library_packages
minimal=$(minimal_system)
# shellcheck disable=SC2086 # one package a word
bare_apt apt-cache show --no-all-versions $minimal | awk '
    /^Package: / {fresh = !seen[$2]++; if (fresh) print; if (fresh) print "Status: install ok installed"; next}
    fresh' >"$work/minimal"
mv "$work/minimal" "$work/status"
# shellcheck disable=SC2046 # one package a word
bare_apt apt-get --download-only -y -q install $(cat "$work/libraries") >"$work/apt.log" 2>&1 ||
    die "apt could not fetch the packages: $(grep '^E:' "$work/apt.log" | head -n 1)" \
        "(is the network up, and apt-get update fresh?)"
for package in "$work"/cache/archives/*.deb; do
    [ -f "$package" ] || break # a minimal system has them all
    mv "$package" "$stage/packages/"
done
# apt escapes the colon of a version; a plain name is easier to handle.
for package in "$stage"/packages/*%*; do
    [ -f "$package" ] || break
    mv "$package" "$(echo "$package" | sed 's/%3a/-/g')"
done

# ---- checksums and the archive ------------------------------------------------------------------

(cd "$stage" && find . -type f | sed 's,^\./,,' | sort | xargs sha256sum) >"$work/sums"
if [ -n "$model" ]; then
    say "reading $model"
    # Links of a cache folder are followed: what is carried are the files.
    (cd "$(dirname "$model")" && find -L "./$(basename "$model")" -type f | sort |
        sed 's,^\./,,' | tr '\n' '\0' | xargs -0 sha256sum) >"$work/model-sums"
    sed 's,  ,  models/,' "$work/model-sums" >>"$work/sums"
fi
mv "$work/sums" "$stage/SHA256SUMS"
chmod -R u=rwX,go=rX "$stage"

# The same inputs make the same bytes: names sorted, owners and times fixed.
moment=${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct 2>/dev/null || echo 0)}
set -- --format=gnu --sort=name --mtime="@$moment" --owner=0 --group=0 --numeric-owner \
    --mode=u=rwX,go=rX
tar "$@" -C "$work" -cf "$part" "$name"
if [ -n "$model" ]; then
    tar "$@" --dereference --transform "s,^,$name/models/," -C "$(dirname "$model")" -rf "$part" \
        "$(basename "$model")"
fi
mv "$part" "$out"
say "$out: for $release on $architecture, $(find "$stage/packages" -name '*.deb' | wc -l) packages," \
    "$(du -h "$out" | cut -f1)"
(cd "$(dirname "$out")" && sha256sum "$(basename "$out")")
