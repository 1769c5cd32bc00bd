#!/bin/sh
# Tries an archive of `./dev bundle --model MODEL` as a site without a network would: in a bare
# system of the same release (debootstrap makes it, the only step that uses the network), inside
# namespaces whose only interface is the loopback. Needs root, debootstrap, python3.
#
# Usage: packaging/try-bundle.sh BUNDLE.tar [FOLDER]
# FOLDER holds a bare system that debootstrap made; it is copied and not changed.
set -eu

die() {
    echo "try-bundle: $*" >&2
    exit 1
}

say() {
    echo "try-bundle: $*"
}

# ---- inside the namespaces ----------------------------------------------------------------------

bare() {
    (become_bare "$@")
}

# In place of the shell that calls it.
become_bare() {
    exec chroot "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root "$@"
}

# The answer to a GET, or to a POST of a second argument, from within the same network namespace.
ask() {
    python3 - "$@" <<'PYTHON'
import sys, urllib.request
request = urllib.request.Request("http://127.0.0.1:8080" + sys.argv[1],
                                 data=sys.argv[2].encode() if len(sys.argv) > 2 else None,
                                 headers={"Content-Type": "application/json"})
print(urllib.request.urlopen(request, timeout=60).read().decode())
PYTHON
}

inside() {
    root=$1
    mount -t proc proc "$root/proc"
    python3 - <<'PYTHON'
import fcntl, os, socket, struct
names = [name for _, name in socket.if_nameindex()]
assert names == ["lo"], f"more than the loopback: {names}"
with socket.socket() as s:  # lo up: SIOCSIFFLAGS, IFF_UP
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 1))
PYTHON
    folder=$(cd "$root/bundle" && echo marco-*)
    before=$(bare dpkg-query -W | sha256sum)
    files=$(cd "$root" && find etc usr var/lib srv -path usr/share -prune -o -print | sort)

    say "another release and a damaged file are refused"
    cp "$root/etc/os-release" "$root/os-release"
    echo 'VERSION_ID=0' >>"$root/etc/os-release"
    ! bare "/bundle/$folder/install.sh" >"$root/log" 2>&1 || die "it took another release"
    grep -q 'this archive is for' "$root/log" || die "no word on the release: $(cat "$root/log")"
    cat "$root/os-release" >"$root/etc/os-release"
    cp "$root/bundle/$folder/README.md" "$root/README.md"
    echo >>"$root/bundle/$folder/README.md"
    ! bare "/bundle/$folder/install.sh" >"$root/log" 2>&1 || die "it took a damaged file"
    grep -q 'README.md: FAILED' "$root/log" || die "the damaged file unnamed: $(cat "$root/log")"
    mv "$root/README.md" "$root/bundle/$folder/README.md"
    rm "$root/os-release" "$root/log"
    [ "$before" = "$(bare dpkg-query -W | sha256sum)" ] || die "a refusal changed the packages"

    say "installing"
    bare "/bundle/$folder/install.sh"
    say "installing again changes nothing"
    bare "/bundle/$folder/install.sh" >/dev/null
    model=/srv/marco/models/$(ls "$root/srv/marco/models")
    bare marco run -m "$model" --quiet --raw -n 8 --temp 0 -p 'Hello' >"$root/reply" ||
        die "marco run failed"
    [ -s "$root/reply" ] || die "marco run said nothing"
    rm "$root/reply"
    bare marco serve -m "$model" --port 8080 --check >/dev/null || die "marco serve --check failed"

    say "serving"
    become_bare marco serve -m "$model" --port 8080 &
    server=$!
    tries=0
    until ask /health >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries -ge 300 ] || ! kill -0 $server 2>/dev/null; then
            die "the server does not answer"
        fi
        sleep 0.2
    done
    ask /v1/completions '{"prompt": "Hello", "max_tokens": 8, "temperature": 0}'
    kill -TERM $server
    wait $server || die "the server's exit status was $?"

    say "uninstalling"
    bare /usr/local/share/marco/uninstall.sh
    [ "$before" = "$(bare dpkg-query -W | sha256sum)" ] || die "packages are left"
    (cd "$root" && find etc usr var/lib srv -path usr/share -prune -o -print | sort) >"$root/after"
    echo "$files" >"$root/before"
    # What dpkg and ldconfig keep for themselves.
    if diff "$root/before" "$root/after" | grep '^[<>]' | grep -v 'var/lib/dpkg\|ld\.so\|-old$\|[a-z]-$'; then
        die "uninstalling left these"
    fi
    say "ok"
}

if [ "${1:-}" = --inside ]; then
    inside "$2"
    exit 0
fi

# ---- outside ------------------------------------------------------------------------------------

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    die "usage: packaging/try-bundle.sh BUNDLE.tar [FOLDER]"
fi
[ -f "$1" ] || die "$1: no such archive (./dev bundle --model MODEL OUT.tar makes it)"
[ "$(id -u)" -eq 0 ] || die "this needs root, for namespaces and chroot"
for tool in debootstrap python3 unshare chroot; do
    command -v $tool >/dev/null || die "$tool is not there"
done
scratch=$(mktemp -d "${TMPDIR:-/tmp}/marco-bundle.XXXXXX")
trap 'rm -rf --one-file-system "$scratch"' EXIT
trap 'exit 130' INT TERM
if [ -n "${2:-}" ]; then
    cp -a "$2" "$scratch/system"
else
    say "making a bare system"
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    debootstrap --variant=minbase "$codename" "$scratch/system" >"$scratch/log" ||
        die "debootstrap failed: $(tail -n 1 "$scratch/log")"
fi
mkdir "$scratch/system/bundle"
tar -xf "$1" -C "$scratch/system/bundle"
[ -n "$(find "$scratch/system/bundle" -maxdepth 2 -name models)" ] || die "$1: made without --model"
unshare --net --mount --pid --ipc --uts --fork --kill-child "$0" --inside "$scratch/system"
