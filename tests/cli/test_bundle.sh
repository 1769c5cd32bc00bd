#!/bin/sh
# packaging/bundle.sh makes no archive of a program whose libraries it cannot carry. Making whole
# ones needs a network: packaging/try-bundle.sh tries those.
# Usage: test_bundle.sh PROGRAM SOURCE-FOLDER BUILD-FOLDER
source=$2 build=$3
. "$(dirname "$0")/common.sh"

for tool in apt-get apt-cache dpkg-query ldd sha256sum tar; do
    if ! command -v $tool >/dev/null; then
        echo "skipped: bundles are made on Debian and Ubuntu, and $tool is not there"
        exit 77
    fi
done

# An ldd that finds what no package holds, or nothing, after a library that one does.
mkdir tools
: >unowned.so
owned=$(ldd "$marco" | awk '$1 == "libc.so.6" {print $3}')
refuses_library() {
    printf '#!/bin/sh\necho "libc.so.6 => %s (0x1)"\necho "%s"\n' "$owned" "$1" >tools/ldd
    chmod +x tools/ldd
    refuses 1 "^bundle: $2: no package holds this library" \
        env PATH="$scratch/tools:$PATH" "$source/packaging/bundle.sh" "$build" out.tar
    check 'no archive' [ ! -e out.tar ]
}
refuses_library "libunowned.so.1 => $scratch/unowned.so (0x2)" "$scratch/unowned.so"
refuses_library 'libmissing.so.1 => not found' 'libmissing.so.1'
check 'the build folder is as before' sh -c '! ls -d "$1"/bundle.*' - "$build"
finish
