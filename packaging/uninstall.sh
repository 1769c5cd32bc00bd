#!/bin/sh
# Removes what install.sh added, as it was written down then: program, packages, model, service.
# What was made since (settings, keys, other models) stays.
set -eu
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH

die() {
    echo "uninstall: $*" >&2
    exit 1
}

say() {
    echo "uninstall: $*"
}

[ $# -eq 0 ] || die "no options; run it as root"
keep=/usr/local/share/marco
record=$keep/installed
[ -f "$record" ] || die "$record is missing: install.sh has installed nothing here"
[ "$(id -u)" -eq 0 ] || die "this needs root: sudo $keep/uninstall.sh"

recorded() {
    sed -n "s/^$1 //p" "$record"
}

if [ -d /run/systemd/system ] && recorded file | grep -q '/marco\.service$'; then
    systemctl disable --now marco 2>/dev/null || true
fi
recorded file | while read -r file; do
    rm -f "$file"
done
[ ! -d /run/systemd/system ] || systemctl daemon-reload
ldconfig
recorded model | while read -r model; do
    rm -rf "$model"
done
if cmp -s "$keep/marco.conf" /etc/marco/marco.conf; then
    rm -f /etc/marco/marco.conf
fi
for user in $(recorded user); do
    # The service's caches, which hold what people wrote.
    rm -rf "/var/lib/${user:?}"
    userdel "$user" || say "the user $user could not be removed (above)"
done
packages=$(recorded package)
# shellcheck disable=SC2086 # one package a word
if [ -n "$packages" ] && ! dpkg --purge $packages >"$keep/dpkg.log" 2>&1; then
    say "these packages stay, since others installed later need them:" \
        "$(for package in $packages; do
            dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$package" 2>/dev/null |
                sed -n 's/^installed //p'
        done | tr '\n' ' ')"
fi
recorded folder | sort -r >"$keep/folders"
rm -f "$keep/dpkg.log" "$keep/marco.conf" "$keep/uninstall.sh" "$record"
while read -r folder; do
    [ "$folder" = "$keep" ] || rmdir --ignore-fail-on-non-empty "$folder" 2>/dev/null || true
done <"$keep/folders"
rm -f "$keep/folders"
rmdir --ignore-fail-on-non-empty "$keep"
say "done"
